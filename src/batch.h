/*
 * batch.h
 *		The nightly batch and the cleanup: procedures that commit as they go.
 *
 * Nothing to call from C: the entry points are the SQL procedures
 * meritum_refresh_all_providers and meritum_cleanup_old_entries.
 */
#ifndef MERITUM_CACHE_BATCH_H
#define MERITUM_CACHE_BATCH_H

#endif
