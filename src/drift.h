/*
 * drift.h
 *		Finding providers whose facts differ from their claims.
 */
#ifndef MERITUM_CACHE_DRIFT_H
#define MERITUM_CACHE_DRIFT_H

#include "utils/uuid.h"

typedef struct McDrift McDrift;

/*
 * Compare all facts with the source tables, in one snapshot and without any
 * provider's lock.  The result is in the current memory context, NULL if the
 * sources could not be read.
 */
extern McDrift *mc_drift_find(void);

/* May the provider's facts differ?  True for all if nothing was found out. */
extern bool mc_drift_has(McDrift *drift, const pg_uuid_t *provider);

extern void mc_drift_free(McDrift *drift);

#endif
