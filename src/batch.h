/*
 * batch.h
 *		The nightly batch.
 *
 * Nothing to call from C: the entry point is the SQL procedure
 * meritum_refresh_all_providers.
 */
#ifndef MERITUM_CACHE_BATCH_H
#define MERITUM_CACHE_BATCH_H

#endif
