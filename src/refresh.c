/*
 * refresh.c
 *		The pipeline: lock, sync the facts, aggregate, write the cells.
 *
 * There is one way to a figure.  Commit, worker, nightly batch, explicit call
 * and reader differ only in the task they bring; the last two stages are in
 * figures.c, which readers also use to compute without storing.
 *
 * Everything here works under the provider's lock with a snapshot taken after
 * it was granted (provider.c says why), and holds the lock to the end of the
 * transaction: the next refresh must see what this one wrote.
 */
#include "postgres.h"

#include "portability/instr_time.h"
#include "utils/datum.h"
#include "utils/timestamp.h"

#include "affected.h"
#include "announce.h"
#include "custom_refresh.h"
#include "figures.h"
#include "guc.h"
#include "note.h"
#include "owner.h"
#include "provider.h"
#include "query.h"
#include "refresh.h"
#include "stats.h"
#include "zone.h"

/* A refresh in progress. */
typedef struct Refresh
{
	McTask	   *task;
	McProviderState state;
	DateADT		as_of;
	DateADT		window_first;	/* months */
	DateADT		window_last;
	bool		whole;			/* re-derive all facts */
	bool		whole_months;	/* months are noted as a whole */
	bool		places_changed; /* since they were stored */
	McFactSet  *facts;
	pg_uuid_t  *claim;			/* noted one by one, sorted */
	int			nclaims;
	McAffected	affected;
	bool		counts_drift;	/* differences without a note are drift */
	int			drift;
	int			invalidations;	/* parts of the task that were noted */
	List	   *moved;
} Refresh;

static int
compare_uuids(const void *a, const void *b)
{
	return memcmp(a, b, UUID_LEN);
}

static bool
month_is_whole(const McTask *task, DateADT month)
{
	int			i;

	for (i = 0; i < task->nmonths; i++)
		if (task->month[i].month == month)
			return task->month[i].whole;
	return false;
}

/* Does the task say that the claim may have changed? */
static bool
is_noted(const Refresh *refresh, const McFact *fact)
{
	if (fact == NULL)
		return false;
	if (refresh->nclaims > 0 &&
		bsearch(&fact->claim, refresh->claim, refresh->nclaims,
				sizeof(pg_uuid_t), compare_uuids) != NULL)
		return true;
	return refresh->whole_months &&
		month_is_whole(refresh->task, mc_month_of(fact->date));
}

/* Would the derivation find the claim of this stored fact? */
static bool
in_scope(const McFact *fact, void *arg)
{
	Refresh    *refresh = arg;

	return refresh->whole || is_noted(refresh, fact);
}

static void
changed(const McFact *old, const McFact *new, uint32 columns, void *arg)
{
	Refresh    *refresh = arg;

	mc_affected_add(&refresh->affected, old, new, columns);
	if (refresh->counts_drift && !is_noted(refresh, old) && !is_noted(refresh, new))
		refresh->drift++;
}

static void
collect_claims(Refresh *refresh)
{
	McTask	   *task = refresh->task;
	int			n = 0;
	int			i;

	for (i = 0; i < task->nmonths; i++)
		n += task->month[i].nclaims;
	refresh->claim = palloc(sizeof(pg_uuid_t) * Max(n, 1));
	for (i = 0; i < task->nmonths; i++)
	{
		if (task->month[i].whole)
		{
			refresh->whole_months = true;
			continue;
		}
		/* only forced: then claim is NULL, which memcpy() may not be given */
		if (task->month[i].nclaims == 0)
			continue;
		memcpy(&refresh->claim[refresh->nclaims], task->month[i].claim,
			   sizeof(pg_uuid_t) * task->month[i].nclaims);
		refresh->nclaims += task->month[i].nclaims;
	}
	qsort(refresh->claim, refresh->nclaims, sizeof(pg_uuid_t), compare_uuids);
}

/* Make a month part of the plan, so that its facts get loaded. */
static void
plan_month(Refresh *refresh, DateADT month)
{
	(void) mc_affected_month(&refresh->affected, month);
}

/*
 * Load the stored facts of the months of the plan, those that follow each
 * other at once.  The plan is sorted by month afterwards.
 */
static void
load_facts(Refresh *refresh)
{
	McAffected *affected = &refresh->affected;
	const pg_uuid_t *provider = &refresh->task->provider;
	int			i = 0;

	mc_affected_sort(affected);
	while (i < affected->nmonths)
	{
		DateADT		first = affected->month[i].month;
		DateADT		last;

		if (DATE_NOT_FINITE(first))
		{
			mc_fact_load(refresh->facts, provider, DATEVAL_NOBEGIN, DATEVAL_NOBEGIN);
			mc_fact_load(refresh->facts, provider, DATEVAL_NOEND, DATEVAL_NOEND);
			i++;
			continue;
		}
		last = mc_month_end(first);
		for (i++; i < affected->nmonths && affected->month[i].month == last + 1; i++)
			last = mc_month_end(last + 1);
		mc_fact_load(refresh->facts, provider, first, last);
	}
}

/*
 * Derive what the task says may have changed.  Claims noted one by one are
 * derived first, since they may have moved to a month that is not noted.
 */
static McFactSet *
derive_facts(Refresh *refresh)
{
	McTask	   *task = refresh->task;
	McFactSet  *derived = mc_fact_set(refresh->facts->strings);
	int			i;

	if (refresh->whole)
	{
		mc_fact_derive_provider(derived, &task->provider);
		return derived;
	}
	if (refresh->nclaims > 0)
	{
		int			kept = 0;

		mc_fact_derive_claims(derived, &task->provider, refresh->claim,
							  refresh->nclaims, &refresh->moved);
		for (i = 0; i < derived->n; i++)
		{
			DateADT		month = mc_month_of(derived->fact[i].date);

			/* the derivation of the whole month brings it again */
			if (!month_is_whole(task, month))
			{
				plan_month(refresh, month);
				derived->fact[kept++] = derived->fact[i];
			}
		}
		derived->n = kept;
	}
	for (i = 0; i < task->nmonths; i++)
	{
		DateADT		month = task->month[i].month;

		if (!task->month[i].whole)
			continue;
		if (DATE_NOT_FINITE(month))
		{
			/* no range holds claims without a date: they are few */
			refresh->whole = true;
			derived->n = 0;
			mc_fact_derive_provider(derived, &task->provider);
			return derived;
		}
		mc_fact_derive_range(derived, &task->provider, month, mc_month_end(month));
	}
	return derived;
}

static int
sync_facts(Refresh *refresh)
{
	McTask	   *task = refresh->task;
	McFactSet  *derived;
	bool		snapshots = false;
	int			i;

	collect_claims(refresh);
	for (i = 0; i < task->nmonths; i++)
	{
		plan_month(refresh, task->month[i].month);
		snapshots |= (task->month[i].force & mc_metrics_snapshot()) != 0;
	}
	derived = derive_facts(refresh);
	if (refresh->whole || snapshots)
		mc_fact_load(refresh->facts, &task->provider, DATEVAL_NOBEGIN, DATEVAL_NOEND);
	else
		load_facts(refresh);
	if (!refresh->whole && !refresh->whole_months && refresh->nclaims == 0)
		return 0;
	return mc_fact_sync(refresh->facts, derived, &task->provider, true,
						in_scope, changed, refresh);
}

/*
 * Months that hold cells of metrics which a change of locations or rules, or
 * an event, touches everywhere.
 */
static void
plan_existing_months(Refresh *refresh)
{
	McTask	   *task = refresh->task;
	DateADT    *months;
	int			n,
				i;

	if (!task->locations && !task->events && !task->rules &&
		task->everywhere == 0)
		return;
	n = mc_cells_months(&task->provider, &months);
	for (i = 0; i < n; i++)
	{
		McMonthTask *month = mc_task_month(task, months[i]);

		if (task->locations)
			month->soft |= mc_metrics_location();
		if (task->events)
			month->soft |= mc_metrics_coach();
		if (task->rules)
			month->soft |= mc_metrics_with(0, MC_GROUP_RULE);
		month->existing |= task->everywhere & ~mc_metrics_snapshot();
		plan_month(refresh, months[i]);
		mc_affected_month(&refresh->affected, months[i])->locations = task->locations;
	}
}

/* Add what the task asks for whether or not facts differ. */
static void
plan_forced(Refresh *refresh)
{
	McTask	   *task = refresh->task;
	int			i;

	for (i = 0; i < task->nmonths; i++)
	{
		McMonthTask *month = &task->month[i];
		McMonthPlan *plan;

		if (DATE_NOT_FINITE(month->month))
			continue;
		plan = mc_affected_month(&refresh->affected, month->month);
		plan->force |= month->force;
		plan->existing |= month->existing & ~mc_metrics_snapshot();
		plan->soft |= month->soft & ~mc_metrics_snapshot();
		if (month->coach)
		{
			plan->soft |= mc_metrics_coach() & ~mc_metrics_snapshot();
			plan->soft_made = true;
		}
	}
}

/* The months from full_from to full_to grow by a window that touches them. */
static void
extend_full_range(McProviderState *state, DateADT first, DateADT last)
{
	if (DATE_IS_NOBEGIN(state->full_from) || state->full_to < first - 31 ||
		state->full_from > last + 31)
	{
		state->full_from = first;
		state->full_to = last;
		return;
	}
	state->full_from = Min(state->full_from, first);
	state->full_to = Max(state->full_to, last);
}

static void
store_state(Refresh *refresh, TimestampTz now, const McOutcome *outcome)
{
	McProviderState *state = &refresh->state;
	bool		wrote = outcome->cells.changed + outcome->cells.unchanged +
		outcome->cells.deleted > 0;

	if (outcome->cells.changed + outcome->cells.deleted > 0)
		state->version++;

	/* what failed is as old as it was */
	if (refresh->task->full_window && outcome->failed == 0)
		state->oldest = now;
	else if (state->oldest == DT_NOBEGIN && outcome->cells.changed > 0)
		state->oldest = now;
	if (refresh->facts != NULL)
	{
		McMonthTask *today = mc_task_month(refresh->task, refresh->window_last);

		if (refresh->task->full_window)
			extend_full_range(state, refresh->window_first, refresh->window_last);
		if ((today->force & mc_metrics_snapshot()) == mc_metrics_snapshot())
			state->snapshot_on = refresh->as_of;
		else if (refresh->affected.snapshot || refresh->task->snapshot ||
				 refresh->task->rules ||
				 (refresh->task->everywhere & mc_metrics_snapshot()))
			state->snapshot_on = DATEVAL_NOBEGIN;
		state->facts_complete = true;
		state->dimensions = mc_dimension_mask;
		state->drift += refresh->drift;
	}
	if (wrote)
		state->refreshes++;
	if (refresh->invalidations > 0)
	{
		state->invalidations += refresh->invalidations;
		state->invalidated_at = now;
	}
	mc_provider_state_store(&refresh->task->provider, state, now,
							wrote ? mc_cause_name(refresh->task->cause) : NULL);
}

/*
 * A provider that the providers table does not know has no rows.
 */
static void
remove_provider(const pg_uuid_t *provider, McOutcome *outcome)
{
	outcome->cells.deleted += mc_cells_remove_provider(provider);
	mc_fact_remove_provider(provider);
	mc_provider_state_remove(provider);
}

/* The outcome outlives the memory of the refresh. */
static void
copy_outcome(const Refresh *refresh, McOutcome *outcome, MemoryContext caller)
{
	MemoryContext old = MemoryContextSwitchTo(caller);
	List	   *custom = outcome->custom;
	ListCell   *lc;

	outcome->custom = NIL;
	foreach(lc, custom)
		outcome->custom = lappend(outcome->custom, pstrdup(lfirst(lc)));

	foreach(lc, refresh->moved)
	{
		McMoved    *moved = palloc(sizeof(McMoved));

		*moved = *(McMoved *) lfirst(lc);
		outcome->moved = lappend(outcome->moved, moved);
	}
	MemoryContextSwitchTo(old);
}

/* Count and log a refresh that was done. */
static void
report(const McTask *task, const McOutcome *outcome, instr_time start)
{
	instr_time	duration;
	double		ms;

	INSTR_TIME_SET_CURRENT(duration);
	INSTR_TIME_SUBTRACT(duration, start);
	ms = INSTR_TIME_GET_MILLISEC(duration);
	mc_stats_refreshed(task->cause, outcome->cells.changed,
					   outcome->cells.unchanged, ms);
	mc_stats_failed(task->cause, outcome->failed);
	mc_announce_refresh(task, &outcome->cells, outcome->custom, ms);
}

void
mc_refresh_require(void)
{
	if (!mc_custom_any())
		mc_source_require();
}

/*
 * Does the providers table have the provider?  It had it when its figures were
 * stored, and a change of that table is noted.
 */
static bool
is_known(const McTask *task, const McProviderState *state)
{
	if (state->facts_complete && !DATE_IS_NOBEGIN(state->full_from) &&
		!task->existence && !task->recheck && !task->whole)
		return true;
	return mc_query_provider_known(&task->provider);
}

/*
 * The provider's locations as stored, or from their table if that may have
 * changed.
 */
static McPlaces *
find_places(Refresh *refresh, McStrings *strings)
{
	McTask	   *task = refresh->task;
	Datum		stored = refresh->state.places;
	Datum		packed;
	McPlaces   *places;

	if (stored != (Datum) 0 && !task->locations &&
		!refresh->whole && !task->full_window)
		return mc_places_unpack(strings, stored);
	places = mc_places_derive(strings, &task->provider);
	packed = mc_places_pack(strings, places);
	refresh->places_changed = stored == (Datum) 0 ||
		!datumIsEqual(stored, packed, false, -1);
	refresh->state.places = packed;
	return places;
}

/*
 * What is computed from claims.
 */
static void
refresh_claims(Refresh *refresh, TimestampTz now, McOutcome *outcome)
{
	McTask	   *task = refresh->task;
	McStrings  *strings = mc_fact_strings();

	if (task->full_window)
		mc_task_window(task, MC_ALL_METRICS, refresh->as_of);
	refresh->whole = task->whole || task->recheck ||
		!refresh->state.facts_complete;
	if (refresh->state.exists && !refresh->state.facts_complete)
		task->events = true;	/* in another time zone they have other dates */
	if (refresh->state.exists && refresh->state.dimensions != mc_dimension_mask)
		task->everywhere |= mc_metrics_breakdown();
	refresh->counts_drift = task->recheck && !task->whole &&
		refresh->state.facts_complete && !mc_note_keys_pending();
	refresh->facts = mc_fact_set(strings);
	refresh->affected.strings = strings;
	refresh->affected.dimensions = mc_dimension_mask;
	refresh->affected.places = find_places(refresh, strings);

	plan_existing_months(refresh);
	outcome->differences = sync_facts(refresh);
	plan_forced(refresh);
	outcome->drift = refresh->drift;
	mc_announce_drift(&task->provider, refresh->drift);
	mc_figures_write(&task->provider, &refresh->affected, refresh->facts,
					 refresh->as_of, now, &outcome->cells);
}

/*
 * Custom metrics: those that the task names, those of events that it found,
 * and in a full refresh all.
 */
static void
refresh_custom(Refresh *refresh, TimestampTz now, McOutcome *outcome)
{
	McTask	   *task = refresh->task;
	ListCell   *lc;
	int			i;

	for (i = 0; i < refresh->affected.nmonths; i++)
		foreach(lc, refresh->affected.month[i].custom)
			mc_task_custom_existing(task, lfirst(lc),
									refresh->affected.month[i].month);
	if (task->full_window)
		mc_task_custom_window(task, mc_custom_keys(), refresh->as_of);
	outcome->failed = mc_custom_refresh(task, refresh->as_of, now,
										&outcome->cells, &outcome->custom);
}

/*
 * The work itself, under the lock and with a fresh snapshot.
 */
static void
run(McTask *task, McOutcome *outcome, MemoryContext caller)
{
	Refresh    *refresh = palloc0(sizeof(Refresh));
	TimestampTz now;

	mc_refresh_require();
	mc_provider_state_load(&task->provider, &refresh->state);
	outcome->known = is_known(task, &refresh->state);
	if (!outcome->known)
	{
		remove_provider(&task->provider, outcome);
		return;
	}

	refresh->task = task;
	refresh->as_of = task->has_as_of ? task->as_of : mc_today();
	refresh->window_last = mc_month_of(refresh->as_of);
	refresh->window_first = mc_month_add(refresh->window_last, 1 - MC_WINDOW_MONTHS);
	refresh->invalidations = mc_task_invalidations(task);

	now = GetCurrentTimestamp();
	if (mc_source_get(MC_CLAIMS) != NULL && mc_task_reads_claims(task))
		refresh_claims(refresh, now, outcome);
	refresh_custom(refresh, now, outcome);
	copy_outcome(refresh, outcome, caller);

	if (outcome->differences > 0 || refresh->places_changed ||
		task->snapshot || task->rules ||
		task->full_window ||
		(refresh->facts != NULL && !refresh->state.facts_complete) ||
		outcome->cells.changed + outcome->cells.unchanged + outcome->cells.deleted > 0)
		store_state(refresh, now, outcome);
	mc_announce_figures(&task->provider, refresh->state.version,
						&outcome->cells, outcome->custom);
}

static bool
refresh_task(McTask *task, McWait wait, bool notes, McOutcome *outcome)
{
	MemoryContext caller = CurrentMemoryContext;
	McBracket	bracket;

	memset(outcome, 0, sizeof(*outcome));
	mc_owner_enter(&bracket, true);

	/* first of all: who drops a metric waits for what the refresh takes */
	if (mc_custom_any())
		mc_custom_hold();
	if (wait == MC_WAIT)
		mc_provider_lock(&task->provider);
	else if (!mc_provider_try_lock(&task->provider))
	{
		mc_owner_leave(&bracket);
		return false;
	}
	mc_owner_renew_snapshot();
	if (notes)
		mc_note_take(task);
	run(task, outcome, caller);
	mc_owner_leave(&bracket);
	return true;
}

bool
mc_refresh_task(McTask *task, McWait wait, bool notes, McOutcome *outcome)
{
	instr_time	start;
	bool		done;

	INSTR_TIME_SET_CURRENT(start);
	PG_TRY();
	{
		done = refresh_task(task, wait, notes, outcome);
	}
	PG_CATCH();
	{
		mc_stats_failed(task->cause, 1);
		PG_RE_THROW();
	}
	PG_END_TRY();
	if (done)
		report(task, outcome, start);
	return done;
}

int64
mc_refresh_full(const pg_uuid_t *provider, DateADT as_of, bool recheck)
{
	McTask	   *task = mc_task_create(provider, MC_CAUSE_NIGHTLY);
	McOutcome	outcome;

	if (recheck)
		mc_task_recheck(task, false);
	task->full_window = true;
	task->as_of = as_of;
	task->has_as_of = true;
	mc_refresh_task(task, MC_WAIT, true, &outcome);
	return outcome.cells.changed + outcome.cells.unchanged;
}
