/*
 * custom_refresh.c
 *		Custom metrics in the pipeline: recompute, compare, write.
 *
 * The provider's lock, which is held, guards the rows that were found.
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "cell.h"
#include "custom_refresh.h"
#include "custom_rows.h"
#include "guc.h"
#include "note.h"
#include "plan.h"
#include "rows.h"
#include "uuids.h"
#include "zone.h"

static McPlan store_state = {
	"INSERT INTO meritum_cache.metric_state"
	" (provider_id, metric_key, full_from, full_to, snapshot_on)"
	" VALUES ($1, $2, $3, $4, $5)"
	" ON CONFLICT (provider_id, metric_key) DO UPDATE SET"
	" full_from = excluded.full_from, full_to = excluded.full_to,"
	" snapshot_on = excluded.snapshot_on",
	"uuid,varchar,date,date,date", SPI_OK_INSERT, true
};

/* How the rows of a metric are written: those that are gone first. */
typedef struct Write
{
	const pg_uuid_t *provider;
	const char *key;
	TimestampTz now;
	const McCustomRows *stored;
	const McCustomRows *computed;
	McWritten  *written;
	McRows	   *rows;
	bool		deleting;
} Write;

static void
write_state(const pg_uuid_t *provider, const char *key,
			const McCustomState *state)
{
	Datum		values[5] = {
		UUIDPGetDatum(provider), CStringGetTextDatum(key),
		DateADTGetDatum(state->from), DateADTGetDatum(state->to),
		DateADTGetDatum(state->snapshot_on)
	};
	char		nulls[] = "     ";

	if (DATE_IS_NOBEGIN(state->from))
		nulls[2] = nulls[3] = 'n';
	if (DATE_IS_NOBEGIN(state->snapshot_on))
		nulls[4] = 'n';
	mc_plan_execute(&store_state, values, nulls);
}

static void
write_row(const McCustomRow *stored, const McCustomRow *computed, void *arg)
{
	Write	   *write = arg;

	if (write->deleting != (computed == NULL))
		return;
	if (computed == NULL)
	{
		mc_rows_delete(write->rows, &stored->tid);
		write->written->deleted++;
	}
	else if (stored == NULL)
	{
		mc_cell_insert(write->rows, write->provider, write->key,
					   computed->span.first, computed->span.last,
					   computed->dimensions, computed->value, write->now);
		write->written->changed++;
	}
	else if (mc_custom_equal(stored->value, computed->value))
	{
		mc_cell_update(write->rows, &stored->tid, NULL, write->now);
		write->written->unchanged++;
	}
	else
	{
		mc_cell_update(write->rows, &stored->tid, computed->value, write->now);
		write->written->changed++;
	}
}

static void
write_rows(void *arg)
{
	Write	   *write = arg;

	write->rows = mc_rows_open("analytics_cache", MC_CELL_COLUMNS);
	write->deleting = true;
	mc_custom_compare(write->stored, write->computed, write_row, write);
	write->deleting = false;
	mc_custom_compare(write->stored, write->computed, write_row, write);
	mc_rows_close(write->rows);
}

/* Months of the task's metric that are to be computed, ascending. */
static List *
wanted_months(const McTask *task, const McCustomTask *wanted, DateADT last,
			  const McCustomState *state)
{
	DateADT		first = mc_month_add(last, 1 - MC_WINDOW_MONTHS);
	List	   *months = NIL;
	List	   *stored = NIL;
	DateADT		month;
	ListCell   *lc;

	if (wanted->whole || wanted->existing != NIL)
		stored = mc_custom_stored(&task->provider, wanted->key, state);
	foreach(lc, wanted->force)
		if (!DATE_NOT_FINITE(lfirst_int(lc)))
			months = list_append_unique_int(months, lfirst_int(lc));
	foreach(lc, wanted->existing)
	{
		month = lfirst_int(lc);
		if ((month >= first && month <= last) || list_member_int(stored, month))
			months = list_append_unique_int(months, month);
	}
	if (wanted->whole)
	{
		months = list_concat_unique_int(months, stored);
		for (month = first; month <= last; month = mc_month_add(month, 1))
			months = list_append_unique_int(months, month);
	}
	list_sort(months, list_int_cmp);
	return months;
}

/*
 * The months stored grow by a range that was computed.  Of two ranges that do
 * not join the later one is kept in mind; the other's months still count as
 * stored where they have rows.
 */
static void
join_range(McCustomState *state, DateADT from, DateADT to)
{
	if (DATE_IS_NOBEGIN(state->from) || from > mc_month_add(state->to, 1))
	{
		state->from = from;
		state->to = to;
	}
	else if (to >= mc_month_add(state->from, -1))
	{
		state->from = Min(state->from, from);
		state->to = Max(state->to, to);
	}
}

static void
extend_state(McCustomState *state, const List *months)
{
	DateADT		from = DATEVAL_NOBEGIN;
	DateADT		to = DATEVAL_NOBEGIN;
	ListCell   *lc;

	foreach(lc, months)
	{
		DateADT		month = lfirst_int(lc);

		if (DATE_IS_NOBEGIN(from) || month != mc_month_add(to, 1))
		{
			if (!DATE_IS_NOBEGIN(from))
				join_range(state, from, to);
			from = month;
		}
		to = month;
	}
	if (!DATE_IS_NOBEGIN(from))
		join_range(state, from, to);
}

static void
failed(McTask *task, const McCustomTask *wanted, ErrorData *error)
{
	/* someone wants the refresh to stop; what nobody waits for goes on */
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED && !task->at_commit &&
		task->cause != MC_CAUSE_WORKER)
		ReThrowError(error);
	if (mc_key_in(task->wanted.custom, wanted->key) ||
		(task->at_commit && mc_on_error == MC_ON_ERROR_ERROR))
		mc_custom_raise(wanted->key, error);
	mc_note_metric_failed(&task->provider, wanted, task->cause, error);
	if (task->cause != MC_CAUSE_READ)	/* who asked for others */
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("could not compute metric \"%s\" of provider %s (SQLSTATE %s)",
						wanted->key, mc_uuid_text(&task->provider),
						unpack_sql_state(error->sqlerrcode)),
				 errdetail("%s", mc_error_message(error)),
				 errhint("It is pending and will be tried again, see meritum_cache.pending_refresh.")));
}

/*
 * Returns false if the query failed.
 */
static bool
refresh_metric(McTask *task, const McCustomTask *wanted, DateADT as_of,
			   TimestampTz now, McWritten *written)
{
	McCustom   *custom = mc_custom_find(wanted->key, strlen(wanted->key));
	bool		snapshot;
	McCustomState state;
	McCustomState before;
	McCustomRows stored,
				computed;
	Write		write;
	List	   *months;
	McSpan	   *spans;
	ErrorData  *error;

	if (custom == NULL)
		return true;			/* dropped since it was marked */
	snapshot = custom->grain == MC_SNAPSHOT;
	state = before = mc_custom_state(&task->provider, wanted->key);
	months = snapshot ? list_make1_int(mc_month_of(as_of)) :
		wanted_months(task, wanted, mc_month_of(as_of), &state);
	spans = mc_custom_spans(months);

	error = mc_custom_compute(custom, &task->provider, spans,
							  list_length(months), &computed);
	if (error != NULL)
	{
		failed(task, wanted, error);
		return false;
	}
	mc_custom_load(&task->provider, wanted->key, spans, list_length(months), &stored);
	write = (Write) {
		&task->provider, wanted->key, now, &stored, &computed, written
	};
	mc_plan_discreetly(write_rows, &write);

	if (snapshot)
		state.snapshot_on = as_of;
	else
		extend_state(&state, months);
	if (memcmp(&state, &before, sizeof(state)) != 0)
		write_state(&task->provider, wanted->key, &state);
	if (wanted->whole)
		mc_note_metric_done(&task->provider, wanted->key);
	return true;
}

int
mc_custom_refresh(McTask *task, DateADT as_of, TimestampTz now,
				  McWritten *written, List **keys)
{
	int			nfailed = 0;
	ListCell   *lc;

	foreach(lc, task->custom)
	{
		McCustomTask *wanted = lfirst(lc);
		McWritten	before = *written;

		if (!refresh_metric(task, wanted, as_of, now, written))
			nfailed++;
		else if (written->changed != before.changed ||
				 written->unchanged != before.unchanged ||
				 written->deleted != before.deleted)
			*keys = lappend(*keys, wanted->key);
	}
	return nfailed;
}
