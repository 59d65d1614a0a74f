/*
 * refresh.c
 *		The pipeline: lock, sync the facts, aggregate, write the cells.
 *
 * There is one way to a figure.  Commit, worker, nightly batch, explicit call
 * and reader differ only in the task they bring; mc_refresh_compute runs the
 * same aggregation and stores nothing.
 *
 * Everything here works under the provider's lock with a snapshot taken after
 * it was granted (provider.c says why), and holds the lock to the end of the
 * transaction: the next refresh must see what this one wrote.
 */
#include "postgres.h"

#include "port/pg_bitutils.h"
#include "utils/timestamp.h"

#include "affected.h"
#include "note.h"
#include "owner.h"
#include "provider.h"
#include "refresh.h"
#include "value.h"
#include "zone.h"

/* A refresh in progress. */
typedef struct Refresh
{
	McTask	   *task;
	McProviderState state;
	DateADT		as_of;
	DateADT		window_first;	/* months */
	DateADT		window_last;
	bool		whole;			/* re-derive all facts */
	McFactSet  *facts;
	McFactSet  *coach;
	pg_uuid_t  *claim;			/* noted one by one, sorted */
	int			nclaims;
	McAffected	affected;
} Refresh;

static int
compare_uuids(const void *a, const void *b)
{
	return memcmp(a, b, UUID_LEN);
}

static int
compare_months(const void *a, const void *b)
{
	DateADT		x = ((const McMonthPlan *) a)->month;
	DateADT		y = ((const McMonthPlan *) b)->month;

	return x < y ? -1 : x > y ? 1 : 0;
}

static bool
month_is_whole(const McTask *task, DateADT month)
{
	int			i;

	for (i = 0; i < task->nmonths; i++)
		if (task->month[i].month == month)
			return task->month[i].whole;
	return false;
}

/* Would the derivation find the claim of this stored fact? */
static bool
in_scope(const McFact *fact, void *arg)
{
	Refresh    *refresh = arg;

	return refresh->whole ||
		month_is_whole(refresh->task, mc_month_of(fact->date)) ||
		(refresh->nclaims > 0 &&
		 bsearch(&fact->claim, refresh->claim, refresh->nclaims,
				 sizeof(pg_uuid_t), compare_uuids) != NULL);
}

static void
changed(const McFact *old, const McFact *new, uint32 columns, void *arg)
{
	mc_affected_add(&((Refresh *) arg)->affected, old, new, columns);
}

static void
collect_claims(Refresh *refresh)
{
	McTask	   *task = refresh->task;
	int			n = 0;
	int			i;

	for (i = 0; i < task->nmonths; i++)
		n += task->month[i].nclaims;
	refresh->claim = palloc(sizeof(pg_uuid_t) * Max(n, 1));
	for (i = 0; i < task->nmonths; i++)
	{
		if (task->month[i].whole)
			continue;
		memcpy(&refresh->claim[refresh->nclaims], task->month[i].claim,
			   sizeof(pg_uuid_t) * task->month[i].nclaims);
		refresh->nclaims += task->month[i].nclaims;
	}
	qsort(refresh->claim, refresh->nclaims, sizeof(pg_uuid_t), compare_uuids);
}

/* Make a month part of the plan, so that its facts get loaded. */
static void
plan_month(Refresh *refresh, DateADT month)
{
	(void) mc_affected_month(&refresh->affected, month);
}

/*
 * Load the stored facts of the months of the plan, those that follow each
 * other at once.  The plan is sorted by month afterwards.
 */
static void
load_facts(Refresh *refresh)
{
	McAffected *affected = &refresh->affected;
	const pg_uuid_t *provider = &refresh->task->provider;
	int			i = 0;

	qsort(affected->month, affected->nmonths, sizeof(McMonthPlan),
		  compare_months);
	while (i < affected->nmonths)
	{
		DateADT		first = affected->month[i].month;
		DateADT		last;

		if (DATE_NOT_FINITE(first))
		{
			mc_fact_load(refresh->facts, provider, DATEVAL_NOBEGIN, DATEVAL_NOBEGIN);
			mc_fact_load(refresh->facts, provider, DATEVAL_NOEND, DATEVAL_NOEND);
			i++;
			continue;
		}
		last = mc_month_end(first);
		for (i++; i < affected->nmonths && affected->month[i].month == last + 1; i++)
			last = mc_month_end(last + 1);
		mc_fact_load(refresh->facts, provider, first, last);
	}
}

/*
 * Derive what the task says may have changed.  Claims noted one by one are
 * derived first, since they may have moved to a month that is not noted.
 */
static McFactSet *
derive_facts(Refresh *refresh)
{
	McTask	   *task = refresh->task;
	McFactSet  *derived = mc_fact_set(refresh->facts->strings);
	int			i;

	if (refresh->whole)
	{
		mc_fact_derive_provider(derived, &task->provider);
		return derived;
	}
	if (refresh->nclaims > 0)
	{
		bool		elsewhere = false;
		int			kept = 0;

		mc_fact_derive_claims(derived, &task->provider, refresh->claim,
							  refresh->nclaims, &elsewhere);
		for (i = 0; i < derived->n; i++)
		{
			DateADT		month = mc_month_of(derived->fact[i].date);

			/* the derivation of the whole month brings it again */
			if (!month_is_whole(task, month))
			{
				plan_month(refresh, month);
				derived->fact[kept++] = derived->fact[i];
			}
		}
		derived->n = kept;
	}
	for (i = 0; i < task->nmonths; i++)
	{
		DateADT		month = task->month[i].month;

		if (!task->month[i].whole)
			continue;
		if (DATE_NOT_FINITE(month))
		{
			/* no range holds claims without a date: they are few */
			refresh->whole = true;
			derived->n = 0;
			mc_fact_derive_provider(derived, &task->provider);
			return derived;
		}
		mc_fact_derive_range(derived, &task->provider, month, mc_month_end(month));
	}
	return derived;
}

static int
sync_facts(Refresh *refresh)
{
	McTask	   *task = refresh->task;
	McFactSet  *derived;
	bool		snapshots = false;
	int			i;

	collect_claims(refresh);
	for (i = 0; i < task->nmonths; i++)
	{
		plan_month(refresh, task->month[i].month);
		snapshots |= (task->month[i].force & mc_metrics_snapshot()) != 0;
	}
	derived = derive_facts(refresh);
	if (refresh->whole || snapshots)
		mc_fact_load(refresh->facts, &task->provider, DATEVAL_NOBEGIN, DATEVAL_NOEND);
	else
		load_facts(refresh);
	if (!refresh->whole && refresh->nclaims == 0 && derived->n == 0)
	{
		/* a month noted whole may have become empty */
		for (i = 0; i < task->nmonths; i++)
			if (task->month[i].whole)
				break;
		if (i == task->nmonths)
			return 0;
	}
	return mc_fact_sync(refresh->facts, derived, &task->provider, true,
						in_scope, changed, refresh);
}

/*
 * Months that hold cells of metrics which a change of locations or rules
 * touches everywhere.
 */
static void
plan_existing_months(Refresh *refresh)
{
	McTask	   *task = refresh->task;
	DateADT    *months;
	int			n,
				i;

	if (!task->locations && !task->events && !task->rules)
		return;
	n = mc_cells_months(&task->provider, &months);
	for (i = 0; i < n; i++)
	{
		McMonthTask *month = mc_task_month(task, months[i]);

		if (task->locations)
			month->existing |= mc_metrics_location();
		if (task->events)
			month->existing |= mc_metrics_coach();
		if (task->rules)
			month->existing |= mc_metrics_with(MC_T_COACH_ACCEPTED, MC_GROUP_RULE);
		plan_month(refresh, months[i]);
		mc_affected_month(&refresh->affected, months[i])->locations = task->locations;
	}
}

/* Add what the task asks for whether or not facts differ. */
static void
plan_forced(Refresh *refresh)
{
	McTask	   *task = refresh->task;
	int			i;

	for (i = 0; i < task->nmonths; i++)
	{
		McMonthTask *month = &task->month[i];
		McMonthPlan *plan;

		if (DATE_NOT_FINITE(month->month))
			continue;
		plan = mc_affected_month(&refresh->affected, month->month);
		plan->force |= month->force;
		plan->existing |= month->existing & ~mc_metrics_snapshot();
		if (month->coach)
			plan->affected |= mc_metrics_coach() & ~mc_metrics_snapshot();
	}
}

static int
count_live(Refresh *refresh, DateADT month, int dim, int32 id)
{
	McPlaces   *places = refresh->affected.places;
	DateADT		last = mc_month_end(month);
	int			n = 0;
	int			i,
				p;

	for (i = 0; i < refresh->facts->n; i++)
	{
		const McFact *fact = &refresh->facts->fact[i];

		if (fact->dead || fact->date < month || fact->date > last)
			continue;
		switch ((McDimension) dim)
		{
			case MC_DIM_CLAIM_TYPE:
				n += fact->id[MC_ID_TYPE] == id;
				break;
			case MC_DIM_BA_NUMBER:
				n += fact->id[MC_ID_BA] == id;
				break;
			case MC_DIM_LOCATION_ID:
				for (p = 0; p < places->n; p++)
					n += places->place[p].id == id && fact->has_ahcip &&
						places->place[p].centre != MC_NULL &&
						places->place[p].centre == fact->id[MC_ID_CENTRE];
				break;
			case MC_N_DIMS:
				break;
		}
	}
	return n;
}

/*
 * A value that occurs for the first time gets its rows of all metrics that
 * are broken down, and one that occurs no longer loses them.
 */
static void
plan_values(Refresh *refresh, McMonthPlan *plan)
{
	int			i;

	for (i = 0; i < plan->ntouched; i++)
	{
		McTouched  *touched = &plan->touched[i];
		int			after;

		if (touched->delta == 0)
			continue;
		after = count_live(refresh, plan->month, touched->dim, touched->id);
		if ((after == 0) != (after - touched->delta == 0))
			touched->metrics |= mc_metrics_breakdown();
	}
}

static McMetrics
plan_metrics(const McMonthPlan *plan)
{
	McMetrics	metrics = plan->affected | plan->force | plan->existing;
	int			i;

	for (i = 0; i < plan->ntouched; i++)
		metrics |= plan->touched[i].metrics;
	if (plan->locations)
		metrics |= mc_metrics_breakdown();
	return metrics;
}

/* Does the refresh rewrite this breakdown row of a metric not wanted whole? */
static bool
value_is_touched(const McMonthPlan *plan, int metric, int dim, int32 id)
{
	int			i;

	if (plan->locations && dim == MC_DIM_LOCATION_ID)
		return true;
	for (i = 0; i < plan->ntouched; i++)
		if (plan->touched[i].dim == dim && plan->touched[i].id == id)
			return (plan->touched[i].metrics & MC_METRIC_BIT(metric)) != 0;
	return false;
}

/*
 * Queue the cells of one metric in one month: its total, if that is wanted,
 * and of its breakdown rows all, if whole, else those touched.
 */
static void
put_metric(const McFold *fold, McPeriod *period, const McMonthPlan *plan,
		   McCells *cells, int metric, bool total, bool whole)
{
	McCellIterator iterator = {0};
	McCell	   *cell;
	int			s;

	for (s = 0; s < period->nscopes; s++)
	{
		McScope    *scope = period->scope[s];

		if (scope->table[metric] == NULL)
			continue;
		cell = mc_cells_find(cells, metric, plan->month, scope->dim, scope->id);
		if (cell != NULL)
			cell->seen = true;
		if (scope->dim < 0 ? !total :
			!whole && !value_is_touched(plan, metric, scope->dim, scope->id))
			continue;
		mc_cells_put(cells, metric, plan->month, scope->dim, scope->id,
					 mc_value_make(fold, metric, scope->table[metric]));
	}

	if (!mc_metric[metric].breakdown)
		return;
	while ((cell = mc_cells_next(cells, &iterator)) != NULL)
		if (cell->key.metric == metric && cell->key.month == plan->month &&
			cell->key.dim >= 0 && !cell->seen &&
			(whole || value_is_touched(plan, metric, cell->key.dim, cell->key.id)))
			mc_cells_drop(cells, cell);
}

/*
 * Which metrics of a month are really written: affected ones are made only in
 * the trailing window, and elsewhere only kept up where they exist.
 */
static McMetrics
allowed_metrics(Refresh *refresh, McMonthPlan *plan, McCells *cells)
{
	bool		window = plan->month >= refresh->window_first &&
		plan->month <= refresh->window_last;
	McMetrics	metrics = plan_metrics(plan);
	int			m;

	for (m = 0; m < MC_N_METRICS; m++)
	{
		McMetrics	bit = MC_METRIC_BIT(m);

		if (!(metrics & bit))
			continue;
		if (mc_cells_find(cells, m, plan->month, -1, MC_NULL) == NULL)
		{
			if (!(plan->force & bit) && !(window && (plan->affected & bit)))
				metrics &= ~bit;
			else
				plan->force |= bit; /* new: with all its breakdown rows */
		}
	}
	return metrics;
}

static McFold *
make_fold(McFactSet *facts, McFactSet *coach, McPlaces *places,
		  McPeriod *periods, int nperiods, DateADT as_of, int dimensions)
{
	McFold	   *fold = palloc0(sizeof(McFold));

	fold->claims = facts;
	fold->coach = coach;
	fold->places = places;
	fold->rule_name = coach ? mc_fact_rule_names(coach) : NULL;
	fold->as_of = as_of;
	fold->dimensions = dimensions;
	fold->period = periods;
	fold->nperiods = nperiods;
	mc_fold_run(fold);
	return fold;
}

/* Events and rules of the AI coach, if any of its metrics is wanted. */
static McFactSet *
load_coach(McStrings *strings, const pg_uuid_t *provider,
		   const McPeriod *periods, int nperiods)
{
	McFactSet  *coach = mc_fact_set(strings);
	McMetrics	wanted = 0;
	int			i;

	for (i = 0; i < nperiods; i++)
		wanted |= periods[i].wanted & mc_metrics_coach();
	if (wanted == 0)
		return NULL;
	if (wanted & ~mc_metrics_snapshot())
		mc_fact_load_events(coach, provider, periods[0].first,
							periods[nperiods - 1].last);
	if (wanted & mc_metrics_snapshot())
		mc_fact_load_suppressed(coach, provider);
	return coach;
}

static void
write_cells(Refresh *refresh, TimestampTz now, McOutcome *outcome)
{
	McAffected *affected = &refresh->affected;
	McPeriod   *periods = palloc0(sizeof(McPeriod) * Max(affected->nmonths, 1));
	McMonthPlan **plan = palloc(sizeof(McMonthPlan *) * Max(affected->nmonths, 1));
	DateADT    *months = palloc(sizeof(DateADT) * Max(affected->nmonths, 1));
	McMetrics	metrics = 0;
	McCells    *cells;
	McFold	   *fold;
	int			nmonths = 0;
	int			nperiods = 0;
	int			i;

	qsort(affected->month, affected->nmonths, sizeof(McMonthPlan),
		  compare_months);
	for (i = 0; i < affected->nmonths; i++)
	{
		if (DATE_NOT_FINITE(affected->month[i].month))
			continue;
		plan_values(refresh, &affected->month[i]);
		if (plan_metrics(&affected->month[i]) == 0)
			continue;
		metrics |= plan_metrics(&affected->month[i]);
		months[nmonths++] = affected->month[i].month;
	}
	if (nmonths == 0)
		return;

	cells = mc_cells_load(&refresh->task->provider, metrics, months, nmonths,
						  refresh->facts->strings);
	for (i = 0; i < affected->nmonths; i++)
	{
		McMonthPlan *month = &affected->month[i];

		if (DATE_NOT_FINITE(month->month) || plan_metrics(month) == 0)
			continue;
		periods[nperiods].first = month->month;
		periods[nperiods].last = mc_month_end(month->month);
		periods[nperiods].wanted = allowed_metrics(refresh, month, cells);
		plan[nperiods] = month;
		if (periods[nperiods].wanted != 0)
			nperiods++;
	}
	if (nperiods == 0)
		return;

	refresh->coach = load_coach(refresh->facts->strings,
								&refresh->task->provider, periods, nperiods);
	fold = make_fold(refresh->facts, refresh->coach, affected->places, periods,
					 nperiods, refresh->as_of, affected->dimensions);
	for (i = 0; i < nperiods; i++)
	{
		McMetrics	wanted = periods[i].wanted;

		while (wanted != 0)
		{
			int			m = pg_rightmost_one_pos64(wanted);
			McMetrics	bit = MC_METRIC_BIT(m);

			wanted &= wanted - 1;
			put_metric(fold, &periods[i], plan[i], cells, m,
					   ((plan[i]->force | plan[i]->existing | plan[i]->affected) & bit) != 0,
					   ((plan[i]->force | plan[i]->existing) & bit) != 0);
		}
	}
	mc_cells_write(cells, now, &outcome->cells);
}

/* The months from full_from to full_to grow by a window that touches them. */
static void
extend_full_range(McProviderState *state, DateADT first, DateADT last)
{
	if (DATE_IS_NOBEGIN(state->full_from) || state->full_to < first - 31 ||
		state->full_from > last + 31)
	{
		state->full_from = first;
		state->full_to = last;
		return;
	}
	state->full_from = Min(state->full_from, first);
	state->full_to = Max(state->full_to, last);
}

static void
store_state(Refresh *refresh, TimestampTz now, const McOutcome *outcome)
{
	McProviderState *state = &refresh->state;
	McMonthTask *today = mc_task_month(refresh->task, refresh->window_last);

	if (outcome->cells.changed + outcome->cells.deleted > 0)
		state->version++;
	if (refresh->task->full_window)
	{
		state->oldest = now;
		extend_full_range(state, refresh->window_first, refresh->window_last);
	}
	else if (state->oldest == DT_NOBEGIN && outcome->cells.changed > 0)
		state->oldest = now;
	if ((today->force & mc_metrics_snapshot()) == mc_metrics_snapshot())
		state->snapshot_on = refresh->as_of;
	else if (refresh->affected.snapshot || refresh->task->snapshot ||
			 refresh->task->rules)
		state->snapshot_on = DATEVAL_NOBEGIN;
	state->facts_complete = true;
	mc_provider_state_store(&refresh->task->provider, state, now,
							mc_cause_name(refresh->task->cause));
}

/*
 * A provider that the providers table does not know has no rows.
 */
static void
remove_provider(const pg_uuid_t *provider, McOutcome *outcome)
{
	outcome->cells.deleted += mc_cells_remove_provider(provider);
	mc_fact_remove_provider(provider);
	mc_provider_state_remove(provider);
}

/*
 * The work itself, under the lock and with a fresh snapshot.
 */
static void
run(McTask *task, McOutcome *outcome)
{
	Refresh    *refresh = palloc0(sizeof(Refresh));
	McStrings  *strings = mc_fact_strings();
	TimestampTz now;

	mc_source_require();
	outcome->known = mc_source_provider_known(&task->provider);
	if (!outcome->known)
	{
		remove_provider(&task->provider, outcome);
		return;
	}

	refresh->task = task;
	refresh->as_of = task->has_as_of ? task->as_of : mc_today();
	refresh->window_last = mc_month_of(refresh->as_of);
	refresh->window_first = mc_month_add(refresh->window_last, 1 - MC_WINDOW_MONTHS);
	if (task->full_window)
		mc_task_window(task, MC_ALL_METRICS, refresh->as_of);
	mc_provider_state_load(&task->provider, &refresh->state);
	refresh->whole = task->whole || !refresh->state.facts_complete;
	refresh->facts = mc_fact_set(strings);
	refresh->affected.strings = strings;
	refresh->affected.dimensions = mc_dimension_mask;
	refresh->affected.places = mc_fact_places(strings, &task->provider);

	plan_existing_months(refresh);
	outcome->differences = sync_facts(refresh);
	plan_forced(refresh);

	now = GetCurrentTimestamp();
	write_cells(refresh, now, outcome);
	if (outcome->differences > 0 || task->snapshot || task->rules ||
		!refresh->state.facts_complete ||
		outcome->cells.changed + outcome->cells.unchanged + outcome->cells.deleted > 0)
		store_state(refresh, now, outcome);
}

bool
mc_refresh_task(McTask *task, McWait wait, bool notes, McOutcome *outcome)
{
	McBracket	bracket;

	memset(outcome, 0, sizeof(*outcome));
	mc_owner_enter(&bracket, true);
	switch (wait)
	{
		case MC_WAIT:
			mc_provider_lock(&task->provider);
			break;
		case MC_WAIT_BOUNDED:
			mc_provider_lock_bounded(&task->provider);
			break;
		case MC_NO_WAIT:
			if (!mc_provider_try_lock(&task->provider))
			{
				mc_owner_leave(&bracket);
				return false;
			}
			break;
	}
	mc_owner_renew_snapshot();
	if (notes)
		mc_note_take(task);
	run(task, outcome);
	mc_owner_leave(&bracket);
	return true;
}

int64
mc_refresh_full(const pg_uuid_t *provider, DateADT as_of, int64 *unchanged)
{
	McTask	   *task = mc_task_create(provider, MC_CAUSE_NIGHTLY);
	McOutcome	outcome;

	task->whole = true;
	task->full_window = true;
	task->as_of = as_of;
	task->has_as_of = true;
	mc_refresh_task(task, MC_WAIT, true, &outcome);
	if (unchanged != NULL)
		*unchanged = outcome.cells.unchanged;
	return outcome.cells.changed + outcome.cells.unchanged;
}

McFold *
mc_refresh_compute(const pg_uuid_t *provider, McStrings *strings,
				   McPeriod *periods, int nperiods, DateADT as_of,
				   int dimensions, bool derive, McFilter filter, void *arg)
{
	McFactSet  *facts = mc_fact_set(strings);
	McPlaces   *places = mc_fact_places(strings, provider);
	McMetrics	wanted = 0;
	McFold		unfiltered = {.claims = facts, .places = places};
	int			i;

	for (i = 0; i < nperiods; i++)
		wanted |= periods[i].wanted;
	if (derive)
	{
		if (wanted & mc_metrics_snapshot())
			mc_fact_derive_provider(facts, provider);
		else
			mc_fact_derive_range(facts, provider, periods[0].first,
								 periods[nperiods - 1].last);
	}
	else if (wanted & mc_metrics_snapshot())
		mc_fact_load(facts, provider, DATEVAL_NOBEGIN, DATEVAL_NOEND);
	else
		mc_fact_load(facts, provider, periods[0].first, periods[nperiods - 1].last);

	if (filter != NULL)
		(void) filter(&unfiltered, NULL, arg);
	if (filter != NULL)
		for (i = 0; i < facts->n; i++)
			if (!filter(&unfiltered, &facts->fact[i], arg))
				facts->fact[i].dead = true;
	return make_fold(facts, load_coach(strings, provider, periods, nperiods),
					 places, periods, nperiods, as_of, dimensions);
}
