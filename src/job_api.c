/*
 * job_api.c
 *		SQL entry points for jobs: check, convert, call.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "args.h"
#include "dirty.h"
#include "job.h"
#include "launcher.h"
#include "owner.h"
#include "plan.h"
#include "privilege.h"
#include "run.h"
#include "schedule.h"
#include "wake.h"
#include "zone.h"

static McPlan set_job = {
	"INSERT INTO meritum_cache.job"
	" (name, schedule, command, timezone, enabled, timeout, owner)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7::regrole)"
	" ON CONFLICT (name) DO UPDATE SET schedule = excluded.schedule,"
	" command = excluded.command, timezone = excluded.timezone,"
	" enabled = excluded.enabled, timeout = excluded.timeout,"
	" owner = excluded.owner",
	"text,text,text,text,bool,interval,oid", SPI_OK_INSERT
};

static McPlan delete_job = {
	"DELETE FROM meritum_cache.job WHERE name = $1",
	"text", SPI_OK_DELETE
};

static McPlan select_job = {
	"SELECT FROM meritum_cache.job WHERE name = $1",
	"text", SPI_OK_SELECT
};

static void
parse_schedule(const char *text, McSchedule *schedule)
{
	McScheduleError error;

	if (mc_schedule_parse(text, schedule, &error))
		return;
	if (error.field != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid %s in schedule \"%s\"", error.field, text),
				 errdetail_internal("%s", error.reason)));
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid schedule \"%s\"", text),
			 errdetail_internal("%s", error.reason),
			 errhint("A schedule is minute, hour, day of month, month and day of week, such as \"0 2 * * *\", or one of @hourly, @daily, @weekly, @monthly and @yearly.")));
}

static pg_tz *
parse_zone(const char *name)
{
	pg_tz	   *zone = pg_tzset(name);

	if (zone == NULL || !pg_tz_acceptable(zone))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("time zone \"%s\" not recognized", name)));
	return zone;
}

static void
no_such_job(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("job \"%s\" does not exist", name)));
}

static void
require_worker(void)
{
	if (!mc_wake_available())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("there is no background worker to run jobs"),
				 errhint("Add meritum_cache to shared_preload_libraries and restart the server.")));
	if (!mc_launcher_lists_database())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this database has no background worker to run jobs"),
				 errhint("Add its name to meritum_cache.databases and restart the server.")));
}

/*
 * A column of a row of the job table; false if it is null.
 */
static bool
get_column(HeapTuple row, TupleDesc desc, const char *name, Datum *value)
{
	bool		isnull;

	*value = SPI_getbinval(row, desc, SPI_fnumber(desc, name), &isnull);
	return !isnull;
}

PG_FUNCTION_INFO_V1(check_job);
PG_FUNCTION_INFO_V1(meritum_next_run);
PG_FUNCTION_INFO_V1(meritum_run_job);
PG_FUNCTION_INFO_V1(meritum_schedule);
PG_FUNCTION_INFO_V1(meritum_unschedule);

/*
 * The table may be written without meritum_schedule.  A time zone is left to
 * the worker, since a restore must not fail where the server knows fewer.
 */
Datum
check_job(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	TupleDesc	desc;
	HeapTuple	row;
	McSchedule	schedule;
	Datum		value;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_BEFORE(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" must be called as a BEFORE trigger for each row",
						"check_job")));
	row = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ?
		trigger->tg_newtuple : trigger->tg_trigtuple;
	desc = RelationGetDescr(trigger->tg_relation);

	if (get_column(row, desc, "schedule", &value))
		parse_schedule(TextDatumGetCString(value), &schedule);
	if (get_column(row, desc, "timeout", &value))
		(void) mc_job_parse_timeout(DatumGetIntervalP(value));
	return PointerGetDatum(row);
}

Datum
meritum_next_run(PG_FUNCTION_ARGS)
{
	McSchedule	schedule;
	pg_tz	   *zone;
	TimestampTz next;

	mc_arg_required(fcinfo, 0, "schedule");
	mc_arg_required(fcinfo, 1, "after");
	parse_schedule(text_to_cstring(PG_GETARG_TEXT_PP(0)), &schedule);
	zone = PG_ARGISNULL(2) ? mc_zone() :
		parse_zone(text_to_cstring(PG_GETARG_TEXT_PP(2)));
	if (!mc_schedule_next(&schedule, PG_GETARG_TIMESTAMPTZ(1), zone, &next))
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(next);
}

Datum
meritum_run_job(PG_FUNCTION_ARGS)
{
	McBracket	bracket;
	char	   *name;
	Datum		value;
	int64		run;

	mc_arg_required(fcinfo, 0, "name");
	mc_require_unpinned("meritum_run_job");
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));

	mc_owner_enter(&bracket, true);
	value = CStringGetTextDatum(name);
	if (mc_plan_execute(&select_job, &value, NULL) == 0)
		no_such_job(name);
	require_worker();
	if (mc_wake_worker_pid(MyDatabaseId) == 0)
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the background worker of this database is not running"),
				 errdetail("The run is queued and begins after the worker has started."),
				 errhint("If it does not start, the server log tells why.")));
	run = mc_run_queue(name, DT_NOBEGIN);

	/* Makes the worker look at the queue once this has committed. */
	mc_wake_jobs_changed();
	mc_dirty_wake();
	mc_owner_leave(&bracket);
	PG_RETURN_INT64(run);
}

Datum
meritum_schedule(PG_FUNCTION_ARGS)
{
	McBracket	bracket;
	McSchedule	schedule;
	Datum		values[7];
	char		nulls[7] = {' ', ' ', ' ', ' ', ' ', ' ', ' '};

	mc_arg_required(fcinfo, 0, "name");
	mc_arg_required(fcinfo, 1, "schedule");
	mc_arg_required(fcinfo, 2, "command");
	mc_arg_required(fcinfo, 4, "enabled");
	mc_require_unpinned("meritum_schedule");
	mc_require_admin("schedule jobs");
	parse_schedule(text_to_cstring(PG_GETARG_TEXT_PP(1)), &schedule);

	values[0] = PG_GETARG_DATUM(0);
	values[1] = PG_GETARG_DATUM(1);
	values[2] = PG_GETARG_DATUM(2);
	values[3] = PG_GETARG_DATUM(3);
	values[4] = PG_GETARG_DATUM(4);
	values[5] = PG_GETARG_DATUM(5);
	values[6] = ObjectIdGetDatum(GetUserId());
	if (PG_ARGISNULL(3))
		nulls[3] = 'n';
	else
		(void) parse_zone(text_to_cstring(PG_GETARG_TEXT_PP(3)));
	if (PG_ARGISNULL(5))
		nulls[5] = 'n';
	else
		(void) mc_job_parse_timeout(PG_GETARG_INTERVAL_P(5));

	mc_owner_enter(&bracket, true);
	mc_plan_execute(&set_job, values, nulls);
	mc_owner_leave(&bracket);
	PG_RETURN_VOID();
}

Datum
meritum_unschedule(PG_FUNCTION_ARGS)
{
	McBracket	bracket;
	Datum		value;
	uint64		deleted;

	mc_arg_required(fcinfo, 0, "name");
	mc_require_unpinned("meritum_unschedule");
	mc_require_admin("schedule jobs");
	value = PG_GETARG_DATUM(0);
	mc_owner_enter(&bracket, true);
	deleted = mc_plan_execute(&delete_job, &value, NULL);
	mc_owner_leave(&bracket);
	if (deleted == 0)
		no_such_job(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	PG_RETURN_VOID();
}
