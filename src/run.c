/*
 * run.c
 *		Runs of jobs: rows of meritum_cache.job_run.
 *
 * A run is queued, then running, then succeeded, failed or aborted.  That its
 * process is alive shows in a lock which the process holds, not in its pid,
 * which may be another's by now.  The lock is a private one, an object of the
 * table, which no one else can take.
 *
 * An error of the command ends the transaction, and with it the lock, though
 * it is the session's.  Until the run is finished a sweep may then take it for
 * cut off: so the process of the run has the last word.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "guc.h"
#include "owner.h"
#include "plan.h"
#include "run.h"

/* Runs are numbered from 1. */
#define BATCH_LOCK 0

static McPlan queue_scheduled = {
	"INSERT INTO meritum_cache.job_run (job_name, scheduled_at, status)"
	" SELECT $1, $2, 'queued'"
	"  WHERE NOT EXISTS (SELECT FROM meritum_cache.job_run r"
	"                     WHERE r.job_name = $1 AND r.status = 'queued'"
	"                       AND r.scheduled_at IS NOT NULL)"
	" RETURNING run_id",
	"text,timestamptz", SPI_OK_INSERT_RETURNING
};

static McPlan queue_requested = {
	"INSERT INTO meritum_cache.job_run (job_name, status)"
	" VALUES ($1, 'queued') RETURNING run_id",
	"text", SPI_OK_INSERT_RETURNING
};

static McPlan insert_running = {
	"INSERT INTO meritum_cache.job_run (job_name, status, started_at, pid)"
	" VALUES ($1, 'running', clock_timestamp(), $2) RETURNING run_id",
	"text,int4", SPI_OK_INSERT_RETURNING
};

static McPlan begin_queued = {
	"UPDATE meritum_cache.job_run"
	"   SET status = 'running', started_at = clock_timestamp(), pid = $2"
	" WHERE run_id = $1 AND status = 'queued'",
	"int8,int4", SPI_OK_UPDATE
};

static McPlan finish = {
	"UPDATE meritum_cache.job_run"
	"   SET status = $2, finished_at = clock_timestamp(), message = $3"
	" WHERE run_id = $1 AND status IN ('running', 'aborted')",
	"int8,text,text", SPI_OK_UPDATE
};

static McPlan abandon = {
	"UPDATE meritum_cache.job_run"
	"   SET status = $2, finished_at = clock_timestamp(), message = $3"
	" WHERE run_id = $1 AND status = 'running'",
	"int8,text,text", SPI_OK_UPDATE
};

static McPlan refuse = {
	"UPDATE meritum_cache.job_run"
	"   SET status = $2, finished_at = clock_timestamp(), message = $3"
	" WHERE run_id = $1 AND status = 'queued'",
	"int8,text,text", SPI_OK_UPDATE
};

static McPlan select_running = {
	"SELECT run_id FROM meritum_cache.job_run"
	" WHERE status = 'running'",
	"", SPI_OK_SELECT
};

static McPlan prune = {
	"DELETE FROM meritum_cache.job_run"
	" WHERE queued_at < clock_timestamp() - make_interval(days => $1)"
	"   AND status NOT IN ('queued', 'running')",
	"int4", SPI_OK_DELETE
};

/*
 * The latest batch of the day.  If it was cut off it is continued, but not
 * for longer than a day, when what it did is out of date.
 */
static McPlan select_unfinished = {
	"SELECT batch_run, started_at > clock_timestamp() - interval '24 hours'"
	"                  AND status IN ('failed', 'aborted')"
	"  FROM meritum_cache.job_run"
	" WHERE as_of = $2 AND batch_run IS NOT NULL AND run_id <> $1"
	" ORDER BY run_id DESC LIMIT 1",
	"int8,date", SPI_OK_SELECT
};

static McPlan start_batch = {
	"UPDATE meritum_cache.job_run"
	"   SET as_of = $2, batch_run = $3"
	" WHERE run_id = $1",
	"int8,date,int8", SPI_OK_UPDATE
};

static McPlan report_batch = {
	"UPDATE meritum_cache.job_run"
	"   SET providers_done = $2, providers_total = $3, entries = $4,"
	"       errors = $5::jsonb"
	" WHERE run_id = $1",
	"int8,int8,int8,int8,text", SPI_OK_UPDATE
};

/* What this session holds: kept, since releasing must work after an error. */
static LOCKTAG run_tag;
static LOCKTAG batch_tag;

static int64 current_run = 0;

static LockAcquireResult
acquire(LOCKTAG *tag, int64 run, bool wait)
{
	SET_LOCKTAG_OBJECT(*tag, MyDatabaseId, mc_cache_relation("job_run"),
					   (uint32) run, (uint16) (run >> 32));
	return LockAcquire(tag, ExclusiveLock, true, !wait);
}

static void
lock_run(int64 run)
{
	/* Waits at most for a sweep that tries the lock. */
	(void) acquire(&run_tag, run, true);
}

void
mc_run_unlock(void)
{
	LockRelease(&run_tag, ExclusiveLock, true);
}

bool
mc_run_lock_batch(void)
{
	LockAcquireResult result = acquire(&batch_tag, BATCH_LOCK, false);

	if (result == LOCKACQUIRE_ALREADY_HELD)
		LockRelease(&batch_tag, ExclusiveLock, true);
	return result == LOCKACQUIRE_OK;
}

void
mc_run_unlock_batch(void)
{
	LockRelease(&batch_tag, ExclusiveLock, true);
}

/* Whether nobody, this session included, executes the run. */
static bool
is_cut_off(int64 run)
{
	LOCKTAG		tag;
	LockAcquireResult result = acquire(&tag, run, false);

	if (result != LOCKACQUIRE_NOT_AVAIL)
		LockRelease(&tag, ExclusiveLock, true);
	return result == LOCKACQUIRE_OK;
}

/* The number that an INSERT ... RETURNING gave. */
static int64
returned_run(void)
{
	bool		isnull;

	return DatumGetInt64(mc_plan_value(0, 1, &isnull));
}

int64
mc_run_queue(const char *job, TimestampTz scheduled)
{
	Datum		values[2];

	values[0] = CStringGetTextDatum(job);
	values[1] = TimestampTzGetDatum(scheduled);
	if (TIMESTAMP_IS_NOBEGIN(scheduled))
		mc_plan_execute(&queue_requested, values, NULL);
	else if (mc_plan_execute(&queue_scheduled, values, NULL) == 0)
		return 0;
	return returned_run();
}

bool
mc_run_begin(int64 run)
{
	Datum		values[2];

	/* The lock first: a running run without it counts as cut off. */
	lock_run(run);
	values[0] = Int64GetDatum(run);
	values[1] = Int32GetDatum(MyProcPid);
	if (mc_plan_execute(&begin_queued, values, NULL) == 0)
		return false;
	current_run = run;
	return true;
}

int64
mc_run_current(void)
{
	return current_run;
}

int64
mc_run_insert(const char *job)
{
	Datum		values[2];
	int64		run;

	values[0] = CStringGetTextDatum(job);
	values[1] = Int32GetDatum(MyProcPid);
	mc_plan_execute(&insert_running, values, NULL);
	run = returned_run();
	/* Nobody sees the row before this transaction commits. */
	lock_run(run);
	return run;
}

static void
end_run(McPlan *plan, int64 run, const char *status, const char *message)
{
	Datum		values[3];
	char		nulls[3] = {' ', ' ', ' '};

	values[0] = Int64GetDatum(run);
	values[1] = CStringGetTextDatum(status);
	if (message != NULL)
		values[2] = CStringGetTextDatum(message);
	else
		nulls[2] = 'n';
	mc_plan_execute(plan, values, nulls);
}

void
mc_run_finish(int64 run, const char *status, const char *message)
{
	end_run(&finish, run, status, message);
}

void
mc_run_refuse(int64 run, const char *status, const char *message)
{
	end_run(&refuse, run, status, message);
}

void
mc_run_sweep(void)
{
	uint64		n = mc_plan_execute(&select_running, NULL, NULL);
	int64	   *runs = palloc(n * sizeof(int64));
	uint64		i;

	for (i = 0; i < n; i++)
	{
		bool		isnull;

		runs[i] = DatumGetInt64(mc_plan_value(i, 1, &isnull));
	}
	for (i = 0; i < n; i++)
	{
		if (!is_cut_off(runs[i]))
			continue;

		/*
		 * It may have ended since the snapshot; the update would then find
		 * the newer row and leave it as it is.
		 */
		end_run(&abandon, runs[i], "aborted",
				"the process of the run ended before it did; see the server log");
	}
	pfree(runs);
}

void
mc_run_prune(void)
{
	Datum		values[1];

	values[0] = Int32GetDatum(mc_job_run_retention);
	mc_plan_execute(&prune, values, NULL);
}

int64
mc_run_start_batch(int64 run, DateADT as_of)
{
	int64		continued = run;
	Datum		values[3];

	values[0] = Int64GetDatum(run);
	values[1] = DateADTGetDatum(as_of);
	if (mc_plan_execute(&select_unfinished, values, NULL) > 0)
	{
		bool		isnull;

		if (DatumGetBool(mc_plan_value(0, 2, &isnull)) && !isnull)
			continued = DatumGetInt64(mc_plan_value(0, 1, &isnull));
	}

	values[2] = Int64GetDatum(continued);
	mc_plan_execute(&start_batch, values, NULL);
	return continued;
}

void
mc_run_report_batch(int64 run, int64 done, int64 total, int64 entries,
					const char *errors)
{
	Datum		values[5];

	values[0] = Int64GetDatum(run);
	values[1] = Int64GetDatum(done);
	values[2] = Int64GetDatum(total);
	values[3] = Int64GetDatum(entries);
	values[4] = CStringGetTextDatum(errors);
	mc_plan_execute(&report_batch, values, NULL);
}
