/*
 * custom_api.c
 *		SQL entry points for custom metrics: create and drop.
 *
 * The query is parsed and analyzed as the caller, with the search path that
 * it will run with: what is wrong with it shows when the metric is created.
 */
#include "postgres.h"

#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "parser/analyze.h"
#include "parser/parse_relation.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

#include "args.h"
#include "compat.h"
#include "custom.h"
#include "owner.h"
#include "plan.h"
#include "privilege.h"

#define MAX_KEY_LENGTH 50
#define N_PARAMS 3

static McPlan insert_metric = {
	"INSERT INTO meritum_cache.metric"
	" (metric_key, grain, breakdown, description, query, search_path, owner)"
	" VALUES ($1, $2, true, $3, $4, $5, $6::regrole)",
	"varchar,text,text,text,text,oid", SPI_OK_INSERT
};

static McPlan delete_metric = {
	"DELETE FROM meritum_cache.metric m WHERE m.metric_key = $1",
	"varchar", SPI_OK_DELETE
};

static McPlan delete_states = {
	"DELETE FROM meritum_cache.metric_state s WHERE s.metric_key = $1",
	"varchar", SPI_OK_DELETE
};

static McPlan delete_notes = {
	"DELETE FROM meritum_cache.pending_refresh n WHERE n.metric_key = $1",
	"varchar", SPI_OK_DELETE
};

static McPlan delete_rows = {
	"DELETE FROM meritum_cache.analytics_cache c WHERE c.metric_key = $1",
	"varchar", SPI_OK_DELETE
};

/*
 * The schemas of the session's search path by name, temporary ones left out:
 * $user would be another schema for another role.
 */
static char *
current_path(void)
{
	List	   *schemas = fetch_search_path(false);
	StringInfoData path;
	ListCell   *lc;

	initStringInfo(&path);
	foreach(lc, schemas)
	{
		char	   *name;

		if (isAnyTempNamespace(lfirst_oid(lc)))
			continue;
		name = get_namespace_name(lfirst_oid(lc));
		if (name != NULL)
			appendStringInfo(&path, "%s%s", path.len > 0 ? ", " : "",
							 quote_identifier(name));
	}
	list_free(schemas);
	return path.data;
}

mc_noreturn static void bad_query(const char *detail);

static void
bad_query(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid query of a metric"),
			 errdetail("%s", detail)));
}

static bool
check_params(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, ParamRef) && ((ParamRef *) node)->number > N_PARAMS)
		bad_query(psprintf("There is no parameter $%d.",
						   ((ParamRef *) node)->number));
	return raw_expression_tree_walker(node, check_params, context);
}

/* The columns must be (dimensions jsonb, value jsonb). */
static void
check_columns(const Query *query)
{
	static const char *const name[] = {"dimensions", "value"};
	ListCell   *lc;
	int			n = 0;

	foreach(lc, query->targetList)
		n += !((TargetEntry *) lfirst(lc))->resjunk;
	if (n != lengthof(name))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("query of a metric must return (dimensions jsonb, value jsonb)"),
				 errdetail_plural("It returns %d column.", "It returns %d columns.",
								  n, n)));
	n = 0;
	foreach(lc, query->targetList)
	{
		TargetEntry *entry = lfirst(lc);
		Oid			type = exprType((Node *) entry->expr);

		if (entry->resjunk)
			continue;
		if (type != JSONBOID)
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("query of a metric must return (dimensions jsonb, value jsonb)"),
					 errdetail("Its column %d, %s, is of type %s.", n + 1, name[n],
							   format_type_be(type))));
		n++;
	}
}

/*
 * A position in the query is one in its literal, if the caller's statement has
 * it, and never the same one in the statement.
 */
static void
query_error(void *text)
{
	if (!function_parse_error_transpose(text))
		errcontext("query of a metric");
}

static void
check_query(const char *text, const char *path)
{
	static const Oid types[N_PARAMS] = {UUIDOID, DATEOID, DATEOID};
	ErrorContextCallback context = {error_context_stack, query_error, unconstify(char *, text)};
	List	   *statements;
	int			nest_level = NewGUCNestLevel();
	RawStmt    *statement;
	Query	   *query;

	error_context_stack = &context;
	statements = pg_parse_query(text);
	if (list_length(statements) != 1)
		bad_query("It must be one statement.");
	statement = linitial_node(RawStmt, statements);
	if (!IsA(statement->stmt, SelectStmt))
		bad_query("It must be a SELECT.");
	(void) check_params(statement->stmt, NULL);

	(void) set_config_option("search_path",
							 psprintf("%s%spg_temp", path, path[0] != '\0' ? ", " : ""),
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	query = parse_analyze_fixedparams(statement, text, types, N_PARAMS, NULL);
	AtEOXact_GUC(false, nest_level);

	if (query->commandType != CMD_SELECT || query->hasModifyingCTE ||
		query->rowMarks != NIL)
		bad_query("It must read only.");
	if (mc_uses_temp(query))
		bad_query("It reads a temporary table.");
	check_columns(query);
	error_context_stack = context.previous;
}

static bool
key_exists(const char *key)
{
	return mc_metric_find(key, strlen(key)) >= 0 ||
		mc_custom_find(key, strlen(key)) != NULL;
}

/*
 * Definitions change one at a time: ShareRowExclusiveLock.  To drop one waits
 * for the refreshes that may use it, and holds up others: ExclusiveLock.  To
 * read them is hindered by neither.
 */
static void
lock_definitions(LOCKMODE mode)
{
	LockRelationOid(mc_cache_relation("metric"), mode);
}

PG_FUNCTION_INFO_V1(meritum_create_metric);

Datum
meritum_create_metric(PG_FUNCTION_ARGS)
{
	Datum		values[6];
	McBracket	bracket;
	char	   *key;
	char	   *grain;
	char	   *query;
	char	   *path;

	mc_arg_required(fcinfo, 0, "metric_key");
	mc_arg_required(fcinfo, 1, "query");
	mc_arg_required(fcinfo, 2, "grain");
	mc_arg_required(fcinfo, 3, "description");
	mc_require_unpinned("meritum_create_metric");
	mc_require_admin("create metrics");
	key = text_to_cstring(PG_GETARG_TEXT_PP(0));
	query = text_to_cstring(PG_GETARG_TEXT_PP(1));
	grain = text_to_cstring(PG_GETARG_TEXT_PP(2));
	if (key[0] == '\0' || pg_mbstrlen(key) > MAX_KEY_LENGTH)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("metric_key must have 1 to %d characters", MAX_KEY_LENGTH)));
	if (strcmp(grain, "monthly") != 0 && strcmp(grain, "snapshot") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown grain \"%s\"", grain),
				 errhint("The grains are monthly and snapshot.")));
	lock_definitions(ShareRowExclusiveLock);
	if (key_exists(key))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("metric \"%s\" already exists", key)));
	path = current_path();
	check_query(query, path);

	values[0] = CStringGetTextDatum(key);
	values[1] = CStringGetTextDatum(grain);
	values[2] = PG_GETARG_DATUM(3);
	values[3] = CStringGetTextDatum(query);
	values[4] = CStringGetTextDatum(path);
	values[5] = ObjectIdGetDatum(GetUserId());
	mc_owner_enter(&bracket, true);
	mc_plan_execute(&insert_metric, values, NULL);
	mc_owner_leave(&bracket);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(meritum_drop_metric);

Datum
meritum_drop_metric(PG_FUNCTION_ARGS)
{
	McBracket	bracket;
	Datum		value;
	char	   *key;
	int			nest_level;

	mc_arg_required(fcinfo, 0, "metric_key");
	mc_require_unpinned("meritum_drop_metric");
	mc_require_admin("drop metrics");
	key = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (mc_metric_find(key, strlen(key)) >= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("metric \"%s\" is built in and cannot be dropped", key)));
	lock_definitions(ExclusiveLock);
	if (!key_exists(key))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("metric \"%s\" does not exist", key),
				 errhint("The metrics are listed in meritum_cache.metric.")));

	/* after the lock: what refreshes wrote before it was granted goes too */
	value = CStringGetTextDatum(key);
	mc_owner_enter(&bracket, true);
	nest_level = mc_owner_begin_bulk();
	mc_plan_execute(&delete_metric, &value, NULL);
	mc_plan_execute(&delete_states, &value, NULL);
	mc_plan_execute(&delete_notes, &value, NULL);
	mc_plan_execute(&delete_rows, &value, NULL);
	mc_owner_end_bulk(nest_level);
	mc_owner_leave(&bracket);
	PG_RETURN_VOID();
}
