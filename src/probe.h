/*
 * probe.h
 *		Reading tables of the cache without a statement.
 */
#ifndef MERITUM_CACHE_PROBE_H
#define MERITUM_CACHE_PROBE_H

#include "access/htup.h"
#include "access/tupdesc.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

/*
 * The lower bound of the provider's oldest figure; false if it has none.
 * Both see the active snapshot, and ask for no rights.
 */
extern bool mc_probe_oldest(const pg_uuid_t *provider, TimestampTz *oldest);
extern bool mc_probe_pending(const pg_uuid_t *provider);

/*
 * Pass all rows of a small table to read, which is called in the given memory
 * context.  The table is read as a catalog is, with its newest contents and
 * without asking for rights, so that it can be done amid any statement.
 */
extern void mc_probe_rows(Oid relation, MemoryContext context,
						  void (*read) (HeapTuple tuple, TupleDesc desc));

#endif
