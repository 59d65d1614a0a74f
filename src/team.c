/*
 * team.c
 *		The processes that help with the nightly batch.
 *
 * The process that runs the batch leads: it copies the batch into dynamic
 * shared memory and starts background workers, which take providers from
 * there as it does itself, and report through a queue each after every commit.
 * A helper that ends early, for whatever reason, loses only what it had not
 * committed and reported; the leader sees that its queue is detached.  When
 * the leader detaches from the memory, at the latest by its exit, the helpers
 * are terminated; only then may one still be at work when another batch
 * begins, which the locks of the providers make harmless.
 *
 * Helpers run as the leader's role and with those of its settings that
 * matter to a refresh.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "storage/shm_mq.h"
#include "storage/shm_toc.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "note.h"
#include "team.h"
#include "worker.h"

#define MAX_HELPERS 63			/* as many as batch_workers allows */

#define TEAM_MAGIC 0x6d635465
#define QUEUE_SIZE 16384

/* In the shared memory. */
enum
{
	KEY_ORDERS,
	KEY_SETTINGS,
	KEY_BATCH,
	KEY_QUEUES					/* and the numbers after it */
};

typedef struct Orders
{
	Oid			database;
	Oid			login;			/* who connected, may log in */
	Oid			user;			/* whom the leader acts as */
	int			security;
} Orders;

/* What the leader knows of a helper. */
typedef struct Helper
{
	BackgroundWorkerHandle *handle;
	shm_mq_handle *queue;
	bool		at_work;
} Helper;

/*
 * The leader's; in memory that lasts to the exit of the process, which may
 * find the helpers at work.
 */
static MemoryContext team_context = NULL;
static dsm_segment *team_segment = NULL;
static Helper team[MAX_HELPERS];
static int	team_size = 0;

/* Settings that the helpers take over. */
static const char *const settings[] = {
	"lock_timeout",
	"meritum_cache.log_min_duration",
	"meritum_cache.notify_channel",
	"synchronous_commit",
	"work_mem"
};

/*
 * The leader
 */

/* Called when the leader detaches. */
static void
terminate_helpers(dsm_segment *segment, Datum arg)
{
	int			i;

	for (i = 0; i < team_size; i++)
		TerminateBackgroundWorker(team[i].handle);
}

static Size
settings_size(void)
{
	Size		size = 0;
	int			i;

	for (i = 0; i < lengthof(settings); i++)
		size += strlen(GetConfigOption(settings[i], false, false)) + 1;
	return size;
}

static void
copy_settings(char *to)
{
	int			i;

	for (i = 0; i < lengthof(settings); i++)
	{
		const char *value = GetConfigOption(settings[i], false, false);

		strcpy(to, value);
		to += strlen(value) + 1;
	}
}

/*
 * Lay out the shared memory for n helpers.  Returns NULL if the server has no
 * segment to spare.
 */
static shm_toc *
make_segment(const McBatch *batch, int n)
{
	shm_toc_estimator estimator;
	Size		batch_size = mc_batch_size_of(batch->nproviders);
	Size		size;
	shm_toc    *toc;
	Orders	   *orders;
	char	   *values;
	McBatch    *copy;

	shm_toc_initialize_estimator(&estimator);
	shm_toc_estimate_chunk(&estimator, sizeof(Orders));
	shm_toc_estimate_chunk(&estimator, settings_size());
	shm_toc_estimate_chunk(&estimator, batch_size);
	shm_toc_estimate_chunk(&estimator, mul_size(n, QUEUE_SIZE));
	shm_toc_estimate_keys(&estimator, 3 + n);
	size = shm_toc_estimate(&estimator);
	team_segment = dsm_create(size, DSM_CREATE_NULL_IF_MAXSEGMENTS);
	if (team_segment == NULL)
		return NULL;
	/* it outlives the transaction */
	dsm_pin_mapping(team_segment);
	on_dsm_detach(team_segment, terminate_helpers, (Datum) 0);
	toc = shm_toc_create(TEAM_MAGIC, dsm_segment_address(team_segment), size);

	orders = shm_toc_allocate(toc, sizeof(Orders));
	orders->database = MyDatabaseId;
	orders->login = GetAuthenticatedUserId();
	GetUserIdAndSecContext(&orders->user, &orders->security);
	shm_toc_insert(toc, KEY_ORDERS, orders);

	values = shm_toc_allocate(toc, settings_size());
	copy_settings(values);
	shm_toc_insert(toc, KEY_SETTINGS, values);

	copy = shm_toc_allocate(toc, batch_size);
	memcpy(copy, batch, batch_size);
	pg_atomic_init_u32(&copy->next, 0);
	shm_toc_insert(toc, KEY_BATCH, copy);
	return toc;
}

/*
 * Start one more helper; false if there is no room for its process.
 */
static bool
start_helper(shm_toc *toc)
{
	Helper	   *helper = &team[team_size];
	BackgroundWorker worker = {0};
	shm_mq	   *queue;

	queue = shm_mq_create(shm_toc_allocate(toc, QUEUE_SIZE), QUEUE_SIZE);
	shm_toc_insert(toc, KEY_QUEUES + team_size, queue);
	shm_mq_set_receiver(queue, MyProc);

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	worker.bgw_main_arg = UInt32GetDatum(dsm_segment_handle(team_segment));
	memcpy(worker.bgw_extra, &team_size, sizeof(int));
	strlcpy(worker.bgw_library_name, "meritum_cache", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "mc_helper_main", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "meritum_cache batch", BGW_MAXLEN);
	snprintf(worker.bgw_name, BGW_MAXLEN, "meritum_cache batch of PID %d",
			 MyProcPid);
	if (!RegisterDynamicBackgroundWorker(&worker, &helper->handle))
		return false;

	/* With the handle the queue notices a helper that never begins. */
	helper->queue = shm_mq_attach(queue, team_segment, helper->handle);
	helper->at_work = true;
	team_size++;
	return true;
}

McBatch *
mc_team_start(McBatch *batch, int n)
{
	MemoryContext previous;
	shm_toc    *toc;

	Assert(team_segment == NULL);
	n = Min(n, MAX_HELPERS);
	if (n < 1)
		return batch;

	team_context = AllocSetContextCreate(TopMemoryContext,
										 "meritum_cache batch helpers",
										 ALLOCSET_SMALL_SIZES);
	previous = MemoryContextSwitchTo(team_context);
	toc = make_segment(batch, n);
	if (toc != NULL)
		while (team_size < n && start_helper(toc))
			;
	MemoryContextSwitchTo(previous);
	if (team_size < n)
		ereport(WARNING,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("the batch runs in %d instead of %d processes",
						team_size + 1, n + 1),
				 errhint("Increase max_worker_processes.")));
	if (team_size > 0)
		return shm_toc_lookup(toc, KEY_BATCH, false);
	mc_team_stop();
	return batch;
}

/*
 * Hear one helper out.
 */
static bool
hear_helper(Helper *helper, McHear hear, void *arg)
{
	bool		heard = false;

	while (helper->at_work)
	{
		Size		length;
		void	   *message;
		McReport   *report;
		uint32	   *taken;

		switch (shm_mq_receive(helper->queue, &length, &message, true))
		{
			case SHM_MQ_WOULD_BLOCK:
				return heard;
			case SHM_MQ_DETACHED:
				helper->at_work = false;
				ereport(WARNING,
						(errmsg("a process of the batch ended early"),
						 errdetail("What it had not finished is left to the others."),
						 errhint("The server log may tell why.")));
				break;
			case SHM_MQ_SUCCESS:
				report = message;
				taken = (uint32 *) (report + 1);
				hear(report, taken, (char *) (taken + report->ntaken), arg);
				helper->at_work = !report->last;
				heard = true;
				break;
		}
	}
	return heard;
}

bool
mc_team_hear(McHear hear, void *arg)
{
	bool		heard = false;
	int			i;

	for (i = 0; i < team_size; i++)
		heard |= hear_helper(&team[i], hear, arg);
	return heard;
}

bool
mc_team_at_work(void)
{
	int			i;

	for (i = 0; i < team_size; i++)
		if (team[i].at_work)
			return true;
	return false;
}

void
mc_team_stop(void)
{
	bool		terminate = mc_team_at_work();
	int			i;

	/* A second error must not leave processes behind. */
	HOLD_INTERRUPTS();
	if (terminate)
		dsm_detach(team_segment);
	for (i = 0; i < team_size; i++)
		(void) WaitForBackgroundWorkerShutdown(team[i].handle);
	team_size = 0;
	if (team_segment != NULL && !terminate)
		dsm_detach(team_segment);
	team_segment = NULL;
	if (team_context != NULL)
		MemoryContextDelete(team_context);
	team_context = NULL;
	RESUME_INTERRUPTS();
}

/*
 * A helper
 */

typedef struct Work
{
	const Orders *orders;
	McShare		share;
	bool		more;
} Work;

static void
take_over_settings(const char *value)
{
	int			i;

	for (i = 0; i < lengthof(settings); i++)
	{
		SetConfigOption(settings[i], value, PGC_SUSET, PGC_S_OVERRIDE);
		value += strlen(value) + 1;
	}

	/* As for the worker, the role's own are meant for sessions. */
	SetConfigOption("default_transaction_isolation", "read committed",
					PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_read_only", "off",
					PGC_SUSET, PGC_S_OVERRIDE);
}

static void
work(void *arg)
{
	Work	   *w = arg;

	SetUserIdAndSecContext(w->orders->user, w->orders->security);
	w->more = mc_share_work(&w->share);
}

/*
 * Tell the leader what was committed; without it there is no more to do.
 */
static void
report(shm_mq_handle *queue, const Work *w)
{
	const McShare *share = &w->share;
	McReport	report = {
		.counts = share->counts,
		.ntaken = share->taken.len / sizeof(uint32),
		.errors_length = share->errors.len,
		.last = !w->more
	};
	shm_mq_iovec parts[] = {
		{(char *) &report, sizeof(report)},
		{share->taken.data, share->taken.len},
		{share->errors.data, share->errors.len}
	};

	if (shm_mq_sendv(queue, parts, lengthof(parts), false, true) != SHM_MQ_SUCCESS)
		proc_exit(0);
}

void
mc_helper_main(Datum arg)
{
	dsm_segment *segment;
	shm_toc    *toc;
	shm_mq	   *queue;
	shm_mq_handle *leader;
	int			number;
	Work		w = {0};

	memcpy(&number, MyBgworkerEntry->bgw_extra, sizeof(int));
	mc_worker_signals();
	segment = dsm_attach(DatumGetUInt32(arg));
	if (segment == NULL)
		return;					/* the leader is gone already */
	toc = shm_toc_attach(TEAM_MAGIC, dsm_segment_address(segment));
	if (toc == NULL)
		elog(ERROR, "unexpected contents of shared memory");
	queue = shm_toc_lookup(toc, KEY_QUEUES + number, false);
	shm_mq_set_sender(queue, MyProc);
	leader = shm_mq_attach(queue, segment, NULL);

	w.orders = shm_toc_lookup(toc, KEY_ORDERS, false);
	BackgroundWorkerInitializeConnectionByOid(w.orders->database,
											  w.orders->login, 0);
	take_over_settings(shm_toc_lookup(toc, KEY_SETTINGS, false));
	MemoryContextSwitchTo(AllocSetContextCreate(TopMemoryContext,
												"meritum_cache batch",
												ALLOCSET_DEFAULT_SIZES));
	mc_share_init(&w.share, shm_toc_lookup(toc, KEY_BATCH, false));

	do
	{
		ErrorData  *error = mc_worker_unit("refreshing all providers", work, &w);

		if (error != NULL)
		{
			/* the leader is left to find out whether it can do better */
			ereport(LOG,
					(errcode(error->sqlerrcode),
					 errmsg("a process of the batch failed: SQLSTATE %s",
							unpack_sql_state(error->sqlerrcode)),
					 errdetail_internal("%s", mc_error_message(error))));
			return;
		}
		report(leader, &w);
		mc_share_reset(&w.share);
		if (w.more)
			mc_share_pause(&w.share);
	} while (w.more);
}
