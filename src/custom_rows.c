/*
 * custom_rows.c
 *		Figures of custom metrics: computed, compared and written.
 *
 * The query of a metric runs as its owner, inside the security-restricted
 * operation of the bracket, read-only, in a subtransaction, with the snapshot
 * of the refresh.  Nothing of ours is executed there, and nothing of the
 * query's outside.  What it returned is compared with what is stored, and the
 * difference written; the provider's lock, which is held, guards the rows that
 * were found.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/syscache.h"
#include "utils/timeout.h"

#include "attempt.h"
#include "custom_rows.h"
#include "guc.h"
#include "note.h"
#include "owner.h"
#include "zone.h"

static McPlan load_state = {
	"SELECT s.full_from, s.full_to, s.snapshot_on"
	" FROM meritum_cache.metric_state s"
	" WHERE s.provider_id = $1 AND s.metric_key = $2",
	"uuid,varchar", SPI_OK_SELECT
};

static McPlan store_state = {
	"INSERT INTO meritum_cache.metric_state"
	" (provider_id, metric_key, full_from, full_to, snapshot_on)"
	" VALUES ($1, $2, $3, $4, $5)"
	" ON CONFLICT (provider_id, metric_key) DO UPDATE SET"
	" full_from = excluded.full_from, full_to = excluded.full_to,"
	" snapshot_on = excluded.snapshot_on",
	"uuid,varchar,date,date,date", SPI_OK_INSERT, true
};

static McPlan select_months = {
	"SELECT DISTINCT c.period_start FROM meritum_cache.analytics_cache c"
	" WHERE c.provider_id = $1 AND c.metric_key = $2",
	"uuid,varchar", SPI_OK_SELECT
};

static McPlan load_rows = {
	"SELECT c.ctid, c.period_start, c.period_end, c.dimensions, c.value, c.cache_id"
	" FROM meritum_cache.analytics_cache c"
	" WHERE c.provider_id = $1 AND c.metric_key = $2 AND c.period_start = ANY ($3)",
	"uuid,varchar,date[]", SPI_OK_SELECT
};

static McPlan insert_rows = {
	"INSERT INTO meritum_cache.analytics_cache"
	" (provider_id, metric_key, period_start, period_end, dimensions, value, computed_at)"
	" SELECT $1, $2, n.first, n.last, n.dimensions, n.value, $3"
	" FROM unnest($4, $5, $6, $7) AS n (first, last, dimensions, value)",
	"uuid,varchar,timestamptz,date[],date[],jsonb[],jsonb[]", SPI_OK_INSERT, true
};

static McPlan update_rows = {
	"UPDATE meritum_cache.analytics_cache c"
	" SET value = coalesce(n.value, c.value), computed_at = $1"
	" FROM unnest($2, $3) AS n (tid, value) WHERE c.ctid = n.tid",
	"timestamptz,tid[],jsonb[]", SPI_OK_UPDATE, true
};

static McPlan delete_rows = {
	"DELETE FROM meritum_cache.analytics_cache c WHERE c.ctid = ANY ($1)",
	"tid[]", SPI_OK_DELETE
};

/* An execution of a query. */
typedef struct Run
{
	McCustom   *custom;
	const pg_uuid_t *provider;
	const McSpan *spans;
	int			nspans;
	int			span;			/* that is being computed */
	const char *zone;
	McCustomRows *rows;
	MemoryContext context;		/* of the rows */
} Run;

/* What is to be written of a metric. */
typedef struct Write
{
	int			capacity;
	Datum	   *first;
	Datum	   *last;
	Datum	   *dimensions;
	bool	   *total;			/* no dimensions */
	Datum	   *value;
	int			ninserts;
	Datum	   *tid;
	Datum	   *new;
	bool	   *same;
	int			nupdates;
	int			unchanged;
	Datum	   *gone;
	int			ndeletes;
} Write;

static DateADT
date_value(int column)
{
	bool		isnull;
	Datum		value = mc_plan_value(0, column, &isnull);

	return isnull ? DATEVAL_NOBEGIN : DatumGetDateADT(value);
}

McCustomState
mc_custom_state(const pg_uuid_t *provider, const char *key)
{
	McCustomState state = {DATEVAL_NOBEGIN, DATEVAL_NOBEGIN, DATEVAL_NOBEGIN};
	Datum		values[2] = {UUIDPGetDatum(provider), CStringGetTextDatum(key)};

	if (mc_plan_execute(&load_state, values, NULL) > 0)
	{
		state.from = date_value(1);
		state.to = date_value(2);
		state.snapshot_on = date_value(3);
	}
	return state;
}

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

static int
compare_months(const ListCell *a, const ListCell *b)
{
	return lfirst_int(a) < lfirst_int(b) ? -1 : lfirst_int(a) > lfirst_int(b);
}

List *
mc_custom_stored(const pg_uuid_t *provider, const char *key,
				 const McCustomState *state)
{
	Datum		values[2] = {UUIDPGetDatum(provider), CStringGetTextDatum(key)};
	uint64		n = mc_plan_execute(&select_months, values, NULL);
	List	   *months = NIL;
	DateADT		month;
	uint64		i;

	for (i = 0; i < n; i++)
	{
		bool		isnull;

		month = DatumGetDateADT(mc_plan_value(i, 1, &isnull));
		if (!DATE_NOT_FINITE(month) && mc_month_of(month) == month)
			months = lappend_int(months, month);
	}
	if (!DATE_IS_NOBEGIN(state->from))
		for (month = state->from; month <= state->to; month = mc_month_add(month, 1))
			months = list_append_unique_int(months, month);
	list_sort(months, compare_months);
	return months;
}

McSpan *
mc_custom_spans(const List *months)
{
	McSpan	   *spans = palloc(sizeof(McSpan) * Max(list_length(months), 1));
	ListCell   *lc;
	int			n = 0;

	foreach(lc, months)
	{
		spans[n].first = lfirst_int(lc);
		spans[n++].last = mc_month_end(lfirst_int(lc));
	}
	return spans;
}

static int
compare_dimensions(Jsonb *a, Jsonb *b)
{
	if (a == NULL || b == NULL)
		return (a != NULL) - (b != NULL);
	return compareJsonbContainers(&a->root, &b->root);
}

static int
compare_rows(const void *a, const void *b)
{
	const McCustomRow *x = a;
	const McCustomRow *y = b;

	if (x->span.first != y->span.first)
		return x->span.first < y->span.first ? -1 : 1;
	return compare_dimensions(x->dimensions, y->dimensions);
}

static McCustomRow *
add_row(McCustomRows *rows)
{
	if (rows->n == rows->capacity)
	{
		rows->capacity = Max(16, rows->capacity * 2);
		rows->row = rows->n == 0 ?
			palloc(sizeof(McCustomRow) * rows->capacity) :
			repalloc(rows->row, sizeof(McCustomRow) * rows->capacity);
	}
	memset(&rows->row[rows->n], 0, sizeof(McCustomRow));
	return &rows->row[rows->n++];
}

/* The query is wrong; the class of the SQLSTATE lets the message be shown. */
mc_noreturn static void bad_result(const McCustom *custom, const char *what);

static void
bad_result(const McCustom *custom, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
			 errmsg("query of metric \"%s\" returned %s", custom->key, what)));
}

static void
read_row(TupleTableSlot *slot, void *arg)
{
	Run		   *run = arg;
	TupleDesc	desc = slot->tts_tupleDescriptor;
	MemoryContext old;
	McCustomRow *row;

	if (desc->natts != 2 || TupleDescAttr(desc, 0)->atttypid != JSONBOID ||
		TupleDescAttr(desc, 1)->atttypid != JSONBOID)
		bad_result(run->custom, "other columns than (dimensions jsonb, value jsonb)");
	if (slot->tts_isnull[1])
		bad_result(run->custom, "a null value");
	old = MemoryContextSwitchTo(run->context);
	row = add_row(run->rows);
	row->span = run->spans[run->span];
	if (!slot->tts_isnull[0])
	{
		row->dimensions = DatumGetJsonbPCopy(slot->tts_values[0]);
		if (!JB_ROOT_IS_OBJECT(row->dimensions))
			bad_result(run->custom, "dimensions that are not a JSON object");
	}
	row->value = DatumGetJsonbPCopy(slot->tts_values[1]);
	MemoryContextSwitchTo(old);
}

static void
sort_rows(McCustomRows *rows)
{
	if (rows->n > 1)
		qsort(rows->row, rows->n, sizeof(McCustomRow), compare_rows);
}

static void
run_query(void *arg)
{
	Run		   *run = arg;
	McCustom   *custom = run->custom;
	McForeign	foreign;
	int			i;

	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(custom->owner)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("the owner of metric \"%s\" does not exist", custom->key)));

	/* until the end of the subtransaction */
	XactReadOnly = true;
	mc_owner_begin_foreign(&foreign, custom->owner, custom->search_path, run->zone);
	for (i = 0; i < run->nspans; i++)
	{
		Datum		values[3] = {
			UUIDPGetDatum(run->provider), DateADTGetDatum(run->spans[i].first),
			DateADTGetDatum(run->spans[i].last)
		};

		CHECK_FOR_INTERRUPTS();
		run->span = i;
		mc_plan_scan(&custom->plan, values, NULL, read_row, run);
	}
	mc_owner_end_foreign(&foreign);

	sort_rows(run->rows);
	for (i = 1; i < run->rows->n; i++)
		if (compare_rows(&run->rows->row[i - 1], &run->rows->row[i]) == 0)
			bad_result(custom, "two rows with the same dimensions");
}

ErrorData *
mc_custom_compute(McCustom *custom, const pg_uuid_t *provider,
				  const McSpan *spans, int n, McCustomRows *rows)
{
	Run			run = {custom, provider, spans, n, 0, mc_zone_name(), rows,
	CurrentMemoryContext};
	bool		timed = StatementTimeout > 0 && !get_timeout_active(STATEMENT_TIMEOUT);
	ErrorData  *error;

	memset(rows, 0, sizeof(*rows));
	if (custom->running > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_RECURSION),
				 errmsg("query of metric \"%s\" reads the metric itself",
						custom->key)));

	/* a commit, and the worker, are no statements that the server would time */
	if (timed)
		enable_timeout_after(STATEMENT_TIMEOUT, StatementTimeout);
	custom->running++;
	error = mc_attempt(run_query, &run, 0);
	mc_custom_release(custom);
	if (timed)
	{
		disable_timeout(STATEMENT_TIMEOUT, true);
		if (get_timeout_indicator(STATEMENT_TIMEOUT, true))
			QueryCancelPending = false; /* just over, and not in time */
	}
	return error;
}

void
mc_custom_raise(const char *key, const ErrorData *error)
{
	ereport(ERROR,
			(errcode(error->sqlerrcode),
			 errmsg("could not compute metric \"%s\"", key),
			 errdetail("%s", mc_error_message(error))));
}

static void
read_stored(TupleTableSlot *slot, void *arg)
{
	Datum	   *values = slot->tts_values;
	Run		   *run = arg;
	MemoryContext old;
	McCustomRow *row;
	McSpan		span = {DatumGetDateADT(values[1]), DatumGetDateADT(values[2])};

	if (span.last != mc_month_end(span.first))
		return;
	old = MemoryContextSwitchTo(run->context);
	row = add_row(run->rows);
	row->span = span;
	row->tid = *(ItemPointer) DatumGetPointer(values[0]);
	if (!slot->tts_isnull[3])
		row->dimensions = DatumGetJsonbPCopy(values[3]);
	row->value = DatumGetJsonbPCopy(values[4]);
	row->cache_id = *DatumGetUUIDP(values[5]);
	MemoryContextSwitchTo(old);
}

void
mc_custom_load(const pg_uuid_t *provider, const char *key,
			   const McSpan *months, int n, McCustomRows *rows)
{
	Run			run = {.rows = rows, .context = CurrentMemoryContext};
	Datum	   *dates = palloc(sizeof(Datum) * Max(n, 1));
	Datum		values[3] = {UUIDPGetDatum(provider), CStringGetTextDatum(key)};
	int			i;

	memset(rows, 0, sizeof(*rows));
	for (i = 0; i < n; i++)
		dates[i] = DateADTGetDatum(months[i].first);
	values[2] = PointerGetDatum(construct_array(dates, n, DATEOID, sizeof(DateADT),
												true, TYPALIGN_INT));
	mc_plan_scan(&load_rows, values, NULL, read_stored, &run);
	sort_rows(rows);
}

void
mc_custom_compare(const McCustomRows *stored, const McCustomRows *computed,
				  McCompared compared, void *arg)
{
	int			i = 0,
				j = 0;

	while (i < stored->n || j < computed->n)
	{
		int			order = i == stored->n ? 1 : j == computed->n ? -1 :
			compare_rows(&stored->row[i], &computed->row[j]);

		compared(order <= 0 ? &stored->row[i] : NULL,
				 order >= 0 ? &computed->row[j] : NULL, arg);
		i += order <= 0;
		j += order >= 0;
	}
}

bool
mc_custom_equal(const Jsonb *a, const Jsonb *b)
{
	return VARSIZE(a) == VARSIZE(b) && memcmp(a, b, VARSIZE(a)) == 0;
}

static void
queue_row(const McCustomRow *stored, const McCustomRow *computed, void *arg)
{
	Write	   *write = arg;

	if (computed == NULL)
		write->gone[write->ndeletes++] = PointerGetDatum(&stored->tid);
	else if (stored == NULL)
	{
		int			i = write->ninserts++;

		write->first[i] = DateADTGetDatum(computed->span.first);
		write->last[i] = DateADTGetDatum(computed->span.last);
		write->dimensions[i] = PointerGetDatum(computed->dimensions);
		write->total[i] = computed->dimensions == NULL;
		write->value[i] = PointerGetDatum(computed->value);
	}
	else
	{
		int			i = write->nupdates++;

		write->tid[i] = PointerGetDatum(&stored->tid);
		write->new[i] = PointerGetDatum(computed->value);
		write->same[i] = mc_custom_equal(stored->value, computed->value);
		write->unchanged += write->same[i];
	}
}

static Datum
make_array(Datum *values, bool *nulls, int n, Oid type, int length, bool byval,
		   char align)
{
	int			lower = 1;

	return PointerGetDatum(construct_md_array(values, nulls, 1, &n, &lower, type,
											  length, byval, align));
}

#define DATES(values, n) \
	make_array(values, NULL, n, DATEOID, sizeof(DateADT), true, TYPALIGN_INT)
#define TIDS(values, n) \
	make_array(values, NULL, n, TIDOID, sizeof(ItemPointerData), false, TYPALIGN_SHORT)
#define JSONBS(values, nulls, n) \
	make_array(values, nulls, n, JSONBOID, -1, false, TYPALIGN_INT)

static void
check_count(uint64 written, int expected)
{
	if (written != expected)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("meritum_cache.analytics_cache was changed by another transaction")));
}

static void
write_rows(const pg_uuid_t *provider, const char *key, TimestampTz now,
		   const McCustomRows *stored, const McCustomRows *computed,
		   McWritten *written)
{
	Write		write = {.capacity = Max(stored->n + computed->n, 1)};
	Datum		values[7];

#define ROOM(type) palloc(sizeof(type) * write.capacity)
	write.first = ROOM(Datum);
	write.last = ROOM(Datum);
	write.dimensions = ROOM(Datum);
	write.total = ROOM(bool);
	write.value = ROOM(Datum);
	write.tid = ROOM(Datum);
	write.new = ROOM(Datum);
	write.same = ROOM(bool);
	write.gone = ROOM(Datum);
#undef ROOM
	mc_custom_compare(stored, computed, queue_row, &write);
	written->changed += write.ninserts + write.nupdates - write.unchanged;
	written->unchanged += write.unchanged;
	written->deleted += write.ndeletes;

	if (write.ndeletes > 0)
	{
		values[0] = TIDS(write.gone, write.ndeletes);
		check_count(mc_plan_execute(&delete_rows, values, NULL), write.ndeletes);
	}
	if (write.nupdates > 0)
	{
		values[0] = TimestampTzGetDatum(now);
		values[1] = TIDS(write.tid, write.nupdates);
		values[2] = JSONBS(write.new, write.same, write.nupdates);
		check_count(mc_plan_execute(&update_rows, values, NULL), write.nupdates);
	}
	if (write.ninserts > 0)
	{
		values[0] = UUIDPGetDatum(provider);
		values[1] = CStringGetTextDatum(key);
		values[2] = TimestampTzGetDatum(now);
		values[3] = DATES(write.first, write.ninserts);
		values[4] = DATES(write.last, write.ninserts);
		values[5] = JSONBS(write.dimensions, write.total, write.ninserts);
		values[6] = JSONBS(write.value, NULL, write.ninserts);
		mc_plan_execute(&insert_rows, values, NULL);
	}
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
	list_sort(months, compare_months);
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
	if (task->cause != MC_CAUSE_WORKER && task->cause != MC_CAUSE_READ)
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("could not compute metric \"%s\" of provider %s (SQLSTATE %s)",
						wanted->key,
						DatumGetCString(DirectFunctionCall1(uuid_out,
															UUIDPGetDatum(&task->provider))),
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
	write_rows(&task->provider, wanted->key, now, &stored, &computed, written);

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

	if (task->custom == NIL)
		return 0;

	/* to the end of the transaction, so that no metric is dropped meanwhile */
	LockRelationOid(mc_cache_relation("metric"), RowShareLock);
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
