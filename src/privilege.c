/*
 * privilege.c
 *		Who may do what: levels granted to roles, and the session's pin.
 *
 * Rights to execute and to select are ordinary grants; what a level means
 * besides is in meritum_cache.role_grant, of which a session keeps a copy
 * until the table or the membership of roles changes.
 *
 * The pin is the setting meritum_cache.provider.  No SET or RESET reaches it,
 * but it follows transactions and savepoints as other settings do.  It does
 * not reach parallel workers, so nothing that depends on it may run there.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/parallel.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "guc.h"
#include "owner.h"
#include "privilege.h"
#include "probe.h"
#include "uuids.h"

const char *const mc_level_name[MC_N_LEVELS] = {
	[MC_LEVEL_NONE] = "none",
	[MC_LEVEL_READER] = "reader",
	[MC_LEVEL_OPERATOR] = "operator",
	[MC_LEVEL_ADMIN] = "admin",
};

/* A row of role_grant. */
typedef struct Grant
{
	Oid			role;
	McLevel		level;
	bool		pinned;
} Grant;

static struct
{
	bool		callbacks_registered;
	bool		valid;
	uint64		generation;		/* counts invalidations */
	Oid			relid;
	MemoryContext context;
	Grant	   *grant;
	int			n;
} grants;

/* What the user that asked last may, until the grants change. */
static struct
{
	bool		valid;
	Oid			user;
	bool		owner;			/* or superuser */
	McLevel		level;			/* the highest */
	bool		pinned;			/* nothing until pinned */
} rights;

/* The provider that the transaction has been pinned to. */
static bool held = false;
static pg_uuid_t held_provider;

static void
forget_grants(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == grants.relid)
	{
		grants.valid = false;
		grants.generation++;
		rights.valid = false;
	}
}

static void
forget_rights(Datum arg, int cacheid, uint32 hashvalue)
{
	rights.valid = false;
}

McLevel
mc_level_by_name(const char *name)
{
	int			level;

	for (level = MC_LEVEL_ADMIN; level > MC_LEVEL_NONE; level--)
		if (strcmp(mc_level_name[level], name) == 0)
			break;
	return level;
}

static void
add_grant(HeapTuple tuple, TupleDesc desc)
{
	Grant	   *grant;
	bool		isnull;

	if ((grants.n & (grants.n - 1)) == 0)
		grants.grant = grants.n == 0 ? palloc(sizeof(Grant)) :
			repalloc(grants.grant, sizeof(Grant) * grants.n * 2);
	grant = &grants.grant[grants.n++];
	grant->role = DatumGetObjectId(heap_getattr(tuple, 1, desc, &isnull));
	grant->level = mc_level_by_name(TextDatumGetCString(heap_getattr(tuple, 2, desc,
																  &isnull)));
	grant->pinned = DatumGetBool(heap_getattr(tuple, 3, desc, &isnull));
}

/*
 * Read the table without a query: this is done for each call of a function,
 * before it acts as the owner.
 */
static void
read_grants(void)
{
	uint64		generation;

	if (!grants.callbacks_registered)
	{
		CacheRegisterRelcacheCallback(forget_grants, (Datum) 0);
		CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, forget_rights, (Datum) 0);
		CacheRegisterSyscacheCallback(AUTHOID, forget_rights, (Datum) 0);
		grants.callbacks_registered = true;
		grants.context = AllocSetContextCreate(TopMemoryContext,
											   "meritum_cache grants",
											   ALLOCSET_SMALL_SIZES);
	}
	if (grants.valid)
		return;
	MemoryContextReset(grants.context);
	grants.n = 0;
	grants.relid = mc_cache_relation("role_grant");
	generation = grants.generation;
	mc_probe_rows(grants.relid, grants.context, add_grant);
	grants.valid = generation == grants.generation;
}

/*
 * Work out what the current user may.  Levels add up over the roles that it
 * is a member of; whether it has to be pinned its own grant says, and where
 * it has none, all of those that it gets through others must say so.
 */
static void
find_rights(void)
{
	Oid			user = GetUserId();
	Oid			extension_owner;
	bool		own = false;
	int			i;

	if (rights.valid && rights.user == user)
		return;
	read_grants();
	extension_owner = mc_extension_owner();
	rights.user = user;
	rights.owner = has_privs_of_role(user, extension_owner);
	rights.level = MC_LEVEL_NONE;
	rights.pinned = false;
	for (i = 0; i < grants.n && !rights.owner; i++)
	{
		const Grant *grant = &grants.grant[i];

		if (!has_privs_of_role(user, grant->role))
			continue;
		if (grant->role == user)
		{
			rights.pinned = grant->pinned;
			own = true;
		}
		else if (!own)
			rights.pinned = grant->pinned &&
				(rights.level == MC_LEVEL_NONE || rights.pinned);
		rights.level = Max(rights.level, grant->level);
	}
	rights.valid = grants.valid;
}

void
mc_require_admin(const char *action)
{
	find_rights();
	if (!rights.owner && rights.level < MC_LEVEL_ADMIN)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to %s", action),
				 errdetail("Only superusers, the owner of the extension and roles with the level admin may.")));
}

/*
 * Does the user have to be pinned before anything is shown?
 */
static bool
needs_pin(void)
{
	find_rights();
	return rights.pinned;
}

/*
 * The pin, NULL if there is none.  Having been asked for it the transaction
 * has used it.
 */
static const pg_uuid_t *
get_pin(void)
{
	if (IsParallelWorker())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("the pinned provider is not known in a parallel worker"),
				 errhint("Mark functions that read the figures of providers as PARALLEL UNSAFE.")));
	if (mc_pin != NULL && !held)
	{
		held = true;
		held_provider = *mc_pin;
	}
	return mc_pin;
}

static void
report_unpinned(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("role \"%s\" is not pinned to a provider",
					GetUserNameFromId(GetUserId(), false)),
			 errhint("Call meritum_set_provider() first.")));
}

void
mc_require_provider(const pg_uuid_t *provider)
{
	const pg_uuid_t *pin = get_pin();

	if (pin != NULL)
	{
		if (memcmp(pin, provider, UUID_LEN) != 0)
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("permission denied for provider %s",
							mc_uuid_text(provider)),
					 errdetail("The session is pinned to another provider.")));
	}
	else if (needs_pin())
		report_unpinned();
}

void
mc_require_unpinned(const char *function)
{
	if (get_pin() != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("%s cannot be called while pinned to a provider", function),
				 errhint("It is not about one provider alone; call meritum_set_provider(NULL) first.")));
	if (needs_pin())
		report_unpinned();
}

static void
set_pin(const pg_uuid_t *provider, GucAction action)
{
	(void) set_config_option("meritum_cache.provider",
							 provider != NULL ? mc_uuid_text(provider) : "",
							 PGC_INTERNAL, PGC_S_SESSION, action, true, 0,
							 false);
}

void
mc_privilege_pin(const pg_uuid_t *provider, bool local)
{
	/*
	 * held outlives a rollback to a savepoint, the pin does not: what a
	 * transaction has seen of one provider must not be joined by another.
	 */
	if (held && needs_pin() &&
		(provider == NULL || memcmp(provider, &held_provider, UUID_LEN) != 0))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to change the provider within a transaction"),
				 errdetail("Role \"%s\" is granted with pinned, and the transaction is pinned already.",
						   GetUserNameFromId(GetUserId(), false))));
	set_pin(provider, local ? GUC_ACTION_LOCAL : GUC_ACTION_SET);
	(void) get_pin();
}

void
mc_privilege_unpin(void)
{
	if (mc_pin != NULL)
		set_pin(NULL, GUC_ACTION_SET);
}

void
mc_privilege_end_transaction(void)
{
	held = false;
}

PG_FUNCTION_INFO_V1(pinned_provider);
PG_FUNCTION_INFO_V1(sees_all);

Datum
pinned_provider(PG_FUNCTION_ARGS)
{
	const pg_uuid_t *pin = get_pin();
	pg_uuid_t  *result;

	if (pin == NULL)
		PG_RETURN_NULL();
	result = palloc(sizeof(pg_uuid_t));
	*result = *pin;
	PG_RETURN_UUID_P(result);
}

/*
 * For row security.  A user without a grant of a level sees nothing: it may
 * be looking through a view of someone who may see but one provider.
 */
Datum
sees_all(PG_FUNCTION_ARGS)
{
	if (get_pin() != NULL)
		PG_RETURN_BOOL(false);
	find_rights();
	PG_RETURN_BOOL(rights.owner ||
				   (rights.level > MC_LEVEL_NONE && !rights.pinned));
}
