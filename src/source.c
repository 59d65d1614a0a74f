/*
 * source.c
 *		The application's tables: what is read of them, which are attached, and
 *		the statements that read them.
 *
 * Which tables are attached is read from meritum_cache.source_table and kept
 * for the session, until a change of that table or of the time zone makes it
 * invalid; the statements are built from it.  Nothing here writes.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "owner.h"
#include "source.h"
#include "zone.h"

const McSourceDef mc_source_def[MC_N_SOURCES] = {
	[MC_CLAIMS] = {"claims", 11, {
		{"claim_id", UUIDOID}, {"physician_id", UUIDOID},
		{"patient_id", UUIDOID}, {"claim_type", TEXTOID},
		{"state", TEXTOID}, {"date_of_service", DATEOID},
		{"submission_deadline", DATEOID}, {"validation_result", JSONBOID},
		{"created_at", TIMESTAMPTZOID}, {"updated_at", TIMESTAMPTZOID},
		{"deleted_at", TIMESTAMPTZOID},
	}},
	[MC_AHCIP_CLAIM_DETAILS] = {"ahcip_claim_details", 9, {
		{"claim_id", UUIDOID}, {"ba_number", TEXTOID},
		{"functional_centre", TEXTOID}, {"health_service_code", TEXTOID},
		{"shadow_billing_flag", BOOLOID}, {"time_spent", INT4OID},
		{"submitted_fee", NUMERICOID}, {"assessed_fee", NUMERICOID},
		{"assessment_explanatory_codes", JSONBOID},
	}},
	[MC_WCB_CLAIM_DETAILS] = {"wcb_claim_details", 3, {
		{"wcb_claim_detail_id", UUIDOID}, {"claim_id", UUIDOID},
		{"form_id", TEXTOID},
	}},
	[MC_WCB_INVOICE_LINES] = {"wcb_invoice_lines", 2, {
		{"wcb_claim_detail_id", UUIDOID}, {"amount", NUMERICOID},
	}},
	[MC_CLAIM_AUDIT_HISTORY] = {"claim_audit_history", 2, {
		{"claim_id", UUIDOID}, {"new_state", TEXTOID},
	}},
	[MC_PATIENTS] = {"patients", 2, {
		{"patient_id", UUIDOID}, {"phn_province", TEXTOID},
	}},
	[MC_PROVIDERS] = {"providers", 2, {
		{"provider_id", UUIDOID}, {"status", TEXTOID},
	}},
	[MC_PRACTICE_LOCATIONS] = {"practice_locations", 6, {
		{"location_id", UUIDOID}, {"provider_id", UUIDOID},
		{"name", TEXTOID}, {"functional_centre", TEXTOID},
		{"rrnp_rate", NUMERICOID}, {"is_active", BOOLOID},
	}},
	[MC_AI_SUGGESTION_EVENTS] = {"ai_suggestion_events", 6, {
		{"provider_id", UUIDOID}, {"rule_id", UUIDOID},
		{"event_type", TEXTOID}, {"category", TEXTOID},
		{"revenue_impact", NUMERICOID}, {"created_at", TIMESTAMPTZOID},
	}},
	[MC_AI_PROVIDER_LEARNING] = {"ai_provider_learning", 3, {
		{"provider_id", UUIDOID}, {"rule_id", UUIDOID},
		{"is_suppressed", BOOLOID},
	}},
	[MC_AI_RULES] = {"ai_rules", 2, {
		{"rule_id", UUIDOID}, {"name", TEXTOID},
	}},
};

/* What the session knows of the attached tables; strings in its context. */
static struct
{
	bool		callback_registered;
	bool		valid;
	uint64		generation;		/* counts invalidations */
	uint64		reads;			/* counts readings */
	Oid			relid;			/* of source_table, when it was read */
	char		zone[TZ_STRLEN_MAX + 1];	/* that the statements were built
											 * with */
	McAttached	table[MC_N_SOURCES];
} attached;

static MemoryContext attached_context = NULL;

static McPlan fact_plan[MC_N_SCOPES];
static McPlan resolve_plan[MC_N_SOURCES];
static McPlan rows_plan[MC_N_SOURCES];
static McPlan claim_plan;
static McPlan known_plan;
static McPlan active_plan;

int
mc_source_by_name(const char *name)
{
	int			i;

	for (i = 0; i < MC_N_SOURCES; i++)
		if (strcmp(mc_source_def[i].name, name) == 0)
			return i;
	return -1;
}

/*
 * A change of source_table, or of the columns or the owner of an attached
 * table, makes us read again.
 */
static void
forget_attached(Datum arg, Oid relid)
{
	bool		ours = relid == InvalidOid || relid == attached.relid;
	int			i;

	for (i = 0; i < MC_N_SOURCES && !ours; i++)
		ours = attached.table[i].relid == relid;
	if (ours)
	{
		attached.valid = false;
		attached.generation++;
	}
}

static void
forget_plans(void)
{
	int			i;

	for (i = 0; i < MC_N_SCOPES; i++)
		mc_plan_forget(&fact_plan[i]);
	for (i = 0; i < MC_N_SOURCES; i++)
	{
		mc_plan_forget(&resolve_plan[i]);
		mc_plan_forget(&rows_plan[i]);
	}
	mc_plan_forget(&claim_plan);
	mc_plan_forget(&known_plan);
	mc_plan_forget(&active_plan);
	memset(fact_plan, 0, sizeof(fact_plan));
	memset(resolve_plan, 0, sizeof(resolve_plan));
	memset(rows_plan, 0, sizeof(rows_plan));
	memset(&claim_plan, 0, sizeof(claim_plan));
	memset(&known_plan, 0, sizeof(known_plan));
	memset(&active_plan, 0, sizeof(active_plan));
}

/*
 * Take one row of source_table.  A table that was dropped behind our back is
 * treated as not attached.
 */
static void
read_source_row(HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;
	char	   *name = TextDatumGetCString(heap_getattr(tuple, 1, desc, &isnull));
	Oid			relid = DatumGetObjectId(heap_getattr(tuple, 2, desc, &isnull));
	Jsonb	   *columns = DatumGetJsonbP(heap_getattr(tuple, 3, desc, &isnull));
	int			source = mc_source_by_name(name);
	McAttached *table;
	HeapTuple	class;
	int			i;

	if (source < 0)
		return;
	class = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	if (!HeapTupleIsValid(class))
		return;
	table = &attached.table[source];
	table->relid = relid;
	table->owner = ((Form_pg_class) GETSTRUCT(class))->relowner;
	ReleaseSysCache(class);

	for (i = 0; i < mc_source_def[source].ncolumns; i++)
	{
		const char *column = mc_source_def[source].column[i].name;
		JsonbValue	value;

		if (getKeyJsonValueFromContainer(&columns->root, column,
										 strlen(column), &value) &&
			value.type == jbvString)
			table->column[i] = pnstrdup(value.val.string.val,
										value.val.string.len);
		else
			table->column[i] = pstrdup(column);
	}
}

static void
read_attached(void)
{
	const char *zone = mc_zone_name();
	uint64		generation;
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tuple;
	MemoryContext old;

	if (attached.valid && strcmp(attached.zone, zone) == 0)
		return;

	if (!attached.callback_registered)
	{
		CacheRegisterRelcacheCallback(forget_attached, (Datum) 0);
		attached.callback_registered = true;
		attached_context = AllocSetContextCreate(TopMemoryContext,
												 "meritum_cache source tables",
												 ALLOCSET_SMALL_SIZES);
	}
	forget_plans();
	MemoryContextReset(attached_context);
	memset(attached.table, 0, sizeof(attached.table));
	attached.relid = mc_cache_relation("source_table");

	/* an invalidation that comes during the scan makes it invalid at once */
	generation = attached.generation;
	strlcpy(attached.zone, zone, sizeof(attached.zone));
	rel = table_open(attached.relid, AccessShareLock);
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	old = MemoryContextSwitchTo(attached_context);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		read_source_row(tuple, RelationGetDescr(rel));
	MemoryContextSwitchTo(old);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	attached.valid = generation == attached.generation;
	attached.reads++;
}

uint64
mc_source_generation(void)
{
	read_attached();
	return attached.reads;
}

bool
mc_source_references(McSource source, int column, McSource referenced)
{
	Relation	rel;
	AttrNumber	attno;
	bool		found = false;
	ListCell   *lc;

	if (!OidIsValid(attached.table[source].relid) ||
		!OidIsValid(attached.table[referenced].relid))
		return false;
	rel = table_open(attached.table[source].relid, AccessShareLock);
	attno = get_attnum(RelationGetRelid(rel),
					   attached.table[source].column[column]);
	foreach(lc, RelationGetFKeyList(rel))
	{
		ForeignKeyCacheInfo *key = lfirst(lc);

		if (key->confrelid == attached.table[referenced].relid &&
			key->nkeys == 1 && key->conkey[0] == attno)
			found = true;
	}
	table_close(rel, AccessShareLock);
	return found;
}

const McAttached *
mc_source_get(McSource source)
{
	read_attached();
	return OidIsValid(attached.table[source].relid) ?
		&attached.table[source] : NULL;
}

void
mc_source_require(void)
{
	if (mc_source_get(MC_CLAIMS) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no claims table is attached"),
				 errhint("Run SELECT * FROM meritum_attach().")));
}

/* "alias.column", quoted */
static char *
col(McSource source, const char *alias, int column)
{
	return psprintf("%s.%s", alias,
					quote_identifier(attached.table[source].column[column]));
}

static char *
table_name(McSource source)
{
	Oid			relid = attached.table[source].relid;

	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									  get_rel_name(relid));
}

static bool
has(McSource source)
{
	return OidIsValid(attached.table[source].relid);
}

/*
 * The date of a moment in the zone of the figures.  A timestamp without time
 * zone is taken as written in that zone, a date as itself.
 */
static char *
date_of(McSource source, const char *alias, int column)
{
	Oid			relid = attached.table[source].relid;
	AttrNumber	attno = get_attnum(relid, attached.table[source].column[column]);
	char	   *name = col(source, alias, column);

	if (getBaseType(get_atttype(relid, attno)) == TIMESTAMPTZOID)
		return psprintf("timezone(%s, %s)::date",
						quote_literal_cstr(attached.zone), name);
	return psprintf("%s::date", name);
}

/* Amounts are kept as integers of ten-thousandths; null counts as 0. */
static char *
amount(McSource source, const char *alias, int column)
{
	return psprintf("coalesce((%s::numeric * 10000)::int8, 0)",
					col(source, alias, column));
}

#define STATE "s.state"

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
					 ", %s AS claim_id, " STATE ", %s::text, %s, %s",
					 col(MC_CLAIMS, "c", MC_CLAIM_PROVIDER),
					 col(MC_CLAIMS, "c", MC_CLAIM_DATE),
					 col(MC_CLAIMS, "c", MC_CLAIM_ID),
					 col(MC_CLAIMS, "c", MC_CLAIM_TYPE),
					 ahcip ? psprintf("%s IS NOT NULL", col(MC_AHCIP_CLAIM_DETAILS, "a", 0)) : "false",
					 wcb ? psprintf("%s IS NOT NULL", col(MC_WCB_CLAIM_DETAILS, "w", 1)) : "false");
	append_ahcip_columns(sql);
	append_wcb_amount(sql, scope);
	if (ahcip)
		appendStringInfo(sql, ", coalesce(%s, false), coalesce(%s::int4, 0)"
						 ", CASE WHEN " STATE " = 'REJECTED' THEN meritum_cache.explanatory_codes(%s::jsonb) END",
						 col(MC_AHCIP_CLAIM_DETAILS, "a", 4),
						 col(MC_AHCIP_CLAIM_DETAILS, "a", 5),
						 col(MC_AHCIP_CLAIM_DETAILS, "a", 8));
	else
		appendStringInfoString(sql, ", false, 0, NULL::text[]");
	appendStringInfo(sql, ", %s, (%s::jsonb) ->> 'timing_tier', %s",
					 wcb ? psprintf("%s::text", col(MC_WCB_CLAIM_DETAILS, "w", 2)) : "NULL::text",
					 col(MC_CLAIMS, "c", MC_CLAIM_VALIDATION),
					 has(MC_PATIENTS) ?
					 psprintf("nullif(%s::text COLLATE \"C\", 'AB')", col(MC_PATIENTS, "p", 1)) :
					 "NULL::text");
	if (has(MC_CLAIM_AUDIT_HISTORY))
		appendStringInfo(sql, ", EXISTS (SELECT FROM %s h WHERE %s = %s"
						 " AND upper(%s::text COLLATE \"C\") = 'REJECTED')",
						 table_name(MC_CLAIM_AUDIT_HISTORY),
						 col(MC_CLAIM_AUDIT_HISTORY, "h", 0),
						 col(MC_CLAIMS, "c", MC_CLAIM_ID),
						 col(MC_CLAIM_AUDIT_HISTORY, "h", 1));
	else
		appendStringInfoString(sql, ", false");

	/* only in the states whose metrics read them, see metrics.md 37 to 40 */
	appendStringInfo(sql,
					 ", CASE WHEN " STATE " IN ('DRAFT', 'VALIDATED', 'QUEUED') THEN %s END"
					 ", CASE WHEN " STATE " IN ('DRAFT', 'VALIDATED') THEN %s END"
					 ", CASE WHEN " STATE " = 'PAID' THEN %s END",
					 col(MC_CLAIMS, "c", MC_CLAIM_DEADLINE),
					 date_of(MC_CLAIMS, "c", MC_CLAIM_CREATED),
					 date_of(MC_CLAIMS, "c", MC_CLAIM_UPDATED));
}

static void
append_joins(StringInfo sql, McFactScope scope)
{
	appendStringInfo(sql, " FROM %s c CROSS JOIN LATERAL"
					 " (SELECT upper(%s::text COLLATE \"C\") AS state) s",
					 table_name(MC_CLAIMS),
					 col(MC_CLAIMS, "c", MC_CLAIM_STATE));
	if (has(MC_AHCIP_CLAIM_DETAILS))
		appendStringInfo(sql, " LEFT JOIN %s a ON %s = %s",
						 table_name(MC_AHCIP_CLAIM_DETAILS),
						 col(MC_AHCIP_CLAIM_DETAILS, "a", 0),
						 col(MC_CLAIMS, "c", MC_CLAIM_ID));
	if (has(MC_WCB_CLAIM_DETAILS))
		appendStringInfo(sql, " LEFT JOIN %s w ON %s = %s",
						 table_name(MC_WCB_CLAIM_DETAILS),
						 col(MC_WCB_CLAIM_DETAILS, "w", 1),
						 col(MC_CLAIMS, "c", MC_CLAIM_ID));
	if (has(MC_PATIENTS))
		appendStringInfo(sql, " LEFT JOIN %s p ON %s = %s",
						 table_name(MC_PATIENTS), col(MC_PATIENTS, "p", 0),
						 col(MC_CLAIMS, "c", MC_CLAIM_PATIENT));
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
mc_source_fact_query(McFactScope scope)
{
	StringInfoData sql;
	char	   *provider;
	char	   *date;

	mc_source_require();
	provider = col(MC_CLAIMS, "c", MC_CLAIM_PROVIDER);
	date = col(MC_CLAIMS, "c", MC_CLAIM_DATE);
	initStringInfo(&sql);
	append_select_list(&sql, scope);
	append_joins(&sql, scope);
	appendStringInfo(&sql, " WHERE %s IS NULL AND " STATE " IS DISTINCT FROM 'DELETED' AND ",
					 col(MC_CLAIMS, "c", MC_CLAIM_DELETED));
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
	plan->sql = MemoryContextStrdup(attached_context, sql);
	plan->types = types;
	plan->result = SPI_OK_SELECT;
	return plan;
}

McPlan *
mc_source_fact_plan(McFactScope scope)
{
	static const char *const types[MC_N_SCOPES] = {
		[MC_SCOPE_CLAIMS] = "uuid[]",
		[MC_SCOPE_RANGE] = "uuid,date,date",
		[MC_SCOPE_PROVIDER] = "uuid",
		[MC_SCOPE_ALL] = "",
	};

	mc_source_require();
	if (fact_plan[scope].sql != NULL)
		return &fact_plan[scope];
	return build(&fact_plan[scope], mc_source_fact_query(scope), types[scope]);
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
mc_source_resolve_plan(McSource source)
{
	StringInfoData sql;

	mc_source_require();
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
 *	ai_suggestion_events ($2, $3 dates): date, rule_id, event_type, category,
 *		revenue_impact
 *	ai_provider_learning: rule_id of the suppressed
 *	ai_rules ($1 uuid[]): rule_id, name
 */
McPlan *
mc_source_rows_plan(McSource source)
{
	StringInfoData sql;
	const char *types = "uuid";

	read_attached();
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
			{
				char	   *date = date_of(source, "e", 5);

				appendStringInfo(&sql, "SELECT %s, %s, %s::text, %s::text, %s"
								 " FROM %s e WHERE %s = $1 AND %s BETWEEN $2 AND $3",
								 date, col(source, "e", 1), col(source, "e", 2),
								 col(source, "e", 3), amount(source, "e", 4),
								 table_name(source), col(source, "e", 0), date);
				types = "uuid,date,date";
			}
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

bool
mc_source_claim(const pg_uuid_t *claim, pg_uuid_t *provider, char **type,
				DateADT *date)
{
	Datum		value = UUIDPGetDatum(claim);
	Oid			previous;
	uint64		n;
	bool		isnull;

	mc_source_require();
	if (claim_plan.sql == NULL)
		build(&claim_plan, psprintf("SELECT %s, %s::text, %s FROM %s c WHERE %s = $1 AND %s IS NOT NULL",
									col(MC_CLAIMS, "c", MC_CLAIM_PROVIDER),
									col(MC_CLAIMS, "c", MC_CLAIM_TYPE),
									col(MC_CLAIMS, "c", MC_CLAIM_DATE),
									table_name(MC_CLAIMS),
									col(MC_CLAIMS, "c", MC_CLAIM_ID),
									col(MC_CLAIMS, "c", MC_CLAIM_PROVIDER)), "uuid");
	previous = mc_owner_switch(attached.table[MC_CLAIMS].owner);
	n = mc_plan_execute(&claim_plan, &value, NULL);
	mc_owner_restore(previous);
	if (n == 0)
		return false;
	*provider = *DatumGetUUIDP(mc_plan_value(0, 1, &isnull));
	value = mc_plan_value(0, 2, &isnull);
	*type = isnull ? NULL : TextDatumGetCString(value);
	value = mc_plan_value(0, 3, &isnull);
	*date = isnull ? DATEVAL_NOBEGIN : DatumGetDateADT(value);
	return true;
}

bool
mc_source_provider_known(const pg_uuid_t *provider)
{
	Datum		value = UUIDPGetDatum(provider);
	Oid			previous;
	uint64		n;

	read_attached();
	if (!has(MC_PROVIDERS))
		return true;
	if (known_plan.sql == NULL)
		build(&known_plan, psprintf("SELECT 1 FROM %s p WHERE %s = $1",
									table_name(MC_PROVIDERS),
									col(MC_PROVIDERS, "p", 0)), "uuid");
	previous = mc_owner_switch(attached.table[MC_PROVIDERS].owner);
	n = mc_plan_execute(&known_plan, &value, NULL);
	mc_owner_restore(previous);
	return n > 0;
}

List *
mc_source_active_providers(DateADT as_of)
{
	DateADT		month = mc_month_of(as_of);
	Datum		values[2];
	MemoryContext caller = CurrentMemoryContext;
	List	   *list = NIL;
	Oid			previous;
	uint64		i,
				n;

	mc_source_require();
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
	previous = mc_owner_switch(attached.table[has(MC_PROVIDERS) ? MC_PROVIDERS : MC_CLAIMS].owner);
	n = mc_plan_execute(&active_plan, values, NULL);
	mc_owner_restore(previous);

	for (i = 0; i < n; i++)
	{
		bool		isnull;
		Datum		value = mc_plan_value(i, 1, &isnull);
		MemoryContext old = MemoryContextSwitchTo(caller);
		pg_uuid_t  *provider = palloc(sizeof(pg_uuid_t));

		*provider = *DatumGetUUIDP(value);
		list = lappend(list, provider);
		MemoryContextSwitchTo(old);
	}
	return list;
}
