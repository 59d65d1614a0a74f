/*
 * event.h
 *		The event map: what a domain event makes to be recomputed.
 */
#ifndef MERITUM_CACHE_EVENT_H
#define MERITUM_CACHE_EVENT_H

#include "utils/uuid.h"

#include "custom.h"

/*
 * Metrics that the map names for an event, letter case ignored; false if it
 * has none.  The keys are valid until the next call.
 */
extern bool mc_event_find(const char *event_type, McKeys *keys);

/* Figures of a provider and some metrics.  Needs a bracket. */
extern int64 mc_event_count(const pg_uuid_t *provider, const McKeys *keys);

/*
 * A line in the log of an event and the number of figures that it hit, if the
 * setting asks for it; without a bracket.
 */
extern void mc_event_log(const pg_uuid_t *provider, const char *event_type);
extern void mc_event_log_count(const pg_uuid_t *provider, const char *event,
							   int64 removed);

#endif
