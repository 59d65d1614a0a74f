/*
 * cleanup.c
 *		Deletes figures that are older than meritum_cache.retention_months.
 *
 * It commits as it goes: a transaction deletes a bounded number of rows of one
 * provider, under the provider's lock.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "fmgr.h"
#include "utils/date.h"
#include "utils/uuid.h"

#include "guc.h"
#include "owner.h"
#include "plan.h"
#include "procedure.h"
#include "provider.h"
#include "run.h"
#include "zone.h"

/* Rows deleted in a transaction, at most. */
#define CLEANUP_ROWS 10000

static McPlan select_cutoff = {
	"SELECT ($1 - make_interval(months => $2))::date,"
	"       date_trunc('month', $1 - make_interval(months => $2))::date",
	"date,int4", SPI_OK_SELECT
};

static McPlan find_expired = {
	"SELECT provider_id FROM meritum_cache.analytics_cache"
	" WHERE provider_id >= $1 AND period_end < $2"
	" ORDER BY provider_id LIMIT 1",
	"uuid,date", SPI_OK_SELECT
};

static McPlan delete_expired = {
	"DELETE FROM meritum_cache.analytics_cache"
	" WHERE ctid = ANY (ARRAY("
	"       SELECT ctid FROM meritum_cache.analytics_cache"
	"        WHERE provider_id = $1 AND period_end < $2 LIMIT $3))",
	"uuid,date,int8", SPI_OK_DELETE
};

/*
 * The least uuid greater than a given one; false if there is none.
 */
static bool
next_uuid(pg_uuid_t *uuid)
{
	int			i;

	for (i = UUID_LEN - 1; i >= 0; i--)
		if (++uuid->data[i] != 0)
			return true;
	return false;
}

/*
 * Find the first provider from *provider on that has expired figures.
 */
static bool
find_expired_provider(pg_uuid_t *provider, DateADT cutoff)
{
	Datum		values[2];
	bool		isnull;

	values[0] = UUIDPGetDatum(provider);
	values[1] = DateADTGetDatum(cutoff);
	if (mc_plan_execute(&find_expired, values, NULL) == 0)
		return false;
	*provider = *DatumGetUUIDP(mc_plan_value(0, 1, &isnull));
	return true;
}

static int64
delete_chunk(pg_uuid_t *provider, DateADT cutoff, DateADT month, int64 limit)
{
	Datum		values[3];
	int64		n;

	/* Every writer of the provider's figures takes its lock. */
	mc_provider_lock(provider);
	mc_owner_renew_snapshot();

	values[0] = UUIDPGetDatum(provider);
	values[1] = DateADTGetDatum(cutoff);
	values[2] = Int64GetDatum(limit);
	n = mc_plan_execute(&delete_expired, values, NULL);
	if (n > 0)
		mc_provider_state_trim(provider, month);
	return n;
}

/*
 * One transaction's share: rows of the next provider that has any to delete.
 * Providers are walked in ascending order, which is not the order of their
 * locks, so a transaction locks no more than one.  Returns whether there may
 * be more, from *provider on.
 */
static bool
clean_some(pg_uuid_t *provider, DateADT cutoff, DateADT month, int64 *deleted)
{
	McBracket	bracket;
	bool		more;

	mc_owner_enter(&bracket, true);
	more = find_expired_provider(provider, cutoff);
	if (more)
	{
		int64		n = delete_chunk(provider, cutoff, month, CLEANUP_ROWS);

		*deleted += n;
		if (n < CLEANUP_ROWS)
			more = next_uuid(provider);
	}
	mc_owner_leave(&bracket);
	return more;
}

/*
 * The first day of which figures are kept, and the first of its month.
 */
static void
find_cutoff(DateADT *cutoff, DateADT *month)
{
	McBracket	bracket;
	Datum		values[2];
	bool		isnull;

	mc_owner_enter(&bracket, true);
	values[0] = DateADTGetDatum(mc_today());
	values[1] = Int32GetDatum(mc_retention_months);
	mc_plan_execute(&select_cutoff, values, NULL);
	*cutoff = DatumGetDateADT(mc_plan_value(0, 1, &isnull));
	*month = DatumGetDateADT(mc_plan_value(0, 2, &isnull));
	mc_owner_leave(&bracket);
}

static void
prune_runs(void)
{
	McBracket	bracket;

	mc_owner_enter(&bracket, true);
	mc_run_prune();
	mc_owner_leave(&bracket);
}

PG_FUNCTION_INFO_V1(meritum_cleanup_old_entries);

Datum
meritum_cleanup_old_entries(PG_FUNCTION_ARGS)
{
	McProcedure procedure;
	pg_uuid_t	provider = {{0}};
	DateADT		cutoff;
	DateADT		month;
	int64		deleted = 0;
	Datum		values[1];

	mc_procedure_begin(&procedure, fcinfo, "meritum_cleanup_old_entries");
	find_cutoff(&cutoff, &month);
	while (clean_some(&provider, cutoff, month, &deleted))
		SPI_commit();
	prune_runs();
	SPI_commit();

	values[0] = Int64GetDatum(deleted);
	PG_RETURN_DATUM(mc_procedure_end(&procedure, values));
}
