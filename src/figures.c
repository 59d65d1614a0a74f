/*
 * figures.c
 *		From facts to figures: aggregate the wanted metrics and write them.
 *
 * What is wanted comes as a plan of months (affected.h).  Cells are written
 * only where the plan asks for them; the totals and breakdown rows that it
 * does not name keep their computed_at.
 */
#include "postgres.h"

#include "port/pg_bitutils.h"

#include "figures.h"
#include "source.h"
#include "value.h"
#include "zone.h"

static int
count_live(const McFactSet *facts, const McPlaces *places, DateADT month,
		   int dim, int32 id)
{
	DateADT		last = mc_month_end(month);
	int			n = 0;
	int			i,
				p;

	for (i = 0; i < facts->n; i++)
	{
		const McFact *fact = &facts->fact[i];

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
plan_values(const McFactSet *facts, const McPlaces *places, McMonthPlan *plan)
{
	int			i;

	for (i = 0; i < plan->ntouched; i++)
	{
		McTouched  *touched = &plan->touched[i];
		int			after;

		if (touched->delta == 0)
			continue;
		after = count_live(facts, places, plan->month, touched->dim, touched->id);
		if ((after == 0) != (after - touched->delta == 0))
			touched->metrics |= mc_metrics_breakdown();
	}
}

static McMetrics
plan_metrics(const McMonthPlan *plan)
{
	McMetrics	metrics = plan->affected | plan->force | plan->existing |
		plan->soft;
	int			i;

	for (i = 0; i < plan->ntouched; i++)
		metrics |= plan->touched[i].metrics;
	if (plan->locations)
		metrics |= mc_metrics_breakdown();
	return metrics;
}

/* What a refresh does with a row. */
typedef enum Wanted
{
	UNWANTED,
	IF_CHANGED,					/* written if its value differs */
	WANTED						/* written, at least its computed_at */
} Wanted;

static Wanted
total_wanted(const McMonthPlan *plan, int metric)
{
	McMetrics	bit = MC_METRIC_BIT(metric);

	if ((plan->force | plan->existing | plan->affected) & bit)
		return WANTED;
	return (plan->soft & bit) ? IF_CHANGED : UNWANTED;
}

static Wanted
value_wanted(const McMonthPlan *plan, int metric, int dim, int32 id)
{
	McMetrics	bit = MC_METRIC_BIT(metric);
	int			i;

	if ((plan->force | plan->existing) & bit)
		return WANTED;
	for (i = 0; i < plan->ntouched; i++)
		if (plan->touched[i].dim == dim && plan->touched[i].id == id &&
			(plan->touched[i].metrics & bit))
			return WANTED;
	return plan->locations && dim == MC_DIM_LOCATION_ID ? IF_CHANGED : UNWANTED;
}

/* Queue the cells of one metric in one month. */
static void
put_metric(const McFold *fold, McPeriod *period, const McMonthPlan *plan,
		   McCells *cells, int metric)
{
	McCell	   *cell;
	int			s;

	for (s = 0; s < period->nscopes; s++)
	{
		McScope    *scope = period->scope[s];
		Wanted		wanted;

		if (scope->table[metric] == NULL)
			continue;
		cell = mc_cells_find(cells, metric, plan->month, scope->dim, scope->id);
		if (cell != NULL)
			cell->seen = true;
		wanted = scope->dim < 0 ? total_wanted(plan, metric) :
			value_wanted(plan, metric, scope->dim, scope->id);
		if (wanted != UNWANTED)
			mc_cells_put(cells, metric, plan->month, scope->dim, scope->id,
						 mc_value_make(fold, metric, scope->table[metric]),
						 wanted == IF_CHANGED);
	}
}

/* Drop the breakdown rows of values that no longer occur. */
static void
drop_unseen(const McPeriod *periods, McMonthPlan **plans, int nperiods,
			McCells *cells)
{
	McCellIterator iterator = {0};
	McCell	   *cell;
	int			i;

	while ((cell = mc_cells_next(cells, &iterator)) != NULL)
	{
		if (cell->seen || cell->key.dim < 0)
			continue;
		for (i = 0; i < nperiods; i++)
			if (periods[i].first == cell->key.month &&
				(periods[i].wanted & MC_METRIC_BIT(cell->key.metric)) &&
				value_wanted(plans[i], cell->key.metric, cell->key.dim,
							 cell->key.id) != UNWANTED)
				mc_cells_drop(cells, cell);
	}
}

/*
 * Which metrics of a month are really written: affected ones are made only in
 * the trailing window, and elsewhere only kept up where they exist.
 */
static McMetrics
allowed_metrics(McMonthPlan *plan, McCells *cells, DateADT window_first,
				DateADT window_last)
{
	bool		window = plan->month >= window_first &&
		plan->month <= window_last;
	McMetrics	metrics = plan_metrics(plan);
	int			m;

	for (m = 0; m < MC_N_METRICS; m++)
	{
		McMetrics	bit = MC_METRIC_BIT(m);

		if (!(metrics & bit))
			continue;
		if (mc_cells_find(cells, m, plan->month, -1, MC_NULL) == NULL)
		{
			if (!(plan->force & bit) && !(window && (plan->affected & bit)) &&
				!(window && plan->soft_made && (plan->soft & bit)))
				metrics &= ~bit;
			else
				plan->force |= bit; /* new: with all its breakdown rows */
		}
	}
	return metrics;
}

/*
 * Unless all breakdown rows of some metric are wanted, those of the touched
 * values are enough.
 */
static void
restrict_values(McPeriod *period, const McMonthPlan *plan)
{
	int			i;

	if (((plan->force | plan->existing) & mc_metrics_breakdown()) != 0 ||
		plan->locations)
		return;
	period->only_values = true;
	period->value = palloc(sizeof(McWantedValue) * Max(plan->ntouched, 1));
	for (i = 0; i < plan->ntouched; i++)
	{
		McWantedValue *value = &period->value[period->nvalues++];

		value->dim = plan->touched[i].dim;
		value->id = plan->touched[i].id;
		value->metrics = plan->touched[i].metrics;
	}
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

void
mc_figures_write(const pg_uuid_t *provider, McAffected *affected,
				 McFactSet *facts, DateADT as_of, TimestampTz now,
				 McWritten *written)
{
	DateADT		window_last = mc_month_of(as_of);
	DateADT		window_first = mc_month_add(window_last, 1 - MC_WINDOW_MONTHS);
	McPeriod   *periods = palloc0(sizeof(McPeriod) * Max(affected->nmonths, 1));
	McMonthPlan **plan = palloc(sizeof(McMonthPlan *) * Max(affected->nmonths, 1));
	DateADT    *months = palloc(sizeof(DateADT) * Max(affected->nmonths, 1));
	McMetrics	metrics = 0;
	McCells    *cells;
	McFold	   *fold;
	int			nmonths = 0;
	int			nperiods = 0;
	int			i;

	mc_affected_sort(affected);
	for (i = 0; i < affected->nmonths; i++)
	{
		if (DATE_NOT_FINITE(affected->month[i].month))
			continue;
		plan_values(facts, affected->places, &affected->month[i]);
		if (plan_metrics(&affected->month[i]) == 0)
			continue;
		metrics |= plan_metrics(&affected->month[i]);
		months[nmonths++] = affected->month[i].month;
	}
	if (nmonths == 0)
		return;

	cells = mc_cells_load(provider, metrics, months, nmonths, facts->strings);
	for (i = 0; i < affected->nmonths; i++)
	{
		McMonthPlan *month = &affected->month[i];

		if (DATE_NOT_FINITE(month->month) || plan_metrics(month) == 0)
			continue;
		periods[nperiods].first = month->month;
		periods[nperiods].last = mc_month_end(month->month);
		periods[nperiods].wanted = allowed_metrics(month, cells, window_first,
													 window_last);
		if (periods[nperiods].wanted == 0)
			continue;
		restrict_values(&periods[nperiods], month);
		plan[nperiods++] = month;
	}
	if (nperiods == 0)
		return;

	fold = make_fold(facts,
					 load_coach(facts->strings, provider, periods, nperiods),
					 affected->places, periods, nperiods, as_of,
					 affected->dimensions);
	for (i = 0; i < nperiods; i++)
	{
		McMetrics	wanted = periods[i].wanted;

		while (wanted != 0)
		{
			int			m = pg_rightmost_one_pos64(wanted);

			wanted &= wanted - 1;
			put_metric(fold, &periods[i], plan[i], cells, m);
		}
	}
	drop_unseen(periods, plan, nperiods, cells);
	mc_cells_write(cells, now, written);
}

McFold *
mc_figures_compute(const pg_uuid_t *provider, McStrings *strings,
				   McPeriod *periods, int nperiods, DateADT as_of,
				   int dimensions, bool derive, McFilter filter, void *arg)
{
	McFactSet  *facts = mc_fact_set(strings);
	McPlaces   *places = mc_places_derive(strings, provider);
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
