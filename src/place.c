/*
 * place.c
 *		A provider's active practice locations.
 *
 * They are kept with the provider's state, since every refresh needs them and
 * the source table may have no index to find them by; a change of that table
 * is noted and has them derived anew.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "place.h"
#include "query.h"
#include "source.h"

#define N_ELEMENTS 4			/* id, name, centre, rate */

typedef struct PlacesArg
{
	McStrings  *strings;
	McPlaces   *places;
	MemoryContext context;
} PlacesArg;

static McPlace *
add_place(McPlaces *places, MemoryContext context)
{
	if ((places->n & (places->n - 1)) == 0)
		places->place = places->n == 0 ?
			MemoryContextAlloc(context, sizeof(McPlace)) :
			repalloc(places->place, sizeof(McPlace) * places->n * 2);
	return &places->place[places->n++];
}

static void
read_place(TupleTableSlot *slot, void *arg)
{
	PlacesArg  *a = arg;
	McPlace    *place = add_place(a->places, a->context);

	place->id = mc_string_uuid_id(a->strings, slot->tts_values[0], slot->tts_isnull[0]);
	place->name = mc_string_datum_id(a->strings, slot->tts_values[1], slot->tts_isnull[1]);
	place->centre = mc_string_datum_id(a->strings, slot->tts_values[2], slot->tts_isnull[2]);
	place->rate = slot->tts_isnull[3] ? 0 : DatumGetInt64(slot->tts_values[3]);
}

static int
compare_places(const void *a, const void *b, void *arg)
{
	return mc_string_compare(arg, ((const McPlace *) a)->id,
							 ((const McPlace *) b)->id);
}

McPlaces *
mc_places_derive(McStrings *strings, const pg_uuid_t *provider)
{
	McPlaces   *places = palloc0(sizeof(McPlaces));
	PlacesArg	arg = {strings, places, CurrentMemoryContext};
	Datum		value = UUIDPGetDatum(provider);

	if (mc_source_get(MC_PRACTICE_LOCATIONS) == NULL)
		return places;
	mc_query_scan(MC_PRACTICE_LOCATIONS, &value, read_place, &arg);
	qsort_arg(places->place, places->n, sizeof(McPlace), compare_places, strings);
	return places;
}

Datum
mc_places_pack(const McStrings *strings, const McPlaces *places)
{
	int			n = places->n * N_ELEMENTS;
	int			lower = 1;
	Datum	   *elements = palloc(sizeof(Datum) * Max(n, 1));
	bool	   *nulls = palloc0(sizeof(bool) * Max(n, 1));
	int			i;

	for (i = 0; i < places->n; i++)
	{
		const McPlace *place = &places->place[i];
		int			e = i * N_ELEMENTS;

		elements[e] = mc_string_datum(strings, place->id, &nulls[e]);
		elements[e + 1] = mc_string_datum(strings, place->name, &nulls[e + 1]);
		elements[e + 2] = mc_string_datum(strings, place->centre, &nulls[e + 2]);
		elements[e + 3] = CStringGetTextDatum(psprintf(INT64_FORMAT, place->rate));
	}
	if (n == 0)
		return PointerGetDatum(construct_empty_array(TEXTOID));
	return PointerGetDatum(construct_md_array(elements, nulls, 1, &n, &lower,
											  TEXTOID, -1, false, TYPALIGN_INT));
}

McPlaces *
mc_places_unpack(McStrings *strings, Datum packed)
{
	McPlaces   *places = palloc0(sizeof(McPlaces));
	Datum	   *elements;
	bool	   *nulls;
	int			n,
				i;

	deconstruct_array(DatumGetArrayTypeP(packed), TEXTOID, -1, false,
					  TYPALIGN_INT, &elements, &nulls, &n);
	for (i = 0; i + N_ELEMENTS <= n; i += N_ELEMENTS)
	{
		McPlace    *place = add_place(places, CurrentMemoryContext);

		place->id = mc_string_datum_id(strings, elements[i], nulls[i]);
		place->name = mc_string_datum_id(strings, elements[i + 1], nulls[i + 1]);
		place->centre = mc_string_datum_id(strings, elements[i + 2], nulls[i + 2]);
		place->rate = strtoll(TextDatumGetCString(elements[i + 3]), NULL, 10);
	}
	return places;
}
