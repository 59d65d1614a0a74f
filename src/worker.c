/*
 * worker.c
 *		The worker of a database, and what all background processes share.
 *
 * Only here transactions are started and ended, for the launcher (launcher.c),
 * the processes of jobs (job_process.c) and of the batch (team.c) as well.
 * Each unit of work is one transaction; its error ends the unit and never the
 * process.  Processes sleep on their latch until something is due or someone
 * wakes them; they do not poll.
 *
 * The worker connects as the bootstrap superuser, since it exists before the
 * extension does, and acts as meritum_cache.worker_role or the owner of the
 * extension inside its transactions.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/sinval.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"
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
#define ERROR_PAUSE		10000	/* after an error that nothing recorded */
#define GATHER_PAUSE	400		/* between settling notes and looking for more */
#define RETRY_PAUSE		60000	/* an extension that is missing */
#define LONGEST_SLEEP	300000	/* the clock may have been set meanwhile */

/* What the worker finds to do. */
typedef struct Look
{
	bool		due;			/* a note, of the provider or unresolved */
	bool		unresolved;
	pg_uuid_t	provider;
	ErrorData  *error;			/* that its refresh ended with */
	TimestampTz next;			/* when there may be more */
} Look;

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
 * Of the details only those of a deadlock are told, which say who waited for
 * whom; not the statements that the server would add for its log, since these
 * may hold values of claims.
 */
void
mc_worker_report(const char *activity, const ErrorData *error)
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

void
mc_worker_interrupts(void)
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

void
mc_worker_sleep(TimestampTz until)
{
	long		ms = LONGEST_SLEEP;

	if (!TIMESTAMP_NOT_FINITE(until))
		ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 Min(ms, LONGEST_SLEEP), PG_WAIT_EXTENSION);
}

/*
 * Sleep whatever the latch says, except for signals; and not for longer, if
 * the clock is set back meanwhile.
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
		mc_worker_interrupts();
		mc_worker_sleep(end);
	}
}

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
		mc_worker_report("looking for work", error);
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
			mc_worker_report("refreshing", look.error);
			mc_worker_report("recording a failed refresh", error);
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
		mc_worker_interrupts();
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
			mc_worker_sleep(next);
	}
}
