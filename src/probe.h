/*
 * probe.h
 *		Looking for a provider's rows by index, without a statement.
 */
#ifndef MERITUM_CACHE_PROBE_H
#define MERITUM_CACHE_PROBE_H

#include "utils/timestamp.h"
#include "utils/uuid.h"

/*
 * The lower bound of the provider's oldest figure; false if it has none.
 * Both see the active snapshot, and ask for no rights.
 */
extern bool mc_probe_oldest(const pg_uuid_t *provider, TimestampTz *oldest);
extern bool mc_probe_pending(const pg_uuid_t *provider);

#endif
