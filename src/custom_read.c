/*
 * custom_read.c
 *		Custom metrics for readers: what lags, and figures that are not stored.
 *
 * A metric lags as a whole if an event has touched it that nothing has
 * settled yet.  Else a month lags that was never computed, and a snapshot
 * that was computed on another day.
 */
#include "postgres.h"

#include "utils/fmgrprotos.h"

#include "custom_read.h"
#include "dirty.h"
#include "note.h"
#include "zone.h"

/* Months of a metric that lag. */
typedef struct Lagging
{
	const char *key;
	List	   *months;			/* integers, ascending */
} Lagging;

/* Does the period hold the whole month? */
static bool
in_period(const McCustomRead *read, DateADT month)
{
	return month >= read->first && mc_month_end(month) <= read->last;
}

static bool
has_event(const McCustomRead *read, const char *key)
{
	McKeys		keys = {0, list_make1(unconstify(char *, key))};

	return mc_dirty_has_key(read->provider, key) ||
		mc_note_pending(read->provider, &keys);
}

static void
add_month(List **months, DateADT month)
{
	*months = list_append_unique_int(*months, month);
}

static Lagging *
plan_key(const McCustomRead *read, const char *key, McTask *task)
{
	McCustom   *custom = mc_custom_find(key, strlen(key));
	McCustomState state = mc_custom_state(read->provider, key);
	bool		all = read->pending || has_event(read, key);
	DateADT		last = mc_month_of(read->today);
	Lagging    *lagging = palloc(sizeof(Lagging));
	List	   *stored;
	ListCell   *lc;
	int			i;

	lagging->key = key;
	lagging->months = NIL;
	if (custom == NULL)
		return lagging;
	if (custom->grain == MC_SNAPSHOT)
	{
		if (in_period(read, last) && (all || state.snapshot_on != read->today))
			add_month(&lagging->months, last);
	}
	else
	{
		stored = mc_custom_stored(read->provider, key, &state);
		for (i = 1 - MC_READ_MONTHS; i <= 0; i++)
		{
			DateADT		month = mc_month_add(last, i);

			if (in_period(read, month) && (all || !list_member_int(stored, month)))
				add_month(&lagging->months, month);
		}
		foreach(lc, stored)
			if (all && in_period(read, lfirst_int(lc)))
				add_month(&lagging->months, lfirst_int(lc));
	}
	foreach(lc, lagging->months)
		mc_task_custom_force(task, key, lfirst_int(lc));
	return lagging;
}

bool
mc_custom_read_plan(McCustomRead *read, McTask *task)
{
	ListCell   *lc;

	foreach(lc, read->keys)
	{
		Lagging    *lagging = plan_key(read, lfirst(lc), task);

		if (lagging->months != NIL)
			read->lagging = lappend(read->lagging, lagging);
	}
	return read->lagging != NIL;
}

bool
mc_custom_read_lags(const McCustomRead *read, const char *key, DateADT first,
					DateADT last)
{
	ListCell   *lc;

	foreach(lc, read->lagging)
	{
		const Lagging *lagging = lfirst(lc);

		if (strcmp(lagging->key, key) == 0)
			return last == mc_month_end(first) &&
				list_member_int(lagging->months, first);
	}
	return false;
}

/* What a row that is not stored takes from the one that is: its identity. */
typedef struct Put
{
	const char *key;
	McPutRow	put;
	void	   *arg;
} Put;

static void
put_computed(const McCustomRow *stored, const McCustomRow *computed, void *arg)
{
	Put		   *put = arg;
	McCustomRow row;

	if (computed == NULL)
		return;
	row = *computed;
	if (stored != NULL)
		row.cache_id = stored->cache_id;
	else
		row.cache_id = *DatumGetUUIDP(DirectFunctionCall1(gen_random_uuid, (Datum) 0));
	put->put(put->key, &row, put->arg);
}

static void
compute(const pg_uuid_t *provider, const char *key, const McSpan *spans, int n,
		McCustomRows *rows)
{
	McCustom   *custom = mc_custom_find(key, strlen(key));
	ErrorData  *error;

	memset(rows, 0, sizeof(*rows));
	if (custom == NULL)
		return;
	error = mc_custom_compute(custom, provider, spans, n, rows);
	if (error == NULL)
		return;
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		ReThrowError(error);
	mc_custom_raise(key, error);
}

void
mc_custom_read_compute(const McCustomRead *read, McPutRow put, void *arg)
{
	ListCell   *lc;

	foreach(lc, read->lagging)
	{
		const Lagging *lagging = lfirst(lc);
		McSpan	   *spans = mc_custom_spans(lagging->months);
		int			n = list_length(lagging->months);
		Put			target = {lagging->key, put, arg};
		McCustomRows stored,
					computed;

		compute(read->provider, lagging->key, spans, n, &computed);
		mc_custom_load(read->provider, lagging->key, spans, n, &stored);
		mc_custom_compare(&stored, &computed, put_computed, &target);
	}
}

Jsonb *
mc_custom_read_total(const pg_uuid_t *provider, const char *key, DateADT first,
					 DateADT last)
{
	McSpan		span = {first, last};
	McCustomRows rows;

	compute(provider, key, &span, 1, &rows);
	return rows.n > 0 && rows.row[0].dimensions == NULL ? rows.row[0].value : NULL;
}
