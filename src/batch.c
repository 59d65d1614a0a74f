/*
 * batch.c
 *		The nightly batch.
 *
 * The process that it is called in leads: it finds the providers, keeps the
 * row of job_run, and does its share beside its helpers, if there are any.
 * Providers whose lock somebody held, and those that a helper left undone,
 * are done by the leader in the end, each in a transaction of its own.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/uuid.h"
#include "utils/wait_event.h"

#include "args.h"
#include "drift.h"
#include "guc.h"
#include "owner.h"
#include "procedure.h"
#include "provider.h"
#include "query.h"
#include "refresh.h"
#include "run.h"
#include "share.h"
#include "team.h"
#include "wake.h"
#include "zone.h"

/* Name of a run that no job started. */
#define BATCH_NAME "nightly_refresh"

/* Beyond this many bytes the errors are reported at the end only. */
#define REPORTED_ERRORS 65536

typedef struct Leader
{
	MemoryContext context;		/* lives as long as the batch */
	int64		run;			/* row of job_run */
	bool		direct;			/* called, not started by a job */
	DateADT		as_of;
	int			size;
	McBatch    *batch;
	bool	   *done;			/* for each provider of the batch */
	McCounts	total;
	StringInfoData errors;		/* members of a JSON array */
} Leader;

static int
compare_providers(const ListCell *a, const ListCell *b)
{
	return mc_provider_compare(lfirst(a), lfirst(b));
}

/*
 * Find what there is to do, and continue the run that was cut off, if there
 * is one.  The batch's lock must be held.
 */
static void
start_batch(Leader *leader)
{
	McBracket	bracket;
	int64		continued;
	List	   *providers;
	ListCell   *lc;
	McBatch    *batch;

	mc_owner_enter(&bracket, true);

	/* Now that no batch runs, one that still says so is marked. */
	mc_run_sweep();
	if (leader->direct)
		leader->run = mc_run_insert(BATCH_NAME);
	continued = mc_run_start_batch(leader->run, leader->as_of);

	MemoryContextSwitchTo(leader->context);
	providers = mc_query_active_providers(leader->as_of);
	/* the query has left another one */
	MemoryContextSwitchTo(leader->context);
	/* a transaction locks several, and locks have one order everywhere */
	list_sort(providers, compare_providers);

	batch = mc_batch_create(list_length(providers));
	batch->as_of = leader->as_of;
	batch->run = continued;
	batch->resumes = continued != leader->run;
	batch->size = leader->size;
	batch->delay = mc_batch_delay;
	foreach(lc, providers)
		batch->provider[foreach_current_index(lc)].id = *(pg_uuid_t *) lfirst(lc);
	list_free_deep(providers);
	leader->batch = batch;
	leader->done = palloc0(Max(batch->nproviders, 1));

	mc_owner_leave(&bracket);
	MemoryContextSwitchTo(leader->context);
}

/*
 * Find out whose facts must be compared with their claims.
 */
static void
find_drift(McBatch *batch)
{
	McDrift    *drift = mc_drift_find();
	uint32		i;

	for (i = 0; i < batch->nproviders; i++)
		batch->provider[i].recheck = mc_drift_has(drift, &batch->provider[i].id);
	mc_drift_free(drift);
}

/*
 * The batch of what is not done yet.
 */
static McBatch *
remaining_batch(const Leader *leader)
{
	const McBatch *batch = leader->batch;
	McBatch    *rest = mc_batch_create(batch->nproviders);
	uint32		n = 0;
	uint32		i;

	rest->as_of = batch->as_of;
	rest->run = batch->run;
	rest->resumes = batch->resumes;
	rest->size = 1;
	rest->delay = batch->delay;
	for (i = 0; i < batch->nproviders; i++)
		if (!leader->done[i])
			rest->provider[n++] = batch->provider[i];
	rest->nproviders = n;
	return rest;
}

static void
add_counts(Leader *leader, const McCounts *counts, const char *errors,
		   uint32 errors_length)
{
	leader->total.skipped += counts->skipped;
	leader->total.processed += counts->processed;
	leader->total.entries += counts->entries;
	leader->total.failed += counts->failed;
	if (leader->errors.len > 0 && errors_length > 0)
		appendStringInfoString(&leader->errors, ", ");
	appendBinaryStringInfo(&leader->errors, errors, errors_length);
}

static void
mark_taken(Leader *leader, const uint32 *taken, uint32 ntaken)
{
	uint32		i;

	for (i = 0; i < ntaken; i++)
		leader->done[taken[i]] = true;
}

static void
hear_helper(const McReport *report, const uint32 *taken, const char *errors,
			void *arg)
{
	Leader	   *leader = arg;

	mark_taken(leader, taken, report->ntaken);
	add_counts(leader, &report->counts, errors, report->errors_length);
}

static char *
errors_array(const Leader *leader)
{
	return psprintf("[%s]", leader->errors.data);
}

/*
 * Report the progress and commit it with the work.
 */
static void
commit_progress(Leader *leader, bool last)
{
	McBracket	bracket;
	bool		show_errors = last || leader->errors.len <= REPORTED_ERRORS;

	mc_owner_enter(&bracket, true);
	mc_run_report_batch(leader->run,
						leader->total.skipped + leader->total.processed,
						leader->batch->nproviders, leader->total.entries,
						show_errors ? errors_array(leader) : "[]");
	if (last && leader->direct)
		mc_run_finish(leader->run, "succeeded", NULL);
	mc_owner_leave(&bracket);
	SPI_commit();
	MemoryContextSwitchTo(leader->context);
}

/*
 * Do a share of the batch, whether of all providers, when others have one
 * too, or of the remaining ones.
 */
static void
do_share(Leader *leader, McBatch *batch, bool remaining)
{
	McShare		share;
	bool		more;

	mc_share_init(&share, batch);
	share.waits = remaining;
	do
	{
		more = mc_share_work(&share);
		if (!remaining)
			mark_taken(leader, (uint32 *) share.taken.data,
					   share.taken.len / sizeof(uint32));
		add_counts(leader, &share.counts, share.errors.data, share.errors.len);
		(void) mc_team_hear(hear_helper, leader);
		commit_progress(leader, false);
		mc_share_reset(&share);
		if (more)
			mc_share_pause(&share);
	} while (more);
}

static void
wait_for_helpers(Leader *leader)
{
	for (;;)
	{
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (mc_team_hear(hear_helper, leader))
		{
			/* which may reset the latch, too */
			commit_progress(leader, false);
			continue;
		}
		if (!mc_team_at_work())
			break;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH, 0,
						 PG_WAIT_EXTENSION);
	}
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
run_batch(Leader *leader)
{
	McBatch    *rest;
	int			nprocesses;

	start_batch(leader);
	commit_progress(leader, false);
	if (leader->direct)
		wake_worker();
	find_drift(leader->batch);
	commit_progress(leader, false);

	nprocesses = Min(mc_batch_workers, leader->batch->nproviders);
	do_share(leader, mc_team_start(leader->batch, nprocesses - 1), false);
	wait_for_helpers(leader);
	mc_team_stop();

	rest = remaining_batch(leader);
	if (rest->nproviders > 0)
		do_share(leader, rest, true);
	commit_progress(leader, true);
}

/*
 * Both locks are the session's, so that they last over the commits; an error
 * does not release them by itself.
 */
static void
run_batch_locked(Leader *leader)
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
		run_batch(leader);
	}
	PG_FINALLY();
	{
		mc_team_stop();
		mc_run_unlock_batch();
		if (leader->direct && leader->run != 0)
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
	Leader		leader = {0};
	Datum		values[3];

	mc_procedure_begin(&procedure, fcinfo, "meritum_refresh_all_providers");
	leader.size = PG_ARGISNULL(0) ? mc_batch_size : PG_GETARG_INT32(0);
	if (leader.size < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("batch_size must be at least 1")));
	leader.as_of = mc_arg_as_of(fcinfo, 1);

	leader.context = AllocSetContextCreate(CurrentMemoryContext,
										   "meritum_cache batch",
										   ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(leader.context);
	initStringInfo(&leader.errors);
	leader.run = mc_run_current();
	leader.direct = leader.run == 0;

	run_batch_locked(&leader);

	values[0] = Int64GetDatum(leader.total.processed);
	values[1] = Int64GetDatum(leader.total.entries);
	values[2] = DirectFunctionCall1(jsonb_in,
									CStringGetDatum(errors_array(&leader)));
	PG_RETURN_DATUM(mc_procedure_end(&procedure, values));
}
