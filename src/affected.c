/*
 * affected.c
 *		From differences of facts to the cells that they touch.
 *
 * The exact rule: a metric is affected in a month if the claim counted in it
 * before or counts in it now, and something that the metric reads differs.
 * The event map adds metrics for the state that a claim enters.  Nothing else
 * is touched.
 */
#include "postgres.h"

#include "affected.h"
#include "event.h"
#include "guc.h"
#include "zone.h"

McMonthPlan *
mc_affected_month(McAffected *affected, DateADT month)
{
	McMonthPlan *plan;
	int			i;

	for (i = affected->nmonths - 1; i >= 0; i--)
		if (affected->month[i].month == month)
			return &affected->month[i];
	if (affected->nmonths == affected->capacity)
	{
		affected->capacity = Max(16, affected->capacity * 2);
		affected->month = affected->nmonths == 0 ?
			palloc(sizeof(McMonthPlan) * affected->capacity) :
			repalloc(affected->month, sizeof(McMonthPlan) * affected->capacity);
	}
	plan = &affected->month[affected->nmonths++];
	memset(plan, 0, sizeof(McMonthPlan));
	plan->month = month;
	return plan;
}

static int
compare_months(const void *a, const void *b)
{
	DateADT		x = ((const McMonthPlan *) a)->month;
	DateADT		y = ((const McMonthPlan *) b)->month;

	return x < y ? -1 : x > y ? 1 : 0;
}

void
mc_affected_sort(McAffected *affected)
{
	qsort(affected->month, affected->nmonths, sizeof(McMonthPlan),
		  compare_months);
}

static void
touch(McMonthPlan *plan, int dim, int32 id, McMetrics metrics, int delta)
{
	McTouched  *touched;
	int			i;

	for (i = 0; i < plan->ntouched; i++)
		if (plan->touched[i].dim == dim && plan->touched[i].id == id)
			break;
	if (i == plan->ntouched)
	{
		if ((i & (i - 1)) == 0)
			plan->touched = i == 0 ? palloc(sizeof(McTouched)) :
				repalloc(plan->touched, sizeof(McTouched) * i * 2);
		memset(&plan->touched[i], 0, sizeof(McTouched));
		plan->touched[i].dim = dim;
		plan->touched[i].id = id;
		plan->ntouched++;
	}
	touched = &plan->touched[i];
	touched->metrics |= metrics & mc_metrics_breakdown();
	touched->delta += delta;
}

/*
 * Touch the values of a fact.  Where the other fact of the difference has the
 * value too, both is what is affected, else only.
 */
static void
touch_values(McAffected *affected, McMonthPlan *plan, const McFact *fact,
			 const McFact *other, McMetrics only, McMetrics both, int delta)
{
	int			i;

#define TOUCH(dim, value, same) \
	touch(plan, dim, value, (same) ? both : only, delta)
	if ((affected->dimensions & (1 << MC_DIM_CLAIM_TYPE)) &&
		fact->id[MC_ID_TYPE] != MC_NULL)
		TOUCH(MC_DIM_CLAIM_TYPE, fact->id[MC_ID_TYPE],
			  other && other->id[MC_ID_TYPE] == fact->id[MC_ID_TYPE]);
	if ((affected->dimensions & (1 << MC_DIM_BA_NUMBER)) &&
		fact->id[MC_ID_BA] != MC_NULL)
		TOUCH(MC_DIM_BA_NUMBER, fact->id[MC_ID_BA],
			  other && other->id[MC_ID_BA] == fact->id[MC_ID_BA]);
	if ((affected->dimensions & (1 << MC_DIM_LOCATION_ID)) &&
		(fact->traits & MC_T_PLACED))
		for (i = 0; i < affected->places->n; i++)
			if (affected->places->place[i].centre == fact->id[MC_ID_CENTRE])
				TOUCH(MC_DIM_LOCATION_ID, affected->places->place[i].id,
					  other && (other->traits & MC_T_PLACED) &&
					  other->id[MC_ID_CENTRE] == fact->id[MC_ID_CENTRE]);
#undef TOUCH
}

static McMetrics
counted_in(const McFact *fact)
{
	return fact == NULL ? 0 :
		mc_metrics_counting(fact->traits) & ~mc_metrics_snapshot();
}

static McMetrics
reading(uint32 columns)
{
	McMetrics	metrics = 0;
	int			m;

	for (m = 0; m < MC_N_METRICS; m++)
		if (mc_metric[m].reads & columns)
			metrics |= MC_METRIC_BIT(m);
	return metrics;
}

/* What the event map names for the state that the claim enters. */
static McKeys
entered_state(McAffected *affected, const McFact *old, const McFact *new)
{
	int32		state = new->id[MC_ID_STATE];
	McKeys		keys = {0};

	if (state == MC_NULL || (old != NULL && old->id[MC_ID_STATE] == state))
		return keys;
	(void) mc_event_find(mc_string(affected->strings, state), &keys);
	keys.builtin &= ~mc_metrics_snapshot();
	return keys;
}

static void
add_entered(McMonthPlan *plan, const McKeys *entered)
{
	ListCell   *lc;

	plan->affected |= entered->builtin;
	foreach(lc, entered->custom)
		if (!mc_key_in(plan->custom, lfirst(lc)))
			plan->custom = lappend(plan->custom, pstrdup(lfirst(lc)));
}

void
mc_affected_add(McAffected *affected, const McFact *old, const McFact *new,
				uint32 columns)
{
	McFact		before,
				after;
	DateADT		old_month,
				new_month;
	McMetrics	counted_before,
				counted_after;
	McKeys		entered = {0};

	affected->snapshot = true;
	if (old != NULL)
	{
		before = *old;
		mc_fact_place(&before, affected->places);
		old = &before;
	}
	if (new != NULL)
	{
		after = *new;
		mc_fact_place(&after, affected->places);
		new = &after;
		entered = entered_state(affected, old, new);
	}
	old_month = old ? mc_month_of(old->date) : 0;
	new_month = new ? mc_month_of(new->date) : 0;
	counted_before = counted_in(old);
	counted_after = counted_in(new);

	if (old != NULL && new != NULL && old_month == new_month)
	{
		McMonthPlan *plan = mc_affected_month(affected, new_month);
		McMetrics	differ = (counted_before ^ counted_after) |
			((counted_before | counted_after) & reading(columns));

		plan->affected |= differ;
		add_entered(plan, &entered);
		touch_values(affected, plan, old, new, counted_before, differ, -1);
		touch_values(affected, plan, new, old, counted_after | entered.builtin,
					 differ | entered.builtin, 1);
		return;
	}
	if (old != NULL)
	{
		McMonthPlan *plan = mc_affected_month(affected, old_month);

		plan->affected |= counted_before;
		touch_values(affected, plan, old, NULL, counted_before, 0, -1);
	}
	if (new != NULL)
	{
		McMonthPlan *plan = mc_affected_month(affected, new_month);

		plan->affected |= counted_after;
		add_entered(plan, &entered);
		touch_values(affected, plan, new, NULL,
					 counted_after | entered.builtin, 0, 1);
	}
}
