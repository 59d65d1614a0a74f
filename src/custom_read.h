/*
 * custom_read.h
 *		Custom metrics for readers: what lags, and figures that are not stored.
 */
#ifndef MERITUM_CACHE_CUSTOM_READ_H
#define MERITUM_CACHE_CUSTOM_READ_H

#include "custom_rows.h"
#include "task.h"

typedef struct McCustomRead
{
	const pg_uuid_t *provider;
	List	   *keys;			/* char * */
	DateADT		first;			/* the period asked for */
	DateADT		last;
	DateADT		today;
	bool		pending;		/* changes that may touch any metric */
	List	   *lagging;		/* of keys and months, what is not up to date */
} McCustomRead;

/*
 * All need a bracket.  Plan finds out what must be computed before it may be
 * read, adds it to the task and returns whether there is any.
 */
extern bool mc_custom_read_plan(McCustomRead *read, McTask *task);

/* Compute what lags, without storing it; put is called for each row. */
typedef void (*McPutRow) (const char *key, const McCustomRow *row, void *arg);
extern void mc_custom_read_compute(const McCustomRead *read, McPutRow put,
								   void *arg);

/* Is a month of a metric among what lags? */
extern bool mc_custom_read_lags(const McCustomRead *read, const char *key,
								DateADT first, DateADT last);

/* The total of a metric over any span, NULL if it has none. */
extern Jsonb *mc_custom_read_total(const pg_uuid_t *provider, const char *key,
								   DateADT first, DateADT last);

#endif
