/*
 * entry.c
 *		Entries written and deleted by the application.
 *
 * They follow the same rules as the extension's own cells: under the
 * provider's lock, with the latest snapshot.
 */
#include "postgres.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "args.h"
#include "custom.h"
#include "owner.h"
#include "plan.h"
#include "provider.h"
#include "task.h"
#include "uuids.h"
#include "zone.h"

static McPlan upsert_entry = {
	"INSERT INTO meritum_cache.analytics_cache AS c"
	" (provider_id, metric_key, period_start, period_end, dimensions, value, computed_at)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7)"
	" ON CONFLICT (provider_id, metric_key, period_start, period_end, dimensions)"
	" DO UPDATE SET value = excluded.value, computed_at = excluded.computed_at"
	" RETURNING c.cache_id, c.provider_id, c.metric_key, c.period_start,"
	" c.period_end, c.dimensions, c.value, c.computed_at",
	"uuid,varchar,date,date,jsonb,jsonb,timestamptz", SPI_OK_INSERT_RETURNING
};

static McPlan delete_expired = {
	"DELETE FROM meritum_cache.analytics_cache c"
	" WHERE c.provider_id = $1 AND c.period_end < $2",
	"uuid,date", SPI_OK_DELETE
};

static McPlan any_entry = {
	"SELECT 1 FROM meritum_cache.analytics_cache c WHERE c.provider_id = $1 LIMIT 1",
	"uuid", SPI_OK_SELECT
};

typedef struct Entry
{
	char	   *key;
	DateADT		first;
	DateADT		last;
	Jsonb	   *dimensions;		/* NULL: the total */
	Jsonb	   *value;
} Entry;

static void
lock_provider(const pg_uuid_t *provider)
{
	mc_provider_lock(provider);
	mc_owner_renew_snapshot();
}

/*
 * A provider that had no figures has some now, or the other way round.
 */
static void
update_state(const pg_uuid_t *provider, TimestampTz now)
{
	McProviderState state;
	Datum		value = UUIDPGetDatum(provider);

	mc_provider_state_load(provider, &state);
	state.version++;
	if (mc_plan_execute(&any_entry, &value, NULL) == 0)
		state.oldest = DT_NOBEGIN;
	else if (state.oldest == DT_NOBEGIN)
		state.oldest = now;
	mc_provider_state_store(provider, &state, now,
							mc_cause_name(MC_CAUSE_REQUEST));
}

static bool
is_metric(const char *key)
{
	if (mc_metric_find(key, strlen(key)) >= 0)
		return true;
	mc_custom_hold();
	return mc_custom_find(key, strlen(key)) != NULL;
}

/* Leaves the row in SPI_tuptable. */
static void
upsert(const pg_uuid_t *provider, const Entry *entry, TimestampTz now)
{
	Datum		values[7] = {
		UUIDPGetDatum(provider), CStringGetTextDatum(entry->key),
		DateADTGetDatum(entry->first), DateADTGetDatum(entry->last),
		PointerGetDatum(entry->dimensions), PointerGetDatum(entry->value),
		TimestampTzGetDatum(now)
	};
	char		nulls[] = "       ";

	if (entry->dimensions == NULL)
		nulls[4] = 'n';
	mc_plan_execute(&upsert_entry, values, nulls);
}

PG_FUNCTION_INFO_V1(meritum_upsert_metric);

Datum
meritum_upsert_metric(PG_FUNCTION_ARGS)
{
	const pg_uuid_t *provider = mc_arg_provider(fcinfo, 0);
	Entry		entry = {0};
	McBracket	bracket;
	TimestampTz now = GetCurrentTimestamp();
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext old;
	Datum		result;

	mc_arg_required(fcinfo, 1, "metric_key");
	entry.key = text_to_cstring(PG_GETARG_TEXT_PP(1));
	if (!is_metric(entry.key))
		mc_metric_unknown(entry.key);
	entry.first = mc_arg_date(fcinfo, 2, "period_start");
	entry.last = mc_arg_date(fcinfo, 3, "period_end");
	mc_check_period(entry.first, entry.last);
	if (!PG_ARGISNULL(4))
		entry.dimensions = PG_GETARG_JSONB_P(4);
	if (entry.dimensions != NULL && !JB_ROOT_IS_OBJECT(entry.dimensions))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("dimensions must be a JSON object")));
	mc_arg_required(fcinfo, 5, "value");
	entry.value = PG_GETARG_JSONB_P(5);

	PreventCommandIfReadOnly("meritum_upsert_metric()");
	mc_owner_enter(&bracket, true);
	lock_provider(provider);
	upsert(provider, &entry, now);
	old = MemoryContextSwitchTo(caller);
	result = heap_copy_tuple_as_datum(SPI_tuptable->vals[0], SPI_tuptable->tupdesc);
	MemoryContextSwitchTo(old);
	update_state(provider, now);
	mc_owner_leave(&bracket);

	/* the row has the columns of the table, but not its type */
	{
		HeapTupleHeader header = DatumGetHeapTupleHeader(result);

		HeapTupleHeaderSetTypeId(header, get_fn_expr_rettype(fcinfo->flinfo));
		HeapTupleHeaderSetTypMod(header, -1);
	}
	return result;
}

mc_noreturn static void bad_entry(int index, const char *format,...)
			pg_attribute_printf(2, 3);
mc_noreturn static void unknown_metric(int index, const char *key);

static void
bad_entry(int index, const char *format,...)
{
	char		text[256];
	va_list		args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("entry %d: %s", index, text)));
}

static void
unknown_metric(int index, const char *key)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("entry %d: unknown metric \"%s\"", index, key),
			 errhint("The metrics are listed in meritum_cache.metric.")));
}

static char *
string_member(JsonbContainer *object, const char *name, int index)
{
	JsonbValue	value;

	if (!getKeyJsonValueFromContainer(object, name, strlen(name), &value))
		bad_entry(index, "%s is missing", name);
	if (value.type != jbvString)
		bad_entry(index, "%s must be a string", name);
	return pnstrdup(value.val.string.val, value.val.string.len);
}

static DateADT
date_member(JsonbContainer *object, const char *name, int index)
{
	char	   *text = string_member(object, name, index);
	struct pg_tm tm = {0};
	int			end = 0;

	if (strspn(text, "0123456789-") != strlen(text) ||
		sscanf(text, "%4d-%2d-%2d%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &end) != 3 ||
		end != 10 || text[10] != '\0' || tm.tm_year < 1 ||
		tm.tm_mon < 1 || tm.tm_mon > 12 || tm.tm_mday < 1 ||
		tm.tm_mday > day_tab[isleap(tm.tm_year)][tm.tm_mon - 1])
		bad_entry(index, "%s must be a date of the form YYYY-MM-DD", name);
	return date2j(tm.tm_year, tm.tm_mon, tm.tm_mday) - POSTGRES_EPOCH_JDATE;
}

/* Any JSON value as a document of its own; NULL if there is no such member. */
static Jsonb *
member(JsonbContainer *object, const char *name)
{
	JsonbValue	value;

	if (!getKeyJsonValueFromContainer(object, name, strlen(name), &value))
		return NULL;
	return JsonbValueToJsonb(&value);
}

static void
read_entry(JsonbContainer *object, int index, const pg_uuid_t *provider,
		   Entry *entry)
{
	JsonbValue	value;

	entry->key = string_member(object, "metric_key", index);
	if (!is_metric(entry->key))
		unknown_metric(index, entry->key);
	entry->first = date_member(object, "period_start", index);
	entry->last = date_member(object, "period_end", index);
	if (entry->first > entry->last)
		bad_entry(index, "period_end must not be before period_start");

	entry->dimensions = NULL;
	if (getKeyJsonValueFromContainer(object, "dimensions", 10, &value) &&
		value.type != jbvNull)
	{
		entry->dimensions = member(object, "dimensions");
		if (!JB_ROOT_IS_OBJECT(entry->dimensions))
			bad_entry(index, "dimensions must be an object");
	}
	entry->value = member(object, "value");
	if (entry->value == NULL)
		bad_entry(index, "value is missing");

	if (getKeyJsonValueFromContainer(object, "provider_id", 11, &value) &&
		value.type != jbvNull)
	{
		char	   *text = string_member(object, "provider_id", index);

		if (pg_strcasecmp(text, mc_uuid_text(provider)) != 0)
			bad_entry(index, "belongs to another provider");
	}
}

static bool
same_jsonb(Jsonb *a, Jsonb *b)
{
	if (a == NULL || b == NULL)
		return a == b;
	return compareJsonbContainers(&a->root, &b->root) == 0;
}

static bool
same_key(const Entry *a, const Entry *b)
{
	return strcmp(a->key, b->key) == 0 && a->first == b->first &&
		a->last == b->last && same_jsonb(a->dimensions, b->dimensions);
}

static int
compare_entries(const void *a, const void *b)
{
	const Entry *x = *(Entry *const *) a;
	const Entry *y = *(Entry *const *) b;

#define COMPARE(u, v) if ((u) != (v)) return (u) < (v) ? -1 : 1
	if (strcmp(x->key, y->key) != 0)
		return strcmp(x->key, y->key);
	COMPARE(x->first, y->first);
	COMPARE(x->last, y->last);
	if (!same_jsonb(x->dimensions, y->dimensions))
	{
		if (x->dimensions == NULL || y->dimensions == NULL)
			return x->dimensions == NULL ? -1 : 1;
		return compareJsonbContainers(&x->dimensions->root, &y->dimensions->root);
	}
	COMPARE(x, y);				/* in the order given */
#undef COMPARE
	return 0;
}

PG_FUNCTION_INFO_V1(meritum_bulk_upsert);

Datum
meritum_bulk_upsert(PG_FUNCTION_ARGS)
{
	const pg_uuid_t *provider = mc_arg_provider(fcinfo, 0);
	TimestampTz now = GetCurrentTimestamp();
	Jsonb	   *entries;
	Entry	   *entry;
	Entry	  **order;
	McBracket	bracket;
	int			n,
				written = 0;
	int			i;

	mc_arg_required(fcinfo, 1, "entries");
	entries = PG_GETARG_JSONB_P(1);
	if (!JB_ROOT_IS_ARRAY(entries) || JB_ROOT_IS_SCALAR(entries))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("entries must be a JSON array")));
	n = JB_ROOT_COUNT(entries);
	entry = palloc(sizeof(Entry) * Max(n, 1));
	order = palloc(sizeof(Entry *) * Max(n, 1));
	for (i = 0; i < n; i++)
	{
		JsonbValue *value = getIthJsonbValueFromContainer(&entries->root, i);

		if (value->type != jbvBinary ||
			!JsonContainerIsObject(value->val.binary.data))
			bad_entry(i, "must be an object");
		read_entry(value->val.binary.data, i, provider, &entry[i]);
		order[i] = &entry[i];
	}
	if (n == 0)
		PG_RETURN_INT32(0);
	qsort(order, n, sizeof(Entry *), compare_entries);

	PreventCommandIfReadOnly("meritum_bulk_upsert()");
	mc_owner_enter(&bracket, true);
	lock_provider(provider);
	for (i = 0; i < n; i++)
	{
		/* of several with one key, the last */
		if (i + 1 < n && same_key(order[i], order[i + 1]))
			continue;
		upsert(provider, order[i], now);
		SPI_freetuptable(SPI_tuptable);
		written++;
	}
	update_state(provider, now);
	mc_owner_leave(&bracket);
	PG_RETURN_INT32(written);
}

PG_FUNCTION_INFO_V1(meritum_delete_expired_entries);

Datum
meritum_delete_expired_entries(PG_FUNCTION_ARGS)
{
	const pg_uuid_t *provider = mc_arg_provider(fcinfo, 0);
	McBracket	bracket;
	Datum		values[2];
	DateADT		older_than;
	int64		deleted;

	mc_arg_required(fcinfo, 1, "older_than");
	values[0] = UUIDPGetDatum(provider);
	older_than = PG_GETARG_DATEADT(1);
	values[1] = DateADTGetDatum(older_than);
	PreventCommandIfReadOnly("meritum_delete_expired_entries()");
	mc_custom_hold();
	mc_owner_enter(&bracket, true);
	lock_provider(provider);
	deleted = mc_plan_execute(&delete_expired, values, NULL);
	if (deleted > 0)
	{
		/* the first month of which nothing was deleted */
		DateADT		month = DATE_NOT_FINITE(older_than) ? older_than :
			mc_month_of(older_than);

		mc_provider_state_trim(provider, month);
		update_state(provider, GetCurrentTimestamp());
	}
	mc_owner_leave(&bracket);
	PG_RETURN_INT64(deleted);
}
