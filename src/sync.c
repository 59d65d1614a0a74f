/*
 * sync.c
 *		Fact sync: stored facts compared with derived ones.
 *
 * It depends on states compared, not on events counted: a missed or doubled
 * mark does no harm, and a change that comes to nothing is no difference.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "fact.h"
#include "owner.h"
#include "plan.h"
#include "rows.h"

#define N_COLUMNS 23

typedef struct ClaimEntry
{
	pg_uuid_t	claim;
	char		status;
	int			index;			/* in the stored set, or DERIVED */
} ClaimEntry;

/* The claim has been found in the derived set. */
#define DERIVED (-1)

#define SH_PREFIX		claimtab
#define SH_ELEMENT_TYPE	ClaimEntry
#define SH_KEY_TYPE		pg_uuid_t
#define SH_KEY			claim
#define SH_HASH_KEY(tb, key) hash_bytes((key).data, UUID_LEN)
#define SH_EQUAL(tb, a, b) (memcmp((a).data, (b).data, UUID_LEN) == 0)
#define SH_SCOPE		static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

static bool
same_codes(const McFact *a, const McFact *b)
{
	return a->ncodes == b->ncodes && (a->codes == NULL) == (b->codes == NULL) &&
		(a->ncodes == 0 ||
		 memcmp(a->codes, b->codes, sizeof(int32) * a->ncodes) == 0);
}

/*
 * The columns in which two facts differ; both sets share their strings.
 */
static uint32
compare_facts(const McFact *a, const McFact *b)
{
	static const uint32 id_column[MC_N_IDS] = {
		[MC_ID_STATE] = MC_C_STATE, [MC_ID_TYPE] = MC_C_TYPE,
		[MC_ID_BA] = MC_C_BA, [MC_ID_CENTRE] = MC_C_CENTRE,
		[MC_ID_HSC] = MC_C_HSC, [MC_ID_FORM] = MC_C_FORM,
		[MC_ID_TIER] = MC_C_TIER, [MC_ID_PROVINCE] = MC_C_PROVINCE,
	};
	uint32		columns = 0;
	int			i;

	for (i = 0; i < MC_N_IDS; i++)
		if (a->id[i] != b->id[i])
			columns |= id_column[i];
#define DIFFER(field, column) if (a->field != b->field) columns |= (column)
	DIFFER(date, MC_C_DATE);
	DIFFER(amount[MC_SUBMITTED], MC_C_SUBMITTED);
	DIFFER(amount[MC_ASSESSED], MC_C_ASSESSED);
	DIFFER(amount[MC_WCB_AMOUNT], MC_C_WCB_AMOUNT);
	DIFFER(amount[MC_TIME], MC_C_TIME);
	DIFFER(has_ahcip, MC_C_DETAIL);
	DIFFER(has_wcb, MC_C_WCB_DETAIL);
	DIFFER(shadow, MC_C_SHADOW);
	DIFFER(once_rejected, MC_C_ONCE_REJECTED);
	DIFFER(deadline, MC_C_DEADLINE);
	DIFFER(created_on, MC_C_CREATED);
	DIFFER(resolved_on, MC_C_RESOLVED);
#undef DIFFER
	if (!same_codes(a, b))
		columns |= MC_C_CODES;
	return columns;
}

uint64
mc_fact_hash(McStrings *strings, const McFact *fact)
{
	struct
	{
		uint64		strings[MC_N_IDS];
		int64		amounts[4];
		pg_uuid_t	claim;
		DateADT		dates[4];
		int32		ncodes;		/* -1: null */
		int32		flags;
	}			data = {
		.amounts = {
			fact->amount[MC_SUBMITTED], fact->amount[MC_ASSESSED],
			fact->amount[MC_WCB_AMOUNT], fact->amount[MC_TIME]
		},
		.claim = fact->claim,
		.dates = {
			fact->date, fact->deadline, fact->created_on, fact->resolved_on
		},
		.ncodes = fact->codes == NULL ? -1 : fact->ncodes,
		.flags = fact->has_ahcip | fact->has_wcb << 1 | fact->shadow << 2 |
		fact->once_rejected << 3
	};
	uint64		hash;
	int			i;

	for (i = 0; i < MC_N_IDS; i++)
		if (fact->id[i] != MC_NULL)
			data.strings[i] = mc_string_hash(strings, fact->id[i]);
	hash = hash_bytes_extended((const unsigned char *) &data, sizeof(data), 0);
	for (i = 0; i < fact->ncodes; i++)
		hash = hash_combine64(hash, mc_string_hash(strings, fact->codes[i]));
	return hash;
}

static Datum
date_datum(DateADT date, bool *isnull)
{
	*isnull = date == MC_NO_DATE;
	return DateADTGetDatum(date);
}

static Datum
codes_datum(const McStrings *strings, const McFact *fact, bool *isnull)
{
	Datum	   *elements;
	int			i;

	*isnull = fact->codes == NULL;
	if (*isnull)
		return (Datum) 0;
	elements = palloc(sizeof(Datum) * Max(fact->ncodes, 1));
	for (i = 0; i < fact->ncodes; i++)
		elements[i] = mc_string_datum(strings, fact->codes[i], isnull);
	return PointerGetDatum(construct_array(elements, fact->ncodes, TEXTOID, -1,
										   false, TYPALIGN_INT));
}

/* A fact as a row of claim_fact. */
static void
fact_row(const pg_uuid_t *provider, const McStrings *strings,
		 const McFact *fact, Datum *values, bool *nulls)
{
	static const McId strings_first[] = {MC_ID_STATE, MC_ID_TYPE};
	static const McId strings_second[] = {MC_ID_BA, MC_ID_CENTRE, MC_ID_HSC};
	static const McId strings_third[] = {MC_ID_FORM, MC_ID_TIER, MC_ID_PROVINCE};
	int			c = 0;
	int			i;

	memset(nulls, false, sizeof(bool) * N_COLUMNS);
#define STRINGS(ids) \
	for (i = 0; i < lengthof(ids); i++, c++) \
		values[c] = mc_string_datum(strings, fact->id[(ids)[i]], &nulls[c])
	values[c++] = UUIDPGetDatum(provider);
	values[c++] = DateADTGetDatum(fact->date);
	values[c++] = UUIDPGetDatum(&fact->claim);
	STRINGS(strings_first);
	values[c++] = BoolGetDatum(fact->has_ahcip);
	values[c++] = BoolGetDatum(fact->has_wcb);
	STRINGS(strings_second);
	values[c++] = Int64GetDatum(fact->amount[MC_SUBMITTED]);
	values[c++] = Int64GetDatum(fact->amount[MC_ASSESSED]);
	values[c++] = Int64GetDatum(fact->amount[MC_WCB_AMOUNT]);
	values[c++] = BoolGetDatum(fact->shadow);
	values[c++] = Int32GetDatum((int32) fact->amount[MC_TIME]);
	values[c] = codes_datum(strings, fact, &nulls[c]);
	c++;
	STRINGS(strings_third);
	values[c++] = BoolGetDatum(fact->once_rejected);
	values[c] = date_datum(fact->deadline, &nulls[c]);
	c++;
	values[c] = date_datum(fact->created_on, &nulls[c]);
	c++;
	values[c] = date_datum(fact->resolved_on, &nulls[c]);
	c++;
	Assert(c == N_COLUMNS);
#undef STRINGS
}

/* A difference that is to be written. */
typedef struct Difference
{
	ItemPointerData tid;		/* of the stored fact; invalid: there is none */
	const McFact *new;			/* NULL: the claim is gone */
} Difference;

typedef struct Differences
{
	const pg_uuid_t *provider;
	const McStrings *strings;
	Difference *difference;
	int			n;
	int			capacity;
} Differences;

static void
add_difference(Differences *all, const McFact *old, const McFact *new)
{
	Difference *difference;

	if (all->n == all->capacity)
	{
		all->capacity = Max(16, all->capacity * 2);
		all->difference = all->n == 0 ?
			palloc(sizeof(Difference) * all->capacity) :
			repalloc_huge(all->difference, sizeof(Difference) * all->capacity);
	}
	difference = &all->difference[all->n++];
	ItemPointerSetInvalid(&difference->tid);
	if (old != NULL)
		difference->tid = old->tid;
	difference->new = new;
}

/*
 * Rows that go first: a claim that was found twice keeps one of its rows, with
 * the other's key.
 */
static void
write_differences(void *arg)
{
	const Differences *all = arg;
	McRows	   *rows = mc_rows_open("claim_fact", N_COLUMNS);
	MemoryContext row = AllocSetContextCreate(CurrentMemoryContext,
											  "meritum_cache fact",
											  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(row);
	Datum		values[N_COLUMNS];
	bool		nulls[N_COLUMNS];
	int			i;

	for (i = 0; i < all->n; i++)
		if (all->difference[i].new == NULL)
			mc_rows_delete(rows, &all->difference[i].tid);
	for (i = 0; i < all->n; i++)
	{
		Difference *difference = &all->difference[i];

		if (difference->new == NULL)
			continue;
		fact_row(all->provider, all->strings, difference->new, values, nulls);
		if (ItemPointerIsValid(&difference->tid))
			mc_rows_update(rows, &difference->tid, N_COLUMNS, NULL, values,
						   nulls);
		else
			mc_rows_insert(rows, values, nulls);
		MemoryContextReset(row);
	}
	MemoryContextSwitchTo(old);
	mc_rows_close(rows);
	MemoryContextDelete(row);
}

int
mc_fact_sync(McFactSet *stored, McFactSet *derived, const pg_uuid_t *provider,
			 bool write, McInScope in_scope, McChanged changed, void *arg)
{
	Differences all = {provider, stored->strings};
	claimtab_hash *table = claimtab_create(CurrentMemoryContext,
										   Max(derived->n, 16), NULL);
	int			nstored = stored->n;
	bool		found;
	int			i;

	for (i = 0; i < nstored; i++)
	{
		McFact	   *fact = &stored->fact[i];
		ClaimEntry *entry;

		if (!in_scope(fact, arg))
			continue;
		entry = claimtab_insert(table, fact->claim, &found);
		if (!found)
			entry->index = i;
		else
		{
			/*
			 * The claim moved to another month, and while that is pending its
			 * detail changed: one of the two rows goes.
			 */
			changed(fact, NULL, ~0U, arg);
			add_difference(&all, fact, NULL);
			fact->dead = true;
		}
	}

	for (i = 0; i < derived->n; i++)
	{
		McFact	   *new = &derived->fact[i];
		ClaimEntry *entry = claimtab_insert(table, new->claim, &found);
		McFact	   *fact;
		uint32		columns;

		if (found && entry->index == DERIVED)
			ereport(ERROR,
					(errcode(ERRCODE_UNIQUE_VIOLATION),
					 errmsg("a claim has more than one row"),
					 errhint("The column claim_id must be unique in the claims table and in the tables of details.")));
		if (!found)
		{
			entry->index = DERIVED;
			changed(NULL, new, ~0U, arg);
			add_difference(&all, NULL, new);
			*mc_fact_add(stored) = *new;
			continue;
		}
		fact = &stored->fact[entry->index];
		entry->index = DERIVED;
		columns = compare_facts(fact, new);
		if (columns != 0)
		{
			changed(fact, new, columns, arg);
			add_difference(&all, fact, new);
			*fact = *new;
		}
	}

	for (i = 0; i < nstored; i++)
	{
		McFact	   *fact = &stored->fact[i];
		ClaimEntry *entry;

		if (fact->dead || !in_scope(fact, arg))
			continue;
		entry = claimtab_lookup(table, fact->claim);
		if (entry == NULL || entry->index != i)
			continue;
		changed(fact, NULL, ~0U, arg);
		add_difference(&all, fact, NULL);
		fact->dead = true;
	}

	if (write && all.n > 0)
		mc_plan_discreetly(write_differences, &all);
	claimtab_destroy(table);
	return all.n;
}

/* Rows that are kept before they are written. */
#define CHUNK 2000

/* The first fill: facts on their way to claim_fact. */
typedef struct Fill
{
	TupleDesc	desc;
	MemoryContext context;		/* of the rows; reset when they are written */
	HeapTuple	row[CHUNK];
	int			nrows;
	uint64		n;
} Fill;

static void
insert_rows(void *arg)
{
	const Fill *fill = arg;
	McRows	   *rows = mc_rows_open("claim_fact", N_COLUMNS);
	Datum		values[N_COLUMNS];
	bool		nulls[N_COLUMNS];
	int			i;

	for (i = 0; i < fill->nrows; i++)
	{
		heap_deform_tuple(fill->row[i], fill->desc, values, nulls);
		mc_rows_insert(rows, values, nulls);
	}
	mc_rows_close(rows);
}

static void
flush(Fill *fill)
{
	McBracket	bracket;

	mc_owner_enter(&bracket, true);
	mc_plan_discreetly(insert_rows, fill);
	mc_owner_leave(&bracket);
	MemoryContextReset(fill->context);
	fill->nrows = 0;
}

static void
fill_fact(const pg_uuid_t *provider, McStrings *strings, const McFact *fact,
		  void *arg)
{
	Fill	   *fill = arg;
	MemoryContext old = MemoryContextSwitchTo(fill->context);
	Datum		values[N_COLUMNS];
	bool		nulls[N_COLUMNS];

	fact_row(provider, strings, fact, values, nulls);
	fill->row[fill->nrows++] = heap_form_tuple(fill->desc, values, nulls);
	fill->n++;
	if (fill->nrows == CHUNK)
		flush(fill);
	MemoryContextSwitchTo(old);
}

/*
 * The rows are read as the claims' owner, and written in brackets of their
 * own: even to plan a statement over someone's table may run that someone's
 * functions, which must not have the rights of the extension's owner.
 */
uint64
mc_fact_fill(void)
{
	Fill	   *fill = palloc0(sizeof(Fill));
	Oid			rowtype = get_rel_type_id(mc_cache_relation("claim_fact"));

	fill->desc = lookup_rowtype_tupdesc_copy(rowtype, -1);
	fill->context = AllocSetContextCreate(CurrentMemoryContext,
										  "meritum_cache fill",
										  ALLOCSET_DEFAULT_SIZES);
	/* in the order of the key, so that a month is read from few pages */
	mc_fact_scan(MC_SCAN_ORDERED, fill_fact, fill);
	flush(fill);
	MemoryContextDelete(fill->context);
	return fill->n;
}
