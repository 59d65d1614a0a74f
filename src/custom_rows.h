/*
 * custom_rows.h
 *		Figures of custom metrics: computed, compared and written.
 */
#ifndef MERITUM_CACHE_CUSTOM_ROWS_H
#define MERITUM_CACHE_CUSTOM_ROWS_H

#include "storage/itemptr.h"
#include "utils/jsonb.h"

#include "cell.h"
#include "custom.h"
#include "task.h"

/* What is stored of a provider's metric; DATEVAL_NOBEGIN: nothing. */
typedef struct McCustomState
{
	DateADT		from;			/* months */
	DateADT		to;
	DateADT		snapshot_on;
} McCustomState;

typedef struct McSpan
{
	DateADT		first;
	DateADT		last;
} McSpan;

typedef struct McCustomRow
{
	McSpan		span;
	Jsonb	   *dimensions;		/* NULL: the total */
	Jsonb	   *value;
	ItemPointerData tid;		/* of a stored row */
	pg_uuid_t	cache_id;
} McCustomRow;

typedef struct McCustomRows
{
	McCustomRow *row;			/* by span, then dimensions */
	int			n;
	int			capacity;
} McCustomRows;

/*
 * All but the last two need a bracket with the latest snapshot.
 */
extern McCustomState mc_custom_state(const pg_uuid_t *provider, const char *key);

/* Months of which anything is stored or was computed, ascending. */
extern List *mc_custom_stored(const pg_uuid_t *provider, const char *key,
							  const McCustomState *state);

/*
 * Execute the query of a metric for each span, as its owner, in a
 * subtransaction that reads only.  Returns the error if it failed.
 */
extern ErrorData *mc_custom_compute(McCustom *custom, const pg_uuid_t *provider,
									const McSpan *spans, int n,
									McCustomRows *rows);

/* The stored rows of months; those of other periods are the application's. */
extern void mc_custom_load(const pg_uuid_t *provider, const char *key,
						   const McSpan *months, int n, McCustomRows *rows);

/* Call back for each row that is in one of the two, with NULL for the other. */
typedef void (*McCompared) (const McCustomRow *stored,
							const McCustomRow *computed, void *arg);
extern void mc_custom_compare(const McCustomRows *stored,
							  const McCustomRows *computed,
							  McCompared compared, void *arg);

/*
 * Recompute what a task says of custom metrics, as of a day, under the
 * provider's lock.  A query that fails costs the others nothing: it leaves a
 * note and a warning.  Adds to written and to the keys, and returns how many
 * failed.
 */
extern int	mc_custom_refresh(McTask *task, DateADT as_of, TimestampTz now,
							  McWritten *written, List **keys);

extern McSpan *mc_custom_spans(const List *months);
extern bool mc_custom_equal(const Jsonb *a, const Jsonb *b);

/* Raise what a reader of a metric is told of the failure of its query. */
mc_noreturn extern void mc_custom_raise(const char *key, const ErrorData *error);

#endif
