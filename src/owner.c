/*
 * owner.c
 *		Acting as the owner of the cache or of the application's tables.
 *
 * Whoever changes a claim or reads a figure needs no right on the cache: the
 * extension works with its owner's rights.  So that no function, operator or
 * temporary object of the caller can run with them, this happens inside a
 * security-restricted operation and with a fixed search path.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "executor/spi.h"
#include "jit/jit.h"
#include "miscadmin.h"
#include "optimizer/cost.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "owner.h"

#define MC_SCHEMA "meritum_cache"

static Oid
find_relation(const char *name)
{
	Oid			schema = get_namespace_oid(MC_SCHEMA, true);

	return OidIsValid(schema) ? get_relname_relid(name, schema) : InvalidOid;
}

bool
mc_has_relation(const char *name)
{
	return OidIsValid(find_relation(name));
}

bool
mc_is_installed(void)
{
	return OidIsValid(find_relation("provider_state"));
}

Oid
mc_cache_relation(const char *name)
{
	Oid			relid = find_relation(name);

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"meritum_cache\" is not installed in this database"),
				 errhint("Run CREATE EXTENSION meritum_cache.")));
	return relid;
}

Oid
mc_extension_owner(void)
{
	Oid			relid = mc_cache_relation("provider_state");
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/*
 * The snapshot of a REPEATABLE READ transaction would not see what others
 * committed while we waited for the provider's lock; and at commit the last
 * statement's own changes are not yet visible without a new command.  It is
 * a copy because our statements advance its command counter.
 */
static void
push_latest(void)
{
	CommandCounterIncrement();
	PushCopiedSnapshot(GetLatestSnapshot());
}

static void
set_locally(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

void
mc_owner_enter(McBracket *bracket, bool latest)
{
	Oid			owner = mc_extension_owner();

	GetUserIdAndSecContext(&bracket->user, &bracket->context);
	SetUserIdAndSecContext(owner, bracket->context |
						   SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	bracket->nest_level = NewGUCNestLevel();
	bracket->latest = latest;
	set_locally("search_path", "pg_catalog, pg_temp");

	/*
	 * The statements are many short look-ups by index.  Compiling one takes
	 * longer than running it, a bitmap of one row is no better than the row,
	 * and a plan made while a table was small must not scan it when it has
	 * grown.
	 */
	if (jit_enabled)
		set_locally("jit", "off");
	if (enable_bitmapscan)
		set_locally("enable_bitmapscan", "off");
	if (enable_seqscan)
		set_locally("enable_seqscan", "off");

	/* Rows that row security keeps from us are an error, not a lesser sum. */
	if (row_security)
		set_locally("row_security", "off");
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");

	if (latest)
		push_latest();
}

void
mc_owner_leave(McBracket *bracket)
{
	if (bracket->latest)
		PopActiveSnapshot();
	SPI_finish();
	AtEOXact_GUC(false, bracket->nest_level);
	SetUserIdAndSecContext(bracket->user, bracket->context);
}

void
mc_owner_renew_snapshot(void)
{
	PopActiveSnapshot();
	push_latest();
}

Oid
mc_owner_switch(Oid role)
{
	Oid			previous;
	int			context;

	GetUserIdAndSecContext(&previous, &context);
	SetUserIdAndSecContext(role, context);
	return previous;
}

void
mc_owner_restore(Oid previous)
{
	Oid			current;
	int			context;

	GetUserIdAndSecContext(&current, &context);
	SetUserIdAndSecContext(previous, context);
}

void
mc_owner_begin_foreign(McForeign *foreign, Oid role, const char *search_path,
					   const char *zone)
{
	foreign->previous = mc_owner_switch(role);
	foreign->nest_level = NewGUCNestLevel();
	/* temporary objects last: else they would come first */
	set_locally("search_path", psprintf("%s%spg_temp", search_path,
										search_path[0] != '\0' ? ", " : ""));
	set_locally("timezone", zone);
	set_locally("datestyle", "ISO, YMD");
	set_locally("intervalstyle", "postgres");
	set_locally("extra_float_digits", "1");
	set_locally("bytea_output", "hex");
	set_locally("row_security", "on");
	set_locally("enable_seqscan", "on");
	set_locally("enable_bitmapscan", "on");
}

void
mc_owner_end_foreign(McForeign *foreign)
{
	AtEOXact_GUC(false, foreign->nest_level);
	mc_owner_restore(foreign->previous);
}

int
mc_owner_begin_bulk(void)
{
	int			nest_level = NewGUCNestLevel();

	set_locally("enable_seqscan", "on");
	set_locally("enable_bitmapscan", "on");
	return nest_level;
}

void
mc_owner_allow_workers(int n)
{
	set_locally("max_parallel_workers_per_gather", psprintf("%d", n));
}

void
mc_owner_end_bulk(int nest_level)
{
	AtEOXact_GUC(false, nest_level);
}
