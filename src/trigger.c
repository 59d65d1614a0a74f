/*
 * trigger.c
 *		The mark: the trigger of the attached tables.
 *
 * It runs for each changed row of busy tables, so it makes no query and does
 * no more than compare the columns that are read and note what they name.  It
 * must never fail a change that would have succeeded without it.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "dirty.h"
#include "note.h"
#include "owner.h"
#include "source.h"
#include "wake.h"
#include "zone.h"

/*
 * Where a table has the columns that are read.  A partition may have them in
 * another order than its parent, so this is kept for each relation.
 */
typedef struct ColumnMap
{
	Oid			relid;			/* hash key */
	bool		valid;
	bool		reported;		/* that it cannot be read */
	McSource	source;
	uint64		generation;		/* of the attached tables */
	AttrNumber	attno[MC_MAX_COLUMNS];
	AttrNumber	last;			/* the greatest of them */
	Oid			type[MC_MAX_COLUMNS];
	int16		length[MC_MAX_COLUMNS];
	bool		byval[MC_MAX_COLUMNS];
} ColumnMap;

static HTAB *maps = NULL;

/* The rows of one change, and how to read them. */
typedef struct Change
{
	const ColumnMap *map;
	TupleTableSlot *old;		/* NULL for an insert */
	TupleTableSlot *new;		/* NULL for a delete */
} Change;

/* Entries are only marked: a trigger may be using one. */
static void
forget_maps(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS scan;
	ColumnMap  *map;

	if (relid != InvalidOid)
	{
		map = hash_search(maps, &relid, HASH_FIND, NULL);
		if (map != NULL)
			map->valid = false;
		return;
	}
	hash_seq_init(&scan, maps);
	while ((map = hash_seq_search(&scan)) != NULL)
		map->valid = false;
}

static void
create_maps(void)
{
	HASHCTL		control = {0};

	control.keysize = sizeof(Oid);
	control.entrysize = sizeof(ColumnMap);
	maps = hash_create("meritum_cache columns", 32, &control,
					   HASH_ELEM | HASH_BLOBS);
	CacheRegisterRelcacheCallback(forget_maps, (Datum) 0);
}

/*
 * Say that a table is not as it was when it was attached; once, not for each
 * row.
 */
static void
report_unread(ColumnMap *map, Relation rel, const char *column, bool exists)
{
	if (map->reported)
		return;
	map->reported = true;
	ereport(WARNING,
			(errcode(exists ? ERRCODE_DATATYPE_MISMATCH : ERRCODE_UNDEFINED_COLUMN),
			 errmsg("changes of table \"%s\" go unnoticed by meritum_cache",
					RelationGetRelationName(rel)),
			 exists ?
			 errdetail("Column \"%s\" has another type than when it was attached.", column) :
			 errdetail("Column \"%s\", which is read, does not exist.", column),
			 errhint("Call meritum_attach(), with the new names in its argument columns, and then meritum_refresh_all_providers().")));
}

/*
 * The map of the table that the trigger fired on; NULL if what it belongs to
 * is no longer attached, or lacks a column of a type that can be read.
 */
static const ColumnMap *
get_map(Relation rel, McSource source)
{
	Oid			relid = RelationGetRelid(rel);
	uint64		generation = mc_source_generation();
	const McAttached *table;
	ColumnMap  *map;
	bool		found;
	int			i;

	if (maps == NULL)
		create_maps();
	map = hash_search(maps, &relid, HASH_ENTER, &found);
	if (found && map->valid && map->generation == generation &&
		map->source == source)
		return map;
	if (!found || map->generation != generation)
		map->reported = false;
	map->valid = false;
	table = mc_source_get(source);
	if (table == NULL)
		return NULL;
	map->source = source;
	map->generation = generation;
	map->last = 0;
	for (i = 0; i < mc_source_def[source].ncolumns; i++)
	{
		AttrNumber	attno = get_attnum(relid, table->column[i]);
		Form_pg_attribute att;

		if (attno == InvalidAttrNumber)
		{
			report_unread(map, rel, table->column[i], false);
			return NULL;
		}
		att = TupleDescAttr(RelationGetDescr(rel), attno - 1);
		if (!mc_source_type_fits(att->atttypid, mc_source_def[source].column[i].type))
		{
			report_unread(map, rel, table->column[i], true);
			return NULL;
		}
		map->attno[i] = attno;
		map->last = Max(map->last, attno);
		map->type[i] = getBaseType(att->atttypid);
		map->length[i] = att->attlen;
		map->byval[i] = att->attbyval;
	}
	map->valid = true;
	return map;
}

static Datum
get_value(const Change *change, const TupleTableSlot *row, int column,
		  bool *isnull)
{
	int			i = change->map->attno[column] - 1;

	*isnull = row->tts_isnull[i];
	return row->tts_values[i];
}

/* Does a column differ, in an update? */
static bool
differs(const Change *change, int column)
{
	bool		old_null,
				new_null;
	Datum		old = get_value(change, change->old, column, &old_null);
	Datum		new = get_value(change, change->new, column, &new_null);

	if (old_null || new_null)
		return old_null != new_null;
	return !datum_image_eq(old, new, change->map->byval[column],
						   change->map->length[column]);
}

/* Was a row inserted or deleted, or does one of the columns differ? */
static bool
any_differs(const Change *change, int first, int last)
{
	int			i;

	if (change->old == NULL || change->new == NULL)
		return true;
	for (i = first; i <= last; i++)
		if (differs(change, i))
			return true;
	return false;
}

static const pg_uuid_t *
get_uuid(const Change *change, const TupleTableSlot *row, int column)
{
	bool		isnull;
	Datum		value = get_value(change, row, column, &isnull);

	return isnull ? NULL : DatumGetUUIDP(value);
}

/*
 * Compares a text column with an ASCII constant, letter case ignored.
 */
static bool
text_is(const Change *change, const TupleTableSlot *row, int column, const char *constant)
{
	bool		isnull;
	Datum		value = get_value(change, row, column, &isnull);
	struct varlena *text;
	int			length;

	if (isnull)
		return false;
	text = PG_DETOAST_DATUM_PACKED(value);
	length = change->map->type[column] == BPCHAROID ?
		bpchartruelen(VARDATA_ANY(text), VARSIZE_ANY_EXHDR(text)) :
		VARSIZE_ANY_EXHDR(text);
	return length == strlen(constant) &&
		pg_strncasecmp(VARDATA_ANY(text), constant, length) == 0;
}

static void
mark_claim_row(const Change *change, const TupleTableSlot *row)
{
	const pg_uuid_t *claim = get_uuid(change, row, MC_CLAIM_ID);
	const pg_uuid_t *provider = get_uuid(change, row, MC_CLAIM_PROVIDER);
	bool		isnull;
	Datum		date = get_value(change, row, MC_CLAIM_DATE, &isnull);

	if (claim != NULL && provider != NULL)
		mc_dirty_claim(provider, isnull ? DATEVAL_NOBEGIN : DatumGetDateADT(date),
					   claim);
}

/*
 * The application sets updated_at with every change, but only of paid claims
 * is it read.
 */
static bool
claim_differs(const Change *change)
{
	if (any_differs(change, MC_CLAIM_ID, MC_CLAIM_CREATED) ||
		differs(change, MC_CLAIM_DELETED))
		return true;
	return differs(change, MC_CLAIM_UPDATED) &&
		text_is(change, change->new, MC_CLAIM_STATE, "PAID");
}

static void
mark_claim(const Change *change)
{
	if (!claim_differs(change))
		return;
	if (change->old != NULL)
		mark_claim_row(change, change->old);
	if (change->new != NULL)
		mark_claim_row(change, change->new);
}

/*
 * A row that names its claims by a key, looked up later.
 */
static void
mark_key(const Change *change, int column)
{
	const McSource source = change->map->source;
	const pg_uuid_t *key;

	if (!any_differs(change, 0, mc_source_def[source].ncolumns - 1))
		return;
	if (change->old != NULL &&
		(key = get_uuid(change, change->old, column)) != NULL)
		mc_dirty_key(source, key);
	if (change->new != NULL &&
		(key = get_uuid(change, change->new, column)) != NULL)
		mc_dirty_key(source, key);
}

static void
mark_audit(const Change *change)
{
	if ((change->old != NULL && text_is(change, change->old, 1, "REJECTED")) ||
		(change->new != NULL && text_is(change, change->new, 1, "REJECTED")))
		mark_key(change, 0);
}

/*
 * A patient that claims refer to by a foreign key is there before them.
 */
static void
mark_patient(const Change *change)
{
	if (change->old == NULL &&
		mc_source_references(MC_CLAIMS, MC_CLAIM_PATIENT, MC_PATIENTS))
		return;
	mark_key(change, 0);
}

static void
mark_rule(const Change *change)
{
	if (change->old == NULL &&
		(mc_source_get(MC_AI_SUGGESTION_EVENTS) == NULL ||
		 mc_source_references(MC_AI_SUGGESTION_EVENTS, 1, MC_AI_RULES)) &&
		(mc_source_get(MC_AI_PROVIDER_LEARNING) == NULL ||
		 mc_source_references(MC_AI_PROVIDER_LEARNING, 1, MC_AI_RULES)))
		return;
	mark_key(change, 0);
}

/*
 * A row of a provider; returns the tasks to set a flag in, of the old and of
 * the new row, NULL where there is none.
 */
static int
provider_tasks(const Change *change, int column, McTask *tasks[2])
{
	const pg_uuid_t *provider;
	int			n = 0;

	if (!any_differs(change, 0, mc_source_def[change->map->source].ncolumns - 1))
		return 0;
	if (change->old != NULL &&
		(provider = get_uuid(change, change->old, column)) != NULL)
		tasks[n++] = mc_dirty_provider(provider);
	if (change->new != NULL &&
		(provider = get_uuid(change, change->new, column)) != NULL)
		tasks[n++] = mc_dirty_provider(provider);
	return n;
}

static void
mark_provider(const Change *change)
{
	McTask	   *tasks[2];
	int			n;

	if (!any_differs(change, 0, 0))
		return;					/* only the status */
	for (n = provider_tasks(change, 0, tasks); n > 0; n--)
		tasks[n - 1]->existence = true;
}

static void
mark_location(const Change *change)
{
	McTask	   *tasks[2];
	int			n;

	for (n = provider_tasks(change, 1, tasks); n > 0; n--)
		tasks[n - 1]->locations = true;
}

static void
mark_learning(const Change *change)
{
	McTask	   *tasks[2];
	int			n;

	for (n = provider_tasks(change, 0, tasks); n > 0; n--)
		tasks[n - 1]->snapshot = true;
}

static void
mark_event_row(const Change *change, const TupleTableSlot *row)
{
	const pg_uuid_t *provider = get_uuid(change, row, 0);
	bool		isnull;
	Datum		created = get_value(change, row, 5, &isnull);

	if (provider != NULL && !isnull)
		mc_dirty_event(provider, mc_date_of(change->map->type[5], created));
}

static void
mark_event(const Change *change)
{
	if (!any_differs(change, 0, 5))
		return;
	if (change->old != NULL)
		mark_event_row(change, change->old);
	if (change->new != NULL)
		mark_event_row(change, change->new);
}

static void
mark(const Change *change)
{
	switch (change->map->source)
	{
		case MC_CLAIMS:
			mark_claim(change);
			break;
		case MC_AHCIP_CLAIM_DETAILS:
		case MC_WCB_INVOICE_LINES:
			mark_key(change, 0);
			break;
		case MC_WCB_CLAIM_DETAILS:
			mark_key(change, 1);
			break;
		case MC_CLAIM_AUDIT_HISTORY:
			mark_audit(change);
			break;
		case MC_PATIENTS:
			mark_patient(change);
			break;
		case MC_PROVIDERS:
			mark_provider(change);
			break;
		case MC_PRACTICE_LOCATIONS:
			mark_location(change);
			break;
		case MC_AI_SUGGESTION_EVENTS:
			mark_event(change);
			break;
		case MC_AI_PROVIDER_LEARNING:
			mark_learning(change);
			break;
		case MC_AI_RULES:
			mark_rule(change);
			break;
		case MC_N_SOURCES:
			break;
	}
}

PG_FUNCTION_INFO_V1(note_change);

Datum
note_change(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Change		change = {0};
	int			source;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_AFTER(trigger->tg_event) ||
		trigger->tg_trigger->tgnargs != 1)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" must be called as an AFTER trigger made by meritum_attach()",
						"note_change")));
	source = mc_source_by_name(trigger->tg_trigger->tgargs[0]);
	if (source < 0)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("unknown source table \"%s\"",
						trigger->tg_trigger->tgargs[0])));

	if (TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event))
	{
		mc_dirty_source(source);
		return PointerGetDatum(NULL);
	}
	change.map = get_map(trigger->tg_relation, source);
	if (change.map == NULL)
		return PointerGetDatum(NULL);
	slot_getsomeattrs(trigger->tg_trigslot, change.map->last);
	if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		change.new = trigger->tg_trigslot;
	else
	{
		change.old = trigger->tg_trigslot;
		if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
		{
			change.new = trigger->tg_newslot;
			slot_getsomeattrs(change.new, change.map->last);
		}
	}
	mark(&change);
	return PointerGetDatum(NULL);
}

PG_FUNCTION_INFO_V1(configuration_changed);

/*
 * Makes every session forget what it has read of the table, and wakes the
 * background worker, which has read the jobs.  Attached tables that are not
 * written by meritum_attach(), inside its bracket, come from a dump, which has
 * neither facts nor figures.
 */
Datum
configuration_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" must be called as a trigger",
						"configuration_changed")));
	if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event) &&
		!InSecurityRestrictedOperation() &&
		RelationGetRelid(trigger->tg_relation) == mc_cache_relation("source_table"))
	{
		McBracket	bracket;

		mc_owner_enter(&bracket, true);
		mc_note_write_restore();
		mc_owner_leave(&bracket);
	}
	CacheInvalidateRelcache(trigger->tg_relation);
	mc_wake_jobs_changed();
	mc_dirty_wake();
	return PointerGetDatum(NULL);
}
