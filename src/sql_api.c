/*
 * sql_api.c
 *		SQL entry points that only check, convert and call.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/formatting.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "args.h"
#include "dirty.h"
#include "event.h"
#include "guc.h"
#include "note.h"
#include "owner.h"
#include "plan.h"
#include "probe.h"
#include "provider.h"
#include "refresh.h"
#include "query.h"
#include "source.h"
#include "uuids.h"
#include "zone.h"

/* Snapshot rows of earlier months are history, and no refresh moves them. */
static McPlan older_entry = {
	"SELECT 1 FROM meritum_cache.analytics_cache c"
	" LEFT JOIN meritum_cache.metric m USING (metric_key)"
	" WHERE c.provider_id = $1 AND c.computed_at < $2"
	" AND c.period_start BETWEEN $3 AND $4"
	" AND (m.grain = 'monthly' OR c.period_start = $4) LIMIT 1",
	"uuid,timestamptz,date,date", SPI_OK_SELECT
};

static McPlan any_entry = {
	"SELECT 1 FROM meritum_cache.analytics_cache c WHERE c.provider_id = $1 LIMIT 1",
	"uuid", SPI_OK_SELECT
};

static McPlan select_freshness = {
	"SELECT e.oldest, e.newest, p.pending, p.since, s.refreshed_at,"
	" s.refresh_cause, s.snapshot_on, coalesce(s.version, 0)"
	" FROM (SELECT min(c.computed_at) AS oldest, max(c.computed_at) AS newest"
	" FROM meritum_cache.analytics_cache c WHERE c.provider_id = $1) e"
	" CROSS JOIN (SELECT count(*) AS pending, min(n.created_at) AS since"
	" FROM meritum_cache.pending_refresh n WHERE n.provider_id = $1) p"
	" LEFT JOIN meritum_cache.provider_state s ON s.provider_id = $1",
	"uuid", SPI_OK_SELECT
};

static McPlan stale_entries = {
	"SELECT c.cache_id, c.provider_id, c.metric_key, c.period_start,"
	" c.period_end, c.dimensions, c.value, c.computed_at"
	" FROM meritum_cache.analytics_cache c"
	" WHERE c.provider_id = $1 AND c.computed_at < $2"
	" ORDER BY c.metric_key, c.period_start, c.dimensions NULLS FIRST",
	"uuid,timestamptz", SPI_OK_SELECT
};

static TimestampTz
minutes_ago(int minutes)
{
	return GetCurrentTimestamp() - (int64) minutes * SECS_PER_MINUTE * USECS_PER_SEC;
}

/*
 * Whether an entry is really that old: the bound that says so is a lower one.
 */
static bool
has_older_entry(const pg_uuid_t *provider, TimestampTz limit)
{
	Datum		values[4] = {UUIDPGetDatum(provider)};
	DateADT		month = mc_month_of(mc_today());
	McBracket	bracket;
	bool		found;

	values[1] = TimestampTzGetDatum(limit);
	values[2] = DateADTGetDatum(mc_month_add(month, 1 - MC_WINDOW_MONTHS));
	values[3] = DateADTGetDatum(month);
	mc_owner_enter(&bracket, false);
	found = mc_plan_execute(&older_entry, values, NULL) > 0 ||
		mc_plan_execute(&any_entry, values, NULL) == 0;
	mc_owner_leave(&bracket);
	return found;
}

/*
 * The answer holds for the active snapshot.
 */
static bool
is_stale(const pg_uuid_t *provider, int minutes)
{
	TimestampTz oldest;
	TimestampTz limit = minutes_ago(minutes);

	if (!mc_probe_oldest(provider, &oldest) || mc_probe_pending(provider) ||
		mc_dirty_has(provider))
		return true;
	return oldest < limit && has_older_entry(provider, limit);
}

PG_FUNCTION_INFO_V1(meritum_is_stale);

Datum
meritum_is_stale(PG_FUNCTION_ARGS)
{
	const pg_uuid_t *provider = mc_arg_provider(fcinfo, 0);

	PG_RETURN_BOOL(is_stale(provider, mc_arg_max_age(fcinfo, 1)));
}

PG_FUNCTION_INFO_V1(meritum_freshness);

Datum
meritum_freshness(PG_FUNCTION_ARGS)
{
	Datum		provider = UUIDPGetDatum(mc_arg_provider(fcinfo, 0));
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext old;
	McBracket	bracket;
	TupleDesc	desc;
	HeapTuple	tuple;
	Datum		values[8];
	bool		nulls[8];

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	mc_owner_enter(&bracket, false);
	mc_plan_execute(&select_freshness, &provider, NULL);
	heap_deform_tuple(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, values, nulls);
	old = MemoryContextSwitchTo(caller);
	tuple = heap_form_tuple(BlessTupleDesc(desc), values, nulls);
	MemoryContextSwitchTo(old);
	mc_owner_leave(&bracket);
	PG_RETURN_DATUM(HeapTupleGetDatum(tuple));
}

static void
put_slot(TupleTableSlot *slot, void *arg)
{
	ReturnSetInfo *rsinfo = arg;

	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc,
						 slot->tts_values, slot->tts_isnull);
}

PG_FUNCTION_INFO_V1(meritum_get_stale_entries);

Datum
meritum_get_stale_entries(PG_FUNCTION_ARGS)
{
	Datum		values[2];
	McBracket	bracket;

	values[0] = UUIDPGetDatum(mc_arg_provider(fcinfo, 0));
	values[1] = TimestampTzGetDatum(minutes_ago(mc_arg_max_age(fcinfo, 1)));
	InitMaterializedSRF(fcinfo, 0);
	mc_owner_enter(&bracket, false);
	mc_plan_scan(&stale_entries, values, NULL, put_slot, fcinfo->resultinfo);
	mc_owner_leave(&bracket);
	return (Datum) 0;
}

static int32
written(const McOutcome *outcome)
{
	return (int32) (outcome->cells.changed + outcome->cells.unchanged);
}

/* What failed the worker tries again. */
static void
after_refresh(const McOutcome *outcome)
{
	if (outcome->failed > 0)
		mc_dirty_wake();
}

PG_FUNCTION_INFO_V1(meritum_refresh_provider_metrics);

Datum
meritum_refresh_provider_metrics(PG_FUNCTION_ARGS)
{
	const pg_uuid_t *provider = mc_arg_provider(fcinfo, 0);
	McTask	   *task = mc_task_create(provider, MC_CAUSE_REQUEST);
	McOutcome	outcome;
	McKeys		keys = {0};
	DateADT		as_of;

	if (PG_ARGISNULL(1))
		task->full_window = true;
	as_of = mc_arg_as_of(fcinfo, 2);
	if (!PG_ARGISNULL(1))
		keys = mc_arg_keys(fcinfo, 1);
	PreventCommandIfReadOnly("meritum_refresh_provider_metrics()");
	if (keys.builtin != 0)
	{
		mc_source_require();
		mc_task_window(task, keys.builtin, as_of);
	}
	mc_task_custom_window(task, keys.custom, as_of);
	if (task->full_window || keys.builtin != 0)
		mc_task_recheck(task, mc_dirty_has_claims(provider));
	mc_refresh_task(task, MC_WAIT, true, &outcome);
	after_refresh(&outcome);
	PG_RETURN_INT32(written(&outcome));
}

static void
check_claim(const pg_uuid_t *claim, const pg_uuid_t *provider,
			const char *claim_type, DateADT *date)
{
	pg_uuid_t	owner;
	char	   *type;

	if (!mc_query_claim(claim, &owner, &type, date) ||
		memcmp(&owner, provider, UUID_LEN) != 0 ||
		type == NULL || strcmp(type, claim_type) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("claim %s is no %s claim of provider %s",
						mc_uuid_text(claim), claim_type, mc_uuid_text(provider))));
}

PG_FUNCTION_INFO_V1(meritum_handle_claim_state_change);

Datum
meritum_handle_claim_state_change(PG_FUNCTION_ARGS)
{
	const pg_uuid_t *provider = mc_arg_provider(fcinfo, 0);
	char	   *claim_type;
	char	   *state;
	McTask	   *task;
	McMonthTask *month;
	McOutcome	outcome;
	McBracket	bracket;
	McKeys		keys;
	bool		found;
	DateADT		today;
	DateADT		date;
	ListCell   *lc;

	mc_arg_required(fcinfo, 1, "claim_type");
	claim_type = text_to_cstring(PG_GETARG_TEXT_PP(1));
	mc_arg_required(fcinfo, 2, "new_state");
	state = text_to_cstring(PG_GETARG_TEXT_PP(2));
	if (strcmp(claim_type, "AHCIP") != 0 && strcmp(claim_type, "WCB") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown claim type \"%s\"", claim_type),
				 errhint("The claim types are AHCIP and WCB.")));
	today = mc_today();
	date = today;

	mc_owner_enter(&bracket, true);
	mc_source_require();
	if (!PG_ARGISNULL(3))
		check_claim(PG_GETARG_UUID_P(3), provider, claim_type, &date);
	mc_owner_leave(&bracket);
	found = mc_event_find(state, &keys);
	if (!found)
		PG_RETURN_INT32(0);
	PreventCommandIfReadOnly("meritum_handle_claim_state_change()");

	/* a month outside the trailing window is kept up where it exists */
	task = mc_task_create(provider, MC_CAUSE_EVENT);
	month = mc_task_month(task, mc_month_of(date));
	if (!PG_ARGISNULL(3))
		mc_task_claim(month, PG_GETARG_UUID_P(3));
	if (month->month >= mc_month_add(mc_month_of(today), 1 - MC_WINDOW_MONTHS) &&
		month->month <= mc_month_of(today))
		month->force |= keys.builtin & ~mc_metrics_snapshot();
	else
		month->existing |= keys.builtin & ~mc_metrics_snapshot();
	mc_task_month(task, mc_month_of(today))->force |=
		keys.builtin & mc_metrics_snapshot();
	foreach(lc, keys.custom)
		mc_task_custom_existing(task, lfirst(lc), mc_month_of(date));
	mc_refresh_task(task, MC_WAIT, true, &outcome);
	after_refresh(&outcome);
	mc_event_log_count(provider,
					   psprintf("claim.%s", asc_tolower(state, strlen(state))),
					   written(&outcome));
	PG_RETURN_INT32(written(&outcome));
}

PG_FUNCTION_INFO_V1(meritum_request_refresh);

Datum
meritum_request_refresh(PG_FUNCTION_ARGS)
{
	const pg_uuid_t *provider = mc_arg_provider(fcinfo, 0);
	McBracket	bracket;
	bool		queued;

	mc_refresh_require();
	mc_owner_enter(&bracket, true);
	queued = is_stale(provider, mc_stale_after) && mc_note_request(provider);
	mc_owner_leave(&bracket);
	if (queued)
		mc_dirty_wake();
	PG_RETURN_BOOL(queued);
}
