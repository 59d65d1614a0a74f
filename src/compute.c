/*
 * compute.c
 *		Figures computed without the cache, for any range and filter.
 */
#include "postgres.h"

#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/formatting.h"
#include "utils/jsonb.h"
#include "utils/tuplestore.h"

#include "args.h"
#include "custom_read.h"
#include "dirty.h"
#include "figures.h"
#include "note.h"
#include "owner.h"
#include "provider.h"
#include "source.h"
#include "uuids.h"
#include "value.h"

#define MAX_COMPUTE_DAYS 730

/* The columns that meritum_compute_metrics can filter by. */
typedef enum FilterColumn
{
	F_CLAIM_TYPE, F_BA_NUMBER, F_LOCATION_ID, F_HSC_CODE, F_CLAIM_STATE,
	N_FILTERS
} FilterColumn;

static const char *const filter_names[N_FILTERS] = {
	"claim_type", "ba_number", "location_id", "hsc_code", "claim_state"
};

typedef struct Filter
{
	bool		given[N_FILTERS];
	int			n[N_FILTERS];
	int32	   *value[N_FILTERS];	/* strings */
} Filter;

static bool
filter_has(const Filter *filter, FilterColumn column, int32 id)
{
	int			i;

	for (i = 0; i < filter->n[column]; i++)
		if (filter->value[column][i] == id)
			return true;
	return false;
}

/*
 * Does the filter let a claim pass?  Without one: leave only the locations
 * that the filter names.
 */
static bool
passes(const McFold *fold, const McFact *fact, void *arg)
{
	static const McId ids[N_FILTERS] = {
		[F_CLAIM_TYPE] = MC_ID_TYPE, [F_BA_NUMBER] = MC_ID_BA,
		[F_HSC_CODE] = MC_ID_HSC, [F_CLAIM_STATE] = MC_ID_STATE,
	};
	const Filter *filter = arg;
	McPlaces   *places = fold->places;
	int			kept = 0;
	int			f,
				i;

	if (fact == NULL)
	{
		for (i = 0; i < places->n; i++)
			if (!filter->given[F_LOCATION_ID] ||
				filter_has(filter, F_LOCATION_ID, places->place[i].id))
				places->place[kept++] = places->place[i];
		places->n = kept;
		return true;
	}
	for (f = 0; f < N_FILTERS; f++)
		if (filter->given[f] && f != F_LOCATION_ID &&
			!filter_has(filter, f, fact->id[ids[f]]))
			return false;
	if (!filter->given[F_LOCATION_ID])
		return true;
	for (i = 0; i < places->n; i++)
		if (fact->has_ahcip && fact->id[MC_ID_CENTRE] != MC_NULL &&
			places->place[i].centre == fact->id[MC_ID_CENTRE])
			return true;
	return false;
}

static void
bad_filter(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("filter \"%s\" must be a string or an array of strings", name)));
}

/* A uuid as the facts write it; raises 22023 if it is none. */
static char *
location_text(const char *text)
{
	const char *p;
	int			digits = 0;

	for (p = text; *p != '\0'; p++)
		if (isxdigit((unsigned char) *p))
			digits++;
		else if (*p != '-' || digits % 4 != 0)
			break;
	if (*p != '\0' || digits != 2 * UUID_LEN || p[-1] == '-')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("filter \"location_id\" must hold uuids")));
	return mc_uuid_text(DatumGetUUIDP(DirectFunctionCall1(uuid_in,
														  CStringGetDatum(text))));
}

static void
add_filter_value(Filter *filter, int column, McStrings *strings,
				 const JsonbValue *value)
{
	char	   *text;

	if (value->type != jbvString)
		bad_filter(filter_names[column]);
	text = pnstrdup(value->val.string.val, value->val.string.len);
	if (column == F_CLAIM_STATE)
		text = asc_toupper(text, strlen(text));
	else if (column == F_LOCATION_ID)
		text = location_text(text);
	filter->value[column] = filter->n[column] == 0 ?
		palloc(sizeof(int32)) :
		repalloc(filter->value[column], sizeof(int32) * (filter->n[column] + 1));
	filter->value[column][filter->n[column]++] =
		mc_string_id(strings, text, strlen(text));
}

static bool
parse_filter(Filter *filter, Jsonb *jsonb, McStrings *strings)
{
	JsonbIterator *it;
	JsonbValue	value;
	JsonbIteratorToken token;
	int			column = -1;
	int			depth = 0;
	bool		any = false;

	if (!JB_ROOT_IS_OBJECT(jsonb))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("filter must be a JSON object")));
	it = JsonbIteratorInit(&jsonb->root);
	while ((token = JsonbIteratorNext(&it, &value, false)) != WJB_DONE)
	{
		switch (token)
		{
			case WJB_KEY:
				if (depth != 1)
					bad_filter(filter_names[column]);
				for (column = 0; column < N_FILTERS; column++)
					if (strlen(filter_names[column]) == value.val.string.len &&
						memcmp(filter_names[column], value.val.string.val,
							   value.val.string.len) == 0)
						break;
				if (column == N_FILTERS)
					ereport(ERROR,
							(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							 errmsg("unknown filter \"%s\"",
									pnstrdup(value.val.string.val, value.val.string.len)),
							 errhint("The filters are claim_type, ba_number, location_id, hsc_code and claim_state.")));
				filter->given[column] = any = true;
				break;
			case WJB_VALUE:
			case WJB_ELEM:
				add_filter_value(filter, column, strings, &value);
				break;
			case WJB_BEGIN_ARRAY:
			case WJB_BEGIN_OBJECT:
				if (++depth > 2 || (depth == 2 && token == WJB_BEGIN_OBJECT))
					bad_filter(filter_names[column]);
				break;
			default:
				depth--;
		}
	}
	return any;
}

static void
cannot_filter(const char *key)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("metric \"%s\" reads no claims and cannot be filtered", key)));
}

static void
put_value(FunctionCallInfo fcinfo, const char *key, Jsonb *value)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum		values[2] = {CStringGetTextDatum(key), PointerGetDatum(value)};
	bool		nulls[2] = {false};

	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

PG_FUNCTION_INFO_V1(meritum_compute_metrics);

Datum
meritum_compute_metrics(PG_FUNCTION_ARGS)
{
	const pg_uuid_t *provider = mc_arg_provider(fcinfo, 0);
	McKeys		keys = mc_arg_keys(fcinfo, 1);
	McMetrics	metrics = keys.builtin;
	DateADT		first = mc_arg_date(fcinfo, 2, "period_start");
	DateADT		last = mc_arg_date(fcinfo, 3, "period_end");
	McKeys		none = {0};
	Filter		filter = {0};
	McPeriod	period = {0};
	McProviderState state;
	McStrings  *strings;
	McFold	   *fold;
	McBracket	bracket;
	bool		filtered;
	DateADT		as_of;
	ListCell   *lc;
	int			m;

	mc_check_period(first, last);
	if ((int64) last - first >= MAX_COMPUTE_DAYS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("period must not be longer than %d days", MAX_COMPUTE_DAYS)));
	mc_arg_required(fcinfo, 4, "filter");
	as_of = mc_arg_as_of(fcinfo, 5);
	InitMaterializedSRF(fcinfo, 0);

	mc_owner_enter(&bracket, true);
	if (metrics != 0)
		mc_source_require();
	strings = mc_fact_strings();
	filtered = parse_filter(&filter, PG_GETARG_JSONB_P(4), strings);
	for (m = 0; m < MC_N_METRICS; m++)
		if (filtered && (metrics & mc_metrics_coach() & MC_METRIC_BIT(m)))
			cannot_filter(mc_metric[m].key);
	if (filtered && keys.custom != NIL)
		cannot_filter(linitial(keys.custom));
	period.first = first;
	period.last = last;
	period.wanted = metrics;
	if (metrics != 0)
	{
		mc_provider_state_load(provider, &state);
		fold = mc_figures_compute(provider, strings, &period, 1, as_of, 0,
								  !state.facts_complete ||
								  mc_dirty_has_claims(provider) ||
								  mc_note_pending(provider, &none) ||
								  mc_note_keys_pending(),
								  filtered ? passes : NULL, &filter);
		for (m = 0; m < MC_N_METRICS; m++)
			if (metrics & MC_METRIC_BIT(m))
				put_value(fcinfo, mc_metric[m].key,
						  mc_value_make(fold, m, period.scope[0]->table[m]));
	}
	foreach(lc, keys.custom)
	{
		Jsonb	   *value = mc_custom_read_total(provider, lfirst(lc), first, last);

		if (value != NULL)
			put_value(fcinfo, lfirst(lc), value);
	}
	mc_owner_leave(&bracket);
	return (Datum) 0;
}
