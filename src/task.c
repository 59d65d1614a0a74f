/*
 * task.c
 *		What of one provider is to be brought up to date.
 */
#include "postgres.h"

#include "port/pg_bitutils.h"

#include "task.h"
#include "zone.h"

McTask *
mc_task_create(const pg_uuid_t *provider, McCause cause)
{
	McTask	   *task = palloc0(sizeof(McTask));

	task->provider = *provider;
	task->cause = cause;
	return task;
}

/*
 * Months are few; the last one is the most likely to be asked for again.
 */
McMonthTask *
mc_task_month(McTask *task, DateADT month)
{
	McMonthTask *entry;
	int			i;

	for (i = task->nmonths - 1; i >= 0; i--)
		if (task->month[i].month == month)
			return &task->month[i];
	if (task->nmonths == task->capacity)
	{
		task->capacity = Max(8, task->capacity * 2);
		task->month = task->nmonths == 0 ?
			palloc(sizeof(McMonthTask) * task->capacity) :
			repalloc(task->month, sizeof(McMonthTask) * task->capacity);
	}
	entry = &task->month[task->nmonths++];
	memset(entry, 0, sizeof(McMonthTask));
	entry->month = month;
	return entry;
}

void
mc_task_claim(McMonthTask *month, const pg_uuid_t *claim)
{
	int			i;

	for (i = 0; i < month->nclaims; i++)
		if (memcmp(&month->claim[i], claim, UUID_LEN) == 0)
			return;
	mc_task_add_claim(month, claim);
}

void
mc_task_add_claim(McMonthTask *month, const pg_uuid_t *claim)
{
	int			n = month->nclaims;

	if (month->whole)
		return;
	if (n == MC_MONTH_CLAIMS)
	{
		month->whole = true;
		pfree(month->claim);
		month->claim = NULL;
		month->nclaims = 0;
		return;
	}
	/* full at each power of two */
	if (n == 0)
		month->claim = palloc(sizeof(pg_uuid_t));
	else if ((n & (n - 1)) == 0)
		month->claim = repalloc(month->claim, sizeof(pg_uuid_t) * n * 2);
	month->claim[month->nclaims++] = *claim;
}

void
mc_task_window(McTask *task, McMetrics metrics, DateADT as_of)
{
	DateADT		last = mc_month_of(as_of);
	int			i;

	for (i = 1 - MC_WINDOW_MONTHS; i <= 0; i++)
		mc_task_month(task, mc_month_add(last, i))->force |=
			metrics & ~mc_metrics_snapshot();
	mc_task_month(task, last)->force |= metrics & mc_metrics_snapshot();
	task->as_of = as_of;
	task->has_as_of = true;
}

McTask *
mc_task_copy(const McTask *task)
{
	McTask	   *copy = palloc(sizeof(McTask));
	ListCell   *lc;
	int			i;

	*copy = *task;
	copy->capacity = Max(task->nmonths, 1);
	copy->month = palloc(sizeof(McMonthTask) * copy->capacity);
	for (i = 0; i < task->nmonths; i++)
	{
		const McMonthTask *month = &task->month[i];

		copy->month[i] = *month;
		if (month->nclaims > 0)
		{
			copy->month[i].claim =
				palloc(sizeof(pg_uuid_t) * pg_nextpower2_32(month->nclaims));
			memcpy(copy->month[i].claim, month->claim,
				   sizeof(pg_uuid_t) * month->nclaims);
		}
	}
	copy->custom = NIL;
	foreach(lc, task->custom)
	{
		McCustomTask *custom = palloc(sizeof(McCustomTask));

		*custom = *(McCustomTask *) lfirst(lc);
		custom->force = list_copy(custom->force);
		custom->existing = list_copy(custom->existing);
		copy->custom = lappend(copy->custom, custom);
	}
	return copy;
}

bool
mc_task_reads_claims(const McTask *task)
{
	return task->nmonths > 0 || task->whole || task->recheck ||
		task->locations || task->events || task->rules || task->snapshot ||
		task->existence || task->full_window || task->everywhere != 0;
}

bool
mc_task_is_empty(const McTask *task)
{
	return !mc_task_reads_claims(task) && task->custom == NIL;
}

McCustomTask *
mc_task_custom(McTask *task, const char *key)
{
	McCustomTask *custom;
	ListCell   *lc;

	foreach(lc, task->custom)
	{
		custom = lfirst(lc);
		if (strcmp(custom->key, key) == 0)
			return custom;
	}
	custom = palloc0(sizeof(McCustomTask));
	custom->key = pstrdup(key);
	custom->since = DT_NOEND;
	task->custom = lappend(task->custom, custom);
	return custom;
}

void
mc_task_custom_force(McTask *task, const char *key, DateADT month)
{
	McCustomTask *custom = mc_task_custom(task, key);

	custom->force = list_append_unique_int(custom->force, month);
}

void
mc_task_custom_existing(McTask *task, const char *key, DateADT month)
{
	McCustomTask *custom = mc_task_custom(task, key);

	custom->existing = list_append_unique_int(custom->existing, month);
}

void
mc_task_keys(McTask *task, const McKeys *keys)
{
	ListCell   *lc;

	task->everywhere |= keys->builtin;
	foreach(lc, keys->custom)
		mc_task_custom(task, lfirst(lc))->whole = true;
}

void
mc_task_custom_window(McTask *task, const List *keys, DateADT as_of)
{
	DateADT		last = mc_month_of(as_of);
	ListCell   *lc;
	int			i;

	foreach(lc, keys)
		for (i = 1 - MC_WINDOW_MONTHS; i <= 0; i++)
			mc_task_custom_force(task, lfirst(lc), mc_month_add(last, i));
	task->as_of = as_of;
	task->has_as_of = true;
}

void
mc_task_recheck(McTask *task, bool changed)
{
	if (changed)
		task->whole = true;
	else
		task->recheck = true;
}

int
mc_task_invalidations(const McTask *task)
{
	int			n = task->whole + task->locations + task->events +
		task->rules + task->snapshot + task->existence +
		pg_popcount64(task->everywhere);
	ListCell   *lc;
	int			i;

	for (i = 0; i < task->nmonths; i++)
		if (task->month[i].whole || task->month[i].coach ||
			task->month[i].nclaims > 0)
			n++;
	foreach(lc, task->custom)
	{
		const McCustomTask *custom = lfirst(lc);

		if (custom->whole || custom->existing != NIL)
			n++;				/* not what a reader asks for */
	}
	return task->cause == MC_CAUSE_EVENT ? Max(n, 1) : n;
}

const char *
mc_cause_name(McCause cause)
{
	static const char *const names[MC_N_CAUSES] = {
		[MC_CAUSE_COMMIT] = "claim trigger",
		[MC_CAUSE_WORKER] = "worker",
		[MC_CAUSE_NIGHTLY] = "nightly",
		[MC_CAUSE_REQUEST] = "request",
		[MC_CAUSE_EVENT] = "event",
		[MC_CAUSE_READ] = "read",
		[MC_CAUSE_VERIFY] = "verify",
	};

	return names[cause];
}

const char *
mc_cause_token(McCause cause)
{
	return cause == MC_CAUSE_COMMIT ? "claim_trigger" : mc_cause_name(cause);
}
