/*
 * codes.h
 *		Explanatory codes of an assessment, from JSON of any shape.
 */
#ifndef MERITUM_CACHE_CODES_H
#define MERITUM_CACHE_CODES_H

#include "utils/jsonb.h"

/*
 * The codes in an array: each scalar by its text, each object by its member
 * code if that is a scalar; null, nested arrays and other objects are none.
 * Returns their number and sets *codes to palloc'd strings.
 */
extern int	mc_codes_extract(Jsonb *json, char ***codes);

#endif
