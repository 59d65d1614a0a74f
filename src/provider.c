/*
 * provider.c
 *		The lock and the state of a provider.
 *
 * Whoever changes a provider's facts, cells or state holds the provider's
 * lock and reads with a snapshot taken after it was granted: so each refresh
 * sees all that earlier ones counted, at every isolation level.  It is a
 * heavyweight lock on an object of provider_state, named by a hash of the
 * provider: a row lock would raise serialization failures under REPEATABLE
 * READ, and an advisory lock could be taken by anybody.  Two providers with
 * one hash wait for each other needlessly, and nothing else.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "owner.h"
#include "plan.h"
#include "provider.h"
#include "zone.h"

static McPlan load_state = {
	"SELECT s.version, s.facts_zone, s.oldest_computed_at, s.full_from,"
	" s.full_to, s.snapshot_on, s.drift, s.refreshes, s.invalidations,"
	" s.invalidated_at, s.places, s.dimensions"
	" FROM meritum_cache.provider_state s WHERE s.provider_id = $1",
	"uuid", SPI_OK_SELECT
};

static McPlan store_state = {
	"INSERT INTO meritum_cache.provider_state AS s (provider_id, version,"
	" facts_zone, oldest_computed_at, full_from, full_to, snapshot_on,"
	" drift, refreshed_at, refresh_cause, refreshes, invalidations,"
	" invalidated_at, places, dimensions)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)"
	" ON CONFLICT (provider_id) DO UPDATE SET version = excluded.version,"
	" facts_zone = excluded.facts_zone,"
	" oldest_computed_at = excluded.oldest_computed_at,"
	" full_from = excluded.full_from, full_to = excluded.full_to,"
	" snapshot_on = excluded.snapshot_on, drift = excluded.drift,"
	" refreshed_at = coalesce(excluded.refreshed_at, s.refreshed_at),"
	" refresh_cause = coalesce(excluded.refresh_cause, s.refresh_cause),"
	" refreshes = excluded.refreshes, invalidations = excluded.invalidations,"
	" invalidated_at = excluded.invalidated_at, places = excluded.places,"
	" dimensions = excluded.dimensions",
	"uuid,int8,text,timestamptz,date,date,date,int8,timestamptz,text,int8,"
	"int8,timestamptz,text[],int4",
	SPI_OK_INSERT
};

static McPlan remove_state = {
	"DELETE FROM meritum_cache.provider_state s WHERE s.provider_id = $1",
	"uuid", SPI_OK_DELETE
};

static McPlan remove_metrics = {
	"DELETE FROM meritum_cache.metric_state s WHERE s.provider_id = $1",
	"uuid", SPI_OK_DELETE
};

static McPlan trim_metrics = {
	"UPDATE meritum_cache.metric_state"
	"   SET full_from = CASE WHEN full_to >= $2 THEN greatest(full_from, $2) END,"
	"       full_to = CASE WHEN full_to >= $2 THEN full_to END"
	" WHERE provider_id = $1 AND full_from < $2",
	"uuid,date", SPI_OK_UPDATE
};

static McPlan trim_state = {
	"UPDATE meritum_cache.provider_state"
	"   SET version = version + 1,"
	"       full_from = CASE WHEN full_to >= $2 THEN greatest(full_from, $2) END,"
	"       full_to = CASE WHEN full_to >= $2 THEN full_to END"
	" WHERE provider_id = $1",
	"uuid,date", SPI_OK_UPDATE
};

static uint32
provider_hash(const pg_uuid_t *provider)
{
	return hash_bytes(provider->data, UUID_LEN);
}

/*
 * By hash first, since that is what the lock is named by: in the order of the
 * providers themselves, two that share a hash could close a circle.
 */
int
mc_provider_compare(const pg_uuid_t *a, const pg_uuid_t *b)
{
	uint32		x = provider_hash(a);
	uint32		y = provider_hash(b);

	if (x != y)
		return x < y ? -1 : 1;
	return memcmp(a->data, b->data, UUID_LEN);
}

static LOCKTAG
lock_tag(const pg_uuid_t *provider)
{
	LOCKTAG		tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, mc_cache_relation("provider_state"),
					   provider_hash(provider), 0);
	return tag;
}

static LockAcquireResult
acquire(const pg_uuid_t *provider, bool dont_wait)
{
	LOCKTAG		tag = lock_tag(provider);

	return LockAcquire(&tag, ExclusiveLock, false, dont_wait);
}

void
mc_provider_lock(const pg_uuid_t *provider)
{
	(void) acquire(provider, false);
}

bool
mc_provider_try_lock(const pg_uuid_t *provider)
{
	return acquire(provider, true) != LOCKACQUIRE_NOT_AVAIL;
}

bool
mc_provider_has_waiters(const pg_uuid_t *provider)
{
	LOCKTAG		tag = lock_tag(provider);

	return LockHasWaiters(&tag, ExclusiveLock, false);
}

/* No provider has the nil uuid; one that hashes like it waits needlessly. */
static const pg_uuid_t no_provider = {{0}};

void
mc_provider_lock_keys(void)
{
	mc_provider_lock(&no_provider);
}

bool
mc_provider_try_lock_keys(void)
{
	return mc_provider_try_lock(&no_provider);
}

void
mc_provider_state_load(const pg_uuid_t *provider, McProviderState *state)
{
	Datum		value = UUIDPGetDatum(provider);
	bool		isnull;

	memset(state, 0, sizeof(*state));
	state->oldest = DT_NOBEGIN;
	state->full_from = state->full_to = DATEVAL_NOBEGIN;
	state->snapshot_on = DATEVAL_NOBEGIN;
	state->invalidated_at = DT_NOBEGIN;
	state->dimensions = -1;
	if (mc_plan_execute(&load_state, &value, NULL) == 0)
		return;
	state->exists = true;
	state->version = DatumGetInt64(mc_plan_value(0, 1, &isnull));
	value = mc_plan_value(0, 2, &isnull);
	state->facts_complete = !isnull &&
		strcmp(TextDatumGetCString(value), mc_zone_name()) == 0;
	value = mc_plan_value(0, 3, &isnull);
	if (!isnull)
		state->oldest = DatumGetTimestampTz(value);
	state->full_from = mc_plan_date(0, 4);
	state->full_to = mc_plan_date(0, 5);
	state->snapshot_on = mc_plan_date(0, 6);
	state->drift = DatumGetInt64(mc_plan_value(0, 7, &isnull));
	state->refreshes = DatumGetInt64(mc_plan_value(0, 8, &isnull));
	state->invalidations = DatumGetInt64(mc_plan_value(0, 9, &isnull));
	value = mc_plan_value(0, 10, &isnull);
	if (!isnull)
		state->invalidated_at = DatumGetTimestampTz(value);
	value = mc_plan_value(0, 11, &isnull);
	if (!isnull)
		state->places = PointerGetDatum(DatumGetArrayTypePCopy(value));
	value = mc_plan_value(0, 12, &isnull);
	if (!isnull)
		state->dimensions = DatumGetInt32(value);
}

void
mc_provider_state_store(const pg_uuid_t *provider,
						const McProviderState *state, TimestampTz now,
						const char *cause)
{
	Datum		values[15] = {
		UUIDPGetDatum(provider), Int64GetDatum(state->version),
		CStringGetTextDatum(mc_zone_name()), TimestampTzGetDatum(state->oldest),
		DateADTGetDatum(state->full_from), DateADTGetDatum(state->full_to),
		DateADTGetDatum(state->snapshot_on), Int64GetDatum(state->drift),
		TimestampTzGetDatum(now),
		cause != NULL ? CStringGetTextDatum(cause) : (Datum) 0,
		Int64GetDatum(state->refreshes), Int64GetDatum(state->invalidations),
		TimestampTzGetDatum(state->invalidated_at), state->places,
		Int32GetDatum(state->dimensions)
	};
	char		nulls[] = "               ";

	if (cause == NULL)
		nulls[8] = nulls[9] = 'n';
	if (!state->facts_complete)
		nulls[2] = 'n';
	if (state->oldest == DT_NOBEGIN)
		nulls[3] = 'n';
	if (DATE_IS_NOBEGIN(state->full_from))
		nulls[4] = nulls[5] = 'n';
	if (DATE_IS_NOBEGIN(state->snapshot_on))
		nulls[6] = 'n';
	if (state->invalidated_at == DT_NOBEGIN)
		nulls[12] = 'n';
	if (state->places == (Datum) 0)
		nulls[13] = 'n';
	if (state->dimensions < 0)
		nulls[14] = 'n';
	mc_plan_execute(&store_state, values, nulls);
}

void
mc_provider_state_remove(const pg_uuid_t *provider)
{
	Datum		value = UUIDPGetDatum(provider);

	mc_plan_execute(&remove_state, &value, NULL);
	mc_plan_execute(&remove_metrics, &value, NULL);
}

void
mc_provider_state_trim(const pg_uuid_t *provider, DateADT month)
{
	Datum		values[2] = {UUIDPGetDatum(provider), DateADTGetDatum(month)};

	mc_plan_execute(&trim_state, values, NULL);
	mc_plan_execute(&trim_metrics, values, NULL);
}
