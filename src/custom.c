/*
 * custom.c
 *		Metrics of an organisation's own: an SQL query each.
 *
 * Their definitions are rows of meritum_cache.metric, kept for the session
 * until that table changes.  A definition that a query of its own is running
 * with stays until that ends.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "custom.h"
#include "owner.h"

/* Columns of meritum_cache.metric. */
enum
{
	COL_KEY = 1, COL_GRAIN, COL_BREAKDOWN, COL_DESCRIPTION, COL_QUERY,
	COL_SEARCH_PATH, COL_OWNER
};

static struct
{
	bool		callback_registered;
	bool		valid;
	uint64		generation;		/* counts invalidations */
	Oid			relid;
	List	   *metrics;		/* McCustom, by key */
} known;

static void
forget_known(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == known.relid)
	{
		known.valid = false;
		known.generation++;
	}
}

static char *
text_column(HeapTuple tuple, TupleDesc desc, int column)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, column, desc, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

static void
free_definition(McCustom *custom)
{
	mc_plan_forget(&custom->plan);
	pfree(custom->key);
	pfree(custom->query);
	pfree(custom->search_path);
	pfree(custom);
}

void
mc_custom_release(McCustom *custom)
{
	if (--custom->running == 0 && custom->dropped)
		free_definition(custom);
}

static bool
same_definition(const McCustom *a, const McCustom *b)
{
	return strcmp(a->key, b->key) == 0 && a->grain == b->grain &&
		a->owner == b->owner && strcmp(a->query, b->query) == 0 &&
		strcmp(a->search_path, b->search_path) == 0;
}

/*
 * Take one row of the table: the definition that is kept already, if it is
 * the same, since it has a plan.
 */
static McCustom *
read_definition(HeapTuple tuple, TupleDesc desc, List **old)
{
	McCustom	row = {0};
	McCustom   *custom;
	bool		isnull;
	ListCell   *lc;

	row.query = text_column(tuple, desc, COL_QUERY);
	if (row.query == NULL)
		return NULL;			/* built in */
	row.key = text_column(tuple, desc, COL_KEY);
	row.grain = strcmp(text_column(tuple, desc, COL_GRAIN), "snapshot") == 0 ?
		MC_SNAPSHOT : MC_MONTHLY;
	row.search_path = text_column(tuple, desc, COL_SEARCH_PATH);
	row.owner = DatumGetObjectId(heap_getattr(tuple, COL_OWNER, desc, &isnull));

	foreach(lc, *old)
	{
		custom = lfirst(lc);
		if (!same_definition(custom, &row))
			continue;
		*old = foreach_delete_current(*old, lc);
		return custom;
	}

	custom = MemoryContextAllocZero(TopMemoryContext, sizeof(McCustom));
	custom->key = MemoryContextStrdup(TopMemoryContext, row.key);
	custom->grain = row.grain;
	custom->query = MemoryContextStrdup(TopMemoryContext, row.query);
	custom->search_path = MemoryContextStrdup(TopMemoryContext, row.search_path);
	custom->owner = row.owner;
	custom->plan.sql = custom->query;
	custom->plan.types = "pg_catalog.uuid,pg_catalog.date,pg_catalog.date";
	custom->plan.result = SPI_OK_SELECT;
	custom->plan.replan = true;
	return custom;
}

static int
compare_keys(const ListCell *a, const ListCell *b)
{
	return strcmp(((McCustom *) lfirst(a))->key, ((McCustom *) lfirst(b))->key);
}

static void
read_known(void)
{
	uint64		generation;
	List	   *old;
	List	   *metrics = NIL;
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tuple;
	ListCell   *lc;

	if (known.valid)
		return;
	if (!known.callback_registered)
	{
		CacheRegisterRelcacheCallback(forget_known, (Datum) 0);
		known.callback_registered = true;
	}
	known.relid = mc_cache_relation("metric");

	/* an invalidation that comes during the scan makes it invalid at once */
	generation = known.generation;
	rel = table_open(known.relid, AccessShareLock);
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	old = known.metrics;
	known.metrics = NIL;		/* an error loses plans, nothing else */
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		McCustom   *custom = read_definition(tuple, RelationGetDescr(rel), &old);

		if (custom != NULL)
		{
			MemoryContext previous = MemoryContextSwitchTo(TopMemoryContext);

			metrics = lappend(metrics, custom);
			MemoryContextSwitchTo(previous);
		}
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	list_sort(metrics, compare_keys);
	known.metrics = metrics;

	foreach(lc, old)
	{
		McCustom   *custom = lfirst(lc);

		custom->dropped = true;
		if (custom->running == 0)
			free_definition(custom);
	}
	list_free(old);
	known.valid = generation == known.generation;
}

McCustom *
mc_custom_find(const char *key, int len)
{
	ListCell   *lc;

	read_known();
	foreach(lc, known.metrics)
	{
		McCustom   *custom = lfirst(lc);

		if (strlen(custom->key) == len && memcmp(custom->key, key, len) == 0)
			return custom;
	}
	return NULL;
}

bool
mc_custom_any(void)
{
	read_known();
	return known.metrics != NIL;
}

void
mc_custom_hold(void)
{
	LockRelationOid(mc_cache_relation("metric"), RowShareLock);
}

List *
mc_custom_keys(void)
{
	List	   *keys = NIL;
	ListCell   *lc;

	read_known();
	foreach(lc, known.metrics)
		keys = lappend(keys, pstrdup(((McCustom *) lfirst(lc))->key));
	return keys;
}

bool
mc_key_in(const List *list, const char *key)
{
	ListCell   *lc;

	foreach(lc, list)
		if (strcmp(lfirst(lc), key) == 0)
			return true;
	return false;
}

void
mc_keys_add(McKeys *keys, const char *key)
{
	int			metric = mc_metric_find(key, strlen(key));

	if (metric >= 0)
		keys->builtin |= MC_METRIC_BIT(metric);
	else if (!mc_key_in(keys->custom, key))
		keys->custom = lappend(keys->custom, pstrdup(key));
}

bool
mc_keys_empty(const McKeys *keys)
{
	return keys->builtin == 0 && keys->custom == NIL;
}

McKeys
mc_keys_parse(Datum array)
{
	McKeys		keys = {0};
	Datum	   *elements;
	bool	   *nulls;
	int			n,
				i;

	deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false,
					  TYPALIGN_INT, &elements, &nulls, &n);
	for (i = 0; i < n; i++)
	{
		char	   *key;

		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("metric key must not be null")));
		key = TextDatumGetCString(elements[i]);
		if (mc_metric_find(key, strlen(key)) < 0 &&
			mc_custom_find(key, strlen(key)) == NULL)
			mc_metric_unknown(key);
		mc_keys_add(&keys, key);
	}
	return keys;
}

McKeys
mc_keys_with_prefix(const char *prefix)
{
	McKeys		keys = {0};
	List	   *customs = mc_custom_keys();
	ListCell   *lc;
	int			m;

	for (m = 0; m < MC_N_METRICS; m++)
		if (strncmp(mc_metric[m].key, prefix, strlen(prefix)) == 0)
			keys.builtin |= MC_METRIC_BIT(m);
	foreach(lc, customs)
		if (strncmp(lfirst(lc), prefix, strlen(prefix)) == 0)
			keys.custom = lappend(keys.custom, lfirst(lc));
	return keys;
}

Datum
mc_keys_array(const McKeys *keys)
{
	int			n = MC_N_METRICS + list_length(keys->custom);
	Datum	   *elements = palloc(sizeof(Datum) * n);
	ListCell   *lc;
	int			m;

	n = 0;
	for (m = 0; m < MC_N_METRICS; m++)
		if (keys->builtin & MC_METRIC_BIT(m))
			elements[n++] = CStringGetTextDatum(mc_metric[m].key);
	foreach(lc, keys->custom)
		elements[n++] = CStringGetTextDatum(lfirst(lc));
	return PointerGetDatum(construct_array(elements, n, VARCHAROID, -1, false,
										   TYPALIGN_INT));
}
