/*
 * restore.c
 *		What a dump carries, and how its rows find their place.
 *
 * A restore runs the install script, which makes the default rows of job and
 * event_metric, and then inserts the dumped rows of each table, tables in any
 * order.  A dumped row takes the place of one with its key.  Which default
 * rows had been removed is what the dump says in default_row: it carries the
 * rows of that table whose default is no more, and they remove it again.
 */
#include "postgres.h"

#include "commands/extension.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/rel.h"

#include "owner.h"
#include "plan.h"

#define MAX_KEYS 2

/* How the row of a table with given keys is removed. */
typedef struct Removal
{
	const char *table;
	const char *key[MAX_KEYS];	/* columns */
	McPlan		plan;
} Removal;

static Removal removals[] = {
	{"job", {"name"}, {
		"DELETE FROM meritum_cache.job WHERE name = $1",
		"text", SPI_OK_DELETE
	}},
	{"event_metric", {"event_type", "metric_key"}, {
		"DELETE FROM meritum_cache.event_metric"
		" WHERE event_type = $1 AND metric_key = $2",
		"text,varchar", SPI_OK_DELETE
	}},
	{"metric", {"metric_key"}, {
		"DELETE FROM meritum_cache.metric WHERE metric_key = $1",
		"varchar", SPI_OK_DELETE
	}},
	{"source_table", {"source"}, {
		"DELETE FROM meritum_cache.source_table WHERE source = $1",
		"text", SPI_OK_DELETE
	}},
	{"role_grant", {"role"}, {
		"DELETE FROM meritum_cache.role_grant WHERE role = $1",
		"regrole", SPI_OK_DELETE
	}},
};

static McPlan select_metric = {
	"SELECT FROM meritum_cache.metric WHERE metric_key = $1",
	"varchar", SPI_OK_SELECT
};

static McPlan delete_events = {
	"DELETE FROM meritum_cache.event_metric WHERE metric_key = $1",
	"varchar", SPI_OK_DELETE
};

/*
 * Every dump sets check_function_bodies off for its whole length, since what a
 * function refers to may come later; the same holds of our rows.  So does
 * CREATE EXTENSION.
 */
static bool
restoring(void)
{
	return !check_function_bodies && !creating_extension;
}

/* The row that a trigger was fired for. */
static HeapTuple
triggered_row(FunctionCallInfo fcinfo, const char *name)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" must be called as a trigger for each row",
						name)));
	return TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ?
		trigger->tg_newtuple : trigger->tg_trigtuple;
}

static Datum
get_column(FunctionCallInfo fcinfo, HeapTuple row, const char *name)
{
	TupleDesc	desc = RelationGetDescr(((TriggerData *) fcinfo->context)->tg_relation);
	int			column = SPI_fnumber(desc, name);
	bool		isnull;
	Datum		value;

	if (column <= 0)
		elog(ERROR, "no column %s", name);
	value = heap_getattr(row, column, desc, &isnull);
	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NOT_NULL_VIOLATION),
				 errmsg("%s must not be null", name)));
	return value;
}

static Removal *
find_removal(const char *table)
{
	int			i;

	for (i = 0; i < lengthof(removals); i++)
		if (strcmp(removals[i].table, table) == 0)
			return &removals[i];
	return NULL;
}

static uint64
execute(McPlan *plan, Datum *values)
{
	McBracket	bracket;
	uint64		n;

	mc_owner_enter(&bracket, true);
	n = mc_plan_execute(plan, values, NULL);
	mc_owner_leave(&bracket);
	return n;
}

PG_FUNCTION_INFO_V1(restore_row);
PG_FUNCTION_INFO_V1(restore_default);
PG_FUNCTION_INFO_V1(check_event);
PG_FUNCTION_INFO_V1(forget_metric);

/*
 * A dumped row takes the place of the one that is there.
 */
Datum
restore_row(PG_FUNCTION_ARGS)
{
	HeapTuple	row = triggered_row(fcinfo, "restore_row");
	Removal    *removal;
	Datum		values[MAX_KEYS];
	int			i;

	if (!restoring())
		return PointerGetDatum(row);
	removal = find_removal(RelationGetRelationName(((TriggerData *) fcinfo->context)->tg_relation));
	if (removal == NULL)
		elog(ERROR, "restore_row is no trigger of this table");
	for (i = 0; i < MAX_KEYS && removal->key[i] != NULL; i++)
		values[i] = get_column(fcinfo, row, removal->key[i]);
	execute(&removal->plan, values);
	return PointerGetDatum(row);
}

/*
 * A dump says that a default row had been removed.
 */
Datum
restore_default(PG_FUNCTION_ARGS)
{
	HeapTuple	row = triggered_row(fcinfo, "restore_default");
	Removal    *removal;
	Datum		values[MAX_KEYS];

	if (!restoring())
		return PointerGetDatum(row);
	removal = find_removal(TextDatumGetCString(get_column(fcinfo, row, "relation")));
	values[0] = get_column(fcinfo, row, "key");
	values[1] = get_column(fcinfo, row, "metric_key");
	if (removal != NULL)
		execute(&removal->plan, values);

	/* which defaults there are is for the installed version to say */
	return PointerGetDatum(NULL);
}

/*
 * The event map may name existing metrics only.  This is no foreign key
 * because a restore may bring the map before an organisation's own metrics.
 */
Datum
check_event(PG_FUNCTION_ARGS)
{
	HeapTuple	row = triggered_row(fcinfo, "check_event");
	Datum		key;

	if (restoring())
		return PointerGetDatum(row);
	key = get_column(fcinfo, row, "metric_key");
	if (execute(&select_metric, &key) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("unknown metric \"%s\"", TextDatumGetCString(key)),
				 errhint("The metrics are listed in meritum_cache.metric.")));
	return PointerGetDatum(row);
}

/*
 * What a metric is in the event map for goes with the metric, but not when a
 * dumped row takes its place.
 */
Datum
forget_metric(PG_FUNCTION_ARGS)
{
	HeapTuple	row = triggered_row(fcinfo, "forget_metric");
	Datum		key;

	if (restoring())
		return PointerGetDatum(row);
	key = get_column(fcinfo, row, "metric_key");
	execute(&delete_events, &key);
	return PointerGetDatum(row);
}
