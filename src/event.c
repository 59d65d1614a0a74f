/*
 * event.c
 *		The event map: what a domain event makes to be recomputed.
 *
 * The map is kept for the session until meritum_cache.event_metric changes.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"

#include "event.h"
#include "owner.h"
#include "plan.h"

typedef struct Event
{
	char	   *type;
	McMetrics	metrics;
} Event;

static struct
{
	bool		callback_registered;
	bool		valid;
	uint64		generation;		/* counts invalidations */
	Oid			relid;
	MemoryContext context;
	Event	   *event;
	int			n;
} map;

static McPlan select_map = {
	"SELECT lower(e.event_type), e.metric_key FROM meritum_cache.event_metric e"
	" ORDER BY 1",
	"", SPI_OK_SELECT
};

static void
forget_map(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == map.relid)
	{
		map.valid = false;
		map.generation++;
	}
}

static void
read_map(void)
{
	uint64		generation;
	uint64		n,
				i;

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
	map.n = 0;
	generation = map.generation;
	MemoryContextReset(map.context);

	n = mc_plan_execute(&select_map, NULL, NULL);
	map.event = MemoryContextAlloc(map.context, sizeof(Event) * Max(n, 1));
	for (i = 0; i < n; i++)
	{
		bool		isnull;
		char	   *type = TextDatumGetCString(mc_plan_value(i, 1, &isnull));
		char	   *key = TextDatumGetCString(mc_plan_value(i, 2, &isnull));
		int			metric = mc_metric_find(key, strlen(key));

		if (map.n == 0 || strcmp(map.event[map.n - 1].type, type) != 0)
		{
			map.event[map.n].type = MemoryContextStrdup(map.context, type);
			map.event[map.n].metrics = 0;
			map.n++;
		}
		if (metric >= 0)
			map.event[map.n - 1].metrics |= MC_METRIC_BIT(metric);
	}
	map.valid = generation == map.generation;
}

McMetrics
mc_event_metrics(const char *event_type)
{
	int			i;

	read_map();
	for (i = 0; i < map.n; i++)
		if (pg_strcasecmp(map.event[i].type, event_type) == 0)
			return map.event[i].metrics;
	return 0;
}
