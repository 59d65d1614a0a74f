/*
 * batch.c
 *		The nightly batch.
 *
 * Each transaction takes the locks of its providers in ascending order, as
 * every other transaction does, and holds them until it commits.  A claim's
 * commit waits for such a lock, so the batch commits as soon as somebody
 * waits for one of its locks, and before it waits for one itself.  What is
 * allocated for one provider goes with it, so that memory does not grow with
 * their number.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"
#include "utils/wait_event.h"

#include "args.h"
#include "guc.h"
#include "note.h"
#include "owner.h"
#include "plan.h"
#include "procedure.h"
#include "provider.h"
#include "refresh.h"
#include "run.h"
#include "query.h"
#include "source.h"
#include "wake.h"
#include "zone.h"

/* Name of a run that no job started. */
#define BATCH_NAME "nightly_refresh"

/* Beyond this many bytes the errors are reported at the end only. */
#define REPORTED_ERRORS 65536

typedef struct Batch
{
	MemoryContext context;		/* lives as long as the batch */
	MemoryContext scratch;		/* reset with each provider */
	DateADT		as_of;
	int			size;
	int64		run;			/* row of job_run */
	int64		continued;		/* the run that it continues, or itself */
	bool		direct;			/* called, not started by a job */
	List	   *providers;
	List	   *held;			/* those locked by this transaction */
	int64		skipped;		/* done by the run that this one continues */
	int64		processed;
	int64		entries;
	int64		nerrors;
	StringInfoData errors;		/* members of a JSON array */
} Batch;

static McPlan is_done = {
	"SELECT FROM meritum_cache.provider_state"
	" WHERE provider_id = $1 AND batch_run = $2",
	"uuid,int8", SPI_OK_SELECT
};

static McPlan mark_done = {
	"UPDATE meritum_cache.provider_state SET batch_run = $2"
	" WHERE provider_id = $1",
	"uuid,int8", SPI_OK_UPDATE
};

static int
compare_providers(const ListCell *a, const ListCell *b)
{
	return mc_provider_compare(lfirst(a), lfirst(b));
}

/*
 * Take the batch's lock, find what it has to do, and continue the run that
 * was cut off, if there is one.
 */
static void
start_batch(Batch *batch)
{
	McBracket	bracket;
	MemoryContext previous;

	mc_owner_enter(&bracket, true);

	/* Now that no batch runs, one that still says so is marked. */
	mc_run_sweep();
	if (batch->direct)
		batch->run = mc_run_insert(BATCH_NAME);
	batch->continued = mc_run_start_batch(batch->run, batch->as_of);

	previous = MemoryContextSwitchTo(batch->context);
	batch->providers = mc_query_active_providers(batch->as_of);
	MemoryContextSwitchTo(previous);

	/* a transaction locks several, and locks have one order everywhere */
	list_sort(batch->providers, compare_providers);

	mc_owner_leave(&bracket);
}

static bool
provider_is_done(const Batch *batch, pg_uuid_t *provider)
{
	McBracket	bracket;
	Datum		values[2];
	bool		done;

	if (batch->continued == batch->run)
		return false;
	mc_owner_enter(&bracket, true);
	values[0] = UUIDPGetDatum(provider);
	values[1] = Int64GetDatum(batch->continued);
	done = mc_plan_execute(&is_done, values, NULL) > 0;
	mc_owner_leave(&bracket);
	return done;
}

static int64
refresh_provider(const Batch *batch, pg_uuid_t *provider)
{
	McBracket	bracket;
	Datum		values[2];
	int64		unchanged;
	int64		written;

	written = mc_refresh_full(provider, batch->as_of, &unchanged);

	/* Under the provider's lock, which the refresh took. */
	mc_owner_enter(&bracket, true);
	values[0] = UUIDPGetDatum(provider);
	values[1] = Int64GetDatum(batch->continued);
	mc_plan_execute(&mark_done, values, NULL);
	mc_owner_leave(&bracket);
	return written;
}

static void
record_error(Batch *batch, pg_uuid_t *provider, const ErrorData *error)
{
	char	   *id = DatumGetCString(DirectFunctionCall1(uuid_out,
														 UUIDPGetDatum(provider)));

	if (batch->nerrors++ > 0)
		appendStringInfoString(&batch->errors, ", ");
	appendStringInfo(&batch->errors,
					 "{\"providerId\": \"%s\", \"sqlstate\": \"%s\", \"message\": ",
					 id, unpack_sql_state(error->sqlerrcode));
	escape_json(&batch->errors, mc_error_message(error));
	appendStringInfoChar(&batch->errors, '}');
}

/*
 * Refresh one provider in a subtransaction, so that its error undoes only
 * what was done for it.
 */
static void
process_provider(Batch *batch, pg_uuid_t *provider)
{
	ResourceOwner owner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(batch->scratch);
	PG_TRY();
	{
		int64		written = refresh_provider(batch, provider);

		ReleaseCurrentSubTransaction();
		batch->entries += written;
		batch->processed++;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(batch->scratch);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();

		/* Someone wants the batch to stop, or its time is over. */
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
			ReThrowError(error);
		MemoryContextSwitchTo(batch->scratch);
		record_error(batch, provider, error);
	}
	PG_END_TRY();
	CurrentResourceOwner = owner;
	MemoryContextSwitchTo(batch->context);
	MemoryContextReset(batch->scratch);
}

static char *
errors_array(const Batch *batch)
{
	return psprintf("[%s]", batch->errors.data);
}

/*
 * Report the progress and commit it with the work.
 */
static void
commit_batch(Batch *batch, bool last)
{
	McBracket	bracket;
	bool		show_errors = last || batch->errors.len <= REPORTED_ERRORS;

	mc_owner_enter(&bracket, true);
	mc_run_report_batch(batch->run, batch->skipped + batch->processed,
						list_length(batch->providers), batch->entries,
						show_errors ? errors_array(batch) : "[]");
	if (last && batch->direct)
		mc_run_finish(batch->run, "succeeded", NULL);
	mc_owner_leave(&bracket);
	SPI_commit();
	MemoryContextSwitchTo(batch->context);
	list_free(batch->held);
	batch->held = NIL;
}

static bool
somebody_waits(const Batch *batch)
{
	ListCell   *lc;

	foreach(lc, batch->held)
		if (mc_provider_has_waiters(lfirst(lc)))
			return true;
	return false;
}

/*
 * Let the worker see that a run which it did not start begins or ends.
 */
static void
wake_worker(void)
{
	mc_wake_jobs_changed();
	mc_wake_worker();
}

static void
pause_between_batches(void)
{
	TimestampTz end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												  mc_batch_delay);

	for (;;)
	{
		long		ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
														 end);

		CHECK_FOR_INTERRUPTS();
		if (ms <= 0)
			return;
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 ms, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}

static void
run_batch(Batch *batch)
{
	ListCell   *lc;

	start_batch(batch);
	commit_batch(batch, false);
	if (batch->direct)
		wake_worker();
	foreach(lc, batch->providers)
	{
		pg_uuid_t  *provider = lfirst(lc);
		bool		locked;

		CHECK_FOR_INTERRUPTS();
		if (provider_is_done(batch, provider))
		{
			batch->skipped++;
			continue;
		}

		/* A lock that must be waited for is held alone. */
		locked = mc_provider_try_lock(provider);
		if (locked)
			batch->held = lappend(batch->held, provider);
		else if (batch->held != NIL)
			commit_batch(batch, false);
		process_provider(batch, provider);
		if (!locked || list_length(batch->held) >= batch->size ||
			somebody_waits(batch))
		{
			commit_batch(batch, false);
			pause_between_batches();
		}
	}
	commit_batch(batch, true);
}

/*
 * Both locks are the session's, so that they last over the commits; an error
 * does not release them by itself.
 */
static void
run_batch_locked(Batch *batch)
{
	McBracket	bracket;
	bool		locked;

	mc_owner_enter(&bracket, true);
	mc_refresh_require();
	locked = mc_run_lock_batch();
	mc_owner_leave(&bracket);
	if (!locked)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("a batch is running already"),
				 errhint("Its progress is in meritum_cache.job_run.")));

	PG_TRY();
	{
		run_batch(batch);
	}
	PG_FINALLY();
	{
		mc_run_unlock_batch();
		if (batch->direct && batch->run != 0)
			mc_run_unlock();
		/* A job may wait for the end of this run. */
		wake_worker();
	}
	PG_END_TRY();
}

PG_FUNCTION_INFO_V1(meritum_refresh_all_providers);

Datum
meritum_refresh_all_providers(PG_FUNCTION_ARGS)
{
	McProcedure procedure;
	Batch		batch = {0};
	Datum		values[3];

	mc_procedure_begin(&procedure, fcinfo, "meritum_refresh_all_providers");
	batch.size = PG_ARGISNULL(0) ? mc_batch_size : PG_GETARG_INT32(0);
	if (batch.size < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("batch_size must be at least 1")));
	batch.as_of = mc_arg_as_of(fcinfo, 1);

	batch.context = AllocSetContextCreate(CurrentMemoryContext,
										  "meritum_cache batch",
										  ALLOCSET_DEFAULT_SIZES);
	batch.scratch = AllocSetContextCreate(batch.context,
										  "meritum_cache batch provider",
										  ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(batch.context);
	initStringInfo(&batch.errors);
	batch.run = mc_run_current();
	batch.direct = batch.run == 0;

	run_batch_locked(&batch);

	values[0] = Int64GetDatum(batch.processed);
	values[1] = Int64GetDatum(batch.entries);
	values[2] = DirectFunctionCall1(jsonb_in,
									CStringGetDatum(errors_array(&batch)));
	PG_RETURN_DATUM(mc_procedure_end(&procedure, values));
}
