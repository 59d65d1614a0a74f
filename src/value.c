/*
 * value.c
 *		Accumulators written as JSON.
 *
 * Money and rates are strings with two decimals, made from integers and
 * rounded half away from zero as numeric rounds.  Equal accumulators give
 * equal bytes, so that an unchanged value can be told by comparing them.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/numeric.h"

#include "compat.h"
#include "uuids.h"
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

/*
 * JSON is built as the server does when it parses a text, without the text.
 * What is pushed must stay until the value is finished.
 */
typedef McJsonState Builder;

/* The value of the outermost container is there when it is closed. */
static void
push_token(Builder *out, JsonbIteratorToken token)
{
	mc_json_push(out, token, NULL);
}

/* A scalar is an element if a list is open, else the value of a key. */
static void
push_scalar(Builder *out, JsonbValue *value)
{
	mc_json_push(out, out->parseState->contVal.type == jbvArray ?
				 WJB_ELEM : WJB_VALUE, value);
}

static void
push_key(Builder *out, const char *key)
{
	JsonbValue	value;

	value.type = jbvString;
	value.val.string.val = unconstify(char *, key);
	value.val.string.len = strlen(key);
	mc_json_push(out, WJB_KEY, &value);
}

static void
push_text(Builder *out, const char *text, int len)
{
	JsonbValue	value;

	value.type = jbvString;
	value.val.string.val = unconstify(char *, text);
	value.val.string.len = len;
	push_scalar(out, &value);
}

static void
push_null(Builder *out)
{
	JsonbValue	value;

	value.type = jbvNull;
	push_scalar(out, &value);
}

static void
push_numeric(Builder *out, Numeric number)
{
	JsonbValue	value;

	value.type = jbvNumeric;
	value.val.numeric = number;
	push_scalar(out, &value);
}

static void
push_integer(Builder *out, int64 number)
{
	push_numeric(out, int64_to_numeric(number));
}

/* A number of hundredths with two decimals. */
static void
push_hundredths(Builder *out, uint64 hundredths, bool negative)
{
	char	   *text = palloc(32);
	char	   *p = text;
	int			fraction = hundredths % 100;

	if (negative && hundredths != 0)
		*p++ = '-';
	p += pg_ulltoa_n(hundredths / 100, p);
	*p++ = '.';
	*p++ = '0' + fraction / 10;
	*p++ = '0' + fraction % 10;
	push_text(out, text, p - text);
}

static uint64
magnitude(int64 value)
{
	return value < 0 ? -(uint64) value : (uint64) value;
}

static void
push_money(Builder *out, int64 amount)
{
	push_hundredths(out, (magnitude(amount) + 50) / 100, amount < 0);
}

static void
push_rate(Builder *out, int64 part, int64 whole)
{
	push_hundredths(out, whole == 0 ? 0 :
					((uint64) part * 20000 + whole) / ((uint64) whole * 2),
					false);
}

/*
 * sum / count, where sum is a number of ten-thousandths: the quotient and the
 * two last digits decide the rounding, with no intermediate too large.
 */
static void
push_average(Builder *out, int64 sum, int64 count)
{
	uint64		whole,
				rest,
				hundredths;

	if (count == 0)
	{
		push_hundredths(out, 0, false);
		return;
	}
	whole = magnitude(sum) / count;
	rest = magnitude(sum) % count;
	hundredths = whole / 100;
	if (((whole % 100) * count + rest) * 2 >= 100 * (uint64) count)
		hundredths++;
	push_hundredths(out, hundredths, sum < 0);
}

/* sum / count as a number with one decimal. */
static void
push_mean(Builder *out, int64 sum, int64 count)
{
	int64		tenths;

	if (count == 0)
	{
		push_null(out);
		return;
	}
	tenths = (magnitude(sum) * 20 + count) / ((uint64) count * 2);
	push_numeric(out, int64_div_fast_to_numeric(sum < 0 ? -tenths : tenths, 1));
}

static void
push_string(Builder *out, const McStrings *strings, int32 id)
{
	if (id == MC_NULL)
		push_null(out);
	else
		push_text(out, mc_string(strings, id), mc_string_length(strings, id));
}

static void
push_cstring(Builder *out, const char *text)
{
	push_text(out, text, strlen(text));
}

static void
push_date(Builder *out, DateADT date, bool month)
{
	int			y,
				m,
				d;

	j2date(date + POSTGRES_EPOCH_JDATE, &y, &m, &d);
	push_cstring(out, month ? psprintf("%04d-%02d", y, m) :
				 psprintf("%04d-%02d-%02d", y, m, d));
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
push_item_key(Builder *out, const Source *source)
{
	const McFold *fold = source->fold;
	int32		key = source->item->key;

	switch (source->metric->group)
	{
		case MC_GROUP_LOCATION:
			push_string(out, item_strings(fold), fold->places->place[key].id);
			break;
		case MC_GROUP_MONTH:
			push_date(out, key, true);
			break;
		case MC_GROUP_DATE:
			push_date(out, key, false);
			break;
		case MC_GROUP_CLAIM:
			push_cstring(out, mc_uuid_text(&fold->claims->fact[key].claim));
			break;
		default:
			push_string(out, item_strings(fold), key);
	}
}

static void push_list(Builder *out, const Source *source);

static void
push_member(Builder *out, const McMember *member, const Source *source)
{
	const McFold *fold = source->fold;
	const int64 *sum = source->sum;
	const McItem *item = source->item;

	switch (member->format)
	{
		case MC_F_COUNT:
			push_integer(out, sum[member->a]);
			break;
		case MC_F_MONEY:
			push_money(out, sum[member->a]);
			break;
		case MC_F_RATE:
			push_rate(out, sum[member->a], sum[member->b]);
			break;
		case MC_F_AVERAGE:
			push_average(out, sum[member->a], sum[member->b]);
			break;
		case MC_F_MEAN:
			push_mean(out, sum[member->a], sum[member->b]);
			break;
		case MC_F_LIST:
			push_list(out, source);
			break;
		case MC_F_KEY:
			push_item_key(out, source);
			break;
		case MC_F_KEY2:
			push_string(out, item_strings(fold), item->key2);
			break;
		case MC_F_RULE_NAME:
			push_cstring(out, rule_name(fold, item->key));
			break;
		case MC_F_LOCATION_NAME:
			push_string(out, item_strings(fold), fold->places->place[item->key].name);
			break;
		case MC_F_LOCATION_RRNP:
			push_money(out, fold->places->place[item->key].rate);
			break;
		case MC_F_LABEL:
			push_cstring(out, brackets[item->key].label);
			break;
		case MC_F_MIN_DAYS:
			push_integer(out, brackets[item->key].min_days);
			break;
		case MC_F_MAX_DAYS:
			if (brackets[item->key].max_days < 0)
				push_null(out);
			else
				push_integer(out, brackets[item->key].max_days);
			break;
		case MC_F_DEADLINE:
			push_date(out, fold->claims->fact[item->key].deadline, false);
			break;
		case MC_F_DAYS_LEFT:
			push_integer(out, fold->claims->fact[item->key].deadline - fold->as_of);
			break;
		case MC_F_END:
			break;
	}
}

static void
push_object(Builder *out, const McMember *members, const Source *source)
{
	int			i;

	push_token(out, WJB_BEGIN_OBJECT);
	for (i = 0; i < MC_MAX_MEMBERS && members[i].format != MC_F_END; i++)
	{
		push_key(out, members[i].name);
		push_member(out, &members[i], source);
	}
	push_token(out, WJB_END_OBJECT);
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
push_list(Builder *out, const Source *source)
{
	const McMetric *metric = source->metric;
	McTable    *table = source->table;
	int			written = 0;
	int			i;

	qsort_arg(table->item, table->nitems, sizeof(McItem), compare_items,
			  unconstify(Source *, source));
	push_token(out, WJB_BEGIN_ARRAY);
	for (i = 0; i < table->nitems; i++)
	{
		Source		item = *source;

		item.item = &table->item[i];
		item.sum = item.item->sum;
		if (metric->having > 0 && item.sum[metric->having - 1] <= 0)
			continue;
		if (metric->limit > 0 && written == metric->limit)
			break;
		written++;
		push_object(out, metric->item, &item);
	}
	push_token(out, WJB_END_ARRAY);
}

Jsonb *
mc_value_make(const McFold *fold, int metric, McTable *table)
{
	Source		source = {fold, &mc_metric[metric], table, table->sum, NULL};
	Builder		out = {0};

	if (mc_metric[metric].object[0].format != MC_F_END)
		push_object(&out, mc_metric[metric].object, &source);
	else
		push_list(&out, &source);
	return JsonbValueToJsonb(out.result);
}

Jsonb *
mc_value_dimensions(const McStrings *strings, int dim, int32 id)
{
	Builder		out = {0};

	if (dim < 0)
		return NULL;
	push_token(&out, WJB_BEGIN_OBJECT);
	push_key(&out, mc_dimension_name[dim]);
	push_string(&out, strings, id);
	push_token(&out, WJB_END_OBJECT);
	return JsonbValueToJsonb(out.result);
}
