/*
 * cell.c
 *		Rows of meritum_cache.analytics_cache of one provider.
 *
 * Cells are read before they are written: rows of values that no longer occur
 * have to be found, and an equal value need not be written again.  They are
 * then updated where they were found, by ctid; the provider's lock, which is
 * held, guards them.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "cell.h"
#include "guc.h"
#include "plan.h"
#include "value.h"
#include "zone.h"

static McPlan load_cells = {
	"SELECT c.ctid, c.metric_key, c.period_start, c.period_end, c.dimensions,"
	" c.value, c.cache_id, c.computed_at"
	" FROM meritum_cache.analytics_cache c"
	" WHERE c.provider_id = $1 AND c.metric_key = ANY ($2)"
	" AND c.period_start = ANY ($3)",
	"uuid,varchar[],date[]", SPI_OK_SELECT
};

static McPlan insert_cells = {
	"INSERT INTO meritum_cache.analytics_cache"
	" (provider_id, metric_key, period_start, period_end, dimensions, value, computed_at)"
	" SELECT $1, n.metric_key, n.first, n.last, n.dimensions, n.value, $2"
	" FROM unnest($3, $4, $5, $6, $7)"
	" AS n (metric_key, first, last, dimensions, value)",
	"uuid,timestamptz,varchar[],date[],date[],jsonb[],jsonb[]", SPI_OK_INSERT, true
};

static McPlan update_cells = {
	"UPDATE meritum_cache.analytics_cache c"
	" SET value = coalesce(n.value, c.value), computed_at = $1"
	" FROM unnest($2, $3) AS n (tid, value) WHERE c.ctid = n.tid",
	"timestamptz,tid[],jsonb[]", SPI_OK_UPDATE, true
};

static McPlan delete_cells = {
	"DELETE FROM meritum_cache.analytics_cache c WHERE c.ctid = ANY ($1)",
	"tid[]", SPI_OK_DELETE
};

static McPlan select_months = {
	"SELECT DISTINCT c.period_start FROM meritum_cache.analytics_cache c"
	" WHERE c.provider_id = $1 AND c.dimensions IS NULL ORDER BY 1",
	"uuid", SPI_OK_SELECT
};

static McPlan remove_provider = {
	"DELETE FROM meritum_cache.analytics_cache c WHERE c.provider_id = $1",
	"uuid", SPI_OK_DELETE
};

#define SH_PREFIX		celltab
#define SH_ELEMENT_TYPE	McCell
#define SH_KEY_TYPE		McCellKey
#define SH_KEY			key
#define SH_HASH_KEY(tb, key) hash_bytes((const unsigned char *) &(key), sizeof(McCellKey))
#define SH_EQUAL(tb, a, b) (memcmp(&(a), &(b), sizeof(McCellKey)) == 0)
#define SH_SCOPE		static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

/* A growing array of datums. */
typedef struct Datums
{
	Datum	   *value;
	bool	   *null;
	int			n;
	int			capacity;
} Datums;

struct McCells
{
	pg_uuid_t	provider;
	McStrings  *strings;
	MemoryContext context;
	celltab_hash *table;
	Datums		insert_key;
	Datums		insert_first;
	Datums		insert_last;
	Datums		insert_dimensions;
	Datums		insert_value;
	Datums		update_tid;
	Datums		update_value;
	Datums		delete_tid;
	int64		unchanged;
	McMetrics	metrics;		/* put or dropped */
};

static void
push(Datums *datums, Datum value, bool null)
{
	if (datums->n == datums->capacity)
	{
		datums->capacity = Max(16, datums->capacity * 2);
		datums->value = datums->n == 0 ?
			palloc(sizeof(Datum) * datums->capacity) :
			repalloc(datums->value, sizeof(Datum) * datums->capacity);
		datums->null = datums->n == 0 ?
			palloc(sizeof(bool) * datums->capacity) :
			repalloc(datums->null, sizeof(bool) * datums->capacity);
	}
	datums->value[datums->n] = value;
	datums->null[datums->n++] = null;
}

static Datum
make_array(Datums *datums, Oid type, int length, bool byval, char align)
{
	int			lower = 1;

	return PointerGetDatum(construct_md_array(datums->value, datums->null, 1,
											  &datums->n, &lower, type, length,
											  byval, align));
}

/*
 * Is this one of the dimensions that are kept?  Then which, with what value.
 */
static bool
parse_dimensions(McStrings *strings, Jsonb *jsonb, int *dim, int32 *id)
{
	JsonbIterator *it;
	JsonbValue	key,
				value;

	if (!JB_ROOT_IS_OBJECT(jsonb) || JB_ROOT_COUNT(jsonb) != 1)
		return false;
	it = JsonbIteratorInit(&jsonb->root);
	(void) JsonbIteratorNext(&it, &key, true);
	(void) JsonbIteratorNext(&it, &key, true);
	(void) JsonbIteratorNext(&it, &value, true);
	if (value.type != jbvString)
		return false;
	for (*dim = 0; *dim < MC_N_DIMS; (*dim)++)
		if (strlen(mc_dimension_name[*dim]) == key.val.string.len &&
			memcmp(mc_dimension_name[*dim], key.val.string.val,
				   key.val.string.len) == 0)
		{
			*id = mc_string_id(strings, value.val.string.val,
							   value.val.string.len);
			return true;
		}
	return false;
}

static void
read_cell(TupleTableSlot *slot, void *arg)
{
	McCells    *cells = arg;
	Datum	   *values = slot->tts_values;
	McCellKey	key = {0};
	McCell	   *cell;
	bool		found;
	MemoryContext old;

	key.metric = mc_metric_find(VARDATA_ANY(DatumGetPointer(values[1])),
								VARSIZE_ANY_EXHDR(DatumGetPointer(values[1])));
	key.month = DatumGetDateADT(values[2]);
	key.dim = -1;
	key.id = MC_NULL;
	if (key.metric < 0 || DATE_NOT_FINITE(key.month) ||
		mc_month_of(key.month) != key.month ||
		DatumGetDateADT(values[3]) != mc_month_end(key.month))
		return;
	old = MemoryContextSwitchTo(cells->context);
	if (slot->tts_isnull[4] ||
		(parse_dimensions(cells->strings, DatumGetJsonbP(values[4]),
						  &key.dim, &key.id) &&
		 mc_metric[key.metric].breakdown))
	{
		cell = celltab_insert(cells->table, key, &found);
		cell->tid = *(ItemPointer) DatumGetPointer(values[0]);
		cell->value = DatumGetJsonbPCopy(values[5]);
		cell->cache_id = *DatumGetUUIDP(values[6]);
		cell->computed_at = DatumGetTimestampTz(values[7]);
		cell->seen = false;
	}
	MemoryContextSwitchTo(old);
}

McCells *
mc_cells_load(const pg_uuid_t *provider, McMetrics metrics,
			  const DateADT *months, int nmonths, McStrings *strings)
{
	McCells    *cells = palloc0(sizeof(McCells));
	Datums		dates = {0};
	Datum		values[3];
	int			i;

	cells->provider = *provider;
	cells->strings = strings;
	cells->context = CurrentMemoryContext;
	cells->table = celltab_create(CurrentMemoryContext, 64, NULL);
	if (metrics == 0 || nmonths == 0)
		return cells;
	for (i = 0; i < nmonths; i++)
		push(&dates, DateADTGetDatum(months[i]), false);
	values[0] = UUIDPGetDatum(provider);
	values[1] = mc_metric_array(metrics);
	values[2] = make_array(&dates, DATEOID, sizeof(DateADT), true, TYPALIGN_INT);
	mc_plan_scan(&load_cells, values, NULL, read_cell, cells);
	return cells;
}

McCell *
mc_cells_find(McCells *cells, int metric, DateADT month, int dim, int32 id)
{
	McCellKey	key = {metric, month, dim, id};

	return celltab_lookup(cells->table, key);
}

McCell *
mc_cells_next(McCells *cells, McCellIterator *iterator)
{
	celltab_iterator it;
	McCell	   *cell;

	if (!iterator->started)
		celltab_start_iterate(cells->table, &it);
	else
	{
		it.cur = iterator->cur;
		it.end = iterator->end;
		it.done = iterator->done;
	}
	cell = celltab_iterate(cells->table, &it);
	iterator->started = true;
	iterator->cur = it.cur;
	iterator->end = it.end;
	iterator->done = it.done;
	return cell;
}

void
mc_cells_put(McCells *cells, int metric, DateADT month, int dim, int32 id,
			 Jsonb *value, bool if_changed)
{
	McCell	   *cell = mc_cells_find(cells, metric, month, dim, id);
	bool		same;

	if (cell == NULL)
	{
		Jsonb	   *dimensions = mc_value_dimensions(cells->strings, dim, id);

		cells->metrics |= MC_METRIC_BIT(metric);
		push(&cells->insert_key, CStringGetTextDatum(mc_metric[metric].key), false);
		push(&cells->insert_first, DateADTGetDatum(month), false);
		push(&cells->insert_last, DateADTGetDatum(mc_month_end(month)), false);
		push(&cells->insert_dimensions, PointerGetDatum(dimensions),
			 dimensions == NULL);
		push(&cells->insert_value, PointerGetDatum(value), false);
		return;
	}
	same = VARSIZE(cell->value) == VARSIZE(value) &&
		memcmp(cell->value, value, VARSIZE(value)) == 0;
	if (same && if_changed)
		return;
	cells->metrics |= MC_METRIC_BIT(metric);
	if (same)
		cells->unchanged++;
	push(&cells->update_tid, PointerGetDatum(&cell->tid), false);
	push(&cells->update_value, PointerGetDatum(value), same);
}

void
mc_cells_drop(McCells *cells, McCell *cell)
{
	cells->metrics |= MC_METRIC_BIT(cell->key.metric);
	push(&cells->delete_tid, PointerGetDatum(&cell->tid), false);
}

void
mc_cells_write(McCells *cells, TimestampTz now, McWritten *written)
{
	Datum		values[7];

	written->changed += cells->insert_key.n + cells->update_tid.n - cells->unchanged;
	written->unchanged += cells->unchanged;
	written->deleted += cells->delete_tid.n;
	written->metrics |= cells->metrics;

	if (cells->delete_tid.n > 0)
	{
		values[0] = make_array(&cells->delete_tid, TIDOID,
							   sizeof(ItemPointerData), false, TYPALIGN_SHORT);
		mc_plan_write(&delete_cells, values, cells->delete_tid.n,
					  "analytics_cache");
	}
	if (cells->update_tid.n > 0)
	{
		values[0] = TimestampTzGetDatum(now);
		values[1] = make_array(&cells->update_tid, TIDOID,
							   sizeof(ItemPointerData), false, TYPALIGN_SHORT);
		values[2] = make_array(&cells->update_value, JSONBOID, -1, false,
							   TYPALIGN_INT);
		mc_plan_write(&update_cells, values, cells->update_tid.n,
					  "analytics_cache");
	}
	if (cells->insert_key.n > 0)
	{
		values[0] = UUIDPGetDatum(&cells->provider);
		values[1] = TimestampTzGetDatum(now);
		values[2] = make_array(&cells->insert_key, VARCHAROID, -1, false,
							   TYPALIGN_INT);
		values[3] = make_array(&cells->insert_first, DATEOID, sizeof(DateADT),
							   true, TYPALIGN_INT);
		values[4] = make_array(&cells->insert_last, DATEOID, sizeof(DateADT),
							   true, TYPALIGN_INT);
		values[5] = make_array(&cells->insert_dimensions, JSONBOID, -1, false,
							   TYPALIGN_INT);
		values[6] = make_array(&cells->insert_value, JSONBOID, -1, false,
							   TYPALIGN_INT);
		mc_plan_execute(&insert_cells, values, NULL);
	}
}

int
mc_cells_months(const pg_uuid_t *provider, DateADT **months)
{
	Datum		value = UUIDPGetDatum(provider);
	uint64		n = mc_plan_execute(&select_months, &value, NULL);
	int			count = 0;
	uint64		i;

	*months = palloc(sizeof(DateADT) * Max(n, 1));
	for (i = 0; i < n; i++)
	{
		bool		isnull;
		DateADT		month = DatumGetDateADT(mc_plan_value(i, 1, &isnull));

		if (!DATE_NOT_FINITE(month) && mc_month_of(month) == month)
			(*months)[count++] = month;
	}
	return count;
}

int64
mc_cells_remove_provider(const pg_uuid_t *provider)
{
	Datum		value = UUIDPGetDatum(provider);

	return mc_plan_execute(&remove_provider, &value, NULL);
}
