/*
 * cell.c
 *		Rows of meritum_cache.analytics_cache of one provider.
 *
 * Cells are read before they are written: rows of values that no longer occur
 * have to be found, and an equal value need not be written again.  They are
 * then written where they were found; the provider's lock, which is held,
 * guards them.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "cell.h"
#include "guc.h"
#include "plan.h"
#include "rows.h"
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

/* Columns of analytics_cache. */
enum
{
	C_ID, C_PROVIDER, C_METRIC, C_FIRST, C_LAST, C_DIMENSIONS, C_VALUE,
	C_COMPUTED
};

/* A cell to be written. */
typedef struct Change
{
	McCellKey	key;
	McCell	   *cell;			/* as it is stored; NULL: not yet */
	Jsonb	   *value;			/* NULL: only computed_at moves */
} Change;

struct McCells
{
	pg_uuid_t	provider;
	McStrings  *strings;
	MemoryContext context;
	celltab_hash *table;
	Change	   *change;
	int			nchanges;
	McCell	  **drop;
	int			ndrops;
	int64		unchanged;
	McMetrics	metrics;		/* put or dropped */
};

/* Room for one more element in an array that is full at each power of two. */
static void *
grow(void *array, int n, Size size)
{
	if (n == 0)
		return palloc(size);
	return (n & (n - 1)) == 0 ? repalloc_huge(array, size * n * 2) : array;
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
	Datum	   *dates = palloc(sizeof(Datum) * Max(nmonths, 1));
	Datum		values[3];
	int			i;

	cells->provider = *provider;
	cells->strings = strings;
	cells->context = CurrentMemoryContext;
	cells->table = celltab_create(CurrentMemoryContext, 64, NULL);
	if (metrics == 0 || nmonths == 0)
		return cells;
	for (i = 0; i < nmonths; i++)
		dates[i] = DateADTGetDatum(months[i]);
	values[0] = UUIDPGetDatum(provider);
	values[1] = mc_metric_array(metrics);
	values[2] = PointerGetDatum(construct_array(dates, nmonths, DATEOID,
												sizeof(DateADT), true,
												TYPALIGN_INT));
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
	bool		same = cell != NULL && VARSIZE(cell->value) == VARSIZE(value) &&
		memcmp(cell->value, value, VARSIZE(value)) == 0;
	Change	   *change;

	if (same && if_changed)
		return;
	cells->metrics |= MC_METRIC_BIT(metric);
	if (same)
		cells->unchanged++;
	cells->change = grow(cells->change, cells->nchanges, sizeof(Change));
	change = &cells->change[cells->nchanges++];
	change->key = (McCellKey) {metric, month, dim, id};
	change->cell = cell;
	change->value = same ? NULL : value;
}

void
mc_cells_drop(McCells *cells, McCell *cell)
{
	cells->metrics |= MC_METRIC_BIT(cell->key.metric);
	cells->drop = grow(cells->drop, cells->ndrops, sizeof(McCell *));
	cells->drop[cells->ndrops++] = cell;
}

void
mc_cell_insert(McRows *rows, const pg_uuid_t *provider, const char *key,
			   DateADT first, DateADT last, Jsonb *dimensions, Jsonb *value,
			   TimestampTz now)
{
	Datum		values[MC_CELL_COLUMNS] = {
		[C_ID] = DirectFunctionCall1(gen_random_uuid, (Datum) 0),
		[C_PROVIDER] = UUIDPGetDatum(provider),
		[C_METRIC] = CStringGetTextDatum(key),
		[C_FIRST] = DateADTGetDatum(first),
		[C_LAST] = DateADTGetDatum(last),
		[C_DIMENSIONS] = PointerGetDatum(dimensions),
		[C_VALUE] = PointerGetDatum(value),
		[C_COMPUTED] = TimestampTzGetDatum(now)
	};
	bool		nulls[MC_CELL_COLUMNS] = {[C_DIMENSIONS] = dimensions == NULL};

	mc_rows_insert(rows, values, nulls);
}

void
mc_cell_update(McRows *rows, const ItemPointerData *tid, Jsonb *value,
			   TimestampTz now)
{
	static const int columns[] = {C_COMPUTED, C_VALUE};
	Datum		values[] = {TimestampTzGetDatum(now), PointerGetDatum(value)};
	bool		nulls[2] = {false};

	mc_rows_update(rows, tid, value != NULL ? 2 : 1, columns, values, nulls);
}

typedef struct Write
{
	const McCells *cells;
	TimestampTz now;
} Write;

static void
write_changes(void *arg)
{
	const Write *write = arg;
	const McCells *cells = write->cells;
	McRows	   *rows = mc_rows_open("analytics_cache", MC_CELL_COLUMNS);
	int			i;

	for (i = 0; i < cells->ndrops; i++)
		mc_rows_delete(rows, &cells->drop[i]->tid);
	for (i = 0; i < cells->nchanges; i++)
	{
		const Change *change = &cells->change[i];
		const McCellKey *key = &change->key;

		if (change->cell != NULL)
			mc_cell_update(rows, &change->cell->tid, change->value, write->now);
		else
			mc_cell_insert(rows, &cells->provider, mc_metric[key->metric].key,
						   key->month, mc_month_end(key->month),
						   mc_value_dimensions(cells->strings, key->dim, key->id),
						   change->value, write->now);
	}
	mc_rows_close(rows);
}

void
mc_cells_write(McCells *cells, TimestampTz now, McWritten *written)
{
	Write		write = {cells, now};

	written->changed += cells->nchanges - cells->unchanged;
	written->unchanged += cells->unchanged;
	written->deleted += cells->ndrops;
	written->metrics |= cells->metrics;
	if (cells->nchanges > 0 || cells->ndrops > 0)
		mc_plan_discreetly(write_changes, &write);
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
