/*
 * custom_rows.c
 *		Figures of custom metrics: stored ones and computed ones, compared.
 *
 * The query of a metric runs as its owner, inside the security-restricted
 * operation of the bracket, read-only, in a subtransaction, with the snapshot
 * of the refresh.  Nothing of ours is executed there, and nothing of the
 * query's outside.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/syscache.h"
#include "utils/timeout.h"

#include "attempt.h"
#include "custom_rows.h"
#include "note.h"
#include "owner.h"
#include "zone.h"

static McPlan load_state = {
	"SELECT s.full_from, s.full_to, s.snapshot_on"
	" FROM meritum_cache.metric_state s"
	" WHERE s.provider_id = $1 AND s.metric_key = $2",
	"uuid,varchar", SPI_OK_SELECT
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

McCustomState
mc_custom_state(const pg_uuid_t *provider, const char *key)
{
	McCustomState state = {DATEVAL_NOBEGIN, DATEVAL_NOBEGIN, DATEVAL_NOBEGIN};
	Datum		values[2] = {UUIDPGetDatum(provider), CStringGetTextDatum(key)};

	if (mc_plan_execute(&load_state, values, NULL) > 0)
	{
		state.from = mc_plan_date(0, 1);
		state.to = mc_plan_date(0, 2);
		state.snapshot_on = mc_plan_date(0, 3);
	}
	return state;
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
	list_sort(months, list_int_cmp);
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
