/*
 * settle.c
 *		Settling what transactions noted: at their commit, or later by the
 *		background worker.
 *
 * At commit the providers are taken in the order of their locks, each in a
 * subtransaction of its own, so that a refresh that fails costs neither the
 * claims nor the other providers' figures: it becomes a durable note, written
 * with the transaction.  This runs in a pre-commit callback; an error that
 * leaves this file aborts the application's transaction.
 */
#include "postgres.h"

#include "access/xact.h"
#include "storage/proc.h"
#include "utils/timestamp.h"

#include "attempt.h"
#include "fact.h"
#include "guc.h"
#include "note.h"
#include "owner.h"
#include "plan.h"
#include "provider.h"
#include "refresh.h"
#include "query.h"
#include "source.h"
#include "uuids.h"
#include "zone.h"

/* Cells that a changed claim touches, about; and at most those of a month. */
#define CELLS_PER_CLAIM 8
#define CELLS_PER_MONTH MC_N_METRICS

static McPlan select_states = {
	"SELECT s.provider_id FROM meritum_cache.provider_state s",
	"", SPI_OK_SELECT
};

static int
compare_tasks(const void *a, const void *b)
{
	return mc_provider_compare(&(*(McTask *const *) a)->provider,
							   &(*(McTask *const *) b)->provider);
}

static int
month_cells(const McMonthTask *month)
{
	if (month->whole)
		return CELLS_PER_MONTH;
	return Min(month->nclaims * CELLS_PER_CLAIM, CELLS_PER_MONTH);
}

static int
custom_cells(const McCustomTask *custom)
{
	return custom->whole ? MC_WINDOW_MONTHS :
		list_length(custom->force) + list_length(custom->existing);
}

/* Take custom metrics off the task while they touch more than is left. */
static McTask *
split_custom(McTask *task, int *cells_left)
{
	McTask	   *rest = NULL;
	List	   *kept = NIL;
	ListCell   *lc;

	foreach(lc, task->custom)
	{
		McCustomTask *custom = lfirst(lc);

		if (custom_cells(custom) <= *cells_left)
		{
			*cells_left -= custom_cells(custom);
			kept = lappend(kept, custom);
			continue;
		}
		if (rest == NULL)
			rest = mc_task_create(&task->provider, task->cause);
		rest->custom = lappend(rest->custom, custom);
	}
	task->custom = kept;
	return rest;
}

/*
 * Take custom metrics and months off the task while they touch more cells
 * than are left, and return them as a task of their own, NULL if there are
 * none.
 */
static McTask *
split_task(McTask *task, int *cells_left)
{
	McTask	   *rest;
	List	   *custom;
	int			kept = 0;
	int			i;

	rest = split_custom(task, cells_left);
	if (task->whole)
	{
		int			cells = MC_WINDOW_MONTHS * CELLS_PER_MONTH;

		if (cells <= *cells_left)
		{
			*cells_left -= cells;
			return rest;
		}
		custom = task->custom;
		task->custom = rest != NULL ? rest->custom : NIL;
		rest = palloc(sizeof(McTask));
		*rest = *task;
		*task = *mc_task_create(&rest->provider, rest->cause);
		task->custom = custom;
		return rest;
	}
	for (i = 0; i < task->nmonths; i++)
	{
		int			cells = month_cells(&task->month[i]);

		if (cells <= *cells_left)
		{
			*cells_left -= cells;
			task->month[kept++] = task->month[i];
			continue;
		}
		if (rest == NULL)
			rest = mc_task_create(&task->provider, task->cause);
		*mc_task_month(rest, task->month[i].month) = task->month[i];
	}
	task->nmonths = kept;
	return rest;
}

static void
leave_note(const McTask *task, const ErrorData *error)
{
	McBracket	bracket;

	mc_owner_enter(&bracket, true);
	mc_note_write(task, error);
	mc_owner_leave(&bracket);
}

static void
warn(const McTask *task, const ErrorData *error)
{
	ereport(WARNING,
			(errcode(error->sqlerrcode),
			 errmsg("could not refresh the figures of provider %s (SQLSTATE %s)",
					mc_uuid_text(&task->provider),
					unpack_sql_state(error->sqlerrcode)),
			 errdetail("%s", mc_error_message(error)),
			 errhint("The change itself is kept; the refresh is pending and will be tried again, see meritum_cache.pending_refresh.")));
}

/*
 * Milliseconds that a refresh at commit, or of a reader, may wait for locks.
 *
 * A committing transaction holds locks of the application's rows while it
 * waits for one of ours, and the holder of that may be a session that
 * refreshed explicitly and now goes on to want those rows.  By not waiting as
 * long as the deadlock timeout, the committing transaction leaves a note
 * instead of taking part in a deadlock; nor does it hang behind a maintenance
 * command on the cache.
 */
static int
wait_limit(void)
{
	return Max(DeadlockTimeout / 2, 1);
}

typedef struct Attempt
{
	McTask	   *task;
	McWait		wait;
	bool		notes;
	bool		done;
	McOutcome  *outcome;
} Attempt;

static void
attempt_task(void *arg)
{
	Attempt    *a = arg;

	a->done = mc_refresh_task(mc_task_copy(a->task), a->wait, a->notes, a->outcome);
}

ErrorData *
mc_refresh_attempt(McTask *task, McWait wait, bool notes, bool *done,
				   McOutcome *outcome)
{
	Attempt		a = {task, wait, notes, false, outcome};
	ErrorData  *error = mc_attempt(attempt_task, &a, wait_limit());

	*done = error == NULL && a.done;
	return error;
}

static void
attempt_unresolved(void *arg)
{
	mc_refresh_unresolved(MC_NO_WAIT);
}

bool
mc_refresh_attempt_unresolved(void)
{
	return mc_attempt(attempt_unresolved, NULL, wait_limit()) == NULL;
}

typedef struct Resolution
{
	McSource	source;
	Datum		keys;
	McFound		found;
	void	   *arg;
} Resolution;

static void
attempt_resolve(void *arg)
{
	Resolution *r = arg;
	McBracket	bracket;

	mc_owner_enter(&bracket, true);
	mc_refresh_resolve(r->source, r->keys, r->found, r->arg);
	mc_owner_leave(&bracket);
}

bool
mc_refresh_attempt_resolve(McSource source, Datum keys, McFound found, void *arg)
{
	Resolution	r = {source, keys, found, arg};

	return mc_attempt(attempt_resolve, &r, wait_limit()) == NULL;
}

/*
 * Refresh one provider at commit.  Returns false if a note was left.  The
 * milliseconds spent are taken off what is left for waiting, so that a commit
 * waits once, not once for each provider.
 */
static bool
try_refresh(McTask *task, List **moved, int *wait_left)
{
	McOutcome	outcome;
	Attempt		a = {task, MC_WAIT, false, false, &outcome};
	TimestampTz start = GetCurrentTimestamp();
	ErrorData  *error = mc_attempt(attempt_task, &a, Max(*wait_left, 1));

	if (error == NULL)
	{
		*moved = list_concat(*moved, outcome.moved);
		return outcome.failed == 0;
	}
	*wait_left -= TimestampDifferenceMilliseconds(start, GetCurrentTimestamp());
	warn(task, error);
	leave_note(task, error);
	return false;
}

/* Does the transaction itself refresh the claim's present provider? */
static bool
is_settled(const McMoved *moved, McTask **tasks, int n)
{
	DateADT		month = mc_month_of(moved->date);
	int			i,
				m,
				c;

	for (i = 0; i < n; i++)
	{
		if (memcmp(&tasks[i]->provider, &moved->provider, UUID_LEN) != 0)
			continue;
		if (tasks[i]->whole)
			return true;
		for (m = 0; m < tasks[i]->nmonths; m++)
		{
			const McMonthTask *entry = &tasks[i]->month[m];

			if (entry->whole && entry->month == month)
				return true;
			for (c = 0; c < entry->nclaims; c++)
				if (memcmp(&entry->claim[c], &moved->claim, UUID_LEN) == 0)
					return true;
		}
	}
	return false;
}

/*
 * A detail of a claim was changed here while another transaction moved the
 * claim to another provider, and that one settled before it could see the
 * detail: the provider that has the claim now must be refreshed once more.
 */
static bool
follow_moved(List *moved, McTask **tasks, int n)
{
	McBracket	bracket;
	ListCell   *lc;
	bool		noted = false;

	foreach(lc, moved)
	{
		McMoved    *claim = lfirst(lc);

		if (is_settled(claim, tasks, n))
			continue;
		mc_owner_enter(&bracket, true);
		mc_note_write_keys(MC_CLAIMS, &claim->claim, 1);
		mc_owner_leave(&bracket);
		noted = true;
	}
	return noted;
}

bool
mc_refresh_settle(McTask **tasks, int n)
{
	int			cells_left = mc_commit_limit;
	int			wait_left = wait_limit();
	bool		noted = false;
	List	   *moved = NIL;
	int			i;

	qsort(tasks, n, sizeof(McTask *), compare_tasks);
	for (i = 0; i < n; i++)
	{
		McTask	   *rest;
		McOutcome	outcome;

		/*
		 * In a serializable transaction what the refresh reads would count as
		 * read by the transaction, and could fail it or another one that
		 * would do without the extension: the worker does it.
		 */
		if (mc_refresh_mode == MC_REFRESH_ASYNC || IsolationIsSerializable())
		{
			leave_note(tasks[i], NULL);
			noted = true;
			continue;
		}
		rest = split_task(tasks[i], &cells_left);
		if (rest != NULL)
		{
			leave_note(rest, NULL);
			noted = true;
		}
		if (mc_task_is_empty(tasks[i]))
			continue;
		tasks[i]->at_commit = true;
		if (mc_on_error == MC_ON_ERROR_ERROR)
		{
			mc_refresh_task(mc_task_copy(tasks[i]), MC_WAIT, false, &outcome);
			moved = list_concat(moved, outcome.moved);
			noted |= outcome.failed > 0;
		}
		else if (!try_refresh(tasks[i], &moved, &wait_left))
			noted = true;
	}
	return follow_moved(moved, tasks, n) || noted;
}

void
mc_refresh_notes(const pg_uuid_t *provider)
{
	McTask	   *task = mc_task_create(provider, MC_CAUSE_WORKER);
	McOutcome	outcome;

	mc_refresh_task(task, MC_WAIT, true, &outcome);
	follow_moved(outcome.moved, &task, 1);
}

typedef struct ResolveArg
{
	McFound		found;
	void	   *arg;
} ResolveArg;

static void
read_resolved(TupleTableSlot *slot, void *arg)
{
	ResolveArg *resolve = arg;
	Datum	   *values = slot->tts_values;

	if (slot->tts_isnull[2])
		return;					/* a claim of nobody */
	resolve->found(DatumGetUUIDP(values[0]), DatumGetUUIDP(values[2]),
				   slot->tts_isnull[3] ? DATEVAL_NOBEGIN : DatumGetDateADT(values[3]),
				   slot->tts_isnull[1] ? NULL : DatumGetUUIDP(values[1]),
				   resolve->arg);
}

void
mc_refresh_resolve(McSource source, Datum keys, McFound found, void *arg)
{
	ResolveArg	resolve = {found, arg};
	McPlan	   *plan = mc_query_resolve(source);
	Oid			previous;

	if (plan == NULL)
		return;
	previous = mc_owner_switch(mc_source_get(MC_CLAIMS)->owner);
	mc_plan_scan(plan, &keys, NULL, read_resolved, &resolve);
	mc_owner_restore(previous);
}

/* The tasks that notes of keys come to. */
typedef struct TaskList
{
	MemoryContext context;
	List	   *tasks;
} TaskList;

static void
found_claim(const pg_uuid_t *key, const pg_uuid_t *provider, DateADT date,
			const pg_uuid_t *claim, void *arg)
{
	TaskList   *list = arg;
	MemoryContext old = MemoryContextSwitchTo(list->context);
	McTask	   *task = NULL;
	ListCell   *lc;

	foreach(lc, list->tasks)
		if (memcmp(&((McTask *) lfirst(lc))->provider, provider, UUID_LEN) == 0)
			task = lfirst(lc);
	if (task == NULL)
	{
		task = mc_task_create(provider, MC_CAUSE_WORKER);
		list->tasks = lappend(list->tasks, task);
	}
	if (claim != NULL)
		mc_task_claim(mc_task_month(task, mc_month_of(date)), claim);
	else
		task->rules = true;
	MemoryContextSwitchTo(old);
}

static void
resolve_note(McSource source, Datum keys, void *arg)
{
	mc_refresh_resolve(source, keys, found_claim, arg);
}

/*
 * After a restore: notes for all providers that the nightly batch refreshes,
 * and for those that have figures already.
 */
static void
note_everything(void)
{
	uint64		n = mc_plan_execute(&select_states, NULL, NULL);
	SPITupleTable *states = SPI_tuptable;
	ListCell   *lc;
	uint64		i;

	for (i = 0; i < n; i++)
	{
		bool		isnull;
		Datum		provider = SPI_getbinval(states->vals[i], states->tupdesc, 1, &isnull);
		McTask	   *task = mc_task_create(DatumGetUUIDP(provider), MC_CAUSE_WORKER);

		task->whole = true;
		mc_note_write(task, NULL);
	}
	foreach(lc, mc_query_active_providers(mc_today()))
	{
		McTask	   *task = mc_task_create(lfirst(lc), MC_CAUSE_WORKER);

		task->full_window = true;
		mc_note_write(task, NULL);
	}
}

void
mc_refresh_unresolved(McWait wait)
{
	TaskList	list = {CurrentMemoryContext, NIL};
	McBracket	bracket;
	McTask	  **tasks;
	ListCell   *lc;
	int			n = 0;
	int			i;

	mc_owner_enter(&bracket, true);
	if (wait == MC_WAIT)
		mc_provider_lock_keys();
	else if (!mc_provider_try_lock_keys())
	{
		mc_owner_leave(&bracket);
		return;
	}
	mc_owner_renew_snapshot();
	if (mc_note_take_restore(mc_source_complete()))
		note_everything();
	mc_note_take_keys(resolve_note, &list);
	mc_owner_leave(&bracket);

	tasks = palloc(sizeof(McTask *) * Max(list_length(list.tasks), 1));
	foreach(lc, list.tasks)
		tasks[n++] = lfirst(lc);
	qsort(tasks, n, sizeof(McTask *), compare_tasks);
	for (i = 0; i < n; i++)
	{
		McOutcome	outcome;

		mc_refresh_task(tasks[i], MC_WAIT, false, &outcome);
	}
}
