/*
 * task.c
 *		What of one provider is to be brought up to date.
 */
#include "postgres.h"

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

	if (month->whole)
		return;
	for (i = 0; i < month->nclaims; i++)
		if (memcmp(&month->claim[i], claim, UUID_LEN) == 0)
			return;
	if (month->nclaims == MC_MONTH_CLAIMS)
	{
		month->whole = true;
		pfree(month->claim);
		month->claim = NULL;
		month->nclaims = 0;
		return;
	}
	if (month->nclaims == 0)
		month->claim = palloc(sizeof(pg_uuid_t) * MC_MONTH_CLAIMS);
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
		task->rules + task->snapshot + task->existence;
	int			i;

	for (i = 0; i < task->nmonths; i++)
		if (task->month[i].whole || task->month[i].coach ||
			task->month[i].nclaims > 0)
			n++;
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
