/*
 * attach.c
 *		The application's tables: find, check, make triggers, fill the facts.
 *
 * The tables are looked up and checked as the caller, with the caller's
 * search path; what is then done to them is done as the owner of the
 * extension.  The triggers depend on the extension, so that dropping it drops
 * them and nothing else.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#include "compat.h"
#include "dirty.h"
#include "fact.h"
#include "owner.h"
#include "plan.h"
#include "privilege.h"
#include "source.h"
#include "zone.h"

#define TRUNCATE_TRIGGER "meritum_cache_truncate"

/* What is to be attached as one source. */
typedef struct Candidate
{
	Oid			relid;			/* InvalidOid: not found */
	char	   *column[MC_MAX_COLUMNS];
	const char *action;
} Candidate;

static McPlan store_source = {
	"INSERT INTO meritum_cache.source_table AS t (source, relation, columns)"
	" VALUES ($1, $2, $3)"
	" ON CONFLICT (source) DO UPDATE SET relation = excluded.relation,"
	" columns = excluded.columns, attached_at = now()",
	"text,regclass,jsonb", SPI_OK_INSERT
};

static McPlan delete_sources = {
	"DELETE FROM meritum_cache.source_table", "", SPI_OK_DELETE
};

static McPlan select_sources = {
	"SELECT t.source, t.relation FROM meritum_cache.source_table t"
	" JOIN pg_class c ON c.oid = t.relation",
	"", SPI_OK_SELECT
};

static McPlan delete_facts = {
	"DELETE FROM meritum_cache.claim_fact", "", SPI_OK_DELETE
};

/* What is kept of custom metrics, which need no attached tables. */
static McPlan delete_states = {
	"DELETE FROM meritum_cache.provider_state s WHERE NOT EXISTS"
	" (SELECT FROM meritum_cache.metric_state m WHERE m.provider_id = s.provider_id)",
	"", SPI_OK_DELETE
};

static McPlan reset_states = {
	"UPDATE meritum_cache.provider_state SET facts_zone = NULL,"
	" full_from = NULL, full_to = NULL, snapshot_on = NULL",
	"", SPI_OK_UPDATE
};

static McPlan delete_cells = {
	"DELETE FROM meritum_cache.analytics_cache c WHERE EXISTS"
	" (SELECT FROM meritum_cache.metric m WHERE m.metric_key = c.metric_key"
	" AND m.query IS NULL)",
	"", SPI_OK_DELETE
};

static McPlan delete_notes = {
	"DELETE FROM meritum_cache.pending_refresh n"
	" WHERE n.metric_key IS NULL AND n.scope <> 'request'",
	"", SPI_OK_DELETE
};

static McPlan fill_states = {
	"INSERT INTO meritum_cache.provider_state (provider_id, facts_zone)"
	" SELECT DISTINCT f.provider_id, $1 FROM meritum_cache.claim_fact f"
	" ON CONFLICT (provider_id) DO UPDATE SET facts_zone = excluded.facts_zone,"
	" full_from = NULL, full_to = NULL, places = NULL",
	"text", SPI_OK_INSERT
};

/*
 * The first table of that name in the schemas of the search path, temporary
 * ones left out: a figure must not come from a table of the session.
 */
static Oid
find_table(const char *name)
{
	List	   *path = fetch_search_path(false);
	Oid			relid = InvalidOid;
	ListCell   *lc;

	foreach(lc, path)
	{
		if (isAnyTempNamespace(lfirst_oid(lc)))
			continue;
		relid = get_relname_relid(name, lfirst_oid(lc));
		if (OidIsValid(relid))
			break;
	}
	list_free(path);
	return relid;
}

static void
check_table(Oid relid, const char *source)
{
	char		kind = get_rel_relkind(relid);

	if (kind != RELKIND_RELATION && kind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("cannot attach \"%s\" as %s", get_rel_name(relid), source),
				 errdetail("It is not a table.")));
	if (get_rel_persistence(relid) == RELPERSISTENCE_TEMP)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("cannot attach \"%s\" as %s", get_rel_name(relid), source),
				 errdetail("It is a temporary table.")));
	if (!mc_owns_relation(relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, get_rel_name(relid));
}

/*
 * Take the renamed columns from the argument, else those already attached.
 */
static void
name_columns(Candidate *candidates, Jsonb *renames)
{
	JsonbIterator *it = JsonbIteratorInit(&renames->root);
	JsonbValue	value;
	JsonbIteratorToken token;
	int			source = -1;
	int			column = -1;
	int			level = 0;
	int			s,
				c;

	for (s = 0; s < MC_N_SOURCES; s++)
	{
		const McAttached *table = mc_source_get(s);

		for (c = 0; c < mc_source_def[s].ncolumns; c++)
			candidates[s].column[c] =
				pstrdup(table != NULL ? table->column[c] :
						mc_source_def[s].column[c].name);
	}

	while ((token = JsonbIteratorNext(&it, &value, false)) != WJB_DONE)
	{
		char	   *text;

		if (token == WJB_BEGIN_OBJECT && level++ < 2)
			continue;
		if (token == WJB_END_OBJECT)
		{
			level--;
			continue;
		}
		if ((token != WJB_KEY && token != WJB_VALUE) || value.type != jbvString ||
			(token == WJB_VALUE && level != 2))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("columns must be an object of objects of column names"),
					 errhint("For example {\"claims\": {\"physician_id\": \"doctor_id\"}}.")));
		text = pnstrdup(value.val.string.val, value.val.string.len);
		if (token == WJB_VALUE)
			candidates[source].column[column] = text;
		else if (level == 1)
		{
			source = mc_source_by_name(text);
			if (source < 0)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("unknown source table \"%s\" in columns", text)));
		}
		else
		{
			for (column = 0; column < mc_source_def[source].ncolumns; column++)
				if (strcmp(mc_source_def[source].column[column].name, text) == 0)
					break;
			if (column == mc_source_def[source].ncolumns)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("unknown column \"%s\" of %s in columns", text,
								mc_source_def[source].name)));
		}
	}
}

/*
 * Check the columns of all tables and complain of all that is wrong at once.
 */
static void
check_columns(Candidate *candidates)
{
	StringInfoData missing;
	StringInfoData wrong;
	int			s,
				c;

	initStringInfo(&missing);
	initStringInfo(&wrong);
	for (s = 0; s < MC_N_SOURCES; s++)
	{
		if (!OidIsValid(candidates[s].relid))
			continue;
		for (c = 0; c < mc_source_def[s].ncolumns; c++)
		{
			Oid			wanted = mc_source_def[s].column[c].type;
			AttrNumber	attno = get_attnum(candidates[s].relid,
										   candidates[s].column[c]);

			if (attno <= 0)
				appendStringInfo(&missing, "%s%s.%s", missing.len > 0 ? ", " : "",
								 get_rel_name(candidates[s].relid),
								 candidates[s].column[c]);
			else if (!mc_source_type_fits(get_atttype(candidates[s].relid, attno), wanted))
				appendStringInfo(&wrong, "%s%s.%s is %s, not %s",
								 wrong.len > 0 ? ", " : "",
								 get_rel_name(candidates[s].relid),
								 candidates[s].column[c],
								 format_type_be(get_atttype(candidates[s].relid, attno)),
								 format_type_be(wanted));
		}
	}
	if (missing.len > 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("columns are missing in the tables to attach"),
				 wrong.len > 0 ?
				 errdetail("Missing: %s. Of another type: %s.", missing.data, wrong.data) :
				 errdetail("Missing: %s.", missing.data),
				 errhint("Name renamed columns in the argument columns of meritum_attach().")));
	if (wrong.len > 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("columns of the tables to attach have unusable types"),
				 errdetail("Of another type: %s.", wrong.data)));
}

static bool
has_trigger(Oid relid, const char *name)
{
	return OidIsValid(get_trigger_oid(relid, name, true));
}

static char *
qualified_name(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									  get_rel_name(relid));
}

/*
 * Make a trigger that goes when the extension goes.
 */
static void
make_trigger(Oid relid, const char *trigger, const char *when, McSource source)
{
	const char *table = qualified_name(relid);

	if (has_trigger(relid, trigger))
		return;
	mc_plan_utility(psprintf("CREATE TRIGGER %s AFTER %s"
							 " EXECUTE FUNCTION meritum_cache.note_change('%s')",
							 trigger,
							 psprintf(when, table), mc_source_def[source].name));
	mc_plan_utility(psprintf("ALTER TRIGGER %s ON %s DEPENDS ON EXTENSION meritum_cache",
							 trigger, table));
}

/*
 * A row trigger of a partitioned table reaches its partitions by itself; a
 * statement trigger does not, and a partition can be truncated alone.
 */
static void
make_triggers(Oid relid, McSource source)
{
	ListCell   *lc;

	make_trigger(relid, MC_ROW_TRIGGER,
				 "INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW", source);
	foreach(lc, find_all_inheritors(relid, NoLock, NULL))
		make_trigger(lfirst_oid(lc), TRUNCATE_TRIGGER,
					 "TRUNCATE ON %s FOR EACH STATEMENT", source);
}

static int
drop_triggers(Oid relid)
{
	static const char *const names[] = {MC_ROW_TRIGGER, TRUNCATE_TRIGGER};
	int			dropped = 0;
	int			i;
	ListCell   *lc;

	for (i = 0; i < lengthof(names); i++)
		foreach(lc, find_all_inheritors(relid, AccessExclusiveLock, NULL))
		{
			Oid			table = lfirst_oid(lc);

			if (!has_trigger(table, names[i]) ||
				(i == 0 && table != relid))
				continue;
			mc_plan_utility(psprintf("DROP TRIGGER %s ON %s", names[i],
									 qualified_name(table)));
			dropped++;
		}
	return dropped;
}

static Jsonb *
columns_json(const Candidate *candidate, McSource source)
{
	StringInfoData json;
	int			c;

	initStringInfo(&json);
	appendStringInfoChar(&json, '{');
	for (c = 0; c < mc_source_def[source].ncolumns; c++)
	{
		if (c > 0)
			appendStringInfoChar(&json, ',');
		escape_json(&json, mc_source_def[source].column[c].name);
		appendStringInfoChar(&json, ':');
		escape_json(&json, candidate->column[c]);
	}
	appendStringInfoChar(&json, '}');
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(json.data)));
}

/*
 * Is the source attached as the candidate says already?  Not if it has lost
 * the trigger: then nobody knows what has changed since.
 */
static bool
is_attached(const Candidate *candidate, McSource source)
{
	const McAttached *table = mc_source_get(source);
	int			c;

	if (table == NULL || table->relid != candidate->relid ||
		!has_trigger(candidate->relid, MC_ROW_TRIGGER))
		return false;
	for (c = 0; c < mc_source_def[source].ncolumns; c++)
		if (strcmp(table->column[c], candidate->column[c]) != 0)
			return false;
	return true;
}

/*
 * Compute all facts at once.  The snapshot must be newer than the locks that
 * the triggers took: what writers committed before is to be counted here,
 * what they write from now on the triggers note.
 */
static void
fill_facts(void)
{
	Datum		zone = CStringGetTextDatum(mc_zone_name());

	mc_owner_renew_snapshot();
	mc_plan_execute(&delete_facts, NULL, NULL);
	mc_plan_execute(&delete_states, NULL, NULL);
	mc_plan_execute(&reset_states, NULL, NULL);
	mc_plan_execute(&delete_notes, NULL, NULL);
	mc_fact_fill();
	mc_plan_execute(&fill_states, &zone, NULL);
}

static void
attach_candidates(Candidate *candidates)
{
	bool		first = !OidIsValid(candidates[MC_CLAIMS].relid) ||
		mc_source_get(MC_CLAIMS) == NULL;
	McBracket	bracket;
	int			s;

	mc_owner_enter(&bracket, true);
	for (s = 0; s < MC_N_SOURCES; s++)
	{
		Candidate  *candidate = &candidates[s];

		if (!OidIsValid(candidate->relid))
		{
			candidate->action = "not found";
			continue;
		}
		candidate->action = "already attached";
		if (!is_attached(candidate, s))
		{
			const McAttached *old = mc_source_get(s);
			Datum		values[3];

			if (old != NULL && old->relid != candidate->relid)
				drop_triggers(old->relid);
			candidate->action = old == NULL ? "attached" : "changed";
			values[0] = CStringGetTextDatum(mc_source_def[s].name);
			values[1] = ObjectIdGetDatum(candidate->relid);
			values[2] = PointerGetDatum(columns_json(candidate, s));
			mc_plan_execute(&store_source, values, NULL);
			if (!first)
				mc_dirty_source(s); /* figures follow at commit */
		}
		make_triggers(candidate->relid, s);
	}
	if (first)
		fill_facts();
	mc_owner_leave(&bracket);
}

static void
put_row(ReturnSetInfo *rsinfo, McSource source, Oid relid, const char *action)
{
	Datum		values[3];
	bool		nulls[3] = {false};

	values[0] = CStringGetTextDatum(mc_source_def[source].name);
	values[1] = ObjectIdGetDatum(relid);
	nulls[1] = !OidIsValid(relid);
	values[2] = CStringGetTextDatum(action);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

PG_FUNCTION_INFO_V1(meritum_attach);

Datum
meritum_attach(PG_FUNCTION_ARGS)
{
	/* the arguments after claims and columns follow the order of McSource */
	Candidate	candidates[MC_N_SOURCES];
	int			s;

	memset(candidates, 0, sizeof(candidates));
	mc_require_unpinned("meritum_attach");
	mc_require_admin("attach tables");
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("columns must not be null")));
	(void) mc_cache_relation("source_table");
	for (s = 0; s < MC_N_SOURCES; s++)
	{
		int			arg = s == 0 ? 0 : s + 1;
		const McAttached *table = mc_source_get(s);

		if (!PG_ARGISNULL(arg))
			candidates[s].relid = PG_GETARG_OID(arg);
		else if (table != NULL)
			candidates[s].relid = table->relid;
		else
			candidates[s].relid = find_table(mc_source_def[s].name);
		if (!OidIsValid(candidates[s].relid))
			continue;
		LockRelationOid(candidates[s].relid, ShareRowExclusiveLock);
		check_table(candidates[s].relid, mc_source_def[s].name);
	}
	if (!OidIsValid(candidates[MC_CLAIMS].relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("no table \"%s\" on the search path", "claims"),
				 errhint("Name the claims table in the first argument of meritum_attach().")));
	name_columns(candidates, PG_GETARG_JSONB_P(1));
	check_columns(candidates);
	attach_candidates(candidates);

	InitMaterializedSRF(fcinfo, 0);
	for (s = 0; s < MC_N_SOURCES; s++)
		put_row((ReturnSetInfo *) fcinfo->resultinfo, s, candidates[s].relid,
				candidates[s].action);
	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(meritum_detach);

Datum
meritum_detach(PG_FUNCTION_ARGS)
{
	Oid			relid[MC_N_SOURCES] = {InvalidOid};
	int			dropped[MC_N_SOURCES] = {0};
	McBracket	bracket;
	uint64		n,
				i;
	int			s;

	mc_require_unpinned("meritum_detach");
	mc_require_admin("detach tables");
	for (s = 0; s < MC_N_SOURCES; s++)
		if (mc_source_get(s) != NULL)
			check_table(mc_source_get(s)->relid, mc_source_def[s].name);

	mc_owner_enter(&bracket, true);
	n = mc_plan_execute(&select_sources, NULL, NULL);
	for (i = 0; i < n; i++)
	{
		bool		isnull;

		s = mc_source_by_name(TextDatumGetCString(mc_plan_value(i, 1, &isnull)));
		if (s >= 0)
			relid[s] = DatumGetObjectId(mc_plan_value(i, 2, &isnull));
	}
	for (s = 0; s < MC_N_SOURCES; s++)
		if (OidIsValid(relid[s]))
			dropped[s] = drop_triggers(relid[s]);
	mc_plan_execute(&delete_sources, NULL, NULL);
	mc_plan_execute(&delete_cells, NULL, NULL);
	mc_plan_execute(&delete_facts, NULL, NULL);
	mc_plan_execute(&delete_states, NULL, NULL);
	mc_plan_execute(&reset_states, NULL, NULL);
	mc_plan_execute(&delete_notes, NULL, NULL);
	mc_owner_leave(&bracket);

	InitMaterializedSRF(fcinfo, 0);
	for (s = 0; s < MC_N_SOURCES; s++)
		if (OidIsValid(relid[s]))
			put_row((ReturnSetInfo *) fcinfo->resultinfo, s, relid[s],
					psprintf("%d triggers removed", dropped[s]));
	return (Datum) 0;
}
