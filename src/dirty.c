/*
 * dirty.c
 *		What the current transaction has changed.
 *
 * The triggers note here, in memory and without a query, which claims,
 * months or providers may have changed.  Before the transaction commits or is
 * prepared, the set is settled.  A mark says that something may have changed,
 * no more: marks of a subtransaction that was rolled back stay and do no harm.
 *
 * Claims are noted one by one up to MC_MONTH_CLAIMS in a month, then the month
 * as a whole, and rows that carry no provider up to KEY_LIMIT, then they are
 * looked up at once: memory is bounded by the number of provider-months.
 *
 * This is the only file that registers transaction callbacks.
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "announce.h"
#include "dirty.h"
#include "event.h"
#include "note.h"
#include "owner.h"
#include "plan.h"
#include "privilege.h"
#include "refresh.h"
#include "uuids.h"
#include "wake.h"
#include "zone.h"

/* Keys of one source that are kept before they are looked up. */
#define KEY_LIMIT 4096

/*
 * Claims remembered, so that rows of theirs need not be looked up; at most some
 * 10 MB, which is little for a transaction with as many.
 */
#define SEEN_LIMIT 262144

typedef struct TaskEntry
{
	pg_uuid_t	provider;		/* hash key */
	McTask	   *task;
} TaskEntry;

typedef struct KeyEntry
{
	pg_uuid_t	key;			/* hash key */
	bool		resolved;
} KeyEntry;

typedef struct Dirty
{
	HTAB	   *tasks;
	HTAB	   *keys[MC_N_SOURCES];
	HTAB	   *seen;			/* claims noted with their provider */
	uint32		sources;		/* changed as a whole, a bit each */
} Dirty;

static Dirty *dirty = NULL;
static MemoryContext dirty_context = NULL;
static bool wake_at_commit = false;

static McPlan all_providers = {
	"SELECT s.provider_id FROM meritum_cache.provider_state s",
	"", SPI_OK_SELECT
};

static HTAB *
uuid_table(const char *name, Size entry)
{
	HASHCTL		control = {0};

	control.keysize = sizeof(pg_uuid_t);
	control.entrysize = entry;
	control.hcxt = dirty_context;
	return hash_create(name, 64, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

static Dirty *
get_dirty(void)
{
	if (dirty != NULL)
		return dirty;
	dirty_context = AllocSetContextCreate(TopTransactionContext,
										  "meritum_cache changes",
										  ALLOCSET_DEFAULT_SIZES);
	dirty = MemoryContextAllocZero(dirty_context, sizeof(Dirty));
	dirty->tasks = uuid_table("meritum_cache tasks", sizeof(TaskEntry));
	dirty->seen = uuid_table("meritum_cache claims", sizeof(pg_uuid_t));
	return dirty;
}

/* The context goes with the transaction. */
static void
forget(void)
{
	if (dirty_context != NULL)
		MemoryContextDelete(dirty_context);
	dirty = NULL;
	dirty_context = NULL;
}

static McTask *
get_task(const pg_uuid_t *provider, McCause cause)
{
	TaskEntry  *entry;
	bool		found;

	entry = hash_search(get_dirty()->tasks, provider, HASH_ENTER, &found);
	if (!found)
	{
		MemoryContext old = MemoryContextSwitchTo(dirty_context);

		entry->task = NULL;
		entry->task = mc_task_create(provider, cause);
		MemoryContextSwitchTo(old);
	}
	return entry->task;
}

McTask *
mc_dirty_provider(const pg_uuid_t *provider)
{
	McTask	   *task = get_task(provider, MC_CAUSE_COMMIT);

	task->cause = MC_CAUSE_COMMIT;
	return task;
}

void
mc_dirty_keys(const pg_uuid_t *provider, const McKeys *keys,
			  const char *event_type)
{
	McTask	   *task = get_task(provider, MC_CAUSE_EVENT);
	MemoryContext old = MemoryContextSwitchTo(dirty_context);

	mc_task_keys(task, keys);
	if (event_type != NULL && !mc_key_in(task->raised, event_type))
		task->raised = lappend(task->raised, pstrdup(event_type));
	MemoryContextSwitchTo(old);
}

void
mc_dirty_claim(const pg_uuid_t *provider, DateADT date, const pg_uuid_t *claim)
{
	McTask	   *task = mc_dirty_provider(provider);
	MemoryContext old = MemoryContextSwitchTo(dirty_context);
	McMonthTask *month = mc_task_month(task, mc_month_of(date));
	bool		known = true;

	if (hash_get_num_entries(dirty->seen) < SEEN_LIMIT)
		hash_search(dirty->seen, claim, HASH_ENTER, &known);
	if (known)
		mc_task_claim(month, claim);
	else
		mc_task_add_claim(month, claim);
	MemoryContextSwitchTo(old);
}

void
mc_dirty_event(const pg_uuid_t *provider, DateADT date)
{
	McTask	   *task = mc_dirty_provider(provider);
	MemoryContext old = MemoryContextSwitchTo(dirty_context);

	mc_task_month(task, mc_month_of(date))->coach = true;
	MemoryContextSwitchTo(old);
}

void
mc_dirty_source(McSource source)
{
	get_dirty()->sources |= 1U << source;
}

/* Do the keys of the source name claims? */
static bool
names_claim(McSource source)
{
	return source != MC_PATIENTS && source != MC_AI_RULES &&
		source != MC_WCB_INVOICE_LINES;
}

static void
found_claim(const pg_uuid_t *key, const pg_uuid_t *provider, DateADT date,
			const pg_uuid_t *claim, void *arg)
{
	KeyEntry   *entry = hash_search((HTAB *) arg, key, HASH_FIND, NULL);

	if (entry != NULL)
		entry->resolved = true;
	if (claim != NULL)
		mc_dirty_claim(provider, date, claim);
	else
		mc_dirty_provider(provider)->rules = true;
}

/*
 * May another transaction, that does not see our change and whose work we do
 * not see, be adding claims to these rows?  Then they must be looked up again
 * later.  A detail has one claim: if that was found, no other is to come.
 */
static bool
needs_note(McSource source, const KeyEntry *entry)
{
	return source == MC_PATIENTS || source == MC_AI_RULES || !entry->resolved;
}

/*
 * The keys of one source that have to be looked up: those of claims that were
 * noted with their provider are known.
 */
static int
keys_to_resolve(McSource source, pg_uuid_t *resolve)
{
	HASH_SEQ_STATUS scan;
	KeyEntry   *entry;
	int			n = 0;

	hash_seq_init(&scan, dirty->keys[source]);
	while ((entry = hash_seq_search(&scan)) != NULL)
	{
		entry->resolved = names_claim(source) &&
			hash_search(dirty->seen, &entry->key, HASH_FIND, NULL) != NULL;
		if (!entry->resolved)
			resolve[n++] = entry->key;
	}
	return n;
}

static void
note_keys(McSource source)
{
	HTAB	   *keys = dirty->keys[source];
	pg_uuid_t  *unresolved = palloc(sizeof(pg_uuid_t) * hash_get_num_entries(keys));
	HASH_SEQ_STATUS scan;
	KeyEntry   *entry;
	McBracket	bracket;
	int			n = 0;

	hash_seq_init(&scan, keys);
	while ((entry = hash_seq_search(&scan)) != NULL)
		if (needs_note(source, entry))
			unresolved[n++] = entry->key;
	if (n > 0)
	{
		mc_owner_enter(&bracket, true);
		mc_note_write_keys(source, unresolved, n);
		mc_owner_leave(&bracket);
		wake_at_commit = true;
	}
	pfree(unresolved);
}

/*
 * Look up the claims of the keys of one source and mark them.  What cannot be
 * looked up, as when the claims are locked, is left as a note; so it is in a
 * serializable transaction, whose reads must be the application's alone.
 */
static void
resolve_keys(McSource source)
{
	HTAB	   *keys = dirty->keys[source];
	pg_uuid_t  *resolve;
	int			n;

	if (keys == NULL || hash_get_num_entries(keys) == 0)
		return;
	resolve = palloc(sizeof(pg_uuid_t) * hash_get_num_entries(keys));
	n = keys_to_resolve(source, resolve);
	if (n > 0 && !IsolationIsSerializable())
		(void) mc_refresh_attempt_resolve(source, mc_uuid_array(resolve, n),
										  found_claim, keys);
	note_keys(source);
	pfree(resolve);
	hash_destroy(keys);
	dirty->keys[source] = NULL;
}

void
mc_dirty_key(McSource source, const pg_uuid_t *key)
{
	KeyEntry   *entry;
	bool		found;

	get_dirty();
	if (names_claim(source) && hash_search(dirty->seen, key, HASH_FIND, NULL))
		return;
	if (dirty->keys[source] == NULL)
		dirty->keys[source] = uuid_table("meritum_cache keys", sizeof(KeyEntry));
	entry = hash_search(dirty->keys[source], key, HASH_ENTER, &found);
	if (!found)
		entry->resolved = false;
	if (hash_get_num_entries(dirty->keys[source]) >= KEY_LIMIT)
		resolve_keys(source);
}

static McTask *
find_task(const pg_uuid_t *provider)
{
	TaskEntry  *entry = dirty == NULL ? NULL :
		hash_search(dirty->tasks, provider, HASH_FIND, NULL);

	return entry == NULL ? NULL : entry->task;
}

bool
mc_dirty_has_claims(const pg_uuid_t *provider)
{
	const McTask *task = find_task(provider);
	int			i;

	if (dirty == NULL)
		return false;
	for (i = 0; i < MC_N_SOURCES; i++)
		if (dirty->keys[i] != NULL)
			return true;
	return dirty->sources != 0 || (task != NULL && mc_task_reads_claims(task));
}

bool
mc_dirty_has(const pg_uuid_t *provider)
{
	return mc_dirty_has_claims(provider) || find_task(provider) != NULL;
}

bool
mc_dirty_has_key(const pg_uuid_t *provider, const char *key)
{
	const McTask *task = find_task(provider);
	ListCell   *lc;

	if (task == NULL)
		return false;
	foreach(lc, task->custom)
		if (strcmp(((McCustomTask *) lfirst(lc))->key, key) == 0)
			return true;
	return false;
}

void
mc_dirty_wake(void)
{
	wake_at_commit = true;
}

/* What a provider's task has to do when a table changed as a whole. */
static void
mark_source(McTask *task, McSource source)
{
	switch (source)
	{
		case MC_PROVIDERS:
			task->existence = true;
			break;
		case MC_PRACTICE_LOCATIONS:
			task->locations = true;
			break;
		case MC_AI_SUGGESTION_EVENTS:
			task->events = true;
			break;
		case MC_AI_PROVIDER_LEARNING:
			task->snapshot = true;
			break;
		case MC_AI_RULES:
			task->rules = true;
			break;
		default:
			task->whole = true;
	}
}

static void
mark_sources(void)
{
	McBracket	bracket;
	uint64		n,
				i;

	mc_owner_enter(&bracket, true);
	n = mc_plan_execute(&all_providers, NULL, NULL);
	for (i = 0; i < n; i++)
	{
		bool		isnull;
		McTask	   *task = mc_dirty_provider(DatumGetUUIDP(mc_plan_value(i, 1, &isnull)));
		int			source;

		for (source = 0; source < MC_N_SOURCES; source++)
			if (dirty->sources & (1U << source))
				mark_source(task, source);
	}
	mc_owner_leave(&bracket);
}

static void
log_events(McTask *const *tasks, int n)
{
	ListCell   *lc;
	int			i;

	for (i = 0; i < n; i++)
		foreach(lc, tasks[i]->raised)
			mc_event_log(&tasks[i]->provider, lfirst(lc));
}

/*
 * Settle the set.  Marks may come while it runs, of keys that get resolved,
 * but none once the tasks are collected: nothing here changes the sources.
 */
static void
settle(void)
{
	HASH_SEQ_STATUS scan;
	TaskEntry  *entry;
	McTask	  **tasks;
	MemoryContext old;
	bool		claims;
	int			n = 0;
	int			i;

	if (dirty == NULL)
		return;
	if (!mc_is_installed())
	{
		forget();				/* dropped in this transaction */
		return;
	}
	claims = mc_source_get(MC_CLAIMS) != NULL;	/* or detached in it */
	for (i = 0; i < MC_N_SOURCES && claims; i++)
		resolve_keys(i);
	if (dirty->sources != 0 && claims)
		mark_sources();

	old = MemoryContextSwitchTo(dirty_context);
	tasks = palloc(sizeof(McTask *) * Max(hash_get_num_entries(dirty->tasks), 1));
	hash_seq_init(&scan, dirty->tasks);
	while ((entry = hash_seq_search(&scan)) != NULL)
		if (claims || entry->task->custom != NIL)
			tasks[n++] = entry->task;
	log_events(tasks, n);
	if (mc_refresh_settle(tasks, n))
		wake_at_commit = true;
	MemoryContextSwitchTo(old);
	forget();
}

static void
transaction_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			mc_announce_set_preparing(false);
			settle();
			break;
		case XACT_EVENT_PRE_PREPARE:
			mc_announce_set_preparing(true);
			settle();
			break;
		case XACT_EVENT_COMMIT:
			dirty = NULL;
			dirty_context = NULL;
			if (wake_at_commit)
				mc_wake_worker();
			wake_at_commit = false;
			mc_privilege_end_transaction();
			break;
		case XACT_EVENT_PREPARE:
		case XACT_EVENT_ABORT:
			mc_announce_set_preparing(false);
			dirty = NULL;
			dirty_context = NULL;
			wake_at_commit = false;
			mc_privilege_end_transaction();
			break;
		case XACT_EVENT_PARALLEL_PRE_COMMIT:
		case XACT_EVENT_PARALLEL_COMMIT:
		case XACT_EVENT_PARALLEL_ABORT:
			break;
	}
}

void
mc_dirty_init(void)
{
	RegisterXactCallback(transaction_callback, NULL);
}
