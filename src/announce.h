/*
 * announce.h
 *		Telling of a refresh: listeners, the log and the client.
 */
#ifndef MERITUM_CACHE_ANNOUNCE_H
#define MERITUM_CACHE_ANNOUNCE_H

#include "cell.h"
#include "task.h"

/*
 * The transaction is being prepared: it may not notify, since PostgreSQL
 * refuses to prepare one that has.
 */
extern void mc_announce_set_preparing(bool preparing);

/*
 * Tell who listens on meritum_cache.notify_channel, if anything was changed or
 * deleted: a JSON object of provider, version and metrics, sent when the
 * transaction commits.  Custom metrics are named by their keys.
 */
extern void mc_announce_figures(const pg_uuid_t *provider, int64 version,
								const McWritten *cells, const List *custom);

/* Log a refresh that took meritum_cache.log_min_duration or longer. */
extern void mc_announce_refresh(const McTask *task, const McWritten *cells,
								const List *custom, double ms);

/* Warn of facts that differed without a note, if there are any. */
extern void mc_announce_drift(const pg_uuid_t *provider, int differences);

#endif
