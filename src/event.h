/*
 * event.h
 *		The event map: what a domain event makes to be recomputed.
 */
#ifndef MERITUM_CACHE_EVENT_H
#define MERITUM_CACHE_EVENT_H

#include "metric.h"

/*
 * Metrics that the map names for an event, letter case ignored; 0 if it has
 * none.  Needs a bracket.
 */
extern McMetrics mc_event_metrics(const char *event_type);

#endif
