/*
 * provider.h
 *		The lock and the state of a provider.
 */
#ifndef MERITUM_CACHE_PROVIDER_H
#define MERITUM_CACHE_PROVIDER_H

#include "utils/date.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

/* A row of meritum_cache.provider_state. */
typedef struct McProviderState
{
	bool		exists;
	int64		version;
	bool		facts_complete; /* in the present time zone */
	TimestampTz oldest;			/* DT_NOBEGIN: no figures yet */
	DateADT		full_from;		/* months, DATEVAL_NOBEGIN: none */
	DateADT		full_to;
	DateADT		snapshot_on;	/* DATEVAL_NOBEGIN: outdated */
	Datum		places;			/* see place.h; 0: not known */
	int			dimensions;		/* mask of the breakdowns; -1: not known */
	int64		drift;			/* facts ever found wrong without a note */
	int64		refreshes;		/* that wrote figures */
	int64		invalidations;	/* see mc_task_invalidations */
	TimestampTz invalidated_at; /* DT_NOBEGIN: never */
} McProviderState;

/* The order in which locks of several providers must be taken. */
extern int	mc_provider_compare(const pg_uuid_t *a, const pg_uuid_t *b);

/*
 * The provider's lock, held to the end of the transaction.  It guards the
 * provider's rows of all tables of the extension.  After mc_provider_lock the
 * snapshot has to be renewed: what the lock was waiting for is to be seen.
 */
extern void mc_provider_lock(const pg_uuid_t *provider);
extern bool mc_provider_try_lock(const pg_uuid_t *provider);

/* Whether somebody waits for the lock, which the caller must hold. */
extern bool mc_provider_has_waiters(const pg_uuid_t *provider);

/*
 * The same for notes of keys, which are of no provider yet: one process at a
 * time looks them up.  Taken before any provider's lock.
 */
extern void mc_provider_lock_keys(void);
extern bool mc_provider_try_lock_keys(void);

/* Need a bracket. */
extern void mc_provider_state_load(const pg_uuid_t *provider,
								   McProviderState *state);

/* The cause of the refresh; NULL if no figure was refreshed. */
extern void mc_provider_state_store(const pg_uuid_t *provider,
									const McProviderState *state,
									TimestampTz now, const char *cause);

/* Figures of the months before one were deleted. */
extern void mc_provider_state_trim(const pg_uuid_t *provider, DateADT month);
extern void mc_provider_state_remove(const pg_uuid_t *provider);

#endif
