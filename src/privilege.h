/*
 * privilege.h
 *		Who may do what: levels granted to roles, and the session's pin.
 */
#ifndef MERITUM_CACHE_PRIVILEGE_H
#define MERITUM_CACHE_PRIVILEGE_H

#include "utils/uuid.h"

/* A higher level includes the lower ones. */
typedef enum McLevel
{
	MC_LEVEL_NONE,
	MC_LEVEL_READER,
	MC_LEVEL_OPERATOR,
	MC_LEVEL_ADMIN
} McLevel;

#define MC_N_LEVELS (MC_LEVEL_ADMIN + 1)

extern const char *const mc_level_name[MC_N_LEVELS];

/* MC_LEVEL_NONE if there is no such level. */
extern McLevel mc_level_by_name(const char *name);

/*
 * Each raises 42501 unless the current user may: act for the provider; act
 * for all providers, by a function of that name; do what admins do, such as
 * "schedule jobs".
 */
extern void mc_require_provider(const pg_uuid_t *provider);
extern void mc_require_unpinned(const char *function);
extern void mc_require_admin(const char *action);

/*
 * Pin the session to a provider, to the end of the transaction if local, or
 * to none if it is NULL; raises 42501 if the transaction's user may not.
 */
extern void mc_privilege_pin(const pg_uuid_t *provider, bool local);

/* Forget the pin, as for another client; or which one the transaction used. */
extern void mc_privilege_unpin(void);
extern void mc_privilege_end_transaction(void);

#endif
