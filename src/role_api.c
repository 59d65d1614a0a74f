/*
 * role_api.c
 *		SQL entry points for roles: levels and the pin.
 *
 * What a level may execute and select is granted and revoked here as the
 * extension's owner, so that it shows in the access lists of the objects and
 * a dump carries it; role_grant keeps what those cannot say.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/syscache.h"

#include "args.h"
#include "owner.h"
#include "plan.h"
#include "privilege.h"

/* The functions of each level; what is not here stays with the owner. */
static const struct
{
	const char *name;
	McLevel		level;
} routines[] = {
	{"pinned_provider", MC_LEVEL_READER},
	{"sees_all", MC_LEVEL_READER},
	{"meritum_get_metrics", MC_LEVEL_READER},
	{"meritum_compute_metrics", MC_LEVEL_READER},
	{"meritum_is_stale", MC_LEVEL_READER},
	{"meritum_freshness", MC_LEVEL_READER},
	{"meritum_get_stale_entries", MC_LEVEL_READER},
	{"meritum_request_refresh", MC_LEVEL_READER},
	{"meritum_set_provider", MC_LEVEL_READER},
	{"meritum_upsert_metric", MC_LEVEL_OPERATOR},
	{"meritum_bulk_upsert", MC_LEVEL_OPERATOR},
	{"meritum_delete_expired_entries", MC_LEVEL_OPERATOR},
	{"meritum_refresh_provider_metrics", MC_LEVEL_OPERATOR},
	{"meritum_refresh_all_providers", MC_LEVEL_OPERATOR},
	{"meritum_handle_claim_state_change", MC_LEVEL_OPERATOR},
	{"meritum_handle_event", MC_LEVEL_OPERATOR},
	{"meritum_invalidate", MC_LEVEL_OPERATOR},
	{"meritum_verify", MC_LEVEL_OPERATOR},
	{"meritum_cleanup_old_entries", MC_LEVEL_OPERATOR},
	{"meritum_next_run", MC_LEVEL_OPERATOR},
	{"meritum_run_job", MC_LEVEL_OPERATOR},
	{"refresh_statistics", MC_LEVEL_OPERATOR},
	{"meritum_stat_reset", MC_LEVEL_OPERATOR},
	{"meritum_attach", MC_LEVEL_ADMIN},
	{"meritum_detach", MC_LEVEL_ADMIN},
	{"meritum_create_metric", MC_LEVEL_ADMIN},
	{"meritum_drop_metric", MC_LEVEL_ADMIN},
	{"meritum_attach_event", MC_LEVEL_ADMIN},
	{"meritum_detach_event", MC_LEVEL_ADMIN},
	{"meritum_schedule", MC_LEVEL_ADMIN},
	{"meritum_unschedule", MC_LEVEL_ADMIN},
	{"meritum_grant", MC_LEVEL_ADMIN},
	{"meritum_revoke", MC_LEVEL_ADMIN},
};

/*
 * The same for the tables and views of the schema meritum_cache.  The library
 * also serves older versions of the extension, which lack some.
 */
static const struct
{
	const char *name;
	McLevel		level;
	const char *rights;
} relations[] = {
	{"analytics_cache", MC_LEVEL_READER, "SELECT"},
	{"provider_state", MC_LEVEL_READER, "SELECT"},
	{"pending_refresh", MC_LEVEL_READER, "SELECT"},
	{"failed_refresh", MC_LEVEL_READER, "SELECT"},
	{"metric", MC_LEVEL_READER, "SELECT"},
	{"metric_state", MC_LEVEL_OPERATOR, "SELECT"},
	{"event_metric", MC_LEVEL_OPERATOR, "SELECT"},
	{"source_table", MC_LEVEL_OPERATOR, "SELECT"},
	{"job", MC_LEVEL_OPERATOR, "SELECT"},
	{"job_state", MC_LEVEL_OPERATOR, "SELECT"},
	{"job_run", MC_LEVEL_OPERATOR, "SELECT"},
	{"job_status", MC_LEVEL_OPERATOR, "SELECT"},
	{"stat_baseline", MC_LEVEL_OPERATOR, "SELECT"},
	{"stat_provider", MC_LEVEL_OPERATOR, "SELECT"},
	{"stat_refresh", MC_LEVEL_OPERATOR, "SELECT"},
	{"event_metric", MC_LEVEL_ADMIN, "INSERT, UPDATE, DELETE"},
	{"role_grant", MC_LEVEL_ADMIN, "SELECT"},
};

/* Those of the extension's functions that have one of the names. */
static McPlan list_routines = {
	"SELECT string_agg(p.oid::regprocedure::text, ', ')"
	"  FROM pg_extension e"
	"  JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass"
	"   AND d.refobjid = e.oid AND d.deptype = 'e'"
	"   AND d.classid = 'pg_proc'::regclass"
	"  JOIN pg_proc p ON p.oid = d.objid"
	" WHERE e.extname = 'meritum_cache' AND p.proname = ANY ($1::text[])",
	"text[]", SPI_OK_SELECT
};

static McPlan store_grant = {
	"INSERT INTO meritum_cache.role_grant (role, level, pinned)"
	" VALUES ($1::regrole, $2, $3)",
	"oid,text,bool", SPI_OK_INSERT
};

/* With it go the rows of roles that were dropped. */
static McPlan delete_grant = {
	"DELETE FROM meritum_cache.role_grant g WHERE g.role::oid = $1"
	" OR NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = g.role::oid)",
	"oid", SPI_OK_DELETE
};

static McPlan has_grant = {
	"SELECT FROM meritum_cache.role_grant g WHERE g.role::oid = $1",
	"oid", SPI_OK_SELECT
};

/* The schemas of the functions that the role cannot look into. */
static McPlan closed_schema = {
	"SELECT n.nspname::text FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace"
	" WHERE e.extname = 'meritum_cache' AND NOT has_schema_privilege($1, n.oid, 'USAGE')",
	"oid", SPI_OK_SELECT
};

/*
 * The argument role as the name to write in a statement.
 */
static char *
check_role(Oid role)
{
	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(role)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role with OID %u does not exist", role)));
	if (role == mc_extension_owner())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("role \"%s\" owns the extension and has every right already",
						GetUserNameFromId(role, false))));
	return pstrdup(quote_identifier(GetUserNameFromId(role, false)));
}

/* Names and argument types of the functions up to a level. */
static char *
routines_up_to(McLevel level)
{
	Datum		names[lengthof(routines)];
	Datum		value;
	bool		isnull;
	int			n = 0;
	int			i;

	for (i = 0; i < lengthof(routines); i++)
		if (routines[i].level <= level)
			names[n++] = CStringGetTextDatum(routines[i].name);
	value = PointerGetDatum(construct_array(names, n, TEXTOID, -1, false,
											TYPALIGN_INT));
	mc_plan_execute(&list_routines, &value, NULL);
	value = mc_plan_value(0, 1, &isnull);
	if (isnull)
		elog(ERROR, "extension \"meritum_cache\" has no functions");
	return TextDatumGetCString(value);
}

static void
grant_objects(const char *role, McLevel level)
{
	int			i;

	mc_plan_utility(psprintf("GRANT USAGE ON SCHEMA meritum_cache TO %s", role));
	mc_plan_utility(psprintf("GRANT EXECUTE ON ROUTINE %s TO %s",
							 routines_up_to(level), role));
	for (i = 0; i < lengthof(relations); i++)
		if (relations[i].level <= level && mc_has_relation(relations[i].name))
			mc_plan_utility(psprintf("GRANT %s ON meritum_cache.%s TO %s",
									 relations[i].rights, relations[i].name,
									 role));
}

static void
revoke_objects(const char *role)
{
	int			i;

	mc_plan_utility(psprintf("REVOKE ALL ON SCHEMA meritum_cache FROM %s", role));
	mc_plan_utility(psprintf("REVOKE ALL ON ROUTINE %s FROM %s",
							 routines_up_to(MC_LEVEL_ADMIN), role));
	for (i = 0; i < lengthof(relations); i++)
		if (mc_has_relation(relations[i].name))
			mc_plan_utility(psprintf("REVOKE ALL ON meritum_cache.%s FROM %s",
									 relations[i].name, role));
}

/* Of two changes of grants at a time one waits for the other. */
static void
lock_grants(void)
{
	LockRelationOid(mc_cache_relation("role_grant"), ShareRowExclusiveLock);
	mc_owner_renew_snapshot();
}

PG_FUNCTION_INFO_V1(meritum_grant);
PG_FUNCTION_INFO_V1(meritum_revoke);
PG_FUNCTION_INFO_V1(meritum_set_provider);

Datum
meritum_grant(PG_FUNCTION_ARGS)
{
	Oid			role;
	char	   *name;
	char	   *level_name;
	McLevel		level;
	bool		pinned;
	Datum		values[3];
	McBracket	bracket;

	mc_arg_required(fcinfo, 0, "role");
	mc_arg_required(fcinfo, 1, "level");
	mc_arg_required(fcinfo, 2, "pinned");
	mc_require_unpinned("meritum_grant");
	mc_require_admin("grant levels");
	role = PG_GETARG_OID(0);
	name = check_role(role);
	level_name = text_to_cstring(PG_GETARG_TEXT_PP(1));
	level = mc_level_by_name(level_name);
	if (level == MC_LEVEL_NONE)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown level \"%s\"", level_name),
				 errhint("The levels are reader, operator and admin.")));
	pinned = PG_GETARG_BOOL(2);
	if (pinned && level != MC_LEVEL_READER)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("only the level reader can be pinned")));

	mc_owner_enter(&bracket, true);
	lock_grants();
	revoke_objects(name);
	grant_objects(name, level);
	values[0] = ObjectIdGetDatum(role);
	values[1] = CStringGetTextDatum(level_name);
	values[2] = BoolGetDatum(pinned);
	mc_plan_execute(&delete_grant, values, NULL);
	mc_plan_execute(&store_grant, values, NULL);
	if (mc_plan_execute(&closed_schema, values, NULL) > 0)
	{
		bool		isnull;

		ereport(NOTICE,
				(errmsg("role %s has no right to use schema \"%s\", where the functions are",
						name, TextDatumGetCString(mc_plan_value(0, 1, &isnull)))));
	}
	mc_owner_leave(&bracket);
	PG_RETURN_VOID();
}

Datum
meritum_revoke(PG_FUNCTION_ARGS)
{
	Oid			role;
	char	   *name;
	Datum		value;
	bool		had;
	McBracket	bracket;

	mc_arg_required(fcinfo, 0, "role");
	mc_require_unpinned("meritum_revoke");
	mc_require_admin("revoke levels");
	role = PG_GETARG_OID(0);
	name = check_role(role);
	value = ObjectIdGetDatum(role);

	mc_owner_enter(&bracket, true);
	lock_grants();
	had = mc_plan_execute(&has_grant, &value, NULL) > 0;
	revoke_objects(name);
	mc_plan_execute(&delete_grant, &value, NULL);
	mc_owner_leave(&bracket);
	PG_RETURN_BOOL(had);
}

Datum
meritum_set_provider(PG_FUNCTION_ARGS)
{
	mc_arg_required(fcinfo, 1, "is_local");
	mc_privilege_pin(PG_ARGISNULL(0) ? NULL : PG_GETARG_UUID_P(0),
					 PG_GETARG_BOOL(1));
	PG_RETURN_VOID();
}
