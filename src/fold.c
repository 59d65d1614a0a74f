/*
 * fold.c
 *		Accumulators: facts folded into the measures of the wanted metrics.
 *
 * One pass over the facts serves all metrics, periods and dimensions.  Facts
 * with the same traits count in the same metrics, so their amounts are added
 * up once for all of these, and only lists take each fact by itself.  Sums are
 * integers of ten-thousandths, so exact; a sum that does not fit raises 22003.
 * No SQL is run here.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "common/int.h"
#include "port/pg_bitutils.h"

#include "fold.h"
#include "zone.h"

static void
add(int64 *sum, int64 amount)
{
	if (pg_add_s64_overflow(*sum, amount, sum))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("sum of amounts out of range")));
}

/* Add the amounts of a fact, or of all facts with its traits. */
static void
add_measures(const McMetric *metric, int64 *sum, uint32 traits,
			 const int64 *amount)
{
	int			i;

	for (i = 0; i < MC_MAX_MEASURES &&
		 metric->measure[i].amount != MC_NO_AMOUNT; i++)
	{
		const McMeasure *measure = &metric->measure[i];

		if ((traits & measure->traits) == measure->traits)
			add(&sum[i], amount[measure->amount]);
	}
}

static uint32
item_hash(int32 key, int32 key2)
{
	return hash_combine(murmurhash32(key), murmurhash32(key2));
}

static void
rehash(McTable *table)
{
	int			i;

	table->nslots = table->capacity * 2;
	table->slot = palloc(sizeof(int32) * table->nslots);
	memset(table->slot, -1, sizeof(int32) * table->nslots);
	for (i = 0; i < table->nitems; i++)
	{
		uint32		h = item_hash(table->item[i].key, table->item[i].key2);

		while (table->slot[h & (table->nslots - 1)] >= 0)
			h++;
		table->slot[h & (table->nslots - 1)] = i;
	}
}

/*
 * The item of a key, made if there is none.  Capacities are powers of two.
 */
static McItem *
find_item(McTable *table, int32 key, int32 key2)
{
	McItem	   *item;
	uint32		h = 0;
	int			i;

	if (table->nslots > 0)
	{
		for (h = item_hash(key, key2);; h++)
		{
			i = table->slot[h & (table->nslots - 1)];
			if (i < 0)
				break;
			if (table->item[i].key == key && table->item[i].key2 == key2)
				return &table->item[i];
		}
	}
	else
	{
		for (i = 0; i < table->nitems; i++)
			if (table->item[i].key == key && table->item[i].key2 == key2)
				return &table->item[i];
	}

	if (table->nitems == table->capacity)
	{
		table->capacity = table->capacity == 0 ? 4 : table->capacity * 2;
		table->item = table->nitems == 0 ?
			palloc(sizeof(McItem) * table->capacity) :
			repalloc(table->item, sizeof(McItem) * table->capacity);
		if (table->capacity > 8)
		{
			rehash(table);
			for (h = item_hash(key, key2);
				 table->slot[h & (table->nslots - 1)] >= 0; h++)
				;
		}
	}
	if (table->nslots > 0)
		table->slot[h & (table->nslots - 1)] = table->nitems;
	item = &table->item[table->nitems++];
	memset(item, 0, sizeof(McItem));
	item->key = key;
	item->key2 = key2;
	return item;
}

/*
 * Lists of locations and brackets hold every one of them, also when empty.
 */
static McTable *
make_table(const McFold *fold, const McMetric *metric)
{
	McTable    *table = palloc0(sizeof(McTable));
	int			n = 0;
	int			i;

	if (metric->group == MC_GROUP_LOCATION)
		n = fold->places->n;
	else if (metric->group == MC_GROUP_BRACKET)
		n = MC_N_BRACKETS;
	for (i = 0; i < n; i++)
		find_item(table, i, 0);
	return table;
}

static McScope *
make_scope(const McFold *fold, McPeriod *period, int dim, int32 id,
		   McMetrics wanted)
{
	McScope    *scope = palloc0(sizeof(McScope));
	int			m;

	scope->wanted = wanted;
	scope->dim = dim;
	scope->id = id;
	for (m = 0; m < MC_N_METRICS; m++)
		if (wanted & MC_METRIC_BIT(m))
			scope->table[m] = make_table(fold, &mc_metric[m]);

	if ((period->nscopes & (period->nscopes - 1)) == 0)
		period->scope = period->nscopes == 0 ? palloc(sizeof(McScope *)) :
			repalloc(period->scope, sizeof(McScope *) * period->nscopes * 2);
	period->scope[period->nscopes++] = scope;
	return scope;
}

McScope *
mc_fold_scope(McPeriod *period, int dim, int32 id)
{
	int			i;

	for (i = 0; i < period->nscopes; i++)
		if (period->scope[i]->dim == dim && period->scope[i]->id == id)
			return period->scope[i];
	return NULL;
}

static int
age_bracket(const McFold *fold, const McFact *fact)
{
	int			days;

	if (DATE_NOT_FINITE(fact->date))
		return -1;
	days = fold->as_of - fact->date;
	return days <= 30 ? 0 : days <= 60 ? 1 : days <= 90 ? 2 : 3;
}

static void
add_to_item(const McMetric *metric, McTable *table, int32 key, int32 key2,
			const McFact *fact)
{
	add_measures(metric, find_item(table, key, key2)->sum, fact->traits,
				 fact->amount);
}

static void
add_grouped(const McFold *fold, const McMetric *metric, McTable *table,
			const McFact *fact, int index)
{
	int32		key = MC_NULL;
	int			i;

	switch (metric->group)
	{
		case MC_GROUP_NONE:
			return;
		case MC_GROUP_CODE:
			for (i = 0; i < fact->ncodes; i++)
				add_to_item(metric, table, fact->codes[i], 0, fact);
			return;
		case MC_GROUP_PROVINCE_CODE:
			for (i = 0; i < fact->ncodes; i++)
				add_to_item(metric, table, fact->id[MC_ID_PROVINCE],
							fact->codes[i], fact);
			return;
		case MC_GROUP_LOCATION:
			for (i = 0; i < fold->places->n; i++)
				if (fold->places->place[i].centre == fact->id[MC_ID_CENTRE])
					add_to_item(metric, table, i, 0, fact);
			return;
		case MC_GROUP_BA:
			key = fact->id[MC_ID_BA];
			break;
		case MC_GROUP_HSC:
			key = fact->id[MC_ID_HSC];
			break;
		case MC_GROUP_FORM:
			key = fact->id[MC_ID_FORM];
			break;
		case MC_GROUP_TIER:
			key = fact->id[MC_ID_TIER];
			break;
		case MC_GROUP_PROVINCE:
			key = fact->id[MC_ID_PROVINCE];
			break;
		case MC_GROUP_CATEGORY:
			key = fact->id[MC_ID_CATEGORY];
			break;
		case MC_GROUP_RULE:
			key = fact->id[MC_ID_RULE];
			break;
		case MC_GROUP_BRACKET:
			key = age_bracket(fold, fact);
			if (key < 0)
				return;
			break;
		case MC_GROUP_MONTH:
			key = mc_month_of(fact->date);
			break;
		case MC_GROUP_DATE:
			key = fact->date;
			break;
		case MC_GROUP_CLAIM:
			key = index;
			break;
	}
	add_to_item(metric, table, key, 0, fact);
}

/* The class of a fact: its number in fold->class. */
static int
get_class(McFold *fold, uint32 traits)
{
	int		   *cached = &fold->cached_class[murmurhash32(traits) % MC_N_CACHED];
	int			i;

	if (*cached < fold->nclasses && fold->class[*cached].traits == traits)
		return *cached;
	for (i = 0; i < fold->nclasses; i++)
		if (fold->class[i].traits == traits)
			return *cached = i;
	if ((i & (i - 1)) == 0)
		fold->class = i == 0 ? palloc(sizeof(McClass)) :
			repalloc(fold->class, sizeof(McClass) * i * 2);
	fold->class[i].traits = traits;
	fold->class[i].metrics = mc_metrics_counting(traits);
	fold->nclasses++;
	return *cached = i;
}

static void
add_to_class(McSums *sums, int class, const McFact *fact)
{
	int			i;

	if (class >= sums->nclasses)
	{
		int			n = Max(8, pg_nextpower2_32(class + 1));
		McAmounts  *amounts = palloc0(sizeof(McAmounts) * n);

		if (sums->nclasses > 0)
		{
			memcpy(amounts, sums->class, sizeof(McAmounts) * sums->nclasses);
			pfree(sums->class);
		}
		sums->class = amounts;
		sums->nclasses = n;
	}
	for (i = MC_COUNT; i < MC_N_AMOUNTS; i++)
		add(&sums->class[class].amount[i], fact->amount[i]);
}

/* Add a fact to those of the scope's metrics, all of which count it. */
static void
add_to_scope(const McFold *fold, McScope *scope, McGrain grain,
			 McMetrics metrics, int class, const McFact *fact, int index)
{
	metrics &= scope->wanted;
	if (metrics == 0)
		return;
	add_to_class(&scope->sums[grain], class, fact);
	metrics &= mc_metrics_grouped();
	while (metrics != 0)
	{
		int			m = pg_rightmost_one_pos64(metrics);

		metrics &= metrics - 1;
		add_grouped(fold, &mc_metric[m], scope->table[m], fact, index);
	}
}

/* Once all facts are added: the measures of each metric. */
static void
finish_scope(const McFold *fold, McScope *scope, McGrain grain,
			 McMetrics metrics)
{
	const McSums *sums = &scope->sums[grain];
	int			i;

	for (i = 0; i < Min(sums->nclasses, fold->nclasses); i++)
	{
		const int64 *amount = sums->class[i].amount;
		McMetrics	rest = fold->class[i].metrics & scope->wanted & metrics;

		if (amount[MC_COUNT] == 0)
			continue;
		while (rest != 0)
		{
			int			m = pg_rightmost_one_pos64(rest);

			rest &= rest - 1;
			add_measures(&mc_metric[m], scope->table[m]->sum,
						 fold->class[i].traits, amount);
		}
	}
}

/* What is wanted of the value of a dimension. */
static McMetrics
wanted_of_value(const McPeriod *period, McDimension dim, int32 id)
{
	int			i;

	if (!period->only_values)
		return period->wanted & mc_metrics_breakdown();
	for (i = 0; i < period->nvalues; i++)
		if (period->value[i].dim == dim && period->value[i].id == id)
			return period->wanted & period->value[i].metrics;
	return 0;
}

/* Add a claim to the scope of its value. */
static void
add_to_value(const McFold *fold, McPeriod *period, McDimension dim, int32 id,
			 const McFact *fact, int class)
{
	McScope    *scope;

	if (id == MC_NULL)
		return;
	scope = mc_fold_scope(period, dim, id);
	if (scope == NULL)
	{
		McMetrics	wanted = wanted_of_value(period, dim, id);

		if (wanted == 0)
			return;
		scope = make_scope(fold, period, dim, id, wanted);
	}
	add_to_scope(fold, scope, MC_MONTHLY, fold->class[class].metrics, class,
				 fact, 0);
}

static void
add_to_dimensions(const McFold *fold, McPeriod *period, const McFact *fact,
				  int class)
{
	int			i;

	if (fold->dimensions & (1 << MC_DIM_CLAIM_TYPE))
		add_to_value(fold, period, MC_DIM_CLAIM_TYPE, fact->id[MC_ID_TYPE],
					 fact, class);
	if (fold->dimensions & (1 << MC_DIM_BA_NUMBER))
		add_to_value(fold, period, MC_DIM_BA_NUMBER, fact->id[MC_ID_BA],
					 fact, class);
	if ((fold->dimensions & (1 << MC_DIM_LOCATION_ID)) &&
		(fact->traits & MC_T_PLACED))
		for (i = 0; i < fold->places->n; i++)
			if (fold->places->place[i].centre == fact->id[MC_ID_CENTRE])
				add_to_value(fold, period, MC_DIM_LOCATION_ID,
							 fold->places->place[i].id, fact, class);
}

/*
 * The period that holds a date.  Facts come mostly in order of date, so the
 * last one found is tried first.
 */
static McPeriod *
find_period(McFold *fold, DateADT date, int *last)
{
	int			low = 0,
				high = fold->nperiods - 1;

	if (DATE_NOT_FINITE(date))
		return NULL;
	if (*last < fold->nperiods && date >= fold->period[*last].first &&
		date <= fold->period[*last].last)
		return &fold->period[*last];
	while (low <= high)
	{
		int			middle = (low + high) / 2;

		if (date < fold->period[middle].first)
			high = middle - 1;
		else if (date > fold->period[middle].last)
			low = middle + 1;
		else
		{
			*last = middle;
			return &fold->period[middle];
		}
	}
	return NULL;
}

static void
fold_facts(McFold *fold, McFactSet *set, McMetrics monthly, McMetrics snapshot,
		   McPeriod *snapshot_period)
{
	int			last = 0;
	int			i;

	for (i = 0; i < set->n; i++)
	{
		McFact	   *fact = &set->fact[i];
		McPeriod   *period;
		McMetrics	metrics;
		int			class;

		if (fact->dead)
			continue;
		if (fact->traits & MC_T_CLAIM)
		{
			mc_fact_place(fact, fold->places);
			if (snapshot != 0)
				mc_fact_date(fact, fold->as_of);
		}
		class = get_class(fold, fact->traits);
		metrics = fold->class[class].metrics;
		if (snapshot != 0)
			add_to_scope(fold, snapshot_period->scope[0], MC_SNAPSHOT,
						 metrics & snapshot, class, fact, i);
		period = find_period(fold, fact->date, &last);
		if (period == NULL)
			continue;
		add_to_scope(fold, period->scope[0], MC_MONTHLY, metrics & monthly,
					 class, fact, i);
		if ((fact->traits & MC_T_CLAIM) && fold->dimensions != 0 &&
			(period->wanted & mc_metrics_breakdown()))
			add_to_dimensions(fold, period, fact, class);
	}
}

void
mc_fold_run(McFold *fold)
{
	McMetrics	snapshot = 0;
	McPeriod   *snapshot_period = NULL;
	int			i;
	int			j;

	for (i = 0; i < fold->nperiods; i++)
	{
		McPeriod   *period = &fold->period[i];

		make_scope(fold, period, -1, MC_NULL, period->wanted);
		if (period->wanted & mc_metrics_snapshot())
		{
			Assert(snapshot_period == NULL);
			snapshot_period = period;
			snapshot = period->wanted & mc_metrics_snapshot();
		}
	}
	fold_facts(fold, fold->claims, ~mc_metrics_snapshot(), snapshot,
			   snapshot_period);
	if (fold->coach != NULL)
		fold_facts(fold, fold->coach, ~mc_metrics_snapshot(), snapshot,
				   snapshot_period);
	for (i = 0; i < fold->nperiods; i++)
		for (j = 0; j < fold->period[i].nscopes; j++)
		{
			finish_scope(fold, fold->period[i].scope[j], MC_MONTHLY,
						 ~mc_metrics_snapshot());
			finish_scope(fold, fold->period[i].scope[j], MC_SNAPSHOT,
						 mc_metrics_snapshot());
		}
}
