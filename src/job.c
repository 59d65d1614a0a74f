/*
 * job.c
 *		Scheduled jobs: when each of meritum_cache.job is due, and the processes
 *		that execute them.
 *
 * All that must outlive the worker is in tables.  A run is queued in job_run
 * when it is due or asked for, and a process of its own takes it from there,
 * so that the worker never waits for a job.  job_state keeps when each job is
 * due next: a time that has passed when the worker starts is a missed run,
 * made up once.  Queueing is also what keeps a job from overlapping itself: a
 * run that comes due during another waits for its end, and a second one that
 * would wait beside it is left out.
 *
 * The memory here, in job_context and the static variables, is the worker's
 * copy of it; an invalidation of the job table drops the copy.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "guc.h"
#include "job.h"
#include "owner.h"
#include "plan.h"
#include "run.h"
#include "schedule.h"
#include "zone.h"

#define MAX_PROCESSES 64		/* as many as max_parallel_jobs allows */

/* A run that cannot start, or is not ours, is looked at again after this. */
#define QUEUE_PAUSE_MS 10000

#define PRUNE_INTERVAL_MS (60 * 60 * 1000)

/* The lack of processes is told of once in this time. */
#define WARNING_INTERVAL_MS (60 * 60 * 1000)

/* By how much the clock may be set back and every job still waits for it. */
#define SMALL_SETBACK (3 * USECS_PER_HOUR)

typedef struct Job
{
	char	   *name;
	char	   *schedule_text;
	char	   *zone_name;
	McSchedule	schedule;
	pg_tz	   *zone;
	TimestampTz next;			/* DT_NOEND: never */
} Job;

/* A process that was started for a run. */
typedef struct Process
{
	McJobRequest request;
	char		name[NAMEDATALEN];	/* of the job; only for its title */
	BackgroundWorkerHandle *handle;
} Process;

static MemoryContext job_context = NULL;
static List *jobs = NIL;
static bool jobs_valid = false;
static Oid	job_relation = InvalidOid;
static TimestampTz next_step = DT_NOEND;
static TimestampTz next_prune = DT_NOBEGIN;
static TimestampTz next_warning = DT_NOBEGIN;
static TimestampTz last_look = DT_NOBEGIN;	/* to see the clock set back */

static Process processes[MAX_PROCESSES];
static int	nprocesses = 0;

/* Chosen by a step, not yet started. */
static Process launches[MAX_PROCESSES];
static int	nlaunches = 0;

static McPlan select_jobs = {
	"SELECT j.name, j.schedule, coalesce(j.timezone, $1),"
	"       CASE WHEN s.schedule = j.schedule"
	"             AND s.timezone = coalesce(j.timezone, $1)"
	"            THEN coalesce(s.next_run_at, 'infinity') END,"
	"       s.computed_at"
	"  FROM meritum_cache.job j"
	"  LEFT JOIN meritum_cache.job_state s ON s.name = j.name"
	" WHERE j.enabled",
	"text", SPI_OK_SELECT
};

static McPlan delete_states = {
	"DELETE FROM meritum_cache.job_state s"
	" WHERE NOT EXISTS (SELECT FROM meritum_cache.job j"
	"                    WHERE j.name = s.name AND j.enabled)",
	"", SPI_OK_DELETE
};

static McPlan store_state = {
	"INSERT INTO meritum_cache.job_state"
	" (name, schedule, timezone, next_run_at, computed_at)"
	" VALUES ($1, $2, $3, $4, $5)"
	" ON CONFLICT (name) DO UPDATE SET schedule = excluded.schedule,"
	" timezone = excluded.timezone, next_run_at = excluded.next_run_at,"
	" computed_at = excluded.computed_at",
	"text,text,text,timestamptz,timestamptz", SPI_OK_INSERT
};

/*
 * Queued runs in their order; busy tells that the job is running, or an older
 * run of it is queued.
 */
static McPlan select_queue = {
	"SELECT r.run_id, r.job_name, j.owner::oid, a.rolcanlogin,"
	"       r.scheduled_at IS NULL OR j.enabled,"
	"       EXISTS (SELECT FROM meritum_cache.job_run o"
	"                WHERE o.job_name = r.job_name"
	"                  AND (o.status = 'running'"
	"                       OR o.status = 'queued' AND o.run_id < r.run_id))"
	"  FROM meritum_cache.job_run r"
	"  LEFT JOIN meritum_cache.job j ON j.name = r.job_name"
	"  LEFT JOIN pg_roles a ON a.oid = j.owner"
	" WHERE r.status = 'queued'"
	" ORDER BY r.run_id",
	"", SPI_OK_SELECT
};

static McPlan count_running = {
	"SELECT count(*)::int4 FROM meritum_cache.job_run"
	" WHERE status = 'running' AND run_id <> ALL ($1)",
	"int8[]", SPI_OK_SELECT
};

int
mc_job_parse_timeout(const Interval *timeout)
{
	double		ms = timeout->time / 1000.0 +
		((double) timeout->month * DAYS_PER_MONTH + timeout->day) *
		SECS_PER_DAY * 1000.0;

	if (ms < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timeout of a job must be positive")));
	return (int) Min(ms, (double) INT_MAX);
}

/*
 * Called at any time when a table's definition changes; the triggers of the
 * job table report a change of its contents in the same way.
 */
static void
relation_changed(Datum arg, Oid relid)
{
	if (!OidIsValid(relid) || relid == job_relation)
		jobs_valid = false;
}

void
mc_job_watch(void)
{
	job_context = AllocSetContextCreate(TopMemoryContext,
										"meritum_cache jobs",
										ALLOCSET_SMALL_SIZES);
	CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
}

void
mc_job_forget(void)
{
	jobs_valid = false;
	nlaunches = 0;
	/* Without the extension there is no step that would move it on. */
	next_step = DT_NOEND;
}

/* When a job is due after a time, DT_NOEND if never. */
static TimestampTz
due_after(const Job *job, TimestampTz after)
{
	TimestampTz next;

	return mc_schedule_next(&job->schedule, after, job->zone, &next) ?
		next : DT_NOEND;
}

static void
set_next(Job *job, TimestampTz now)
{
	Datum		values[5];

	job->next = due_after(job, now);
	values[0] = CStringGetTextDatum(job->name);
	values[1] = CStringGetTextDatum(job->schedule_text);
	values[2] = CStringGetTextDatum(job->zone_name);
	values[3] = TimestampTzGetDatum(job->next);
	values[4] = TimestampTzGetDatum(now);
	mc_plan_execute(&store_state, values,
					TIMESTAMP_IS_NOEND(job->next) ? "   n " : NULL);
}

/*
 * The table may be written without meritum_schedule; one bad row must not
 * stop the others.
 */
static bool
parse_job(Job *job)
{
	McScheduleError error;

	job->zone = pg_tzset(job->zone_name);
	if (job->zone == NULL || !pg_tz_acceptable(job->zone))
	{
		ereport(WARNING,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("job \"%s\" is not scheduled: time zone \"%s\" not recognized",
						job->name, job->zone_name)));
		return false;
	}
	if (!mc_schedule_parse(job->schedule_text, &job->schedule, &error))
	{
		ereport(WARNING,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("job \"%s\" is not scheduled: invalid schedule \"%s\"",
						job->name, job->schedule_text),
				 errdetail_internal("%s", error.reason)));
		return false;
	}
	return true;
}

/*
 * Whether the time that was stored for a job still holds.  One that has passed
 * is a missed run.  One that is later than what the schedule gives now was
 * computed before the clock was set back.  Then the job waits until the clock
 * shows again what it showed, lest it should run twice; but no longer than
 * its own period or a day, and after a larger correction not at all.
 */
static bool
still_holds(TimestampTz stored, TimestampTz computed_at,
			TimestampTz next, TimestampTz now)
{
	TimestampTz setback = computed_at - now;

	if (stored <= next)
		return true;
	return setback > 0 &&
		setback <= Max(SMALL_SETBACK,
					   Min(stored - computed_at, USECS_PER_DAY));
}

static void
read_jobs(TimestampTz now)
{
	Datum		zone = CStringGetTextDatum(mc_zone_name());
	uint64		n = mc_plan_execute(&select_jobs, &zone, NULL);
	TimestampTz *stored = palloc(n * sizeof(TimestampTz));
	TimestampTz *computed_at = palloc(n * sizeof(TimestampTz));
	bool	   *known = palloc(n * sizeof(bool));
	MemoryContext previous;
	ListCell   *lc;
	uint64		i;

	MemoryContextReset(job_context);
	jobs = NIL;
	job_relation = mc_cache_relation("job");

	previous = MemoryContextSwitchTo(job_context);
	for (i = 0; i < n; i++)
	{
		Job		   *job = palloc0(sizeof(Job));
		bool		isnull;

		job->name = TextDatumGetCString(mc_plan_value(i, 1, &isnull));
		job->schedule_text = TextDatumGetCString(mc_plan_value(i, 2, &isnull));
		job->zone_name = TextDatumGetCString(mc_plan_value(i, 3, &isnull));
		stored[i] = DatumGetTimestampTz(mc_plan_value(i, 4, &isnull));
		known[i] = !isnull;
		computed_at[i] = DatumGetTimestampTz(mc_plan_value(i, 5, &isnull));
		if (isnull)
			computed_at[i] = now;
		jobs = lappend(jobs, job);
	}
	MemoryContextSwitchTo(previous);

	foreach(lc, jobs)
	{
		Job		   *job = lfirst(lc);

		i = foreach_current_index(lc);
		job->next = DT_NOEND;
		if (!parse_job(job))
			continue;
		if (known[i] && still_holds(stored[i], computed_at[i],
									due_after(job, now), now))
			job->next = stored[i];
		else
			set_next(job, now);
	}
	mc_plan_execute(&delete_states, NULL, NULL);
}

static bool
has_stopped(Process *process)
{
	pid_t		pid;

	return GetBackgroundWorkerPid(process->handle, &pid) == BGWH_STOPPED;
}

/*
 * Forget the processes that have ended.  A run that one should have taken and
 * did not will never be taken; one that it left running is found by the sweep.
 * A process outlives its extension: when that is created again, runs are
 * numbered anew, in another table.
 */
static void
reap(void)
{
	int			i = 0;

	while (i < nprocesses)
	{
		if (!has_stopped(&processes[i]))
		{
			i++;
			continue;
		}
		if (processes[i].request.relation == mc_cache_relation("job_run"))
			mc_run_refuse(processes[i].request.run, "failed",
						  "the process of the job could not begin; see the server log");
		pfree(processes[i].handle);
		processes[i] = processes[--nprocesses];
	}
}

static bool
has_process(int64 run)
{
	Oid			relation = mc_cache_relation("job_run");
	int			i;

	for (i = 0; i < nprocesses; i++)
		if (processes[i].request.run == run &&
			processes[i].request.relation == relation)
			return true;
	return false;
}

/*
 * Runs that go on without a process of ours: those that an earlier worker
 * started, and batches that were called directly.
 */
static int
count_foreign_runs(void)
{
	Datum		runs[MAX_PROCESSES];
	Datum		value;
	bool		isnull;
	int			i;

	for (i = 0; i < nprocesses; i++)
		runs[i] = Int64GetDatum(processes[i].request.run);
	value = PointerGetDatum(construct_array(runs, nprocesses, INT8OID,
											sizeof(int64), FLOAT8PASSBYVAL,
											TYPALIGN_DOUBLE));
	mc_plan_execute(&count_running, &value, NULL);
	return DatumGetInt32(mc_plan_value(0, 1, &isnull));
}

/*
 * Why a queued run cannot be executed at all, NULL if it can.
 */
static const char *
find_obstacle(bool no_job, bool no_role, bool can_login, bool wanted)
{
	if (no_job)
		return "the job does not exist";
	if (!wanted)
		return "the job is disabled";
	if (no_role)
		return "the owner of the job does not exist";
	if (!can_login)
		return "the owner of the job is not permitted to log in";
	return NULL;
}

/*
 * Choose the queued runs to start.  Returns whether there is something to look
 * at again soon: a run that was left waiting, or one whose end will not wake
 * us.
 */
static bool
dispatch(void)
{
	int			foreign = count_foreign_runs();
	int			room = Min(mc_max_parallel_jobs, MAX_PROCESSES) -
		nprocesses - foreign;
	uint64		n = mc_plan_execute(&select_queue, NULL, NULL);
	SPITupleTable *queue = SPI_tuptable;
	bool		again = foreign > 0;
	uint64		i;

	nlaunches = 0;
	for (i = 0; i < n; i++)
	{
		HeapTuple	row = queue->vals[i];
		bool		isnull;
		bool		no_job;
		bool		no_role;
		int64		run;
		bool		can_login;
		bool		wanted;
		bool		busy;
		Oid			owner;
		const char *obstacle;

		run = DatumGetInt64(SPI_getbinval(row, queue->tupdesc, 1, &isnull));
		if (has_process(run))
			continue;
		owner = DatumGetObjectId(SPI_getbinval(row, queue->tupdesc, 3, &no_job));
		can_login = DatumGetBool(SPI_getbinval(row, queue->tupdesc, 4, &no_role));
		wanted = DatumGetBool(SPI_getbinval(row, queue->tupdesc, 5, &isnull));
		busy = DatumGetBool(SPI_getbinval(row, queue->tupdesc, 6, &isnull));
		obstacle = find_obstacle(no_job, no_role, can_login, wanted);
		if (obstacle != NULL)
			mc_run_refuse(run, wanted || no_job ? "failed" : "aborted", obstacle);
		else if (busy || nlaunches >= room)
			again = true;
		else
		{
			Process    *process = &launches[nlaunches++];

			process->request.run = run;
			process->request.relation = mc_cache_relation("job_run");
			process->request.database = MyDatabaseId;
			process->request.owner = owner;
			strlcpy(process->name, SPI_getvalue(row, queue->tupdesc, 2),
					sizeof(process->name));
		}
	}
	return again;
}

/*
 * What is kept here was computed by a clock that has been set back since.
 */
static void
notice_setback(TimestampTz now)
{
	if (now < last_look)
	{
		jobs_valid = false;
		next_prune = next_warning = now;
		if (last_look - now >= USECS_PER_MINUTE)
			ereport(LOG,
					(errmsg("the clock was set back by " INT64_FORMAT " seconds: looking at all schedules again",
							(last_look - now) / USECS_PER_SEC)));
	}
	last_look = now;
}

bool
mc_job_wanted(TimestampTz now)
{
	int			i;

	notice_setback(now);
	if (!jobs_valid || now >= next_step)
		return true;
	for (i = 0; i < nprocesses; i++)
		if (has_stopped(&processes[i]))
			return true;
	return false;
}

TimestampTz
mc_job_next_step(void)
{
	return next_step;
}

void
mc_job_step(TimestampTz now)
{
	ListCell   *lc;

	if (!jobs_valid)
	{
		/* Before reading, so that a change during it is not lost. */
		jobs_valid = true;
		read_jobs(now);
	}
	reap();
	mc_run_sweep();

	next_step = DT_NOEND;
	foreach(lc, jobs)
	{
		Job		   *job = lfirst(lc);

		if (job->next <= now)
		{
			(void) mc_run_queue(job->name, job->next);
			set_next(job, now);
		}
		next_step = Min(next_step, job->next);
	}
	if (dispatch())
		next_step = Min(next_step,
						TimestampTzPlusMilliseconds(now, QUEUE_PAUSE_MS));
	if (now >= next_prune)
	{
		mc_run_prune();
		next_prune = TimestampTzPlusMilliseconds(now, PRUNE_INTERVAL_MS);
	}
}

/*
 * Register the process of a run.  Returns false if the server has no room for
 * one.
 */
static bool
start_process(Process *process)
{
	BackgroundWorker worker = {0};
	MemoryContext previous;
	bool		started;

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	strlcpy(worker.bgw_library_name, "meritum_cache", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "mc_job_main", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "meritum_cache job", BGW_MAXLEN);
	snprintf(worker.bgw_name, BGW_MAXLEN, "meritum_cache job %s",
			 process->name);
	StaticAssertStmt(sizeof(McJobRequest) <= BGW_EXTRALEN,
					 "the request of a job must fit into bgw_extra");
	memcpy(worker.bgw_extra, &process->request, sizeof(McJobRequest));

	previous = MemoryContextSwitchTo(TopMemoryContext);
	started = RegisterDynamicBackgroundWorker(&worker, &process->handle);
	MemoryContextSwitchTo(previous);
	return started;
}

void
mc_job_launch(void)
{
	TimestampTz now = GetCurrentTimestamp();
	int			i;

	for (i = 0; i < nlaunches; i++)
	{
		if (start_process(&launches[i]))
		{
			processes[nprocesses++] = launches[i];
			continue;
		}

		/* It stays queued. */
		next_step = Min(next_step,
						TimestampTzPlusMilliseconds(now, QUEUE_PAUSE_MS));
		if (now < next_warning)
			continue;
		next_warning = TimestampTzPlusMilliseconds(now, WARNING_INTERVAL_MS);
		ereport(WARNING,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("no process for job \"%s\"", launches[i].name),
				 errdetail("It stays queued and begins as soon as a process is free."),
				 errhint("Increase max_worker_processes.")));
	}
	nlaunches = 0;
}
