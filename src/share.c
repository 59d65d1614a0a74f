/*
 * share.c
 *		What each process of the nightly batch does of it.
 *
 * Providers are handed out one at a time in the order of their locks, so that
 * each process, whatever the others do, takes its locks in that order, as
 * every transaction does.  It holds them until it commits, and a claim's
 * commit waits for such a lock: so it commits as soon as somebody waits for
 * one of its locks, and waits for none while it holds others.
 *
 * What is allocated for one provider goes with it, so that memory does not
 * grow with their number.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "attempt.h"
#include "owner.h"
#include "plan.h"
#include "provider.h"
#include "refresh.h"
#include "share.h"
#include "uuids.h"

static McPlan is_done = {
	"SELECT FROM meritum_cache.provider_state"
	" WHERE provider_id = $1 AND batch_run = $2",
	"uuid,int8", SPI_OK_SELECT
};

static McPlan mark_done = {
	"UPDATE meritum_cache.provider_state SET batch_run = $2"
	" WHERE provider_id = $1",
	"uuid,int8", SPI_OK_UPDATE
};

Size
mc_batch_size_of(uint32 nproviders)
{
	return add_size(offsetof(McBatch, provider),
					mul_size(nproviders, sizeof(McBatchProvider)));
}

McBatch *
mc_batch_create(uint32 nproviders)
{
	McBatch    *batch = palloc0(mc_batch_size_of(nproviders));

	batch->nproviders = nproviders;
	pg_atomic_init_u32(&batch->next, 0);
	return batch;
}

void
mc_share_init(McShare *share, McBatch *batch)
{
	memset(share, 0, sizeof(*share));
	share->context = CurrentMemoryContext;
	share->scratch = AllocSetContextCreate(CurrentMemoryContext,
										   "meritum_cache batch provider",
										   ALLOCSET_DEFAULT_SIZES);
	share->batch = batch;
	initStringInfo(&share->taken);
	initStringInfo(&share->errors);
}

void
mc_share_reset(McShare *share)
{
	list_free(share->held);
	share->held = NIL;
	memset(&share->counts, 0, sizeof(share->counts));
	resetStringInfo(&share->taken);
	resetStringInfo(&share->errors);
}

static bool
provider_is_done(const McBatch *batch, const pg_uuid_t *provider)
{
	McBracket	bracket;
	Datum		values[2];
	bool		done;

	if (!batch->resumes)
		return false;
	mc_owner_enter(&bracket, true);
	values[0] = UUIDPGetDatum(provider);
	values[1] = Int64GetDatum(batch->run);
	done = mc_plan_execute(&is_done, values, NULL) > 0;
	mc_owner_leave(&bracket);
	return done;
}

static int64
refresh_provider(const McBatch *batch, const McBatchProvider *provider)
{
	McBracket	bracket;
	Datum		values[2];
	int64		written;

	written = mc_refresh_full(&provider->id, batch->as_of, provider->recheck);

	/* Under the provider's lock, which the refresh took. */
	mc_owner_enter(&bracket, true);
	values[0] = UUIDPGetDatum(&provider->id);
	values[1] = Int64GetDatum(batch->run);
	mc_plan_execute(&mark_done, values, NULL);
	mc_owner_leave(&bracket);
	return written;
}

static void
record_error(McShare *share, const pg_uuid_t *provider, const ErrorData *error)
{
	if (share->counts.failed++ > 0)
		appendStringInfoString(&share->errors, ", ");
	appendStringInfo(&share->errors,
					 "{\"providerId\": \"%s\", \"sqlstate\": \"%s\", \"message\": ",
					 mc_uuid_text(provider), unpack_sql_state(error->sqlerrcode));
	escape_json(&share->errors, mc_error_message(error));
	appendStringInfoChar(&share->errors, '}');
}

typedef struct Refreshing
{
	const McBatch *batch;
	const McBatchProvider *provider;
	int64		written;
} Refreshing;

static void
attempt_provider(void *arg)
{
	Refreshing *r = arg;

	r->written = refresh_provider(r->batch, r->provider);
}

/*
 * Refresh one provider in a subtransaction, so that its error undoes only
 * what was done for it.
 */
static void
process_provider(McShare *share, const McBatchProvider *provider)
{
	Refreshing	r = {share->batch, provider};
	ErrorData  *error;

	MemoryContextSwitchTo(share->scratch);
	error = mc_attempt(attempt_provider, &r, 0);
	if (error == NULL)
	{
		share->counts.entries += r.written;
		share->counts.processed++;
	}
	else
	{
		/* Someone wants the batch to stop, or its time is over. */
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
			ReThrowError(error);
		record_error(share, &provider->id, error);
	}
	MemoryContextSwitchTo(share->context);
	MemoryContextReset(share->scratch);
}

static bool
somebody_waits(const McShare *share)
{
	ListCell   *lc;

	foreach(lc, share->held)
		if (mc_provider_has_waiters(lfirst(lc)))
			return true;
	return false;
}

bool
mc_share_work(McShare *share)
{
	McBatch    *batch = share->batch;
	uint32		i;

	/* What is held and taken is looked at after the commit. */
	MemoryContextSwitchTo(share->context);
	while ((i = pg_atomic_fetch_add_u32(&batch->next, 1)) < batch->nproviders)
	{
		McBatchProvider *provider = &batch->provider[i];

		CHECK_FOR_INTERRUPTS();
		if (provider_is_done(batch, &provider->id))
		{
			share->counts.skipped++;
			appendBinaryStringInfo(&share->taken, (char *) &i, sizeof(i));
			continue;
		}
		if (mc_provider_try_lock(&provider->id))
			share->held = lappend(share->held, &provider->id);
		else if (!share->waits)
			continue;
		process_provider(share, provider);
		appendBinaryStringInfo(&share->taken, (char *) &i, sizeof(i));

		/* Before waiting for the next lock, let go of this one. */
		if (share->waits || list_length(share->held) >= batch->size ||
			somebody_waits(share))
			return true;
	}
	return false;
}

void
mc_share_pause(const McShare *share)
{
	TimestampTz end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												  share->batch->delay);

	for (;;)
	{
		long		ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
														 end);

		CHECK_FOR_INTERRUPTS();
		if (ms <= 0)
			return;
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 ms, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}
