/*
 * event.c
 *		The event map: what a domain event makes to be recomputed.
 *
 * The map is kept for the session until meritum_cache.event_metric changes.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

#include "event.h"
#include "guc.h"
#include "owner.h"
#include "plan.h"
#include "probe.h"
#include "uuids.h"

typedef struct Event
{
	char	   *type;
	McKeys		keys;
} Event;

static struct
{
	bool		callback_registered;
	bool		valid;
	uint64		generation;		/* counts invalidations */
	Oid			relid;
	MemoryContext context;
	List	   *events;			/* Event */
} map;

static void
forget_map(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == map.relid)
	{
		map.valid = false;
		map.generation++;
	}
}

static McPlan count_entries = {
	"SELECT count(*) FROM meritum_cache.analytics_cache c"
	" WHERE c.provider_id = $1 AND c.metric_key = ANY ($2)",
	"uuid,varchar[]", SPI_OK_SELECT
};

static Event *
find(const char *event_type)
{
	ListCell   *lc;

	foreach(lc, map.events)
	{
		Event	   *event = lfirst(lc);

		if (pg_strcasecmp(event->type, event_type) == 0)
			return event;
	}
	return NULL;
}

static void
read_map_row(HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;
	char	   *type = TextDatumGetCString(heap_getattr(tuple, 1, desc, &isnull));
	char	   *key = TextDatumGetCString(heap_getattr(tuple, 2, desc, &isnull));
	Event	   *event = find(type);

	if (event == NULL)
	{
		event = palloc0(sizeof(Event));
		event->type = type;
		map.events = lappend(map.events, event);
	}
	mc_keys_add(&event->keys, key);
}

/* A trigger asks in the middle of any statement. */
static void
read_map(void)
{
	uint64		generation;

	if (map.valid)
		return;
	if (!map.callback_registered)
	{
		CacheRegisterRelcacheCallback(forget_map, (Datum) 0);
		map.callback_registered = true;
		map.context = AllocSetContextCreate(TopMemoryContext,
											"meritum_cache event map",
											ALLOCSET_SMALL_SIZES);
	}
	map.relid = mc_cache_relation("event_metric");
	map.events = NIL;
	generation = map.generation;
	MemoryContextReset(map.context);
	mc_probe_rows(map.relid, map.context, read_map_row);
	map.valid = generation == map.generation;
}

bool
mc_event_find(const char *event_type, McKeys *keys)
{
	Event	   *event;

	read_map();
	event = find(event_type);
	if (event != NULL)
		*keys = event->keys;
	return event != NULL;
}

int64
mc_event_count(const pg_uuid_t *provider, const McKeys *keys)
{
	Datum		values[2] = {UUIDPGetDatum(provider), mc_keys_array(keys)};
	bool		isnull;

	mc_plan_execute(&count_entries, values, NULL);
	return DatumGetInt64(mc_plan_value(0, 1, &isnull));
}

void
mc_event_log_count(const pg_uuid_t *provider, const char *event, int64 removed)
{
	if (!mc_log_invalidations)
		return;
	ereport(LOG,
			(errmsg("cache_bust provider=%s event=%s removed=%lld",
					mc_uuid_text(provider), event, (long long) removed),
			 errhidestmt(true), errhidecontext(true)));
}

void
mc_event_log(const pg_uuid_t *provider, const char *event_type)
{
	McBracket	bracket;
	McKeys		keys;
	int64		count;

	if (!mc_log_invalidations || !mc_event_find(event_type, &keys))
		return;
	mc_owner_enter(&bracket, true);
	count = mc_event_count(provider, &keys);
	mc_owner_leave(&bracket);
	mc_event_log_count(provider, event_type, count);
}
