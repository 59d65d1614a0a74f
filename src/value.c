/*
 * value.c
 *		Accumulators written as JSON.
 *
 * Money and rates are strings with two decimals, made from integers and
 * rounded half away from zero as numeric rounds.  Equal accumulators give
 * equal bytes, so that an unchanged value can be told by comparing them.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/json.h"

#include "value.h"
#include "zone.h"

static const struct
{
	const char *label;
	int			min_days;
	int			max_days;		/* -1: none */
} brackets[MC_N_BRACKETS] = {
	{"0-30 days", 0, 30},
	{"31-60 days", 31, 60},
	{"61-90 days", 61, 90},
	{"90+ days", 91, -1},
};

/* What an item's members are made from. */
typedef struct Source
{
	const McFold *fold;
	const McMetric *metric;
	McTable    *table;
	const int64 *sum;
	const McItem *item;			/* NULL: the object around the list */
} Source;

/* Append hundredths with two decimals. */
static void
append_hundredths(StringInfo out, uint64 hundredths, bool negative)
{
	appendStringInfo(out, "\"%s" UINT64_FORMAT ".%02d\"",
					 negative && hundredths != 0 ? "-" : "",
					 hundredths / 100, (int) (hundredths % 100));
}

static uint64
magnitude(int64 value)
{
	return value < 0 ? -(uint64) value : (uint64) value;
}

static void
append_money(StringInfo out, int64 amount)
{
	append_hundredths(out, (magnitude(amount) + 50) / 100, amount < 0);
}

static void
append_rate(StringInfo out, int64 part, int64 whole)
{
	append_hundredths(out, whole == 0 ? 0 :
					  ((uint64) part * 20000 + whole) / ((uint64) whole * 2),
					  false);
}

/*
 * sum / count, where sum is a number of ten-thousandths: the quotient and the
 * two last digits decide the rounding, with no intermediate too large.
 */
static void
append_average(StringInfo out, int64 sum, int64 count)
{
	uint64		whole,
				rest,
				hundredths;

	if (count == 0)
	{
		append_hundredths(out, 0, false);
		return;
	}
	whole = magnitude(sum) / count;
	rest = magnitude(sum) % count;
	hundredths = whole / 100;
	if (((whole % 100) * count + rest) * 2 >= 100 * (uint64) count)
		hundredths++;
	append_hundredths(out, hundredths, sum < 0);
}

/* sum / count as a number with one decimal. */
static void
append_mean(StringInfo out, int64 sum, int64 count)
{
	uint64		tenths;

	if (count == 0)
	{
		appendStringInfoString(out, "null");
		return;
	}
	tenths = (magnitude(sum) * 20 + count) / ((uint64) count * 2);
	appendStringInfo(out, "%s" UINT64_FORMAT ".%d",
					 sum < 0 && tenths != 0 ? "-" : "",
					 tenths / 10, (int) (tenths % 10));
}

static void
append_string(StringInfo out, const McStrings *strings, int32 id)
{
	if (id == MC_NULL)
		appendStringInfoString(out, "null");
	else
		escape_json(out, mc_string(strings, id));
}

static void
append_date(StringInfo out, DateADT date, bool month)
{
	int			y,
				m,
				d;

	j2date(date + POSTGRES_EPOCH_JDATE, &y, &m, &d);
	if (month)
		appendStringInfo(out, "\"%04d-%02d\"", y, m);
	else
		appendStringInfo(out, "\"%04d-%02d-%02d\"", y, m, d);
}

static const char *
rule_name(const McFold *fold, int32 rule)
{
	if (rule == MC_NULL || fold->rule_name == NULL ||
		fold->rule_name[rule] == NULL)
		return "Unknown rule";
	return fold->rule_name[rule];
}

static const McStrings *
item_strings(const McFold *fold)
{
	return fold->claims->strings;
}

static void
append_key(StringInfo out, const Source *source)
{
	const McFold *fold = source->fold;
	int32		key = source->item->key;

	switch (source->metric->group)
	{
		case MC_GROUP_LOCATION:
			append_string(out, item_strings(fold), fold->places->place[key].id);
			break;
		case MC_GROUP_MONTH:
			append_date(out, key, true);
			break;
		case MC_GROUP_DATE:
			append_date(out, key, false);
			break;
		case MC_GROUP_CLAIM:
			escape_json(out, DatumGetCString(DirectFunctionCall1(uuid_out,
																 UUIDPGetDatum(&fold->claims->fact[key].claim))));
			break;
		default:
			append_string(out, item_strings(fold), key);
	}
}

static void append_list(StringInfo out, const Source *source);

static void
append_member(StringInfo out, const McMember *member, const Source *source)
{
	const McFold *fold = source->fold;
	const int64 *sum = source->sum;
	const McItem *item = source->item;

	switch (member->format)
	{
		case MC_F_COUNT:
			appendStringInfo(out, INT64_FORMAT, sum[member->a]);
			break;
		case MC_F_MONEY:
			append_money(out, sum[member->a]);
			break;
		case MC_F_RATE:
			append_rate(out, sum[member->a], sum[member->b]);
			break;
		case MC_F_AVERAGE:
			append_average(out, sum[member->a], sum[member->b]);
			break;
		case MC_F_MEAN:
			append_mean(out, sum[member->a], sum[member->b]);
			break;
		case MC_F_LIST:
			append_list(out, source);
			break;
		case MC_F_KEY:
			append_key(out, source);
			break;
		case MC_F_KEY2:
			append_string(out, item_strings(fold), item->key2);
			break;
		case MC_F_RULE_NAME:
			escape_json(out, rule_name(fold, item->key));
			break;
		case MC_F_LOCATION_NAME:
			append_string(out, item_strings(fold), fold->places->place[item->key].name);
			break;
		case MC_F_LOCATION_RRNP:
			append_money(out, fold->places->place[item->key].rate);
			break;
		case MC_F_LABEL:
			escape_json(out, brackets[item->key].label);
			break;
		case MC_F_MIN_DAYS:
			appendStringInfo(out, "%d", brackets[item->key].min_days);
			break;
		case MC_F_MAX_DAYS:
			if (brackets[item->key].max_days < 0)
				appendStringInfoString(out, "null");
			else
				appendStringInfo(out, "%d", brackets[item->key].max_days);
			break;
		case MC_F_DEADLINE:
			append_date(out, fold->claims->fact[item->key].deadline, false);
			break;
		case MC_F_DAYS_LEFT:
			appendStringInfo(out, "%d",
							 fold->claims->fact[item->key].deadline - fold->as_of);
			break;
		case MC_F_END:
			break;
	}
}

static void
append_object(StringInfo out, const McMember *members, const Source *source)
{
	int			i;

	appendStringInfoChar(out, '{');
	for (i = 0; i < MC_MAX_MEMBERS && members[i].format != MC_F_END; i++)
	{
		if (i > 0)
			appendStringInfoChar(out, ',');
		appendStringInfo(out, "\"%s\":", members[i].name);
		append_member(out, &members[i], source);
	}
	appendStringInfoChar(out, '}');
}

static int
compare_int64(int64 a, int64 b)
{
	return a < b ? -1 : a > b ? 1 : 0;
}

/*
 * Order by the identifying key, ascending, nulls last.
 */
static int
compare_keys(const McItem *a, const McItem *b, const Source *source)
{
	const McFold *fold = source->fold;

	switch (source->metric->group)
	{
		case MC_GROUP_LOCATION: /* numbered in order of their uuid */
		case MC_GROUP_BRACKET:
		case MC_GROUP_MONTH:
		case MC_GROUP_DATE:
			return compare_int64(a->key, b->key);
		case MC_GROUP_CLAIM:
			return memcmp(&fold->claims->fact[a->key].claim,
						  &fold->claims->fact[b->key].claim, UUID_LEN);
		case MC_GROUP_PROVINCE_CODE:
			{
				int			cmp = mc_string_compare(item_strings(fold),
													a->key, b->key);

				return cmp != 0 ? cmp :
					mc_string_compare(item_strings(fold), a->key2, b->key2);
			}
		default:
			return mc_string_compare(item_strings(fold), a->key, b->key);
	}
}

static int
compare_items(const void *x, const void *y, void *arg)
{
	const McItem *a = x;
	const McItem *b = y;
	const Source *source = arg;
	const McFold *fold = source->fold;
	int			cmp = 0;

	switch (source->metric->order)
	{
		case MC_BY_KEY:
			break;
		case MC_BY_FIRST:
			cmp = compare_int64(b->sum[0], a->sum[0]);
			break;
		case MC_BY_FIRST_NAME:
			cmp = compare_int64(b->sum[0], a->sum[0]);
			if (cmp == 0)
				cmp = mc_string_compare(item_strings(fold),
										fold->places->place[a->key].name,
										fold->places->place[b->key].name);
			break;
		case MC_BY_RRNP:
			cmp = compare_int64(fold->places->place[b->key].rate,
								fold->places->place[a->key].rate);
			break;
		case MC_BY_RULE_NAME:
			cmp = strcmp(rule_name(fold, a->key), rule_name(fold, b->key));
			break;
		case MC_BY_DEADLINE:
			cmp = compare_int64(fold->claims->fact[a->key].deadline,
								fold->claims->fact[b->key].deadline);
			break;
		case MC_BY_PROVINCE:
			cmp = mc_string_compare(item_strings(fold), a->key, b->key);
			if (cmp == 0)
				cmp = compare_int64(b->sum[0], a->sum[0]);
			break;
	}
	return cmp != 0 ? cmp : compare_keys(a, b, source);
}

/*
 * The table's items move, so its hash is of no use afterwards.
 */
static void
append_list(StringInfo out, const Source *source)
{
	const McMetric *metric = source->metric;
	McTable    *table = source->table;
	int			written = 0;
	int			i;

	qsort_arg(table->item, table->nitems, sizeof(McItem), compare_items,
			  unconstify(Source *, source));
	appendStringInfoChar(out, '[');
	for (i = 0; i < table->nitems; i++)
	{
		Source		item = *source;

		item.item = &table->item[i];
		item.sum = item.item->sum;
		if (metric->having > 0 && item.sum[metric->having - 1] <= 0)
			continue;
		if (metric->limit > 0 && written == metric->limit)
			break;
		if (written++ > 0)
			appendStringInfoChar(out, ',');
		append_object(out, metric->item, &item);
	}
	appendStringInfoChar(out, ']');
}

static Jsonb *
parse(const char *json)
{
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(json)));
}

Jsonb *
mc_value_make(const McFold *fold, int metric, McTable *table)
{
	Source		source = {fold, &mc_metric[metric], table, table->sum, NULL};
	StringInfoData out;
	Jsonb	   *value;

	initStringInfo(&out);
	if (mc_metric[metric].object[0].format != MC_F_END)
		append_object(&out, mc_metric[metric].object, &source);
	else
		append_list(&out, &source);
	value = parse(out.data);
	pfree(out.data);
	return value;
}

Jsonb *
mc_value_dimensions(const McStrings *strings, int dim, int32 id)
{
	StringInfoData out;

	if (dim < 0)
		return NULL;
	initStringInfo(&out);
	appendStringInfo(&out, "{\"%s\":", mc_dimension_name[dim]);
	append_string(&out, strings, id);
	appendStringInfoChar(&out, '}');
	return parse(out.data);
}
