/*
 * value.h
 *		Accumulators written as JSON.
 */
#ifndef MERITUM_CACHE_VALUE_H
#define MERITUM_CACHE_VALUE_H

#include "utils/jsonb.h"

#include "fold.h"

/* The value of a metric, in the current memory context. */
extern Jsonb *mc_value_make(const McFold *fold, int metric, McTable *table);

/* {"ba_number": "…"}; NULL for the total (dim -1). */
extern Jsonb *mc_value_dimensions(const McStrings *strings, int dim, int32 id);

#endif
