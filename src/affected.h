/*
 * affected.h
 *		From differences of facts to the cells that they touch.
 */
#ifndef MERITUM_CACHE_AFFECTED_H
#define MERITUM_CACHE_AFFECTED_H

#include "fact.h"
#include "metric.h"

/* The claims of a month with one value of a dimension. */
typedef struct McTouched
{
	int			dim;
	int32		id;
	McMetrics	metrics;		/* whose breakdown row is affected */
	int			delta;			/* claims more (or less) than before */
} McTouched;

/* What is to be done for one month of the provider. */
typedef struct McMonthPlan
{
	DateADT		month;
	McMetrics	affected;		/* by the exact rule or the event map */
	McMetrics	force;			/* recomputed whole, made if missing */
	McMetrics	existing;		/* recomputed whole where there is a total */
	McMetrics	soft;			/* the same as affected or existing, but rows
								 * whose value is equal are left alone */
	bool		soft_made;		/* soft ones are made if missing */
	bool		locations;		/* all breakdowns by location, soft */
	List	   *custom;			/* keys that the event map names */
	McTouched  *touched;
	int			ntouched;
} McMonthPlan;

typedef struct McAffected
{
	McStrings  *strings;
	McPlaces   *places;
	int			dimensions;		/* mask of breakdowns that are kept */
	bool		snapshot;		/* something snapshot metrics read differs */
	McMonthPlan *month;
	int			nmonths;
	int			capacity;
} McAffected;

extern McMonthPlan *mc_affected_month(McAffected *affected, DateADT month);

/* Months ascending. */
extern void mc_affected_sort(McAffected *affected);

/* A claim differs: see mc_fact_sync. */
extern void mc_affected_add(McAffected *affected, const McFact *old,
							const McFact *new, uint32 columns);

#endif
