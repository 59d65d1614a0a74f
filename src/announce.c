/*
 * announce.c
 *		Telling of a refresh: listeners, the log and the client.
 *
 * What is told are identifiers, counts and times, never contents of claims.
 */
#include "postgres.h"

#include "commands/async.h"
#include "port/pg_bitutils.h"
#include "utils/json.h"

#include "announce.h"
#include "guc.h"
#include "uuids.h"

/* Bytes that a notification may carry. */
#define MAX_PAYLOAD 7999

static bool preparing = false;

void
mc_announce_set_preparing(bool value)
{
	preparing = value;
}

void
mc_announce_figures(const pg_uuid_t *provider, int64 version,
					const McWritten *cells, const List *custom)
{
	StringInfoData payload;
	const char *separator = "";
	ListCell   *lc;
	int			head;
	int			m;

	if (mc_notify_channel[0] == '\0' || preparing ||
		cells->changed + cells->deleted == 0)
		return;
	initStringInfo(&payload);
	appendStringInfo(&payload, "{\"provider\":\"%s\",\"version\":" INT64_FORMAT ",\"metrics\":",
					 mc_uuid_text(provider), version);
	head = payload.len;
	appendStringInfoChar(&payload, '[');
	for (m = 0; m < MC_N_METRICS; m++)
		if (cells->metrics & MC_METRIC_BIT(m))
		{
			appendStringInfo(&payload, "%s\"%s\"", separator, mc_metric[m].key);
			separator = ",";
		}
	foreach(lc, custom)
	{
		appendStringInfoString(&payload, separator);
		escape_json(&payload, lfirst(lc));
		separator = ",";
	}
	appendStringInfoChar(&payload, ']');

	/* more than a notification holds: null stands for any */
	if (payload.len > MAX_PAYLOAD)
	{
		payload.len = head;
		appendStringInfoString(&payload, "null");
	}
	appendStringInfoChar(&payload, '}');
	Async_Notify(mc_notify_channel, payload.data);
}

void
mc_announce_refresh(const McTask *task, const McWritten *cells,
					const List *custom, double ms)
{
	if (mc_log_min_duration < 0 || ms < mc_log_min_duration)
		return;
	ereport(LOG,
			(errmsg("cache_refresh provider=%s cause=%s metrics=%d entries=%lld ms=%.3f",
					mc_uuid_text(&task->provider), mc_cause_token(task->cause),
					pg_popcount64(cells->metrics) + list_length(custom),
					(long long) (cells->changed + cells->unchanged), ms),
			 errhidestmt(true), errhidecontext(true)));
}

/*
 * Facts that differ although nothing was noted should never be: something
 * changed the source tables behind the triggers, or the facts themselves.
 */
void
mc_announce_drift(const pg_uuid_t *provider, int differences)
{
	if (differences > 0)
		ereport(WARNING,
				(errmsg("facts of provider %s had drifted from its claims",
						mc_uuid_text(provider)),
				 errdetail_plural("%d claim differed without a note of its change; it was repaired.",
								  "%d claims differed without a note of their change; they were repaired.",
								  differences, differences),
				 errhint("Changes made with triggers disabled, as with session_replication_role = replica, are not noted.")));
}
