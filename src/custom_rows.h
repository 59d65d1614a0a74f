/*
 * custom_rows.h
 *		Figures of custom metrics: stored ones and computed ones, compared.
 */
#ifndef MERITUM_CACHE_CUSTOM_ROWS_H
#define MERITUM_CACHE_CUSTOM_ROWS_H

#include "storage/itemptr.h"
#include "utils/date.h"
#include "utils/jsonb.h"
#include "utils/uuid.h"

#include "custom.h"

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
 * All but the last three need a bracket with the latest snapshot.
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

extern McSpan *mc_custom_spans(const List *months);
extern bool mc_custom_equal(const Jsonb *a, const Jsonb *b);

/* Raise what a reader of a metric is told of the failure of its query. */
mc_noreturn extern void mc_custom_raise(const char *key, const ErrorData *error);

#endif
