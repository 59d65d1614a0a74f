/*
 * probe.c
 *		Reading tables of the cache without a statement.
 *
 * Applications ask for staleness with every page they show, and starting a
 * statement would take longer than its answer.  What is kept in memory of
 * small tables may be read anew while a statement of the application runs.
 * Everything else goes through plan.c.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/skey.h"
#include "access/table.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "owner.h"
#include "probe.h"
#include "zone.h"

/*
 * The first row of the provider, passed to read; false if there is none.
 */
static bool
probe(const char *table, const char *index, const pg_uuid_t *provider,
	  void (*read) (HeapTuple tuple, TupleDesc desc, void *arg), void *arg)
{
	Relation	rel = table_open(mc_cache_relation(table), AccessShareLock);
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;

	ScanKeyInit(&key, SPI_fnumber(RelationGetDescr(rel), "provider_id"),
				BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(provider));
	scan = systable_beginscan(rel, mc_cache_relation(index), true,
							  GetActiveSnapshot(), 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple) && read != NULL)
		read(tuple, RelationGetDescr(rel), arg);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return HeapTupleIsValid(tuple);
}

/* Figures of another time zone count as none. */
static void
read_oldest(HeapTuple tuple, TupleDesc desc, void *arg)
{
	TimestampTz *oldest = arg;
	bool		isnull;
	Datum		value = heap_getattr(tuple, SPI_fnumber(desc, "facts_zone"),
									 desc, &isnull);

	*oldest = DT_NOBEGIN;
	if (!isnull && strcmp(TextDatumGetCString(value), mc_zone_name()) != 0)
		return;
	value = heap_getattr(tuple, SPI_fnumber(desc, "oldest_computed_at"), desc,
						 &isnull);
	if (!isnull)
		*oldest = DatumGetTimestampTz(value);
}

bool
mc_probe_oldest(const pg_uuid_t *provider, TimestampTz *oldest)
{
	return probe("provider_state", "provider_state_pkey", provider,
				 read_oldest, oldest) && *oldest != DT_NOBEGIN;
}

bool
mc_probe_pending(const pg_uuid_t *provider)
{
	return probe("pending_refresh", "pending_refresh_provider_id", provider,
				 NULL, NULL);
}

void
mc_probe_rows(Oid relation, MemoryContext context,
			  void (*read) (HeapTuple tuple, TupleDesc desc))
{
	Relation	rel = table_open(relation, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	MemoryContext old = MemoryContextSwitchTo(context);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		read(tuple, RelationGetDescr(rel));
	MemoryContextSwitchTo(old);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}
