/*
 * fact.c
 *		Facts: what the metrics read of a claim, in memory and in
 *		meritum_cache.claim_fact.
 *
 * claim_fact must equal what the source tables say of every live claim; the
 * sync here is the only code that changes it.  All of it needs a bracket
 * (owner.h) whose snapshot was taken under the provider's lock: that lock
 * guards the provider's rows of claim_fact.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/formatting.h"
#include "utils/memutils.h"

#include "codes.h"
#include "fact.h"
#include "guc.h"
#include "owner.h"
#include "plan.h"
#include "query.h"
#include "source.h"
#include "uuids.h"
#include "zone.h"

/* Columns of claim_fact, and of the statements that derive it. */
enum
{
	A_PROVIDER, A_DATE, A_CLAIM, A_STATE, A_TYPE, A_HAS_AHCIP, A_HAS_WCB,
	A_BA, A_CENTRE, A_HSC, A_SUBMITTED, A_ASSESSED, A_WCB_AMOUNT, A_SHADOW,
	A_TIME, A_CODES, A_FORM, A_TIER, A_PROVINCE, A_ONCE_REJECTED, A_DEADLINE,
	A_CREATED, A_RESOLVED, A_TID
};

static McPlan load_facts = {
	"SELECT f.*, f.ctid FROM meritum_cache.claim_fact f"
	" WHERE f.provider_id = $1 AND f.date_of_service BETWEEN $2 AND $3",
	"uuid,date,date", SPI_OK_SELECT
};

static McPlan load_all = {
	"SELECT f.* FROM meritum_cache.claim_fact f",
	"", SPI_OK_SELECT
};

static McPlan remove_provider = {
	"DELETE FROM meritum_cache.claim_fact f WHERE f.provider_id = $1",
	"uuid", SPI_OK_DELETE
};

/*
 * The states in the order in which mc_fact_strings() numbers them, so that a
 * state's number is the index of its traits.
 */
#define DECIDED (MC_T_DECIDED | MC_T_SENT)

static const struct
{
	const char *name;
	uint32		traits;
	uint32		dates;			/* that are kept, since metrics read them */
} state_traits[] = {
	{"DRAFT", MC_T_OPEN, MC_C_DEADLINE | MC_C_CREATED},
	{"VALIDATED", MC_T_OPEN, MC_C_DEADLINE | MC_C_CREATED},
	{"QUEUED", MC_T_OPEN | MC_T_WAITING, MC_C_DEADLINE},
	{"SUBMITTED", MC_T_OPEN | MC_T_WAITING | MC_T_SENT},
	{"ASSESSED", DECIDED | MC_T_ASSESSED | MC_T_ACCEPTED},
	{"PAID", DECIDED | MC_T_ASSESSED | MC_T_ACCEPTED | MC_T_PAID, MC_C_RESOLVED},
	{"REJECTED", DECIDED | MC_T_REJECTED},
	{"ADJUSTED", DECIDED | MC_T_ACCEPTED | MC_T_ADJUSTED},
	{"WRITTEN_OFF", MC_T_WRITTEN_OFF},
	{"EXPIRED", MC_T_EXPIRED},
};

#define N_STATES ((int) lengthof(state_traits))

/* Further strings with a number known beforehand. */
enum
{
	S_WCB = N_STATES, S_GENERATED, S_ACCEPTED, S_DISMISSED
};

McStrings *
mc_fact_strings(void)
{
	static const char *const more[] = {"WCB", "generated", "accepted", "dismissed"};
	McStrings  *strings = mc_strings_create();
	int			i;

	for (i = 0; i < N_STATES; i++)
		mc_string_id(strings, state_traits[i].name, strlen(state_traits[i].name));
	for (i = 0; i < lengthof(more); i++)
		mc_string_id(strings, more[i], strlen(more[i]));
	return strings;
}

McFactSet *
mc_fact_set(McStrings *strings)
{
	McFactSet  *set = palloc0(sizeof(McFactSet));
	int			i;

	set->strings = strings;
	for (i = 0; i < MC_N_IDS; i++)
		set->last[i] = MC_NULL;
	set->context = CurrentMemoryContext;
	set->capacity = 64;
	set->fact = palloc(sizeof(McFact) * set->capacity);
	return set;
}

McFact *
mc_fact_add(McFactSet *set)
{
	McFact	   *fact;
	int			i;

	if (set->n == set->capacity)
	{
		set->capacity *= 2;
		set->fact = repalloc_huge(set->fact,
								  sizeof(McFact) * set->capacity);
	}
	fact = &set->fact[set->n++];
	memset(fact, 0, sizeof(McFact));
	for (i = 0; i < MC_N_IDS; i++)
		fact->id[i] = MC_NULL;
	fact->amount[MC_COUNT] = 1;
	ItemPointerSetInvalid(&fact->tid);
	return fact;
}

/*
 * Traits that follow from the claim alone.
 */
static uint32
claim_traits(const McFact *fact)
{
	int32		state = fact->id[MC_ID_STATE];
	uint32		traits = MC_T_CLAIM;

	if (state != MC_NULL && state < N_STATES)
		traits |= state_traits[state].traits;
	if (fact->has_ahcip)
		traits |= MC_T_DETAIL;
	if (fact->id[MC_ID_TYPE] == S_WCB)
		traits |= MC_T_WCB;
	if (fact->has_wcb)
		traits |= MC_T_WCB_DETAIL;
	if (fact->id[MC_ID_TIER] != MC_NULL)
		traits |= MC_T_TIER;
	if (fact->shadow)
		traits |= MC_T_SHADOW;
	if (fact->id[MC_ID_PROVINCE] != MC_NULL)
		traits |= MC_T_RECIPROCAL;
	if (fact->once_rejected)
	{
		if ((traits & (MC_T_SENT | MC_T_WAITING)) && !(traits & MC_T_REJECTED))
			traits |= MC_T_RESUBMITTED;
		if (traits & MC_T_PAID)
			traits |= MC_T_REPAID;
	}
	return traits;
}

static DateADT
slot_date(TupleTableSlot *slot, int column)
{
	return slot->tts_isnull[column] ? MC_NO_DATE :
		mc_date_of(TupleDescAttr(slot->tts_tupleDescriptor, column)->atttypid,
				   slot->tts_values[column]);
}

static void
read_json_codes(McFactSet *set, McFact *fact, Datum value)
{
	char	  **codes;
	int			n = mc_codes_extract(DatumGetJsonbP(value), &codes);
	int			i;

	if (n == 0)
		return;
	fact->ncodes = n;
	fact->codes = MemoryContextAlloc(set->context, sizeof(int32) * n);
	for (i = 0; i < n; i++)
		fact->codes[i] = mc_string_id(set->strings, codes[i], strlen(codes[i]));
}

static void
read_codes(McFactSet *set, McFact *fact, Datum value)
{
	Datum	   *elements;
	bool	   *nulls;
	int			i;

	deconstruct_array(DatumGetArrayTypeP(value), TEXTOID, -1, false,
					  TYPALIGN_INT, &elements, &nulls, &fact->ncodes);
	fact->codes = MemoryContextAlloc(set->context,
									 sizeof(int32) * Max(fact->ncodes, 1));
	for (i = 0; i < fact->ncodes; i++)
		fact->codes[i] = mc_string_datum_id(set->strings, elements[i], nulls[i]);
}

/*
 * What the application has and claim_fact has in another form: the state in any
 * letter case, and dates that no metric reads in it.
 */
static void
normalize(McStrings *strings, McFact *fact)
{
	int32	   *state = &fact->id[MC_ID_STATE];
	uint32		dates;

	if (*state >= N_STATES)
	{
		char	   *upper = asc_toupper(mc_string(strings, *state),
										mc_string_length(strings, *state));

		*state = mc_string_id(strings, upper, strlen(upper));
		pfree(upper);
	}
	dates = *state == MC_NULL || *state >= N_STATES ? 0 : state_traits[*state].dates;
	if (!(dates & MC_C_DEADLINE))
		fact->deadline = MC_NO_DATE;
	if (!(dates & MC_C_CREATED))
		fact->created_on = MC_NO_DATE;
	if (!(dates & MC_C_RESOLVED))
		fact->resolved_on = MC_NO_DATE;
}

static McFact *
read_fact(McFactSet *set, TupleTableSlot *slot, bool derived)
{
	static const struct
	{
		int			column;
		McId		id;
	}			strings[] = {
		{A_STATE, MC_ID_STATE}, {A_TYPE, MC_ID_TYPE}, {A_BA, MC_ID_BA},
		{A_CENTRE, MC_ID_CENTRE}, {A_HSC, MC_ID_HSC}, {A_FORM, MC_ID_FORM},
		{A_TIER, MC_ID_TIER}, {A_PROVINCE, MC_ID_PROVINCE},
	};
	Datum	   *values = slot->tts_values;
	McFact	   *fact = mc_fact_add(set);
	int			i;

	for (i = 0; i < lengthof(strings); i++)
		fact->id[strings[i].id] =
			mc_string_datum_again(set->strings, values[strings[i].column],
								  slot->tts_isnull[strings[i].column],
								  &set->last[strings[i].id]);
	fact->date = DatumGetDateADT(values[A_DATE]);
	fact->claim = *DatumGetUUIDP(values[A_CLAIM]);
	fact->amount[MC_SUBMITTED] = DatumGetInt64(values[A_SUBMITTED]);
	fact->amount[MC_ASSESSED] = DatumGetInt64(values[A_ASSESSED]);
	fact->amount[MC_WCB_AMOUNT] = DatumGetInt64(values[A_WCB_AMOUNT]);
	fact->amount[MC_TIME] = DatumGetInt32(values[A_TIME]);
	fact->has_ahcip = DatumGetBool(values[A_HAS_AHCIP]);
	fact->has_wcb = DatumGetBool(values[A_HAS_WCB]);
	fact->shadow = DatumGetBool(values[A_SHADOW]);
	fact->once_rejected = DatumGetBool(values[A_ONCE_REJECTED]);
	fact->deadline = slot_date(slot, A_DEADLINE);
	fact->created_on = slot_date(slot, A_CREATED);
	fact->resolved_on = slot_date(slot, A_RESOLVED);
	if (!slot->tts_isnull[A_CODES])
		(derived ? read_json_codes : read_codes) (set, fact, values[A_CODES]);
	if (derived)
		normalize(set->strings, fact);
	fact->traits = claim_traits(fact);
	return fact;
}

static void
read_stored(TupleTableSlot *slot, void *arg)
{
	McFact	   *fact = read_fact((McFactSet *) arg, slot, false);

	fact->tid = *(ItemPointer) DatumGetPointer(slot->tts_values[A_TID]);
}

void
mc_fact_load(McFactSet *set, const pg_uuid_t *provider,
			 DateADT first, DateADT last)
{
	Datum		values[3] = {
		UUIDPGetDatum(provider), DateADTGetDatum(first), DateADTGetDatum(last)
	};

	mc_plan_scan(&load_facts, values, NULL, read_stored, set);
}

typedef struct DeriveArg
{
	McFactSet  *set;
	const pg_uuid_t *provider;
	MemoryContext context;
	List	   *moved;			/* McMoved, in the context */
} DeriveArg;

static void
read_derived(TupleTableSlot *slot, void *arg)
{
	DeriveArg  *derive = arg;

	const pg_uuid_t *provider = DatumGetUUIDP(slot->tts_values[A_PROVIDER]);
	MemoryContext old;
	McMoved    *moved;

	if (memcmp(provider, derive->provider, UUID_LEN) == 0)
	{
		read_fact(derive->set, slot, true);
		return;
	}
	old = MemoryContextSwitchTo(derive->context);
	moved = palloc(sizeof(McMoved));
	moved->claim = *DatumGetUUIDP(slot->tts_values[A_CLAIM]);
	moved->provider = *provider;
	moved->date = DatumGetDateADT(slot->tts_values[A_DATE]);
	derive->moved = lappend(derive->moved, moved);
	MemoryContextSwitchTo(old);
}

/*
 * The claims' owner reads the source tables: the extension's owner may have
 * no right to, and must not lend its own to a view or a row security policy.
 */
static List *
derive(McFactScope scope, Datum *values, McFactSet *set,
	   const pg_uuid_t *provider)
{
	DeriveArg	arg = {set, provider, CurrentMemoryContext, NIL};
	McPlan	   *plan = mc_query_facts(scope);
	Oid			previous = mc_owner_switch(mc_source_get(MC_CLAIMS)->owner);

	mc_plan_scan(plan, values, NULL, read_derived, &arg);
	mc_owner_restore(previous);
	return arg.moved;
}

void
mc_fact_derive_claims(McFactSet *set, const pg_uuid_t *provider,
					  const pg_uuid_t *claims, int n, List **moved)
{
	Datum		value = mc_uuid_array(claims, n);

	*moved = list_concat(*moved, derive(MC_SCOPE_CLAIMS, &value, set, provider));
}

void
mc_fact_derive_range(McFactSet *set, const pg_uuid_t *provider,
					 DateADT first, DateADT last)
{
	Datum		values[3] = {
		UUIDPGetDatum(provider), DateADTGetDatum(first), DateADTGetDatum(last)
	};

	derive(MC_SCOPE_RANGE, values, set, provider);
}

void
mc_fact_derive_provider(McFactSet *set, const pg_uuid_t *provider)
{
	Datum		value = UUIDPGetDatum(provider);

	derive(MC_SCOPE_PROVIDER, &value, set, provider);
}

/* Facts read one by one are thrown away after so many. */
#define SCAN_CHUNK 1000

typedef struct ScanArg
{
	McFactScan	what;
	McFactSet  *set;
	MemoryContext context;		/* of the set */
	McFactFound found;
	void	   *arg;
} ScanArg;

static void
read_scanned(TupleTableSlot *slot, void *arg)
{
	ScanArg    *scan = arg;
	MemoryContext old;

	if (scan->set == NULL || scan->set->n == SCAN_CHUNK)
	{
		MemoryContextReset(scan->context);
		old = MemoryContextSwitchTo(scan->context);
		scan->set = mc_fact_set(mc_fact_strings());
		MemoryContextSwitchTo(old);
	}
	scan->found(DatumGetUUIDP(slot->tts_values[A_PROVIDER]), scan->set->strings,
				read_fact(scan->set, slot, scan->what != MC_SCAN_STORED),
				scan->arg);
}

void
mc_fact_scan(McFactScan what, McFactFound found, void *arg)
{
	ScanArg		scan = {what, NULL, NULL, found, arg};
	int			bulk = mc_owner_begin_bulk();

	scan.context = AllocSetContextCreate(CurrentMemoryContext,
										 "meritum_cache fact scan",
										 ALLOCSET_DEFAULT_SIZES);
	if (what == MC_SCAN_STORED)
		mc_plan_scan(&load_all, NULL, NULL, read_scanned, &scan);
	else
	{
		McPlan		plan = {mc_query_fact_text(MC_SCOPE_ALL), "", SPI_OK_SELECT, true};
		Oid			previous = mc_owner_switch(mc_source_get(MC_CLAIMS)->owner);

		if (what == MC_SCAN_ORDERED)
			plan.sql = psprintf("%s ORDER BY 1, 2, 3", plan.sql);
		else
		{
			/* as many processes as the batch, of which this is a part */
			plan.parallel = true;
			mc_owner_allow_workers(mc_batch_workers - 1);
		}
		mc_plan_scan(&plan, NULL, NULL, read_scanned, &scan);
		mc_owner_restore(previous);
		mc_plan_forget(&plan);
	}
	MemoryContextDelete(scan.context);
	mc_owner_end_bulk(bulk);
}

void
mc_fact_place(McFact *fact, const McPlaces *places)
{
	int			i;

	fact->traits &= ~MC_T_PLACED;
	if (!fact->has_ahcip || fact->id[MC_ID_CENTRE] == MC_NULL)
		return;
	for (i = 0; i < places->n; i++)
		if (places->place[i].centre == fact->id[MC_ID_CENTRE])
			fact->traits |= MC_T_PLACED;
}

void
mc_fact_date(McFact *fact, DateADT as_of)
{
	DateADT		month = mc_month_of(as_of);

	fact->traits &= ~(MC_T_DUE | MC_T_STALE | MC_T_RESOLVED);
	if (!DATE_NOT_FINITE(fact->deadline) &&
		fact->deadline >= as_of && fact->deadline <= as_of + 7)
		fact->traits |= MC_T_DUE;
	if (!DATE_NOT_FINITE(fact->created_on) && as_of - fact->created_on > 14)
		fact->traits |= MC_T_STALE;
	if (!DATE_NOT_FINITE(fact->resolved_on) &&
		fact->date >= mc_month_add(month, 1 - MC_WINDOW_MONTHS) &&
		fact->date <= mc_month_end(month))
	{
		fact->traits |= MC_T_RESOLVED;
		fact->amount[MC_DAYS] = (int64) fact->resolved_on - fact->date;
	}
}

typedef struct EventArg
{
	McFactSet  *set;
	DateADT		first;
	DateADT		last;
} EventArg;

static void
read_event(TupleTableSlot *slot, void *arg)
{
	EventArg   *events = arg;
	McFactSet  *set = events->set;
	DateADT		date = slot_date(slot, 0);
	McFact	   *fact;
	int32		type;

	if (slot->tts_isnull[0] || date < events->first || date > events->last)
		return;
	fact = mc_fact_add(set);
	fact->date = date;
	type = mc_string_datum_id(set->strings, slot->tts_values[2],
							  slot->tts_isnull[2]);
	fact->id[MC_ID_RULE] = mc_string_uuid_id(set->strings, slot->tts_values[1],
									   slot->tts_isnull[1]);
	fact->id[MC_ID_CATEGORY] = mc_string_datum_id(set->strings,
												  slot->tts_values[3],
												  slot->tts_isnull[3]);
	fact->amount[MC_IMPACT] = DatumGetInt64(slot->tts_values[4]);
	if (type == S_GENERATED)
		fact->traits = MC_T_COACH_ANY | MC_T_COACH_GENERATED;
	else if (type == S_ACCEPTED)
		fact->traits = MC_T_COACH_ANY | MC_T_COACH_ACCEPTED | MC_T_COACH_ANSWERED;
	else if (type == S_DISMISSED)
		fact->traits = MC_T_COACH_ANY | MC_T_COACH_DISMISSED | MC_T_COACH_ANSWERED;
}

void
mc_fact_load_events(McFactSet *set, const pg_uuid_t *provider,
					DateADT first, DateADT last)
{
	EventArg	events = {set, first, last};
	Datum		value = UUIDPGetDatum(provider);

	if (mc_source_get(MC_AI_SUGGESTION_EVENTS) != NULL)
		mc_query_scan(MC_AI_SUGGESTION_EVENTS, &value, read_event, &events);
}

static void
read_suppressed(TupleTableSlot *slot, void *arg)
{
	McFactSet  *set = arg;
	McFact	   *fact = mc_fact_add(set);

	fact->date = MC_NO_DATE;
	fact->id[MC_ID_RULE] = mc_string_uuid_id(set->strings, slot->tts_values[0],
									   slot->tts_isnull[0]);
	fact->traits = MC_T_COACH_SUPPRESSED;
}

void
mc_fact_load_suppressed(McFactSet *set, const pg_uuid_t *provider)
{
	Datum		value = UUIDPGetDatum(provider);

	if (mc_source_get(MC_AI_PROVIDER_LEARNING) != NULL)
		mc_query_scan(MC_AI_PROVIDER_LEARNING, &value, read_suppressed, set);
}

typedef struct NamesArg
{
	McFactSet  *set;
	int			capacity;
	const char **name;
} NamesArg;

static void
read_name(TupleTableSlot *slot, void *arg)
{
	NamesArg   *names = arg;
	int32		rule = mc_string_uuid_id(names->set->strings, slot->tts_values[0], false);

	if (rule < names->capacity && !slot->tts_isnull[1])
		names->name[rule] =
			MemoryContextStrdup(names->set->context,
								TextDatumGetCString(slot->tts_values[1]));
}

const char **
mc_fact_rule_names(McFactSet *set)
{
	NamesArg	names = {set, 0, NULL};
	pg_uuid_t  *rules;
	Datum		value;
	int			n = 0;
	int			i;

	for (i = 0; i < set->n; i++)
		names.capacity = Max(names.capacity, set->fact[i].id[MC_ID_RULE] + 1);
	if (names.capacity == 0)
		return NULL;
	names.name = palloc0(sizeof(char *) * names.capacity);
	if (mc_source_get(MC_AI_RULES) == NULL)
		return names.name;

	/* each rule once: name[] marks those already listed */
	rules = palloc(sizeof(pg_uuid_t) * names.capacity);
	for (i = 0; i < set->n; i++)
	{
		int32		rule = set->fact[i].id[MC_ID_RULE];

		if (rule == MC_NULL || names.name[rule] != NULL)
			continue;
		names.name[rule] = "";
		rules[n++] = *DatumGetUUIDP(DirectFunctionCall1(uuid_in,
														CStringGetDatum(mc_string(set->strings, rule))));
	}
	memset(names.name, 0, sizeof(char *) * names.capacity);
	value = mc_uuid_array(rules, n);
	mc_query_scan(MC_AI_RULES, &value, read_name, &names);
	return names.name;
}

void
mc_fact_remove_provider(const pg_uuid_t *provider)
{
	Datum		value = UUIDPGetDatum(provider);

	mc_plan_execute(&remove_provider, &value, NULL);
}
