/*
 * query.c
 *		The statements that read the application's tables.
 *
 * Their text follows from which tables are attached and the names of their
 * columns; it is built on first use and again when any of that has changed.
 * They read and never write.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "owner.h"
#include "query.h"
#include "uuids.h"
#include "zone.h"

static McPlan fact_plan[MC_N_SCOPES];
static McPlan resolve_plan[MC_N_SOURCES];
static McPlan rows_plan[MC_N_SOURCES];
static McPlan claim_plan;
static McPlan known_plan;
static McPlan active_plan;

static McPlan select_known = {
	"SELECT k.provider_id"
	" FROM (SELECT m.provider_id FROM meritum_cache.metric_state m"
	" UNION SELECT s.provider_id FROM meritum_cache.provider_state s WHERE $1) k"
	" WHERE k.provider_id <> ALL ($2) ORDER BY 1",
	"bool,uuid[]", SPI_OK_SELECT
};

static MemoryContext text_context = NULL;
static uint64 texts_generation = 0; /* of the attached tables */

static void
forget(McPlan *plan)
{
	mc_plan_forget(plan);
	memset(plan, 0, sizeof(McPlan));
}

/*
 * Forget the texts that were built for other tables.
 */
static void
check_texts(void)
{
	uint64		generation = mc_source_generation();
	int			i;

	if (generation == texts_generation)
		return;
	if (text_context == NULL)
		text_context = AllocSetContextCreate(TopMemoryContext,
											 "meritum_cache statements",
											 ALLOCSET_SMALL_SIZES);
	for (i = 0; i < MC_N_SCOPES; i++)
		forget(&fact_plan[i]);
	for (i = 0; i < MC_N_SOURCES; i++)
	{
		forget(&resolve_plan[i]);
		forget(&rows_plan[i]);
	}
	forget(&claim_plan);
	forget(&known_plan);
	forget(&active_plan);
	MemoryContextReset(text_context);
	texts_generation = generation;
}

static const char *
column_name(McSource source, int column)
{
	return mc_source_get(source)->column[column];
}

/* "alias.column", quoted */
static char *
col(McSource source, const char *alias, int column)
{
	return psprintf("%s.%s", alias,
					quote_identifier(column_name(source, column)));
}

static char *
table_name(McSource source)
{
	Oid			relid = mc_source_get(source)->relid;

	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									  get_rel_name(relid));
}

static bool
has(McSource source)
{
	return mc_source_get(source) != NULL;
}

/*
 * A moment, for mc_date_of: the server would look the zone up for each row.
 */
static char *
moment(McSource source, const char *alias, int column)
{
	Oid			relid = mc_source_get(source)->relid;
	AttrNumber	attno = get_attnum(relid, column_name(source, column));
	bool		zoned = getBaseType(get_atttype(relid, attno)) == TIMESTAMPTZOID;

	return psprintf("%s::%s", col(source, alias, column),
					zoned ? "timestamptz" : "date");
}

/* Amounts are kept as integers of ten-thousandths; null counts as 0. */
static char *
amount(McSource source, const char *alias, int column)
{
	return psprintf("coalesce((%s::numeric * 10000)::int8, 0)",
					col(source, alias, column));
}

/* In upper case, as the metrics name it. */
static char *
state(void)
{
	return psprintf("upper(%s::text COLLATE \"C\")",
					col(MC_CLAIMS, "c", MC_CLAIM_STATE));
}

/* Has the table an index that finds rows by this column? */
static bool
is_indexed(McSource source, int column)
{
	Relation	rel = table_open(mc_source_get(source)->relid, AccessShareLock);
	AttrNumber	attno = get_attnum(RelationGetRelid(rel),
								   column_name(source, column));
	bool		found = false;
	ListCell   *lc;

	foreach(lc, RelationGetIndexList(rel))
	{
		HeapTuple	tuple = SearchSysCache1(INDEXRELID,
											ObjectIdGetDatum(lfirst_oid(lc)));
		Form_pg_index index;

		if (!HeapTupleIsValid(tuple))
			continue;
		index = (Form_pg_index) GETSTRUCT(tuple);
		if (index->indisvalid && index->indkey.values[0] == attno)
			found = true;
		ReleaseSysCache(tuple);
	}
	table_close(rel, AccessShareLock);
	return found;
}

static void
append_ahcip_columns(StringInfo sql)
{
	if (!has(MC_AHCIP_CLAIM_DETAILS))
	{
		appendStringInfoString(sql, ", NULL::text, NULL::text, NULL::text"
							   ", 0::int8, 0::int8");
		return;
	}
	appendStringInfo(sql, ", %s::text, %s::text, %s::text, %s, %s",
					 col(MC_AHCIP_CLAIM_DETAILS, "a", 1),
					 col(MC_AHCIP_CLAIM_DETAILS, "a", 2),
					 col(MC_AHCIP_CLAIM_DETAILS, "a", 3),
					 amount(MC_AHCIP_CLAIM_DETAILS, "a", 6),
					 amount(MC_AHCIP_CLAIM_DETAILS, "a", 7));
}

static void
append_wcb_amount(StringInfo sql, McFactScope scope)
{
	if (!has(MC_WCB_CLAIM_DETAILS) || !has(MC_WCB_INVOICE_LINES))
		appendStringInfoString(sql, ", 0::int8");
	else if (scope == MC_SCOPE_ALL)
		appendStringInfoString(sql, ", coalesce(l.amount, 0)");
	else
		appendStringInfo(sql, ", CASE WHEN %s IS NULL THEN 0::int8 ELSE coalesce(("
						 "SELECT (sum(%s::numeric) * 10000)::int8 FROM %s l WHERE %s = %s), 0) END",
						 col(MC_WCB_CLAIM_DETAILS, "w", 1),
						 col(MC_WCB_INVOICE_LINES, "l", 1),
						 table_name(MC_WCB_INVOICE_LINES),
						 col(MC_WCB_INVOICE_LINES, "l", 0),
						 col(MC_WCB_CLAIM_DETAILS, "w", 0));
}

static void
append_select_list(StringInfo sql, McFactScope scope)
{
	bool		ahcip = has(MC_AHCIP_CLAIM_DETAILS);
	bool		wcb = has(MC_WCB_CLAIM_DETAILS);

	appendStringInfo(sql, "SELECT %s AS provider_id"
					 ", coalesce(%s, '-infinity'::date) AS date_of_service"
					 ", %s AS claim_id, %s::text, %s::text, %s, %s",
					 col(MC_CLAIMS, "c", MC_CLAIM_PROVIDER),
					 col(MC_CLAIMS, "c", MC_CLAIM_DATE),
					 col(MC_CLAIMS, "c", MC_CLAIM_ID),
					 col(MC_CLAIMS, "c", MC_CLAIM_STATE),
					 col(MC_CLAIMS, "c", MC_CLAIM_TYPE),
					 ahcip ? psprintf("%s IS NOT NULL", col(MC_AHCIP_CLAIM_DETAILS, "a", 0)) : "false",
					 wcb ? psprintf("%s IS NOT NULL", col(MC_WCB_CLAIM_DETAILS, "w", 1)) : "false");
	append_ahcip_columns(sql);
	append_wcb_amount(sql, scope);
	if (ahcip)
		appendStringInfo(sql, ", coalesce(%s, false), coalesce(%s::int4, 0)"
						 ", CASE WHEN %s = 'REJECTED' THEN %s END",
						 col(MC_AHCIP_CLAIM_DETAILS, "a", 4),
						 col(MC_AHCIP_CLAIM_DETAILS, "a", 5), state(),
						 psprintf("%s::jsonb", col(MC_AHCIP_CLAIM_DETAILS, "a", 8)));
	else
		appendStringInfoString(sql, ", false, 0, NULL::jsonb");
	appendStringInfo(sql, ", %s, (%s::jsonb) ->> 'timing_tier', %s",
					 wcb ? psprintf("%s::text", col(MC_WCB_CLAIM_DETAILS, "w", 2)) : "NULL::text",
					 col(MC_CLAIMS, "c", MC_CLAIM_VALIDATION),
					 has(MC_PATIENTS) ?
					 psprintf("nullif(%s::text COLLATE \"C\", 'AB')", col(MC_PATIENTS, "p", 1)) :
					 "NULL::text");
	if (has(MC_CLAIM_AUDIT_HISTORY))
		appendStringInfo(sql, ", EXISTS (SELECT FROM %s h WHERE %s = %s"
						 " AND octet_length(%s::text) = 8"
						 " AND upper(%s::text COLLATE \"C\") = 'REJECTED'%s)",
						 table_name(MC_CLAIM_AUDIT_HISTORY),
						 col(MC_CLAIM_AUDIT_HISTORY, "h", 0),
						 col(MC_CLAIMS, "c", MC_CLAIM_ID),
						 col(MC_CLAIM_AUDIT_HISTORY, "h", 1),
						 col(MC_CLAIM_AUDIT_HISTORY, "h", 1),
						 scope != MC_SCOPE_ALL && is_indexed(MC_CLAIM_AUDIT_HISTORY, 0) ?
						 " OFFSET 0" : "");
	else
		appendStringInfoString(sql, ", false");

	appendStringInfo(sql, ", %s, %s, %s",
					 col(MC_CLAIMS, "c", MC_CLAIM_DEADLINE),
					 moment(MC_CLAIMS, "c", MC_CLAIM_CREATED),
					 moment(MC_CLAIMS, "c", MC_CLAIM_UPDATED));
}

/*
 * Join a table of details to the claims, by a column of each.
 *
 * All but the first fill read the details of few claims, and one plan serves
 * a single claim and a provider's whole history.  For the latter the planner
 * would rather hash the details of all providers; OFFSET 0 keeps it from
 * that, and makes it look each of them up by the index.
 */
static void
append_join(StringInfo sql, McFactScope scope, McSource source,
			const char *alias, int column, int claims_column,
			const char *condition)
{
	char	   *key = col(source, alias, column);
	char	   *claim = col(MC_CLAIMS, "c", claims_column);

	if (scope == MC_SCOPE_ALL || !is_indexed(source, column))
		appendStringInfo(sql, " LEFT JOIN %s %s ON %s = %s%s",
						 table_name(source), alias, key, claim, condition);
	else
		appendStringInfo(sql, " LEFT JOIN LATERAL (SELECT %s.* FROM %s %s"
						 " WHERE %s = %s%s OFFSET 0) %s ON true",
						 alias, table_name(source), alias, key, claim,
						 condition, alias);
}

static void
append_joins(StringInfo sql, McFactScope scope)
{
	appendStringInfo(sql, " FROM %s c", table_name(MC_CLAIMS));
	if (has(MC_AHCIP_CLAIM_DETAILS))
		append_join(sql, scope, MC_AHCIP_CLAIM_DETAILS, "a", 0, MC_CLAIM_ID, "");
	if (has(MC_WCB_CLAIM_DETAILS))
		append_join(sql, scope, MC_WCB_CLAIM_DETAILS, "w", 1, MC_CLAIM_ID,
					psprintf(" AND %s::text = 'WCB'", col(MC_CLAIMS, "c", MC_CLAIM_TYPE)));
	if (has(MC_PATIENTS))
		append_join(sql, scope, MC_PATIENTS, "p", 0, MC_CLAIM_PATIENT, "");
	if (scope == MC_SCOPE_ALL && has(MC_WCB_CLAIM_DETAILS) &&
		has(MC_WCB_INVOICE_LINES))
		appendStringInfo(sql, " LEFT JOIN (SELECT %s AS id,"
						 " (sum(%s::numeric) * 10000)::int8 AS amount FROM %s l GROUP BY 1) l ON l.id = %s",
						 col(MC_WCB_INVOICE_LINES, "l", 0),
						 col(MC_WCB_INVOICE_LINES, "l", 1),
						 table_name(MC_WCB_INVOICE_LINES),
						 col(MC_WCB_CLAIM_DETAILS, "w", 0));
}

char *
mc_query_fact_text(McFactScope scope)
{
	StringInfoData sql;
	char	   *provider;
	char	   *date;

	mc_source_require();
	check_texts();
	provider = col(MC_CLAIMS, "c", MC_CLAIM_PROVIDER);
	date = col(MC_CLAIMS, "c", MC_CLAIM_DATE);
	initStringInfo(&sql);
	append_select_list(&sql, scope);
	append_joins(&sql, scope);
	appendStringInfo(&sql, " WHERE %s IS NULL AND %s IS DISTINCT FROM 'DELETED' AND ",
					 col(MC_CLAIMS, "c", MC_CLAIM_DELETED), state());
	switch (scope)
	{
		case MC_SCOPE_CLAIMS:
			appendStringInfo(&sql, "%s = ANY ($1) AND %s IS NOT NULL",
							 col(MC_CLAIMS, "c", MC_CLAIM_ID), provider);
			break;
		case MC_SCOPE_RANGE:
			appendStringInfo(&sql, "%s = $1 AND %s BETWEEN $2 AND $3",
							 provider, date);
			break;
		case MC_SCOPE_PROVIDER:
			appendStringInfo(&sql, "%s = $1", provider);
			break;
		case MC_SCOPE_ALL:
			appendStringInfo(&sql, "%s IS NOT NULL", provider);
			break;
		default:
			elog(ERROR, "unknown scope %d", (int) scope);
	}
	return sql.data;
}

/*
 * Fill a plan that is not yet built with a text that must live as long.
 */
static McPlan *
build(McPlan *plan, char *sql, const char *types)
{
	plan->sql = MemoryContextStrdup(text_context, sql);
	plan->types = types;
	plan->result = SPI_OK_SELECT;
	plan->discreet = true;
	return plan;
}

McPlan *
mc_query_facts(McFactScope scope)
{
	static const char *const types[MC_N_SCOPES] = {
		[MC_SCOPE_CLAIMS] = "uuid[]",
		[MC_SCOPE_RANGE] = "uuid,date,date",
		[MC_SCOPE_PROVIDER] = "uuid",
		[MC_SCOPE_ALL] = "",
	};

	mc_source_require();
	check_texts();
	if (fact_plan[scope].sql != NULL)
		return &fact_plan[scope];
	return build(&fact_plan[scope], mc_query_fact_text(scope), types[scope]);
}

/* Providers that have a suggestion of, or suppressed, one of the rules. */
static void
append_providers_of_rules(StringInfo sql)
{
	static const struct
	{
		McSource	source;
		int			rule;
		int			provider;
	}			tables[] = {
		{MC_AI_SUGGESTION_EVENTS, 1, 0}, {MC_AI_PROVIDER_LEARNING, 1, 0},
	};
	int			i;

	for (i = 0; i < lengthof(tables); i++)
		if (has(tables[i].source))
			appendStringInfo(sql, "%sSELECT %s, NULL::uuid, %s, NULL::date FROM %s e WHERE %s = ANY ($1)",
							 sql->len > 0 ? " UNION " : "",
							 col(tables[i].source, "e", tables[i].rule),
							 col(tables[i].source, "e", tables[i].provider),
							 table_name(tables[i].source),
							 col(tables[i].source, "e", tables[i].rule));
}

/*
 * Claims by the keys of the rows that changed: claim ids for claims, details
 * and audit history, detail ids for invoice lines, patient ids for patients,
 * rule ids for rules.  NULL if there is nothing to look up.
 */
McPlan *
mc_query_resolve(McSource source)
{
	StringInfoData sql;

	mc_source_require();
	check_texts();
	if (resolve_plan[source].sql != NULL)
		return &resolve_plan[source];

	initStringInfo(&sql);
	if (source == MC_AI_RULES)
	{
		append_providers_of_rules(&sql);
		return sql.len == 0 ? NULL :
			build(&resolve_plan[source], sql.data, "uuid[]");
	}
	if (source == MC_WCB_INVOICE_LINES && !has(MC_WCB_CLAIM_DETAILS))
		return NULL;
	appendStringInfo(&sql, "SELECT %s, %s, %s, %s FROM %s c",
					 source == MC_WCB_INVOICE_LINES ? col(MC_WCB_CLAIM_DETAILS, "w", 0) :
					 col(MC_CLAIMS, "c", source == MC_PATIENTS ? MC_CLAIM_PATIENT : MC_CLAIM_ID),
					 col(MC_CLAIMS, "c", MC_CLAIM_ID),
					 col(MC_CLAIMS, "c", MC_CLAIM_PROVIDER),
					 col(MC_CLAIMS, "c", MC_CLAIM_DATE),
					 table_name(MC_CLAIMS));
	if (source == MC_WCB_INVOICE_LINES)
		appendStringInfo(&sql, " JOIN %s w ON %s = %s WHERE %s = ANY ($1)",
						 table_name(MC_WCB_CLAIM_DETAILS),
						 col(MC_WCB_CLAIM_DETAILS, "w", 1),
						 col(MC_CLAIMS, "c", MC_CLAIM_ID),
						 col(MC_WCB_CLAIM_DETAILS, "w", 0));
	else
		appendStringInfo(&sql, " WHERE %s = ANY ($1)",
						 col(MC_CLAIMS, "c", source == MC_PATIENTS ?
							 MC_CLAIM_PATIENT : MC_CLAIM_ID));
	return build(&resolve_plan[source], sql.data, "uuid[]");
}

/*
 * Rows of a provider:
 *	practice_locations: location_id, name, functional_centre, rrnp_rate in
 *		ten-thousandths or null, of the active ones
 *	ai_suggestion_events: moment, rule_id, event_type, category,
 *		revenue_impact
 *	ai_provider_learning: rule_id of the suppressed
 *	ai_rules ($1 uuid[]): rule_id, name
 */
McPlan *
mc_query_rows(McSource source)
{
	StringInfoData sql;
	const char *types = "uuid";

	check_texts();
	if (rows_plan[source].sql != NULL)
		return &rows_plan[source];

	initStringInfo(&sql);
	switch (source)
	{
		case MC_PRACTICE_LOCATIONS:
			appendStringInfo(&sql, "SELECT %s, %s::text, %s::text, (%s::numeric * 10000)::int8"
							 " FROM %s l WHERE %s = $1 AND %s",
							 col(source, "l", 0), col(source, "l", 2),
							 col(source, "l", 3), col(source, "l", 4),
							 table_name(source), col(source, "l", 1),
							 col(source, "l", 5));
			break;
		case MC_AI_SUGGESTION_EVENTS:
			appendStringInfo(&sql, "SELECT %s, %s, %s::text, %s::text, %s"
							 " FROM %s e WHERE %s = $1",
							 moment(source, "e", 5), col(source, "e", 1),
							 col(source, "e", 2), col(source, "e", 3),
							 amount(source, "e", 4), table_name(source),
							 col(source, "e", 0));
			break;
		case MC_AI_PROVIDER_LEARNING:
			appendStringInfo(&sql, "SELECT %s FROM %s l WHERE %s = $1 AND %s",
							 col(source, "l", 1), table_name(source),
							 col(source, "l", 0), col(source, "l", 2));
			break;
		case MC_AI_RULES:
			appendStringInfo(&sql, "SELECT %s, %s::text FROM %s r WHERE %s = ANY ($1)",
							 col(source, "r", 0), col(source, "r", 1),
							 table_name(source), col(source, "r", 0));
			types = "uuid[]";
			break;
		default:
			elog(ERROR, "no rows of source %d", (int) source);
	}
	return build(&rows_plan[source], sql.data, types);
}

void
mc_query_scan(McSource source, Datum *values, McRowCallback callback, void *arg)
{
	McPlan	   *plan = mc_query_rows(source);
	Oid			previous = mc_owner_switch(mc_source_get(source)->owner);

	mc_plan_scan(plan, values, NULL, callback, arg);
	mc_owner_restore(previous);
}

bool
mc_query_claim(const pg_uuid_t *claim, pg_uuid_t *provider, char **type,
				DateADT *date)
{
	Datum		value = UUIDPGetDatum(claim);
	Oid			previous;
	uint64		n;
	bool		isnull;

	mc_source_require();
	check_texts();
	if (claim_plan.sql == NULL)
		build(&claim_plan, psprintf("SELECT %s, %s::text, %s FROM %s c WHERE %s = $1 AND %s IS NOT NULL",
									col(MC_CLAIMS, "c", MC_CLAIM_PROVIDER),
									col(MC_CLAIMS, "c", MC_CLAIM_TYPE),
									col(MC_CLAIMS, "c", MC_CLAIM_DATE),
									table_name(MC_CLAIMS),
									col(MC_CLAIMS, "c", MC_CLAIM_ID),
									col(MC_CLAIMS, "c", MC_CLAIM_PROVIDER)), "uuid");
	previous = mc_owner_switch(mc_source_get(MC_CLAIMS)->owner);
	n = mc_plan_execute(&claim_plan, &value, NULL);
	mc_owner_restore(previous);
	if (n == 0)
		return false;
	*provider = *DatumGetUUIDP(mc_plan_value(0, 1, &isnull));
	value = mc_plan_value(0, 2, &isnull);
	*type = isnull ? NULL : TextDatumGetCString(value);
	*date = mc_plan_date(0, 3);
	return true;
}

bool
mc_query_provider_known(const pg_uuid_t *provider)
{
	Datum		value = UUIDPGetDatum(provider);
	Oid			previous;
	uint64		n;

	check_texts();
	if (!has(MC_PROVIDERS))
		return true;
	if (known_plan.sql == NULL)
		build(&known_plan, psprintf("SELECT 1 FROM %s p WHERE %s = $1",
									table_name(MC_PROVIDERS),
									col(MC_PROVIDERS, "p", 0)), "uuid");
	previous = mc_owner_switch(mc_source_get(MC_PROVIDERS)->owner);
	n = mc_plan_execute(&known_plan, &value, NULL);
	mc_owner_restore(previous);
	return n > 0;
}

/* Add the providers in SPI_tuptable to a list in the caller's context. */
static List *
add_providers(List *list, uint64 n, MemoryContext caller)
{
	MemoryContext old = MemoryContextSwitchTo(caller);
	uint64		i;

	for (i = 0; i < n; i++)
	{
		bool		isnull;
		pg_uuid_t  *provider = palloc(sizeof(pg_uuid_t));

		*provider = *DatumGetUUIDP(mc_plan_value(i, 1, &isnull));
		list = lappend(list, provider);
	}
	MemoryContextSwitchTo(old);
	return list;
}

/*
 * Without a providers table those count that custom metrics were computed
 * for; without claims either, all that ever had figures.
 */
static List *
add_known(List *list, MemoryContext caller)
{
	pg_uuid_t  *providers = palloc(sizeof(pg_uuid_t) * Max(list_length(list), 1));
	Datum		values[2] = {BoolGetDatum(!has(MC_CLAIMS))};
	ListCell   *lc;
	int			n = 0;

	foreach(lc, list)
		providers[n++] = *(pg_uuid_t *) lfirst(lc);
	values[1] = mc_uuid_array(providers, n);
	return add_providers(list, mc_plan_execute(&select_known, values, NULL), caller);
}

List *
mc_query_active_providers(DateADT as_of)
{
	DateADT		month = mc_month_of(as_of);
	Datum		values[2];
	MemoryContext caller = CurrentMemoryContext;
	List	   *list = NIL;
	Oid			previous;
	uint64		n;

	if (!has(MC_CLAIMS))
		return add_known(NIL, caller);
	check_texts();
	if (active_plan.sql == NULL)
	{
		if (has(MC_PROVIDERS))
			build(&active_plan, psprintf("SELECT %s FROM %s p WHERE %s::text = 'ACTIVE'"
										 " AND $1 IS NOT NULL AND $2 IS NOT NULL ORDER BY 1",
										 col(MC_PROVIDERS, "p", 0), table_name(MC_PROVIDERS),
										 col(MC_PROVIDERS, "p", 1)), "date,date");
		else
			build(&active_plan, psprintf("SELECT DISTINCT %s FROM %s c WHERE %s BETWEEN $1 AND $2"
										 " AND %s IS NOT NULL ORDER BY 1",
										 col(MC_CLAIMS, "c", MC_CLAIM_PROVIDER),
										 table_name(MC_CLAIMS),
										 col(MC_CLAIMS, "c", MC_CLAIM_DATE),
										 col(MC_CLAIMS, "c", MC_CLAIM_PROVIDER)), "date,date");
	}
	values[0] = DateADTGetDatum(mc_month_add(month, 1 - MC_WINDOW_MONTHS));
	values[1] = DateADTGetDatum(mc_month_end(month));
	previous = mc_owner_switch(mc_source_get(has(MC_PROVIDERS) ? MC_PROVIDERS :
											 MC_CLAIMS)->owner);
	n = mc_plan_execute(&active_plan, values, NULL);
	mc_owner_restore(previous);

	list = add_providers(list, n, caller);
	return has(MC_PROVIDERS) ? list : add_known(list, caller);
}
