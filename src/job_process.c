/*
 * job_process.c
 *		The process of a job: executes the command of one run.
 *
 * It connects as the owner of the job, so that nothing the command does can
 * reach further rights, and keeps the row of its run inside brackets.  What
 * must outlive the command's own commits is in work->context.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "parser/analyze.h"
#include "postmaster/bgworker.h"
#include "storage/proc.h"
#include "tcop/pquery.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "job.h"
#include "owner.h"
#include "plan.h"
#include "run.h"
#include "wake.h"
#include "worker.h"

/* What the process executes. */
typedef struct JobWork
{
	McJobRequest request;
	MemoryContext context;
	bool		begun;
	char	   *name;			/* of the job */
	char	   *command;		/* NULL: the job has changed */
	int			timeout;		/* milliseconds; 0: the role's own */
	ErrorData  *error;			/* that the command ended with */
} JobWork;

static McPlan select_command = {
	"SELECT r.job_name, j.command, j.timeout"
	"  FROM meritum_cache.job_run r"
	"  LEFT JOIN meritum_cache.job j"
	"    ON j.name = r.job_name AND j.owner::oid = $2"
	" WHERE r.run_id = $1",
	"int8,oid", SPI_OK_SELECT
};

/*
 * Read what to execute.  The job may have been given to another owner since
 * this process was started; then there is nothing that this one may execute.
 */
static void
read_command(JobWork *work)
{
	Datum		values[2];
	Datum		command;
	Datum		timeout;
	MemoryContext previous;
	bool		isnull;

	values[0] = Int64GetDatum(work->request.run);
	values[1] = ObjectIdGetDatum(work->request.owner);
	mc_plan_execute(&select_command, values, NULL);
	previous = MemoryContextSwitchTo(work->context);
	work->name = TextDatumGetCString(mc_plan_value(0, 1, &isnull));
	command = mc_plan_value(0, 2, &isnull);
	if (!isnull)
		work->command = TextDatumGetCString(command);
	MemoryContextSwitchTo(previous);
	timeout = mc_plan_value(0, 3, &isnull);
	if (!isnull)
		work->timeout = mc_job_parse_timeout(DatumGetIntervalP(timeout));
}

/*
 * The bookkeeping must not depend on what the job's owner or its command has
 * set.
 */
static void
use_plain_transaction(void)
{
	XactIsoLevel = XACT_READ_COMMITTED;
	XactReadOnly = false;
}

/*
 * The extension may be dropped at any time, and created again, when our run
 * is no longer there and its number another one's.
 */
static bool
is_still_there(const JobWork *work)
{
	return mc_is_installed() &&
		mc_cache_relation("job_run") == work->request.relation;
}

static void
begin_job(void *arg)
{
	JobWork    *work = arg;
	McBracket	bracket;

	if (!is_still_there(work))
		return;
	use_plain_transaction();
	mc_owner_enter(&bracket, true);
	work->begun = mc_run_begin(work->request.run);
	if (work->begun)
		read_command(work);
	mc_owner_leave(&bracket);
}

/*
 * What is kept of the error that the command ended with: the command is not
 * ours, but it may read claims, and an error may quote them.
 */
static char *
error_text(const ErrorData *error)
{
	const char *message = mc_error_message(error);

	/* the server's words for what it does not support name no value */
	if (message == error->message ||
		error->sqlerrcode == ERRCODE_FEATURE_NOT_SUPPORTED)
		return pstrdup(error->message);
	return psprintf("%s (SQLSTATE %s)", message,
					unpack_sql_state(error->sqlerrcode));
}

static void
finish_job(void *arg)
{
	JobWork    *work = arg;
	McBracket	bracket;

	if (!is_still_there(work))
		return;
	use_plain_transaction();
	mc_owner_enter(&bracket, true);
	mc_run_finish(work->request.run,
				  work->error == NULL ? "succeeded" : "failed",
				  work->error == NULL ? NULL : error_text(work->error));
	mc_owner_leave(&bracket);
}

/*
 * Execute one statement as a client's would be, so that CALL may commit and
 * VACUUM may run, if it is the only one.
 */
static void
execute_statement(RawStmt *statement, const char *text, bool only)
{
	CommandTag	tag = CreateCommandTag(statement->stmt);
	bool		needs_snapshot = analyze_requires_snapshot(statement);
	List	   *queries;
	List	   *plans;
	Portal		portal;
	DestReceiver *receiver;

	if (IsA(statement->stmt, TransactionStmt))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a job cannot execute %s", GetCommandTagName(tag))));

	if (needs_snapshot)
		PushActiveSnapshot(GetTransactionSnapshot());
	queries = pg_analyze_and_rewrite_fixedparams(statement, text, NULL, 0,
												 NULL);
	plans = pg_plan_queries(queries, text, CURSOR_OPT_PARALLEL_OK, NULL);
	if (needs_snapshot)
		PopActiveSnapshot();

	portal = CreatePortal("", true, true);
	portal->visible = false;
	PortalDefineQuery(portal, NULL, text, tag, plans, NULL);
	PortalStart(portal, NULL, 0, InvalidSnapshot);
	receiver = CreateDestReceiver(DestNone);
	mc_portal_run(portal, only, receiver);
	receiver->rDestroy(receiver);
	PortalDrop(portal, false);
	CommandCounterIncrement();
}

static void
execute_job(void *arg)
{
	JobWork    *work = arg;
	int			timeout = work->timeout > 0 ? work->timeout : StatementTimeout;
	List	   *statements;
	ListCell   *lc;

	if (work->command == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the job or its owner was changed before it began")));

	/* Neither parse tree nor text may go when the command commits. */
	MemoryContextSwitchTo(work->context);
	if (timeout > 0)
		enable_timeout_after(STATEMENT_TIMEOUT, timeout);
	statements = pg_parse_query(work->command);
	foreach(lc, statements)
	{
		CHECK_FOR_INTERRUPTS();
		execute_statement(lfirst_node(RawStmt, lc), work->command,
						  list_length(statements) == 1);
	}
	disable_timeout(STATEMENT_TIMEOUT, false);
}

void
mc_job_main(Datum arg)
{
	JobWork    *work = MemoryContextAllocZero(TopMemoryContext,
											  sizeof(JobWork));
	ErrorData  *error;

	memcpy(&work->request, MyBgworkerEntry->bgw_extra, sizeof(McJobRequest));
	mc_worker_signals();
	BackgroundWorkerInitializeConnectionByOid(work->request.database,
											  work->request.owner, 0);
	work->context = AllocSetContextCreate(TopMemoryContext,
										  "meritum_cache job",
										  ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(work->context);

	error = mc_worker_unit("beginning a job", begin_job, work);
	if (error != NULL)
		ReThrowError(error);
	if (!work->begun)
		return;

	debug_query_string = work->command;
	work->error = mc_worker_unit(work->command, execute_job, work);
	if (work->error != NULL)
		ereport(LOG,
				(errcode(work->error->sqlerrcode),
				 errmsg("job \"%s\" failed: %s",
						work->name, error_text(work->error)),
				 errdetail("Its run is " INT64_FORMAT " in meritum_cache.job_run.",
						   work->request.run)));
	debug_query_string = NULL;

	error = mc_worker_unit("finishing a job", finish_job, work);
	if (error != NULL)
		ReThrowError(error);

	/* In case the worker that started us is not the one of now. */
	mc_wake_jobs_changed();
	mc_wake_worker();
}
