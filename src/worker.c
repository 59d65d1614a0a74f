/*
 * worker.c
 *		The background processes: the launcher, and a worker for each database.
 *
 * Only here transactions are started and ended, for the processes of jobs
 * (job_process.c) and of the batch (team.c) as well.  Each unit of work is one
 * transaction; its error ends the unit and never the process.  Processes
 * sleep on their latch until something is due or someone wakes them; they do
 * not poll.
 *
 * The worker connects as the bootstrap superuser, since it exists before the
 * extension does, and acts as meritum_cache.worker_role or the owner of the
 * extension inside its transactions.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/sinval.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/relcache.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"
#include "utils/varlena.h"
#include "utils/wait_event.h"

#include "guc.h"
#include "job.h"
#include "note.h"
#include "owner.h"
#include "plan.h"
#include "refresh.h"
#include "wake.h"
#include "worker.h"

/* Pauses, in milliseconds. */
#define RESTART_PAUSE	5000	/* after a worker's exit */
#define ERROR_PAUSE		10000	/* after an error that nothing recorded */
#define GATHER_PAUSE	400		/* between settling notes and looking for more */
#define RETRY_PAUSE		60000	/* a database or extension that is missing */
#define LONGEST_SLEEP	300000	/* the clock may have been set meanwhile */

/* A database that is to have a worker; in the launcher. */
typedef struct Target
{
	const char *name;
	Oid			database;
	BackgroundWorkerHandle *handle; /* NULL: none started by us */
	bool		inherited;		/* has one that an earlier launcher started */
	TimestampTz next_try;
	bool		reported;		/* that it cannot have a worker */
} Target;

/* What the worker finds to do. */
typedef struct Look
{
	bool		due;			/* a note, of the provider or unresolved */
	bool		unresolved;
	pg_uuid_t	provider;
	ErrorData  *error;			/* that its refresh ended with */
	TimestampTz next;			/* when there may be more */
} Look;

static List *
listed_databases(void)
{
	List	   *names;

	if (!SplitIdentifierString(pstrdup(mc_databases), ',', &names))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid list syntax in parameter \"%s\"",
						"meritum_cache.databases")));
	return names;
}

bool
mc_worker_expected(void)
{
	char	   *name = get_database_name(MyDatabaseId);
	ListCell   *lc;

	foreach(lc, listed_databases())
		if (name != NULL && strcmp(lfirst(lc), name) == 0)
			return true;
	return false;
}

void
mc_worker_signals(void)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
}

ErrorData *
mc_worker_unit(const char *activity, McUnit unit, void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	ErrorData  *volatile error = NULL;
	Oid			user;
	int			security;

	GetUserIdAndSecContext(&user, &security);
	SetCurrentStatementStartTimestamp();
	pgstat_report_activity(STATE_RUNNING, activity);

	PG_TRY();
	{
		StartTransactionCommand();
		unit(arg);
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		disable_all_timeouts(false);
		QueryCancelPending = false;
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		AbortCurrentTransaction();
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();

	/* A commit leaves the role that the unit had taken. */
	SetUserIdAndSecContext(user, security);
	MemoryContextSwitchTo(context);
	pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);
	return error;
}

/*
 * Log an error that was caught.  Of its details only those of a deadlock are
 * told, which say who waited for whom; not the statements that the server
 * would add for its log, since these may hold values of claims.
 */
static void
report_error(const char *activity, const ErrorData *error)
{
	bool		deadlock = error->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED &&
		error->detail != NULL;

	ereport(WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("background worker failed while %s: SQLSTATE %s",
					activity, unpack_sql_state(error->sqlerrcode)),
			 errdetail_internal("%s%s%s", mc_error_message(error),
								deadlock ? "\n" : "",
								deadlock ? error->detail : "")));
}

static void
handle_interrupts(void)
{
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
		/* The time zone may be another now. */
		mc_job_forget();
	}
	/* A process that sleeps for long must not hold up the queue. */
	ProcessCatchupInterrupt();
}

/*
 * Sleep until the latch is set or a time has come.  The caller resets the
 * latch before it looks for work.
 */
static void
sleep_until(TimestampTz until)
{
	long		ms = LONGEST_SLEEP;

	if (!TIMESTAMP_NOT_FINITE(until))
		ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 Min(ms, LONGEST_SLEEP), PG_WAIT_EXTENSION);
}

/*
 * The same, but whatever the latch says, except for signals; and not for
 * longer, if the clock is set back meanwhile.
 */
static void
pause_for(int ms)
{
	TimestampTz end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms);

	for (;;)
	{
		TimestampTz now = GetCurrentTimestamp();

		if (now >= end || end > TimestampTzPlusMilliseconds(now, ms))
			break;
		ResetLatch(MyLatch);
		handle_interrupts();
		sleep_until(end);
	}
}

/*
 * The launcher
 */

/*
 * Look a database up.  Without a database of its own, the launcher may find
 * no index to use.
 */
static void
find_database(void *arg)
{
	Target	   *target = arg;
	Relation	relation = table_open(DatabaseRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	target->database = InvalidOid;
	ScanKeyInit(&key, Anum_pg_database_datname, BTEqualStrategyNumber,
				F_NAMEEQ, CStringGetDatum(target->name));
	scan = systable_beginscan(relation, DatabaseNameIndexId,
							  criticalSharedRelcachesBuilt, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);

		if (form->datallowconn)
			target->database = form->oid;
	}
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
}

/*
 * Start the worker of a database, unless there is one.  Sets when to try
 * again, DT_NOEND if its exit will tell.
 */
static void
start_worker(Target *target, TimestampTz now)
{
	BackgroundWorker worker = {0};
	ErrorData  *error;

	target->next_try = TimestampTzPlusMilliseconds(now, RETRY_PAUSE);
	error = mc_worker_unit("looking for a database", find_database, target);
	if (error != NULL)
	{
		report_error("looking for a database", error);
		return;
	}
	if (!OidIsValid(target->database))
	{
		if (!target->reported)
			ereport(LOG,
					(errmsg("database \"%s\" of meritum_cache.databases does not exist or does not allow connections",
							target->name)));
		target->reported = true;
		return;
	}

	target->inherited = mc_wake_worker_pid(target->database) != 0;
	if (target->inherited)
		return;

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	worker.bgw_main_arg = ObjectIdGetDatum(target->database);
	strlcpy(worker.bgw_library_name, "meritum_cache", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "mc_worker_main", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "meritum_cache worker", BGW_MAXLEN);
	snprintf(worker.bgw_name, BGW_MAXLEN, "meritum_cache worker %s",
			 target->name);
	if (RegisterDynamicBackgroundWorker(&worker, &target->handle))
	{
		target->next_try = DT_NOEND;
		target->reported = false;
		return;
	}
	target->handle = NULL;
	if (!target->reported)
		ereport(WARNING,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("no process for the worker of database \"%s\"",
						target->name),
				 errhint("Increase max_worker_processes.")));
	target->reported = true;
}

/*
 * Returns whether it looked a database up, during which the latch may have been
 * reset.
 */
static bool
tend_target(Target *target, TimestampTz now)
{
	pid_t		pid;

	if (target->handle != NULL &&
		GetBackgroundWorkerPid(target->handle, &pid) == BGWH_STOPPED)
	{
		pfree(target->handle);
		target->handle = NULL;
		target->next_try = TimestampTzPlusMilliseconds(now, RESTART_PAUSE);
	}
	if (target->inherited && mc_wake_worker_pid(target->database) == 0)
	{
		target->inherited = false;
		target->next_try = TimestampTzPlusMilliseconds(now, RESTART_PAUSE);
	}
	if (target->handle != NULL)
		return false;

	/* No wait is longer, unless the clock was set back. */
	target->next_try = Min(target->next_try,
						   TimestampTzPlusMilliseconds(now, RETRY_PAUSE));
	if (now < target->next_try)
		return false;
	start_worker(target, now);
	return true;
}

static List *
make_targets(void)
{
	List	   *targets = NIL;
	ListCell   *lc;

	foreach(lc, list_copy(listed_databases()))
	{
		Target	   *target;
		ListCell   *other;
		bool		again = false;

		foreach(other, targets)
			if (strcmp(((Target *) lfirst(other))->name, lfirst(lc)) == 0)
				again = true;
		if (again)
			continue;
		target = palloc0(sizeof(Target));
		target->name = lfirst(lc);
		target->next_try = DT_NOBEGIN;
		targets = lappend(targets, target);
	}
	return targets;
}

void
mc_launcher_main(Datum arg)
{
	List	   *targets;

	mc_worker_signals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	MemoryContextSwitchTo(TopMemoryContext);
	mc_wake_enter_launcher();
	targets = make_targets();

	for (;;)
	{
		TimestampTz now = GetCurrentTimestamp();
		TimestampTz next = DT_NOEND;
		bool		looked = false;
		bool		reload;
		ListCell   *lc;

		ResetLatch(MyLatch);
		reload = ConfigReloadPending;
		handle_interrupts();
		foreach(lc, targets)
		{
			Target	   *target = lfirst(lc);

			/* So that a new database need not wait for the next look. */
			if (reload && target->handle == NULL)
				target->next_try = now;
			looked |= tend_target(target, now);
			next = Min(next, target->next_try);
		}
		if (!looked)
			sleep_until(next);
	}
}

/*
 * The worker of a database
 */

static void
act_as_worker_role(void)
{
	static bool warned = false;
	Oid			role = InvalidOid;

	if (mc_worker_role[0] != '\0')
	{
		role = get_role_oid(mc_worker_role, true);
		if (!OidIsValid(role) && !warned)
			ereport(WARNING,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("role \"%s\" of meritum_cache.worker_role does not exist",
							mc_worker_role)));
		warned = !OidIsValid(role);
	}
	if (!OidIsValid(role))
		role = mc_extension_owner();
	SetUserIdAndSecContext(role, SECURITY_LOCAL_USERID_CHANGE);
}

/*
 * What is to be done now: jobs that are due are queued, and the note that has
 * waited longest is chosen.
 */
static void
look_for_work(void *arg)
{
	Look	   *look = arg;
	TimestampTz now = GetCurrentTimestamp();
	McBracket	bracket;

	if (!mc_is_installed())
	{
		mc_job_forget();
		look->next = TimestampTzPlusMilliseconds(now, RETRY_PAUSE);
		return;
	}
	act_as_worker_role();
	mc_owner_enter(&bracket, true);
	if (mc_job_wanted(now))
		mc_job_step(now);
	look->due = mc_note_next(&look->provider, &look->unresolved, &look->next);
	mc_owner_leave(&bracket);
}

static void
settle_notes(void *arg)
{
	Look	   *look = arg;

	/* The extension may have been dropped since we looked. */
	if (!mc_is_installed())
		return;
	act_as_worker_role();
	if (look->unresolved)
		mc_refresh_unresolved(MC_WAIT);
	else
		mc_refresh_notes(&look->provider);
}

static void
record_failure(void *arg)
{
	Look	   *look = arg;
	McBracket	bracket;

	if (!mc_is_installed())
		return;
	act_as_worker_role();
	mc_owner_enter(&bracket, true);
	mc_note_failed(look->unresolved ? NULL : &look->provider, look->error);
	mc_owner_leave(&bracket);
}

/*
 * Look once, and settle what was found.  Returns whether there may be more to
 * do at once.
 */
static bool
work_once(TimestampTz *next)
{
	Look		look = {0};
	ErrorData  *error;

	error = mc_worker_unit("looking for work", look_for_work, &look);
	if (error != NULL)
	{
		report_error("looking for work", error);
		mc_job_forget();
		pause_for(ERROR_PAUSE);
		return true;
	}
	mc_job_launch();
	if (!look.due)
	{
		*next = Min(look.next, mc_job_next_step());
		return false;
	}

	look.error = mc_worker_unit("refreshing", settle_notes, &look);
	if (look.error != NULL)
	{
		error = mc_worker_unit("recording a failed refresh", record_failure, &look);
		if (error != NULL)
		{
			/* The note is still due, and would fail again at once. */
			report_error("refreshing", look.error);
			report_error("recording a failed refresh", error);
			pause_for(ERROR_PAUSE);
		}
	}
	return true;
}

/*
 * Settings of the database or of the superuser are meant for sessions.
 */
static void
set_worker_settings(void)
{
	SetConfigOption("default_transaction_isolation", "read committed",
					PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_read_only", "off",
					PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("lock_timeout", "0", PGC_SUSET, PGC_S_OVERRIDE);

	/* in a deadlock, as with DROP EXTENSION, be the one that finds it */
	SetConfigOption("deadlock_timeout", "100ms", PGC_SUSET, PGC_S_OVERRIDE);
}

void
mc_worker_main(Datum arg)
{
	MemoryContext context;
	bool		settled = false;

	mc_worker_signals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(arg),
											  InvalidOid, 0);
	if (!mc_wake_enter())
	{
		ereport(LOG,
				(errmsg("another worker has the database of %s already",
						MyBgworkerEntry->bgw_name)));
		proc_exit(0);
	}
	set_worker_settings();
	mc_job_watch();
	context = AllocSetContextCreate(TopMemoryContext, "meritum_cache worker",
									ALLOCSET_DEFAULT_SIZES);

	for (;;)
	{
		TimestampTz next = DT_NOEND;

		MemoryContextSwitchTo(context);
		MemoryContextReset(context);
		ResetLatch(MyLatch);
		handle_interrupts();
		if (mc_wake_take())
			mc_job_forget();
		if (work_once(&next))
		{
			settled = true;
			continue;
		}
		pgstat_report_stat(true);

		/*
		 * What comes while others are settled waits a moment, so that many
		 * changes of a provider come to one refresh, and a busy application
		 * keeps the processors.
		 */
		if (settled)
		{
			settled = false;
			pause_for(GATHER_PAUSE);
			continue;
		}

		/*
		 * A wait for a lock or for a page that another process reads may have
		 * reset the latch.
		 */
		if (!mc_wake_pending() && !ConfigReloadPending)
			sleep_until(next);
	}
}

void
mc_worker_init(void)
{
	BackgroundWorker launcher = {0};

	/* pg_upgrade replaces databases, and none may change under it. */
	if (IsBinaryUpgrade)
		return;

	/* On a standby the launcher is started by the promotion. */
	launcher.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	launcher.bgw_start_time = BgWorkerStart_RecoveryFinished;
	launcher.bgw_restart_time = RESTART_PAUSE / 1000;
	strlcpy(launcher.bgw_library_name, "meritum_cache", BGW_MAXLEN);
	strlcpy(launcher.bgw_function_name, "mc_launcher_main", BGW_MAXLEN);
	strlcpy(launcher.bgw_name, "meritum_cache launcher", BGW_MAXLEN);
	strlcpy(launcher.bgw_type, "meritum_cache launcher", BGW_MAXLEN);
	RegisterBackgroundWorker(&launcher);
}
