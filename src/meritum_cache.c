/*
 * meritum_cache.c
 *		The module: magic, hooks, and what has to be set up when it is loaded.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"

#include "dirty.h"
#include "guc.h"
#include "launcher.h"
#include "privilege.h"
#include "stats.h"
#include "wake.h"
#include "zone.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

static ProcessUtility_hook_type previous_utility = NULL;

/*
 * A prepared transaction may have left notes, of which the session that
 * commits it knows nothing: wake the worker in any case.  DISCARD ALL hands
 * the session to another client, who must not find the pin of the last.
 */
static void
process_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	if (IsA(pstmt->utilityStmt, TransactionStmt) &&
		((TransactionStmt *) pstmt->utilityStmt)->kind == TRANS_STMT_COMMIT_PREPARED)
		mc_dirty_wake();
	if (previous_utility != NULL)
		previous_utility(pstmt, query, read_only_tree, context, params, env,
						 dest, qc);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params,
								env, dest, qc);
	if (IsA(pstmt->utilityStmt, DiscardStmt) &&
		((DiscardStmt *) pstmt->utilityStmt)->target == DISCARD_ALL)
		mc_privilege_unpin();
}

void
_PG_init(void)
{
	mc_guc_init();
	mc_zone_init();
	mc_dirty_init();
	previous_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
	if (process_shared_preload_libraries_in_progress)
	{
		mc_stats_init();
		mc_wake_init();
		mc_launcher_init();
	}
}
