/*
 * stats.h
 *		Shared counters of refreshes: meritum_cache.stat_refresh.
 */
#ifndef MERITUM_CACHE_STATS_H
#define MERITUM_CACHE_STATS_H

#include "task.h"

/* Called from _PG_init while shared_preload_libraries is being processed. */
extern void mc_stats_init(void);

/*
 * Count a refresh that was done, or attempts that failed.  Both raise
 * nothing, and do nothing unless the library was preloaded.
 */
extern void mc_stats_refreshed(McCause cause, int64 written, int64 unchanged,
							   double ms);
extern void mc_stats_failed(McCause cause, int n);

#endif
