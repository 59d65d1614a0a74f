/*
 * fold.h
 *		Accumulators: facts folded into the measures of the wanted metrics.
 */
#ifndef MERITUM_CACHE_FOLD_H
#define MERITUM_CACHE_FOLD_H

#include "fact.h"
#include "guc.h"
#include "metric.h"

/* One group of a list; what its keys are depends on the metric's McGroup. */
typedef struct McItem
{
	int32		key;
	int32		key2;
	int64		sum[MC_MAX_MEASURES];
} McItem;

/* The measures of one metric over one set of facts. */
typedef struct McTable
{
	int64		sum[MC_MAX_MEASURES];	/* over all facts that count */
	McItem	   *item;
	int			nitems;
	int			capacity;
	int32	   *slot;			/* hash of the items, once there are many */
	int			nslots;
} McTable;

/* Facts with the same traits, and the metrics that count them. */
typedef struct McClass
{
	uint32		traits;
	McMetrics	metrics;
} McClass;

typedef struct McAmounts
{
	int64		amount[MC_N_AMOUNTS];
} McAmounts;

/* Sums of amounts by class. */
typedef struct McSums
{
	McAmounts  *class;			/* by its number */
	int			nclasses;
} McSums;

/* A provider's total, or the facts that have one value of a dimension. */
typedef struct McScope
{
	int			dim;			/* McDimension, -1 for the total */
	int32		id;				/* string, for a location that of its uuid */
	McMetrics	wanted;
	McSums		sums[MC_N_GRAINS];	/* of facts of the period, or of any date */
	McTable	   *table[MC_N_METRICS];	/* NULL: not wanted */
} McScope;

/* The value of a dimension, and the metrics that are wanted of it. */
typedef struct McWantedValue
{
	int			dim;
	int32		id;
	McMetrics	metrics;
} McWantedValue;

typedef struct McPeriod
{
	DateADT		first;
	DateADT		last;
	McMetrics	wanted;
	bool		only_values;	/* break down these only, else all */
	McWantedValue *value;
	int			nvalues;
	McScope   **scope;			/* the total is scope[0] */
	int			nscopes;
} McPeriod;

#define MC_N_CACHED 64

typedef struct McFold
{
	McFactSet  *claims;
	McFactSet  *coach;			/* may be NULL */
	McPlaces   *places;
	const char **rule_name;		/* see mc_fact_rule_names */
	DateADT		as_of;			/* for snapshot metrics */
	int			dimensions;		/* mask of breakdowns to make */
	McPeriod   *period;			/* ascending, apart from each other */
	int			nperiods;
	McClass    *class;
	int			nclasses;
	int			cached_class[MC_N_CACHED];	/* by a hash of the traits */
} McFold;

#define MC_N_BRACKETS 4

/*
 * Fill the periods' scopes from the facts.  Monthly metrics take the facts
 * dated within the period, snapshot metrics those of any date.
 */
extern void mc_fold_run(McFold *fold);

/* The scope of a value in a period, NULL if no claim has it. */
extern McScope *mc_fold_scope(McPeriod *period, int dim, int32 id);

#endif
