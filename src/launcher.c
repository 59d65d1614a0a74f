/*
 * launcher.c
 *		The launcher: starts a worker for each database that is to have one.
 *
 * It connects to no database and holds nothing that outlives it: what workers
 * there are it finds in the register (wake.c) when it is started again.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/latch.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/relcache.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "guc.h"
#include "launcher.h"
#include "wake.h"
#include "worker.h"

/* Pauses, in milliseconds. */
#define RESTART_PAUSE	5000	/* after an exit */
#define RETRY_PAUSE		60000	/* a database that is missing */

/* A database that is to have a worker. */
typedef struct Target
{
	const char *name;
	Oid			database;
	BackgroundWorkerHandle *handle; /* NULL: none started by us */
	bool		inherited;		/* has one that an earlier launcher started */
	TimestampTz next_try;
	bool		reported;		/* that it cannot have a worker */
} Target;

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
mc_launcher_lists_database(void)
{
	char	   *name = get_database_name(MyDatabaseId);
	ListCell   *lc;

	foreach(lc, listed_databases())
		if (name != NULL && strcmp(lfirst(lc), name) == 0)
			return true;
	return false;
}

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
		mc_worker_report("looking for a database", error);
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
		mc_worker_interrupts();
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
			mc_worker_sleep(next);
	}
}

void
mc_launcher_init(void)
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
