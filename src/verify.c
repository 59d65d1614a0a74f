/*
 * verify.c
 *		The cache compared with figures computed afresh.
 *
 * The figures are computed from facts that are derived from the source tables
 * in one snapshot, the same that sees the cached rows.  A cell that was never
 * asked for is not missing: only months that a full refresh has stored must be
 * complete.
 */
#include "postgres.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "args.h"
#include "custom_rows.h"
#include "dirty.h"
#include "figures.h"
#include "note.h"
#include "owner.h"
#include "provider.h"
#include "refresh.h"
#include "query.h"
#include "source.h"
#include "value.h"
#include "zone.h"

typedef struct Verify
{
	const pg_uuid_t *provider;
	McStrings  *strings;
	McCells    *cells;
	McTask	   *repair;			/* what would set the differences right */
	char	   *key;			/* of the custom metric that is compared */
	ReturnSetInfo *rsinfo;
} Verify;

static void
put_row(Verify *verify, const char *key, DateADT month, Jsonb *dimensions,
		Jsonb *cached, Jsonb *computed)
{
	Datum		values[6];
	bool		nulls[6] = {false};

	values[0] = CStringGetTextDatum(key);
	values[1] = DateADTGetDatum(month);
	values[2] = DateADTGetDatum(mc_month_end(month));
	values[3] = PointerGetDatum(dimensions);
	nulls[3] = dimensions == NULL;
	values[4] = PointerGetDatum(cached);
	nulls[4] = cached == NULL;
	values[5] = PointerGetDatum(computed);
	nulls[5] = computed == NULL;
	tuplestore_putvalues(verify->rsinfo->setResult, verify->rsinfo->setDesc,
						 values, nulls);
}

static void
put_difference(Verify *verify, int metric, DateADT month, int dim, int32 id,
			   Jsonb *cached, Jsonb *computed)
{
	put_row(verify, mc_metric[metric].key, month,
			mc_value_dimensions(verify->strings, dim, id), cached, computed);
	mc_task_month(verify->repair, month)->force |= MC_METRIC_BIT(metric);
}

static void
compare_scope(Verify *verify, const McFold *fold, McPeriod *period,
			  McScope *scope, int metric)
{
	McCell	   *cell = mc_cells_find(verify->cells, metric, period->first,
									 scope->dim, scope->id);
	Jsonb	   *value = mc_value_make(fold, metric, scope->table[metric]);

	if (cell != NULL)
	{
		cell->seen = true;
		if (compareJsonbContainers(&cell->value->root, &value->root) == 0)
			return;
	}
	put_difference(verify, metric, period->first, scope->dim, scope->id,
				   cell ? cell->value : NULL, value);
}

static void
compare(Verify *verify, const McFold *fold)
{
	McCellIterator iterator = {0};
	McCell	   *cell;
	int			p,
				s,
				m;

	for (p = 0; p < fold->nperiods; p++)
		for (s = 0; s < fold->period[p].nscopes; s++)
			for (m = 0; m < MC_N_METRICS; m++)
				if (fold->period[p].scope[s]->table[m] != NULL)
					compare_scope(verify, fold, &fold->period[p],
								  fold->period[p].scope[s], m);

	/* breakdown rows of values that no claim has */
	while ((cell = mc_cells_next(verify->cells, &iterator)) != NULL)
		if (!cell->seen && cell->key.dim >= 0 &&
			mc_metric[cell->key.metric].grain == MC_MONTHLY)
			put_difference(verify, cell->key.metric, cell->key.month,
						   cell->key.dim, cell->key.id, cell->value, NULL);
}

/*
 * What the cache has to hold of a month: totals that are there, and all
 * monthly ones if a full refresh stored the month.
 */
static McMetrics
expected_metrics(Verify *verify, const McProviderState *state, DateADT month)
{
	McMetrics	metrics = 0;
	int			m;

	if (!DATE_IS_NOBEGIN(state->full_from) && month >= state->full_from &&
		month <= state->full_to)
		metrics = MC_ALL_METRICS & ~mc_metrics_snapshot();
	for (m = 0; m < MC_N_METRICS; m++)
		if (mc_metric[m].grain == MC_MONTHLY &&
			mc_cells_find(verify->cells, m, month, -1, MC_NULL) != NULL)
			metrics |= MC_METRIC_BIT(m);

	/* snapshot figures that lag are known to */
	if (!DATE_IS_NOBEGIN(state->snapshot_on) &&
		month == mc_month_of(state->snapshot_on))
		metrics |= mc_metrics_snapshot();
	return metrics;
}

/*
 * Months with entries, and those that a full refresh stored and retention
 * has not removed since, ascending.
 */
static int
list_months(const pg_uuid_t *provider, const McProviderState *state,
			DateADT **months)
{
	DateADT    *stored;
	int			n = mc_cells_months(provider, &stored);
	DateADT		last = mc_month_of(mc_today());
	DateADT		from = Max(state->full_from, mc_month_add(last, 1 - MC_WINDOW_MONTHS));
	int			count = 0;
	int			i = 0;

	*months = palloc(sizeof(DateADT) * (n + MC_WINDOW_MONTHS));
	if (DATE_IS_NOBEGIN(state->full_from))
		from = last + 1;
	while (i < n || from <= Min(state->full_to, last))
	{
		bool		take_full = from <= Min(state->full_to, last) &&
			(i == n || from <= stored[i]);

		if (!take_full)
			(*months)[count++] = stored[i++];
		else
		{
			if (i < n && stored[i] == from)
				i++;
			(*months)[count++] = from;
			from = mc_month_add(from, 1);
		}
	}
	return count;
}

static void
compare_custom(const McCustomRow *stored, const McCustomRow *computed, void *arg)
{
	Verify	   *verify = arg;
	const McCustomRow *row = stored != NULL ? stored : computed;

	if (stored != NULL && computed != NULL &&
		compareJsonbContainers(&stored->value->root, &computed->value->root) == 0)
		return;
	put_row(verify, verify->key, row->span.first, row->dimensions,
			stored ? stored->value : NULL, computed ? computed->value : NULL);
	mc_task_custom_force(verify->repair, verify->key, row->span.first);
}

/*
 * Months of which something is stored, of a snapshot only the day's.  A query
 * that fails shows as a warning, since the others can still be told.
 */
static void
verify_custom(Verify *verify, char *key)
{
	McCustom   *custom = mc_custom_find(key, strlen(key));
	McCustomState state = mc_custom_state(verify->provider, key);
	McCustomRows stored,
				computed;
	List	   *months = NIL;
	McSpan	   *spans;
	ErrorData  *error;

	if (custom == NULL)
		return;
	if (custom->grain == MC_MONTHLY)
		months = mc_custom_stored(verify->provider, key, &state);
	else if (state.snapshot_on == mc_today())
		months = list_make1_int(mc_month_of(state.snapshot_on));
	if (months == NIL)
		return;
	spans = mc_custom_spans(months);
	error = mc_custom_compute(custom, verify->provider, spans,
							  list_length(months), &computed);
	if (error != NULL)
	{
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
			ReThrowError(error);
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg("could not compute metric \"%s\" (SQLSTATE %s)", key,
						unpack_sql_state(error->sqlerrcode)),
				 errdetail("%s", mc_error_message(error))));
		return;
	}
	mc_custom_load(verify->provider, key, spans, list_length(months), &stored);
	verify->key = key;
	mc_custom_compare(&stored, &computed, compare_custom, verify);
}

/* What is computed from claims. */
static void
verify_claims(Verify *verify)
{
	McProviderState state;
	McPeriod   *periods;
	DateADT    *months;
	McFold	   *fold;
	int			n,
				nperiods = 0;
	int			i;

	mc_task_recheck(verify->repair, mc_dirty_has_claims(verify->provider));
	mc_provider_state_load(verify->provider, &state);
	if (!mc_query_provider_known(verify->provider))
		state.full_from = state.full_to = state.snapshot_on = DATEVAL_NOBEGIN;
	n = list_months(verify->provider, &state, &months);
	verify->cells = mc_cells_load(verify->provider, MC_ALL_METRICS, months, n,
								  verify->strings);
	periods = palloc0(sizeof(McPeriod) * Max(n, 1));
	for (i = 0; i < n; i++)
	{
		periods[nperiods].first = months[i];
		periods[nperiods].last = mc_month_end(months[i]);
		periods[nperiods].wanted = expected_metrics(verify, &state, months[i]);
		if (periods[nperiods].wanted != 0)
			nperiods++;
	}
	if (nperiods == 0)
		return;
	fold = mc_figures_compute(verify->provider, verify->strings, periods,
							  nperiods, state.snapshot_on,
							  mc_dimension_mask, true, NULL, NULL);
	compare(verify, fold);
}

PG_FUNCTION_INFO_V1(meritum_verify);

Datum
meritum_verify(PG_FUNCTION_ARGS)
{
	Verify		verify = {0};
	McBracket	bracket;
	McOutcome	outcome;
	bool		repair;
	ListCell   *lc;

	verify.provider = mc_arg_provider(fcinfo, 0);
	mc_arg_required(fcinfo, 1, "repair");
	repair = PG_GETARG_BOOL(1);
	if (repair)
		PreventCommandIfReadOnly("meritum_verify() with repair");
	InitMaterializedSRF(fcinfo, 0);
	verify.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	mc_owner_enter(&bracket, true);
	mc_refresh_require();
	if (repair)
	{
		mc_provider_lock(verify.provider);
		mc_owner_renew_snapshot();
	}
	verify.strings = mc_fact_strings();
	verify.repair = mc_task_create(verify.provider, MC_CAUSE_VERIFY);
	if (mc_source_get(MC_CLAIMS) != NULL)
		verify_claims(&verify);
	foreach(lc, mc_custom_keys())
		verify_custom(&verify, lfirst(lc));
	if (repair)
	{
		mc_refresh_task(verify.repair, MC_WAIT, true, &outcome);
		if (outcome.failed > 0)
			mc_dirty_wake();
	}
	mc_owner_leave(&bracket);
	return (Datum) 0;
}
