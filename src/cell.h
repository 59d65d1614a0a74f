/*
 * cell.h
 *		Rows of meritum_cache.analytics_cache of one provider.
 */
#ifndef MERITUM_CACHE_CELL_H
#define MERITUM_CACHE_CELL_H

#include "storage/itemptr.h"
#include "utils/date.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "intern.h"
#include "metric.h"
#include "rows.h"

#define MC_CELL_COLUMNS 8

typedef struct McCellKey
{
	int32		metric;
	DateADT		month;
	int32		dim;			/* McDimension, -1 for the total */
	int32		id;				/* string of its value */
} McCellKey;

typedef struct McCell
{
	McCellKey	key;
	char		status;			/* of the hash table */
	ItemPointerData tid;
	pg_uuid_t	cache_id;
	TimestampTz computed_at;
	Jsonb	   *value;			/* as stored */
	bool		seen;			/* mark for the caller */
} McCell;

typedef struct McCells McCells;

/* What writing did. */
typedef struct McWritten
{
	int64		changed;		/* inserted, or updated with another value */
	int64		unchanged;		/* only computed_at moved */
	int64		deleted;
	McMetrics	metrics;		/* of all these */
} McWritten;

/*
 * The stored cells of some metrics and months.  Rows whose period is not a
 * month or whose dimensions are not one kept dimension are passed over: they
 * are the application's own.
 */
extern McCells *mc_cells_load(const pg_uuid_t *provider, McMetrics metrics,
							  const DateADT *months, int nmonths,
							  McStrings *strings);
extern McCell *mc_cells_find(McCells *cells, int metric, DateADT month,
							 int dim, int32 id);

/* Iterate over all; start with *iterator zeroed. */
typedef struct McCellIterator
{
	bool		started;
	uint32		cur;
	uint32		end;
	bool		done;
} McCellIterator;
extern McCell *mc_cells_next(McCells *cells, McCellIterator *iterator);

/*
 * Queue changes, then write them all.  With if_changed a cell whose value is
 * the same is left alone, else its computed_at moves.
 */
extern void mc_cells_put(McCells *cells, int metric, DateADT month, int dim,
						 int32 id, Jsonb *value, bool if_changed);
extern void mc_cells_drop(McCells *cells, McCell *cell);
extern void mc_cells_write(McCells *cells, TimestampTz now, McWritten *written);

/* Months in which the provider has a total of any metric, ascending. */
extern int	mc_cells_months(const pg_uuid_t *provider, DateADT **months);

/* Remove every cell of a provider. */
extern int64 mc_cells_remove_provider(const pg_uuid_t *provider);

/*
 * Rows of analytics_cache, opened by mc_rows_open with MC_CELL_COLUMNS: a new one, dimensions NULL
 * for the total; or the value of the one at tid, NULL if it stays as it is.
 */
extern void mc_cell_insert(McRows *rows, const pg_uuid_t *provider,
						   const char *key, DateADT first, DateADT last,
						   Jsonb *dimensions, Jsonb *value, TimestampTz now);
extern void mc_cell_update(McRows *rows, const ItemPointerData *tid,
						   Jsonb *value, TimestampTz now);

#endif
