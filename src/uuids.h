/*
 * uuids.h
 *		Uuids as text and as arrays.
 */
#ifndef MERITUM_CACHE_UUIDS_H
#define MERITUM_CACHE_UUIDS_H

#include "utils/uuid.h"

/* Lower case with hyphens, as uuid_out writes it; in the current context. */
extern char *mc_uuid_text(const pg_uuid_t *uuid);

/* A uuid[] of n elements, possibly none; in the current context. */
extern Datum mc_uuid_array(const pg_uuid_t *uuids, int n);

#endif
