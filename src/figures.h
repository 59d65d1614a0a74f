/*
 * figures.h
 *		From facts to figures: aggregate the wanted metrics and write them.
 */
#ifndef MERITUM_CACHE_FIGURES_H
#define MERITUM_CACHE_FIGURES_H

#include "affected.h"
#include "cell.h"
#include "fold.h"

/*
 * Write the figures that the plan names, as of a day, from the provider's
 * facts, which must be there for all months of the plan (for snapshot metrics,
 * all there are).  Needs a bracket and the provider's lock.
 */
extern void mc_figures_write(const pg_uuid_t *provider, McAffected *affected,
							 McFactSet *facts, DateADT as_of, TimestampTz now,
							 McWritten *written);

/*
 * The fold of a provider's figures without storing anything, for periods
 * whose wanted metrics are set; from the facts or, with derive, from the
 * source tables.  Needs a bracket; the result is in the current context.  The
 * filter is first called without a fact, to restrict the locations.
 */
typedef bool (*McFilter) (const McFold *fold, const McFact *fact, void *arg);
extern McFold *mc_figures_compute(const pg_uuid_t *provider,
								  McStrings *strings, McPeriod *periods,
								  int nperiods, DateADT as_of, int dimensions,
								  bool derive, McFilter filter, void *arg);

#endif
