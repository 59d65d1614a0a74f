/*
 * read.c
 *		Figures read: from the cache, or computed without it.
 *
 * A reader never gets a figure older than a committed change.  What is
 * pending it settles first; where it must not or cannot write (on a standby,
 * in a read-only transaction, when storing fails, or in a transaction block,
 * where it would hold the provider's lock for as long as that lasts) it computes
 * the figures and stores nothing.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "args.h"
#include "custom_read.h"
#include "dirty.h"
#include "figures.h"
#include "note.h"
#include "owner.h"
#include "plan.h"
#include "provider.h"
#include "refresh.h"
#include "query.h"
#include "source.h"
#include "value.h"
#include "zone.h"

static McPlan select_entries = {
	"SELECT c.cache_id, c.provider_id, c.metric_key, c.period_start,"
	" c.period_end, c.dimensions, c.value, c.computed_at"
	" FROM meritum_cache.analytics_cache c"
	" WHERE c.provider_id = $1 AND c.metric_key = ANY ($2)"
	" AND c.period_start >= $3 AND c.period_end <= $4"
	" AND ($5 IS NULL OR c.dimensions @> $5)",
	"uuid,varchar[],date,date,jsonb", SPI_OK_SELECT
};

/* A call of meritum_get_metrics. */
typedef struct Read
{
	const pg_uuid_t *provider;
	McKeys		keys;
	McMetrics	metrics;		/* the built-in ones of the keys */
	McCustomRead custom;		/* the others */
	DateADT		first;
	DateADT		last;
	Jsonb	   *dimensions;		/* NULL: all */
	DateADT		today;
	McTask	   *task;			/* what is to be refreshed first */
	bool		pending;
	bool		keys_pending;	/* changes that may be of any provider */
	bool		known;			/* to the providers table */
	bool		compute;		/* what is not up to date */
	McPeriod   *computed;		/* months that were computed, not read */
	int			ncomputed;
	ReturnSetInfo *rsinfo;
} Read;

/* Whole months that the period holds, of the last 24. */
static int
readable_months(const Read *read, DateADT *months)
{
	DateADT		last = mc_month_of(read->today);
	int			n = 0;
	int			i;

	for (i = 1 - MC_READ_MONTHS; i <= 0; i++)
	{
		DateADT		month = mc_month_add(last, i);

		if (month >= read->first && mc_month_end(month) <= read->last)
			months[n++] = month;
	}
	return n;
}

static void
plan_custom(Read *read)
{
	McCustomRead *custom = &read->custom;

	custom->provider = read->provider;
	custom->keys = read->keys.custom;
	custom->first = read->first;
	custom->last = read->last;
	custom->today = read->today;
	custom->pending = read->pending;
	mc_custom_read_plan(custom, read->task);
}

/*
 * Find out what has to be refreshed before the figures may be read.  Returns
 * false if nothing has.
 */
static bool
plan_read(Read *read)
{
	DateADT		months[MC_READ_MONTHS];
	McMetrics	monthly = read->metrics & ~mc_metrics_snapshot();
	McKeys		builtin = {read->metrics, NIL};
	bool		claims = mc_source_get(MC_CLAIMS) != NULL;
	McProviderState state;
	McCells    *cells = NULL;
	bool		noted = false;	/* changes that the refresh will take */
	bool		needed;
	int			n,
				i,
				m;

	if (!claims && read->keys.custom == NIL)
		return false;
	read->task = mc_task_create(read->provider, MC_CAUSE_READ);
	read->task->wanted = read->keys;
	if (claims)
	{
		mc_provider_state_load(read->provider, &state);
		read->keys_pending = mc_note_keys_pending();
		noted = mc_note_pending(read->provider, &builtin);

		/* in another time zone every date may be another */
		if (state.exists && !state.facts_complete)
			noted = read->task->whole = true;
		read->pending = noted || mc_dirty_has_claims(read->provider) ||
			read->keys_pending;
	}
	read->known = mc_query_provider_known(read->provider);
	needed = read->pending;
	if (!read->known)
		return needed;
	plan_custom(read);
	needed |= read->custom.lagging != NIL;
	if (read->metrics == 0 || !claims)
		return needed;

	n = readable_months(read, months);
	for (i = 0; i < n; i++)
	{
		McMonthTask *month;

		/* what is noted may outdate them when it is settled */
		if (months[i] == mc_month_of(read->today) &&
			(read->metrics & mc_metrics_snapshot()) &&
			(noted || state.snapshot_on != read->today))
		{
			mc_task_month(read->task, months[i])->force |= mc_metrics_snapshot();
			needed = true;
		}
		if (monthly == 0 ||
			(!DATE_IS_NOBEGIN(state.full_from) &&
			 months[i] >= state.full_from && months[i] <= state.full_to))
			continue;
		if (cells == NULL)
			cells = mc_cells_load(read->provider, monthly, months, n,
								  mc_fact_strings());
		month = mc_task_month(read->task, months[i]);
		for (m = 0; m < MC_N_METRICS; m++)
			if ((monthly & MC_METRIC_BIT(m)) &&
				mc_cells_find(cells, m, months[i], -1, MC_NULL) == NULL)
			{
				month->force |= MC_METRIC_BIT(m);
				needed = true;
			}
	}
	return needed;
}

static void
put_row(Read *read, Datum *values, bool *nulls)
{
	tuplestore_putvalues(read->rsinfo->setResult, read->rsinfo->setDesc,
						 values, nulls);
}

/* Was the figure of this row computed instead? */
static bool
was_computed(const Read *read, Datum *values, bool *nulls)
{
	text	   *key = DatumGetTextPP(values[2]);
	int			metric = mc_metric_find(VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));
	int			i;

	if (metric < 0)
		return mc_custom_read_lags(&read->custom, text_to_cstring(key),
								   DatumGetDateADT(values[3]),
								   DatumGetDateADT(values[4]));
	for (i = 0; i < read->ncomputed; i++)
		if ((read->computed[i].wanted & MC_METRIC_BIT(metric)) &&
			DatumGetDateADT(values[3]) == read->computed[i].first &&
			DatumGetDateADT(values[4]) == read->computed[i].last)
			return nulls[5] || mc_metric[metric].breakdown;
	return false;
}

static void
read_entry(TupleTableSlot *slot, void *arg)
{
	Read	   *read = arg;

	if (!read->compute || !was_computed(read, slot->tts_values, slot->tts_isnull))
		put_row(read, slot->tts_values, slot->tts_isnull);
}

static void
select_rows(Read *read)
{
	Datum		values[5] = {
		UUIDPGetDatum(read->provider), mc_keys_array(&read->keys),
		DateADTGetDatum(read->first), DateADTGetDatum(read->last),
		PointerGetDatum(read->dimensions)
	};

	mc_plan_scan(&select_entries, values, read->dimensions ? NULL : "    n",
				 read_entry, read);
}

/*
 * Return the figures of one metric of a computed month.
 */
static void
put_computed(Read *read, const McFold *fold, McPeriod *period, int metric,
			 McCells *cells, TimestampTz now)
{
	int			s;

	for (s = 0; s < period->nscopes; s++)
	{
		McScope    *scope = period->scope[s];
		Jsonb	   *dimensions;
		McCell	   *cell;
		Datum		values[8];
		bool		nulls[8] = {false};

		if (scope->table[metric] == NULL)
			continue;
		dimensions = mc_value_dimensions(fold->claims->strings, scope->dim, scope->id);
		if (read->dimensions != NULL &&
			(dimensions == NULL ||
			 !DatumGetBool(DirectFunctionCall2(jsonb_contains,
											   PointerGetDatum(dimensions),
											   PointerGetDatum(read->dimensions)))))
			continue;
		cell = mc_cells_find(cells, metric, period->first, scope->dim, scope->id);
		values[0] = cell ? UUIDPGetDatum(&cell->cache_id) :
			DirectFunctionCall1(gen_random_uuid, (Datum) 0);
		values[1] = UUIDPGetDatum(read->provider);
		values[2] = CStringGetTextDatum(mc_metric[metric].key);
		values[3] = DateADTGetDatum(period->first);
		values[4] = DateADTGetDatum(period->last);
		values[5] = PointerGetDatum(dimensions);
		nulls[5] = dimensions == NULL;
		values[6] = PointerGetDatum(mc_value_make(fold, metric, scope->table[metric]));
		values[7] = TimestampTzGetDatum(now);
		put_row(read, values, nulls);
	}
}

/*
 * Compute the figures that the cache should hold for the months asked for:
 * those of the last 24 and any others that it does hold.
 */
static void
compute_rows(Read *read)
{
	McStrings  *strings = mc_fact_strings();
	DateADT    *months;
	DateADT		recent[MC_READ_MONTHS];
	int			nrecent = readable_months(read, recent);
	int			n = mc_cells_months(read->provider, &months);
	McPeriod   *periods = palloc0(sizeof(McPeriod) * (n + nrecent));
	int			nperiods = 0;
	TimestampTz now = GetCurrentTimestamp();
	McCells    *cells;
	McFold	   *fold;
	DateADT    *starts;
	int			i = 0,
				j = 0,
				m;

	/* merge the two ascending lists */
	while (i < n || j < nrecent)
	{
		DateADT		month;

		if (j == nrecent || (i < n && months[i] < recent[j]))
			month = months[i];
		else
			month = recent[j];
		if (i < n && months[i] == month)
			i++;
		if (j < nrecent && recent[j] == month)
			j++;
		if (month < read->first || mc_month_end(month) > read->last)
			continue;
		periods[nperiods].first = month;
		periods[nperiods++].last = mc_month_end(month);
	}
	if (nperiods == 0)
		return;
	starts = palloc(sizeof(DateADT) * nperiods);
	for (i = 0; i < nperiods; i++)
		starts[i] = periods[i].first;
	cells = mc_cells_load(read->provider, read->metrics, starts, nperiods, strings);
	for (i = 0; i < nperiods; i++)
		for (m = 0; m < MC_N_METRICS; m++)
		{
			McMetrics	bit = MC_METRIC_BIT(m);
			bool		recent_month = nrecent > 0 &&
				periods[i].first >= recent[0] && periods[i].first <= recent[nrecent - 1];

			if (!(read->metrics & bit))
				continue;
			if (mc_metric[m].grain == MC_SNAPSHOT ?
				periods[i].first == mc_month_of(read->today) :
				recent_month || mc_cells_find(cells, m, periods[i].first, -1, MC_NULL))
				periods[i].wanted |= bit;
		}

	fold = mc_figures_compute(read->provider, strings, periods, nperiods,
							  read->today, mc_dimension_mask, read->pending,
							  NULL, NULL);
	for (i = 0; i < nperiods; i++)
		for (m = 0; m < MC_N_METRICS; m++)
			if (periods[i].wanted & MC_METRIC_BIT(m))
				put_computed(read, fold, &periods[i], m, cells, now);
	read->computed = periods;
	read->ncomputed = nperiods;
}

static void
put_custom(const char *key, const McCustomRow *row, void *arg)
{
	Read	   *read = arg;
	Datum		values[8] = {
		UUIDPGetDatum(&row->cache_id), UUIDPGetDatum(read->provider),
		CStringGetTextDatum(key), DateADTGetDatum(row->span.first),
		DateADTGetDatum(row->span.last), PointerGetDatum(row->dimensions),
		PointerGetDatum(row->value), TimestampTzGetDatum(GetCurrentTimestamp())
	};
	bool		nulls[8] = {false};

	nulls[5] = row->dimensions == NULL;
	if (read->dimensions == NULL ||
		(row->dimensions != NULL &&
		 DatumGetBool(DirectFunctionCall2(jsonb_contains, values[5],
										  PointerGetDatum(read->dimensions)))))
		put_row(read, values, nulls);
}

static bool
may_store(const Read *read)
{
	return !RecoveryInProgress() && !XactReadOnly && !IsTransactionBlock() &&
		!IsSubTransaction() && !mc_dirty_has(read->provider);
}

/* Bring up to date what lags; false if that cannot be done now. */
static bool
store(Read *read)
{
	McOutcome	outcome;
	bool		stored;
	ErrorData  *error = mc_refresh_attempt(read->task, MC_NO_WAIT, true, &stored,
										   &outcome);

	/* not to be taken for a failure, after which the figures are computed */
	if (error != NULL && error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		ReThrowError(error);
	if (stored && outcome.failed > 0)
		mc_dirty_wake();
	return stored;
}

PG_FUNCTION_INFO_V1(meritum_get_metrics);

Datum
meritum_get_metrics(PG_FUNCTION_ARGS)
{
	Read		read = {0};
	McBracket	bracket;
	bool		needed;

	read.provider = mc_arg_provider(fcinfo, 0);
	read.keys = mc_arg_keys(fcinfo, 1);
	read.metrics = read.keys.builtin;
	mc_arg_required(fcinfo, 2, "period_start");
	mc_arg_required(fcinfo, 3, "period_end");
	read.first = PG_GETARG_DATEADT(2);
	read.last = PG_GETARG_DATEADT(3);
	mc_check_period(read.first, read.last);
	if (!PG_ARGISNULL(4))
		read.dimensions = PG_GETARG_JSONB_P(4);
	read.today = mc_today();
	InitMaterializedSRF(fcinfo, 0);
	read.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	mc_owner_enter(&bracket, true);
	if (mc_note_keys_pending() && may_store(&read))
	{
		mc_refresh_attempt_unresolved();
		mc_owner_renew_snapshot();
	}
	needed = plan_read(&read);
	if (needed && may_store(&read) && store(&read))
	{
		needed = read.keys_pending;
		mc_owner_renew_snapshot();
	}
	read.compute = needed && read.known;
	if (read.compute && read.metrics != 0 && mc_source_get(MC_CLAIMS) != NULL)
		compute_rows(&read);
	if (read.compute)
		mc_custom_read_compute(&read.custom, put_custom, &read);
	if (!needed || read.known)
		select_rows(&read);
	mc_owner_leave(&bracket);
	return (Datum) 0;
}
