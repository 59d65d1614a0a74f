/*
 * event_api.c
 *		SQL entry points for events: raised by hand, or by triggers of tables.
 *
 * An event marks: what it touches is recomputed when the transaction commits,
 * or by the background worker, exactly as changes of claims are.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "args.h"
#include "compat.h"
#include "dirty.h"
#include "event.h"
#include "guc.h"
#include "owner.h"
#include "plan.h"
#include "privilege.h"

static McPlan select_providers = {
	"SELECT m.provider_id FROM meritum_cache.metric_state m WHERE m.metric_key = ANY ($1)"
	" UNION SELECT c.provider_id FROM meritum_cache.analytics_cache c"
	" WHERE c.metric_key = ANY ($1)",
	"varchar[]", SPI_OK_SELECT
};

static void
mark(const pg_uuid_t *provider, const McKeys *keys, int64 *count)
{
	McBracket	bracket;

	mc_owner_enter(&bracket, true);
	*count = mc_event_count(provider, keys);
	mc_owner_leave(&bracket);
	mc_dirty_keys(provider, keys, NULL);
}

PG_FUNCTION_INFO_V1(meritum_handle_event);

Datum
meritum_handle_event(PG_FUNCTION_ARGS)
{
	const pg_uuid_t *provider;
	char	   *event;
	McKeys		keys;
	int64		count;

	mc_arg_required(fcinfo, 0, "event_type");
	provider = mc_arg_provider(fcinfo, 1);
	event = text_to_cstring(PG_GETARG_TEXT_PP(0));
	PreventCommandIfReadOnly("meritum_handle_event()");
	if (!mc_event_find(event, &keys))
	{
		ereport(WARNING,
				(errmsg("unknown event type \"%s\"", event),
				 errhint("The event types are listed in meritum_cache.event_metric.")));
		PG_RETURN_INT32(0);
	}
	mark(provider, &keys, &count);
	mc_event_log_count(provider, event, count);
	PG_RETURN_INT32((int32) count);
}

PG_FUNCTION_INFO_V1(meritum_invalidate);

Datum
meritum_invalidate(PG_FUNCTION_ARGS)
{
	const pg_uuid_t *provider = mc_arg_provider(fcinfo, 0);
	char	   *prefix;
	McKeys		keys;
	int64		count;

	mc_arg_required(fcinfo, 1, "prefix");
	prefix = text_to_cstring(PG_GETARG_TEXT_PP(1));
	PreventCommandIfReadOnly("meritum_invalidate()");
	keys = mc_keys_with_prefix(prefix);
	if (mc_keys_empty(&keys))
	{
		ereport(WARNING,
				(errmsg("no metric begins with \"%s\"", prefix),
				 errhint("The metrics are listed in meritum_cache.metric.")));
		PG_RETURN_INT32(0);
	}
	mark(provider, &keys, &count);
	mc_event_log_count(provider, psprintf("invalidate.%s", prefix), count);
	PG_RETURN_INT32((int32) count);
}

/*
 * The trigger of an event on a table, one for each event: a name that begins
 * alike, and where the event's is long, ends with its hash.
 */
static char *
trigger_name(const char *event, const char *suffix)
{
	char	   *name = psprintf("meritum_cache_event_%s%s", event, suffix);

	if (strlen(name) >= NAMEDATALEN)
		name = psprintf("meritum_cache_event_%08x%s",
						hash_bytes((const unsigned char *) event, strlen(event)),
						suffix);
	return name;
}

#define TRUNCATE_SUFFIX " truncate"

static void
check_table(Oid relid)
{
	char		kind = get_rel_relkind(relid);

	if (kind == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));
	if ((kind != RELKIND_RELATION && kind != RELKIND_PARTITIONED_TABLE) ||
		get_rel_persistence(relid) == RELPERSISTENCE_TEMP)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("cannot attach an event to \"%s\"", get_rel_name(relid)),
				 errdetail("It is not a table, or a temporary one.")));
	if (!mc_owns_relation(relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, get_rel_name(relid));
}

static void
check_column(Oid relid, const char *column)
{
	AttrNumber	attno = get_attnum(relid, column);

	if (attno <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of relation \"%s\" does not exist",
						column, get_rel_name(relid))));
	if (getBaseType(get_atttype(relid, attno)) != UUIDOID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of relation \"%s\" is not of type %s",
						column, get_rel_name(relid), "uuid")));
}

static char *
qualified_name(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									  get_rel_name(relid));
}

static bool
drop_trigger(Oid relid, const char *name)
{
	if (!OidIsValid(get_trigger_oid(relid, name, true)))
		return false;
	mc_plan_utility(psprintf("DROP TRIGGER %s ON %s", quote_identifier(name),
						 qualified_name(relid)));
	return true;
}

/* Make a trigger that goes when the extension goes; an old one is replaced. */
static void
make_trigger(Oid relid, const char *name, const char *when, const char *level,
			 const char *event, const char *column)
{
	const char *table = qualified_name(relid);
	const char *trigger = quote_identifier(name);

	(void) drop_trigger(relid, name);
	mc_plan_utility(psprintf("CREATE TRIGGER %s AFTER %s ON %s FOR EACH %s"
						 " EXECUTE FUNCTION meritum_cache.raise_event(%s, %s)",
						 trigger, when, table, level,
						 quote_literal_cstr(event), quote_literal_cstr(column)));
	mc_plan_utility(psprintf("ALTER TRIGGER %s ON %s DEPENDS ON EXTENSION meritum_cache",
						 trigger, table));
}

PG_FUNCTION_INFO_V1(meritum_attach_event);

Datum
meritum_attach_event(PG_FUNCTION_ARGS)
{
	McBracket	bracket;
	McKeys		keys;
	ListCell   *lc;
	char	   *event;
	char	   *column;
	Oid			relid;

	mc_arg_required(fcinfo, 0, "table");
	mc_arg_required(fcinfo, 1, "event_type");
	mc_arg_required(fcinfo, 2, "provider_column");
	relid = PG_GETARG_OID(0);
	event = text_to_cstring(PG_GETARG_TEXT_PP(1));
	column = pstrdup(NameStr(*PG_GETARG_NAME(2)));
	mc_require_unpinned("meritum_attach_event");
	mc_require_admin("attach events");
	LockRelationOid(relid, ShareRowExclusiveLock);
	check_table(relid);
	check_column(relid, column);
	if (!mc_event_find(event, &keys))
		ereport(WARNING,
				(errmsg("event type \"%s\" names no metrics yet", event),
				 errhint("Insert what it touches into meritum_cache.event_metric.")));

	/*
	 * A row trigger of a partitioned table reaches its partitions by itself;
	 * a statement trigger does not, and a partition can be truncated alone.
	 */
	mc_owner_enter(&bracket, true);
	make_trigger(relid, trigger_name(event, ""), "INSERT OR UPDATE OR DELETE",
				 "ROW", event, column);
	foreach(lc, find_all_inheritors(relid, ShareRowExclusiveLock, NULL))
		make_trigger(lfirst_oid(lc), trigger_name(event, TRUNCATE_SUFFIX),
					 "TRUNCATE", "STATEMENT", event, column);
	mc_owner_leave(&bracket);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(meritum_detach_event);

Datum
meritum_detach_event(PG_FUNCTION_ARGS)
{
	McBracket	bracket;
	ListCell   *lc;
	char	   *event;
	Oid			relid;
	bool		dropped;

	mc_arg_required(fcinfo, 0, "table");
	mc_arg_required(fcinfo, 1, "event_type");
	relid = PG_GETARG_OID(0);
	event = text_to_cstring(PG_GETARG_TEXT_PP(1));
	mc_require_unpinned("meritum_detach_event");
	mc_require_admin("detach events");
	LockRelationOid(relid, AccessExclusiveLock);
	check_table(relid);

	mc_owner_enter(&bracket, true);
	dropped = drop_trigger(relid, trigger_name(event, ""));
	foreach(lc, find_all_inheritors(relid, AccessExclusiveLock, NULL))
		(void) drop_trigger(lfirst_oid(lc), trigger_name(event, TRUNCATE_SUFFIX));
	mc_owner_leave(&bracket);
	if (!dropped)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("event type \"%s\" is not attached to \"%s\"", event,
						get_rel_name(relid))));
	PG_RETURN_VOID();
}

/* Rows of a provider are gone, but which nobody can say: all that have any. */
static void
mark_all(const McKeys *keys, const char *event)
{
	Datum		array;
	McBracket	bracket;
	uint64		n,
				i;
	int			nest_level;

	mc_owner_enter(&bracket, true);
	nest_level = mc_owner_begin_bulk();
	array = mc_keys_array(keys);
	n = mc_plan_execute(&select_providers, &array, NULL);
	for (i = 0; i < n; i++)
	{
		bool		isnull;

		mc_dirty_keys(DatumGetUUIDP(mc_plan_value(i, 1, &isnull)), keys, event);
	}
	mc_owner_end_bulk(nest_level);
	mc_owner_leave(&bracket);
}

static void
mark_row(Relation rel, HeapTuple tuple, const char *column, const McKeys *keys,
		 const char *event)
{
	AttrNumber	attno = get_attnum(RelationGetRelid(rel), column);
	Datum		value;
	bool		isnull;

	/* a column that was renamed or is of another type now names nobody */
	if (attno <= 0 || getBaseType(TupleDescAttr(RelationGetDescr(rel),
												attno - 1)->atttypid) != UUIDOID)
		return;
	value = heap_getattr(tuple, attno, RelationGetDescr(rel), &isnull);
	if (!isnull)
		mc_dirty_keys(DatumGetUUIDP(value), keys, event);
}

PG_FUNCTION_INFO_V1(raise_event);

/*
 * The trigger; it never fails a change that would have succeeded without it.
 */
Datum
raise_event(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	const char *event;
	const char *column;
	const char *logged;
	McKeys		keys;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_AFTER(trigger->tg_event) ||
		trigger->tg_trigger->tgnargs != 2)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" must be called as an AFTER trigger made by meritum_attach_event()",
						"raise_event")));
	event = trigger->tg_trigger->tgargs[0];
	column = trigger->tg_trigger->tgargs[1];
	if (!mc_event_find(event, &keys))
		return PointerGetDatum(NULL);
	logged = mc_log_invalidations ? event : NULL;
	if (TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event))
	{
		mark_all(&keys, logged);
		return PointerGetDatum(NULL);
	}
	mark_row(trigger->tg_relation, trigger->tg_trigtuple, column, &keys, logged);
	if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
		mark_row(trigger->tg_relation, trigger->tg_newtuple, column, &keys, logged);
	return PointerGetDatum(NULL);
}
