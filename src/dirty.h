/*
 * dirty.h
 *		What the current transaction has changed.
 */
#ifndef MERITUM_CACHE_DIRTY_H
#define MERITUM_CACHE_DIRTY_H

#include "source.h"
#include "task.h"

/* Called from _PG_init. */
extern void mc_dirty_init(void);

/* A claim of a provider on a date; the date may be infinite. */
extern void mc_dirty_claim(const pg_uuid_t *provider, DateADT date,
						   const pg_uuid_t *claim);

/* A row whose claims are looked up later, see mc_refresh_resolve. */
extern void mc_dirty_key(McSource source, const pg_uuid_t *key);

/* The task of a provider, to set flags in. */
extern McTask *mc_dirty_provider(const pg_uuid_t *provider);

/* An event of the AI coach. */
extern void mc_dirty_event(const pg_uuid_t *provider, DateADT date);

/* All that a table tells, of every provider: it was truncated or attached. */
extern void mc_dirty_source(McSource source);

/* An event touched metrics; its type is logged at commit, unless NULL. */
extern void mc_dirty_keys(const pg_uuid_t *provider, const McKeys *keys,
						  const char *event_type);

/*
 * Has the transaction changed something of the provider, or may it have: at
 * all, of its claims, or of a custom metric?
 */
extern bool mc_dirty_has(const pg_uuid_t *provider);
extern bool mc_dirty_has_claims(const pg_uuid_t *provider);
extern bool mc_dirty_has_key(const pg_uuid_t *provider, const char *key);

/* Wake the background worker after the transaction commits. */
extern void mc_dirty_wake(void);

#endif
