/*
 * custom_refresh.h
 *		Custom metrics in the pipeline: recompute, compare, write.
 */
#ifndef MERITUM_CACHE_CUSTOM_REFRESH_H
#define MERITUM_CACHE_CUSTOM_REFRESH_H

#include "cell.h"
#include "task.h"

/*
 * Recompute what a task says of custom metrics, as of a day, under the
 * provider's lock.  A query that fails costs the others nothing: it leaves a
 * note and a warning.  Adds to written and to the keys, and returns how many
 * failed.
 */
extern int	mc_custom_refresh(McTask *task, DateADT as_of, TimestampTz now,
							  McWritten *written, List **keys);

#endif
