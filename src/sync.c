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

#define N_COLUMNS 23

/* Rows written by one statement; bounds the memory of its arrays. */
#define CHUNK 2000

#define FACT_ARRAY "meritum_cache.claim_fact[]"

static McPlan insert_facts = {
	"INSERT INTO meritum_cache.claim_fact SELECT * FROM unnest($1)",
	FACT_ARRAY, SPI_OK_INSERT, true
};

static McPlan update_facts = {
	"UPDATE meritum_cache.claim_fact f SET"
	" date_of_service = n.date_of_service, state = n.state,"
	" claim_type = n.claim_type, has_ahcip_detail = n.has_ahcip_detail,"
	" has_wcb_detail = n.has_wcb_detail, ba_number = n.ba_number,"
	" functional_centre = n.functional_centre, hsc_code = n.hsc_code,"
	" submitted_fee = n.submitted_fee, assessed_fee = n.assessed_fee,"
	" wcb_amount = n.wcb_amount, shadow_billing = n.shadow_billing,"
	" time_spent = n.time_spent, rejection_codes = n.rejection_codes,"
	" form_id = n.form_id, timing_tier = n.timing_tier,"
	" province = n.province, once_rejected = n.once_rejected,"
	" submission_deadline = n.submission_deadline,"
	" created_on = n.created_on, resolved_on = n.resolved_on"
	" FROM unnest($1, $2) AS n (tid, provider_id, date_of_service, claim_id,"
	" state, claim_type, has_ahcip_detail, has_wcb_detail, ba_number,"
	" functional_centre, hsc_code, submitted_fee, assessed_fee, wcb_amount,"
	" shadow_billing, time_spent, rejection_codes, form_id, timing_tier,"
	" province, once_rejected, submission_deadline, created_on, resolved_on)"
	" WHERE f.ctid = n.tid",
	"tid[]," FACT_ARRAY, SPI_OK_UPDATE, true
};

static McPlan delete_facts = {
	"DELETE FROM meritum_cache.claim_fact f WHERE f.ctid = ANY ($1)",
	"tid[]", SPI_OK_DELETE
};

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

/* Changes that are to be written. */
typedef struct Writes
{
	TupleDesc	desc;
	Oid			rowtype;
	const McStrings *strings;
	const pg_uuid_t *provider;
	Datum		insert[CHUNK];
	int			ninsert;
	Datum		update[CHUNK];
	Datum		update_tid[CHUNK];
	int			nupdate;
	Datum		delete_tid[CHUNK];
	int			ndelete;
} Writes;

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
static Datum
fact_datum(Writes *writes, const McFact *fact)
{
	static const McId strings_first[] = {MC_ID_STATE, MC_ID_TYPE};
	static const McId strings_second[] = {MC_ID_BA, MC_ID_CENTRE, MC_ID_HSC};
	static const McId strings_third[] = {MC_ID_FORM, MC_ID_TIER, MC_ID_PROVINCE};
	const McStrings *strings = writes->strings;
	Datum		values[N_COLUMNS];
	bool		nulls[N_COLUMNS] = {false};
	int			c = 0;
	int			i;

#define STRINGS(ids) \
	for (i = 0; i < lengthof(ids); i++, c++) \
		values[c] = mc_string_datum(strings, fact->id[(ids)[i]], &nulls[c])
	values[c++] = UUIDPGetDatum(writes->provider);
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
	return HeapTupleGetDatum(heap_form_tuple(writes->desc, values, nulls));
#undef STRINGS
}

static Datum
tid_array(Datum *tids, int n)
{
	return PointerGetDatum(construct_array(tids, n, TIDOID,
										   sizeof(ItemPointerData), false,
										   TYPALIGN_SHORT));
}

static Datum
fact_array(Writes *writes, Datum *rows, int n)
{
	return PointerGetDatum(construct_array(rows, n, writes->rowtype, -1, false,
										   TYPALIGN_DOUBLE));
}

static void
flush(Writes *writes)
{
	Datum		values[2];

	if (writes->ndelete > 0)
	{
		values[0] = tid_array(writes->delete_tid, writes->ndelete);
		mc_plan_write(&delete_facts, values, writes->ndelete, "claim_fact");
		writes->ndelete = 0;
	}
	if (writes->nupdate > 0)
	{
		values[0] = tid_array(writes->update_tid, writes->nupdate);
		values[1] = fact_array(writes, writes->update, writes->nupdate);
		mc_plan_write(&update_facts, values, writes->nupdate, "claim_fact");
		writes->nupdate = 0;
	}
	if (writes->ninsert > 0)
	{
		values[0] = fact_array(writes, writes->insert, writes->ninsert);
		mc_plan_execute(&insert_facts, values, NULL);
		writes->ninsert = 0;
	}
}

static Datum
tid_datum(const McFact *fact)
{
	ItemPointer tid = palloc(sizeof(ItemPointerData));

	*tid = fact->tid;
	return PointerGetDatum(tid);
}

/* Note one difference to be written; old NULL inserts, new NULL deletes. */
static void
add_write(Writes *writes, const McFact *old, const McFact *new)
{
	if (writes == NULL)
		return;
	if (writes->ninsert == CHUNK || writes->nupdate == CHUNK ||
		writes->ndelete == CHUNK)
		flush(writes);
	if (old == NULL)
		writes->insert[writes->ninsert++] = fact_datum(writes, new);
	else if (new == NULL)
		writes->delete_tid[writes->ndelete++] = tid_datum(old);
	else
	{
		writes->update_tid[writes->nupdate] = tid_datum(old);
		writes->update[writes->nupdate++] = fact_datum(writes, new);
	}
}

static Writes *
begin_writes(const McStrings *strings, const pg_uuid_t *provider)
{
	Writes	   *writes = palloc0(sizeof(Writes));

	writes->rowtype = get_rel_type_id(mc_cache_relation("claim_fact"));
	writes->desc = lookup_rowtype_tupdesc_copy(writes->rowtype, -1);
	writes->strings = strings;
	writes->provider = provider;
	return writes;
}

int
mc_fact_sync(McFactSet *stored, McFactSet *derived, const pg_uuid_t *provider,
			 bool write, McInScope in_scope, McChanged changed, void *arg)
{
	Writes	   *writes = write ? begin_writes(stored->strings, provider) : NULL;
	claimtab_hash *table = claimtab_create(CurrentMemoryContext,
										   Max(derived->n, 16), NULL);
	int			differences = 0;
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
			differences++;
			changed(fact, NULL, ~0U, arg);
			add_write(writes, fact, NULL);
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
			differences++;
			changed(NULL, new, ~0U, arg);
			add_write(writes, NULL, new);
			*mc_fact_add(stored) = *new;
			continue;
		}
		fact = &stored->fact[entry->index];
		entry->index = DERIVED;
		columns = compare_facts(fact, new);
		if (columns != 0)
		{
			differences++;
			changed(fact, new, columns, arg);
			add_write(writes, fact, new);
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
		differences++;
		changed(fact, NULL, ~0U, arg);
		add_write(writes, fact, NULL);
		fact->dead = true;
	}

	if (writes != NULL)
		flush(writes);
	claimtab_destroy(table);
	return differences;
}

/* The first fill: rows of the source tables on their way to claim_fact. */
typedef struct Fill
{
	Writes	   *writes;
	MemoryContext context;		/* of the rows; reset when they are written */
	uint64		n;
} Fill;

static void
flush_fill(Fill *fill)
{
	McBracket	bracket;

	mc_owner_enter(&bracket, true);
	flush(fill->writes);
	mc_owner_leave(&bracket);
	MemoryContextReset(fill->context);
}

static void
fill_fact(const pg_uuid_t *provider, McStrings *strings,
		  const McFact *fact, void *arg)
{
	Fill	   *fill = arg;
	MemoryContext old = MemoryContextSwitchTo(fill->context);

	fill->writes->provider = provider;
	fill->writes->strings = strings;
	add_write(fill->writes, NULL, fact);
	fill->n++;
	if (fill->writes->ninsert == CHUNK)
		flush_fill(fill);
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
	Fill		fill = {begin_writes(NULL, NULL)};

	fill.context = AllocSetContextCreate(CurrentMemoryContext,
										 "meritum_cache fill",
										 ALLOCSET_DEFAULT_SIZES);
	/* in the order of the key, so that a month is read from few pages */
	mc_fact_scan(MC_SCAN_ORDERED, fill_fact, &fill);
	flush_fill(&fill);
	MemoryContextDelete(fill.context);
	return fill.n;
}
