/*
 * note.c
 *		Durable notes of pending work: meritum_cache.pending_refresh.
 *
 * A note is written in the transaction that makes it necessary and deleted in
 * the one that settles it, so that a crash loses neither or both.  A note
 * says what may have changed, never what the figures are: to settle one twice
 * or too often does no harm.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "note.h"
#include "owner.h"
#include "plan.h"
#include "rows.h"
#include "uuids.h"

/* No pause is longer than an hour, unless the clock was set back since. */
#define IS_DUE \
	" (n.next_attempt_at <= clock_timestamp()" \
	"  OR n.next_attempt_at > clock_timestamp() + interval '1 hour'" \
	"  AND n.next_attempt_at < 'infinity')"

/* Claims in one note: no more than fit into a row that is not toasted. */
#define NOTE_CLAIMS 100

/* Columns of pending_refresh. */
enum
{
	N_ID, N_PROVIDER, N_MONTH, N_CLAIMS, N_SCOPE, N_KEYS, N_CAUSE, N_CREATED,
	N_ATTEMPTS, N_NEXT_ATTEMPT, N_SEEN, N_SQLSTATE, N_MESSAGE, N_METRIC,
	N_COLUMNS
};

static McPlan take_notes = {
	"DELETE FROM meritum_cache.pending_refresh n WHERE n.provider_id = $1"
	" AND (n.metric_key IS NULL OR $2 OR n.metric_key = ANY ($3)"
	" OR ($4 AND n.next_attempt_at <= clock_timestamp()))"
	" RETURNING n.scope, n.month, n.claims, n.metric_key, n.attempts, n.created_at",
	"uuid,bool,varchar[],bool", SPI_OK_DELETE_RETURNING
};

static McPlan any_note = {
	"SELECT 1 FROM meritum_cache.pending_refresh n WHERE n.provider_id = $1"
	" AND (n.metric_key IS NULL OR n.metric_key = ANY ($2)) LIMIT 1",
	"uuid,varchar[]", SPI_OK_SELECT
};

/* A metric that keeps failing has one note, which a commit leaves as it is. */
static McPlan fail_metric = {
	"INSERT INTO meritum_cache.pending_refresh"
	" (provider_id, scope, metric_key, cause, attempts, sqlstate, message,"
	" created_at, next_attempt_at)"
	" SELECT $1, 'metric', $2, $3, $4, $5, $6, coalesce($7, clock_timestamp()),"
	" CASE WHEN $4 >= 10 THEN 'infinity' ELSE clock_timestamp() +"
	" least(interval '1 second' * power(2, $4 - 1), interval '1 hour') END"
	" WHERE NOT EXISTS (SELECT FROM meritum_cache.pending_refresh n"
	" WHERE n.provider_id = $1 AND n.metric_key = $2 AND n.attempts > 0)",
	"uuid,varchar,text,int4,text,text,timestamptz", SPI_OK_INSERT
};

static McPlan delete_metric = {
	"DELETE FROM meritum_cache.pending_refresh n"
	" WHERE n.provider_id = $1 AND n.metric_key = $2",
	"uuid,varchar", SPI_OK_DELETE
};

static McPlan any_keys = {
	"SELECT 1 FROM meritum_cache.pending_refresh n WHERE n.provider_id IS NULL LIMIT 1",
	"", SPI_OK_SELECT
};

static McPlan any_request = {
	"SELECT 1 FROM meritum_cache.pending_refresh n"
	" WHERE n.provider_id = $1 AND n.scope = 'request' LIMIT 1",
	"uuid", SPI_OK_SELECT
};

static McPlan select_keys = {
	"SELECT n.note_id, n.scope, n.keys,"
	" coalesce(n.seen_xmax <= pg_snapshot_xmin(pg_current_snapshot()), false)"
	" FROM meritum_cache.pending_refresh n"
	" WHERE n.provider_id IS NULL AND n.scope <> 'restore' AND" IS_DUE
	" ORDER BY n.note_id LIMIT 100",
	"", SPI_OK_SELECT
};

static McPlan select_restores = {
	"SELECT n.note_id,"
	" coalesce(n.seen_xmax <= pg_snapshot_xmin(pg_current_snapshot()), false)"
	" FROM meritum_cache.pending_refresh n"
	" WHERE n.provider_id IS NULL AND n.scope = 'restore' AND" IS_DUE,
	"", SPI_OK_SELECT
};

static McPlan delete_note = {
	"DELETE FROM meritum_cache.pending_refresh n WHERE n.note_id = $1",
	"int8", SPI_OK_DELETE
};

static McPlan keep_note = {
	"UPDATE meritum_cache.pending_refresh n SET"
	" seen_xmax = coalesce(n.seen_xmax, pg_snapshot_xmax(pg_current_snapshot())),"
	" next_attempt_at = clock_timestamp() + interval '1 second'"
	" WHERE n.note_id = $1",
	"int8", SPI_OK_UPDATE
};

static McPlan postpone_note = {
	"UPDATE meritum_cache.pending_refresh n SET seen_xmax = NULL,"
	" next_attempt_at = clock_timestamp() + interval '5 seconds'"
	" WHERE n.note_id = $1",
	"int8", SPI_OK_UPDATE
};

static McPlan next_note = {
	"SELECT n.provider_id FROM meritum_cache.pending_refresh n"
	" WHERE" IS_DUE
	" ORDER BY n.note_id LIMIT 1",
	"", SPI_OK_SELECT
};

static McPlan next_time = {
	"SELECT min(n.next_attempt_at) FROM meritum_cache.pending_refresh n"
	" WHERE n.next_attempt_at < 'infinity'",
	"", SPI_OK_SELECT
};

/* Pauses of 1, 2, 4 … seconds, up to an hour; the tenth failure parks. */
static McPlan fail_notes = {
	"UPDATE meritum_cache.pending_refresh n SET attempts = n.attempts + 1,"
	" next_attempt_at = CASE WHEN n.attempts + 1 >= 10 THEN 'infinity'"
	" ELSE clock_timestamp() + least(interval '1 second' * power(2, n.attempts),"
	" interval '1 hour') END, sqlstate = $2, message = $3"
	" WHERE n.provider_id IS NOT DISTINCT FROM $1"
	" AND" IS_DUE,
	"uuid,text,text", SPI_OK_UPDATE
};

/* Flags of a task as scopes of notes. */
static const struct
{
	const char *scope;
	size_t		offset;
} flag_scopes[] = {
	{"provider", offsetof(McTask, whole)},
	{"locations", offsetof(McTask, locations)},
	{"events", offsetof(McTask, events)},
	{"rules", offsetof(McTask, rules)},
	{"snapshot", offsetof(McTask, snapshot)},
	{"existence", offsetof(McTask, existence)},
	{"request", offsetof(McTask, full_window)},
};

#define FLAG(task, i) (*(bool *) ((char *) (task) + flag_scopes[i].offset))

/* What is not set is null. */
typedef struct Note
{
	const pg_uuid_t *provider;
	const DateADT *month;
	const pg_uuid_t *claims;
	int			nclaims;
	const char *scope;
	const pg_uuid_t *keys;
	int			nkeys;
	const char *metric;
	McCause		cause;
	const ErrorData *error;		/* why it could not be refreshed at once */
} Note;

static void
write_note(const Note *note)
{
	TimestampTz now = GetCurrentTimestamp();
	int			attempts = note->error != NULL ? 1 : 0;
	Datum		values[N_COLUMNS] = {0};
	bool		nulls[N_COLUMNS];
	McRows	   *rows;

	memset(nulls, true, sizeof(nulls));
#define SET(column, value) (values[column] = (value), nulls[column] = false)
	SET(N_ID,
		Int64GetDatum(nextval_internal(mc_cache_relation("pending_refresh_note_id_seq"),
									   false)));
	if (note->provider != NULL)
		SET(N_PROVIDER, UUIDPGetDatum(note->provider));
	if (note->month != NULL)
		SET(N_MONTH, DateADTGetDatum(*note->month));
	if (note->nclaims > 0)
		SET(N_CLAIMS, mc_uuid_array(note->claims, note->nclaims));
	SET(N_SCOPE, CStringGetTextDatum(note->scope));
	if (note->nkeys > 0)
		SET(N_KEYS, mc_uuid_array(note->keys, note->nkeys));
	SET(N_CAUSE, CStringGetTextDatum(mc_cause_name(note->cause)));
	SET(N_CREATED, TimestampTzGetDatum(now));
	SET(N_ATTEMPTS, Int32GetDatum(attempts));
	SET(N_NEXT_ATTEMPT,
		TimestampTzGetDatum(TimestampTzPlusMilliseconds(now, attempts * 1000)));
	if (note->error != NULL)
	{
		SET(N_SQLSTATE,
			CStringGetTextDatum(unpack_sql_state(note->error->sqlerrcode)));
		SET(N_MESSAGE, CStringGetTextDatum(mc_error_message(note->error)));
	}
	if (note->metric != NULL)
		SET(N_METRIC, CStringGetTextDatum(note->metric));
#undef SET
	rows = mc_rows_open("pending_refresh", N_COLUMNS);
	mc_rows_insert(rows, values, nulls);
	mc_rows_close(rows);
}

/* Single metrics: a note each, or one for each of its months. */
static void
write_metrics(const McTask *task, const ErrorData *error)
{
	Note		note = {
		&task->provider, .scope = "metric", .cause = task->cause, .error = error
	};
	ListCell   *lc;
	ListCell   *month;
	int			m;

	for (m = 0; m < MC_N_METRICS; m++)
		if (task->everywhere & MC_METRIC_BIT(m))
		{
			note.metric = mc_metric[m].key;
			write_note(&note);
		}
	foreach(lc, task->custom)
	{
		const McCustomTask *custom = lfirst(lc);
		List	   *months = list_concat_unique_int(list_copy(custom->force),
													custom->existing);

		note.metric = custom->key;
		note.month = NULL;
		if (custom->whole)
		{
			write_note(&note);
			continue;
		}
		foreach(month, months)
		{
			DateADT		date = lfirst_int(month);

			note.month = &date;
			write_note(&note);
		}
	}
}

static void
write_month(const McTask *task, const McMonthTask *month, const ErrorData *error)
{
	Note		note = {
		&task->provider, &month->month, .cause = task->cause, .error = error
	};
	int			i;

	if (month->coach)
	{
		note.scope = "coach";
		write_note(&note);
	}
	if (month->whole)
	{
		note.scope = "month";
		write_note(&note);
	}
	for (i = 0; i < month->nclaims; i += NOTE_CLAIMS)
	{
		note.scope = "claims";
		note.claims = &month->claim[i];
		note.nclaims = Min(month->nclaims - i, NOTE_CLAIMS);
		write_note(&note);
	}
}

void
mc_note_write(const McTask *task, const ErrorData *error)
{
	int			i;

	for (i = 0; i < lengthof(flag_scopes); i++)
		if (FLAG(task, i))
		{
			Note		note = {
				&task->provider, .scope = flag_scopes[i].scope,
				.cause = task->cause, .error = error
			};

			write_note(&note);
		}
	for (i = 0; i < task->nmonths; i++)
		write_month(task, &task->month[i], error);
	write_metrics(task, error);
}

void
mc_note_write_keys(McSource source, const pg_uuid_t *keys, int n)
{
	Note		note = {
		.scope = mc_source_def[source].name, .keys = keys, .nkeys = n,
		.cause = MC_CAUSE_COMMIT
	};

	write_note(&note);
}

bool
mc_note_request(const pg_uuid_t *provider)
{
	Note		note = {provider, .scope = "request", .cause = MC_CAUSE_REQUEST};
	Datum		value = UUIDPGetDatum(provider);

	if (mc_plan_execute(&any_request, &value, NULL) > 0)
		return false;
	write_note(&note);
	return true;
}

static void
take_claims(McMonthTask *month, Datum claims)
{
	Datum	   *elements;
	int			n,
				i;

	deconstruct_array(DatumGetArrayTypeP(claims), UUIDOID, UUID_LEN, false,
					  TYPALIGN_CHAR, &elements, NULL, &n);
	for (i = 0; i < n; i++)
		mc_task_claim(month, DatumGetUUIDP(elements[i]));
}

static void
take_metric(McTask *task, const char *key, const DateADT *month, int attempts,
			TimestampTz since)
{
	int			metric = mc_metric_find(key, strlen(key));
	McCustomTask *custom;

	if (metric >= 0)
	{
		task->everywhere |= MC_METRIC_BIT(metric);
		return;
	}
	custom = mc_task_custom(task, key);
	if (month != NULL)
		mc_task_custom_existing(task, key, *month);
	else
		custom->whole = true;
	custom->attempts = Max(custom->attempts, attempts);
	custom->since = Min(custom->since, since);
}

/* The metrics whose notes the task takes whether or not they are due. */
static Datum
taken_keys(const McTask *task)
{
	McKeys		keys = {task->wanted.builtin, list_copy(task->wanted.custom)};
	ListCell   *lc;

	foreach(lc, task->custom)
		mc_keys_add(&keys, ((McCustomTask *) lfirst(lc))->key);
	return mc_keys_array(&keys);
}

int
mc_note_take(McTask *task)
{
	Datum		values[4] = {
		UUIDPGetDatum(&task->provider),
		BoolGetDatum(task->full_window || task->cause == MC_CAUSE_VERIFY),
		taken_keys(task),
		BoolGetDatum(task->cause == MC_CAUSE_WORKER)
	};
	uint64		n = mc_plan_execute(&take_notes, values, NULL);
	SPITupleTable *notes = SPI_tuptable;
	uint64		row;

	for (row = 0; row < n; row++)
	{
		Datum		note[6];
		bool		nulls[6];
		char	   *scope;
		DateADT		month;
		int			i;

		heap_deform_tuple(notes->vals[row], notes->tupdesc, note, nulls);
		scope = TextDatumGetCString(note[0]);
		month = nulls[1] ? 0 : DatumGetDateADT(note[1]);
		for (i = 0; i < lengthof(flag_scopes); i++)
			if (strcmp(scope, flag_scopes[i].scope) == 0)
				FLAG(task, i) = true;
		if (!nulls[3])
			take_metric(task, TextDatumGetCString(note[3]),
						nulls[1] ? NULL : &month, DatumGetInt32(note[4]),
						DatumGetTimestampTz(note[5]));
		else if (nulls[1])
			continue;
		else if (strcmp(scope, "month") == 0)
			mc_task_month(task, month)->whole = true;
		else if (strcmp(scope, "coach") == 0)
			mc_task_month(task, month)->coach = true;
		else if (strcmp(scope, "claims") == 0 && !nulls[2])
			take_claims(mc_task_month(task, month), note[2]);
	}
	return (int) n;
}

bool
mc_note_pending(const pg_uuid_t *provider, const McKeys *keys)
{
	Datum		values[2] = {UUIDPGetDatum(provider), mc_keys_array(keys)};

	return mc_plan_execute(&any_note, values, NULL) > 0;
}

void
mc_note_metric_failed(const pg_uuid_t *provider, const McCustomTask *metric,
					  McCause cause, const ErrorData *error)
{
	Datum		values[7] = {
		UUIDPGetDatum(provider), CStringGetTextDatum(metric->key),
		CStringGetTextDatum(mc_cause_name(cause)),
		Int32GetDatum(cause == MC_CAUSE_WORKER ? metric->attempts + 1 :
					  Max(metric->attempts, 1)),
		CStringGetTextDatum(unpack_sql_state(error->sqlerrcode)),
		CStringGetTextDatum(mc_error_message(error)),
		TimestampTzGetDatum(metric->since)
	};

	mc_plan_execute(&fail_metric, values,
					metric->since == DT_NOEND ? "      n" : NULL);
}

void
mc_note_metric_done(const pg_uuid_t *provider, const char *key)
{
	Datum		values[2] = {UUIDPGetDatum(provider), CStringGetTextDatum(key)};

	mc_plan_execute(&delete_metric, values, NULL);
}

bool
mc_note_keys_pending(void)
{
	return mc_plan_execute(&any_keys, NULL, NULL) > 0;
}

void
mc_note_take_keys(McResolve resolve, void *arg)
{
	uint64		n = mc_plan_execute(&select_keys, NULL, NULL);
	SPITupleTable *notes = SPI_tuptable;
	uint64		row;

	for (row = 0; row < n; row++)
	{
		HeapTuple	tuple = notes->vals[row];
		bool		isnull;
		Datum		id = SPI_getbinval(tuple, notes->tupdesc, 1, &isnull);
		char	   *scope = TextDatumGetCString(SPI_getbinval(tuple, notes->tupdesc, 2, &isnull));
		Datum		keys = SPI_getbinval(tuple, notes->tupdesc, 3, &isnull);
		bool		last = DatumGetBool(SPI_getbinval(tuple, notes->tupdesc, 4, &isnull));
		int			source = mc_source_by_name(scope);

		if (source >= 0)
			resolve(source, keys, arg);
		mc_plan_execute(last || source < 0 ? &delete_note : &keep_note, &id, NULL);
	}
}

void
mc_note_write_restore(void)
{
	Note		note = {.scope = "restore", .cause = MC_CAUSE_WORKER};

	write_note(&note);
}

bool
mc_note_take_restore(bool complete)
{
	uint64		n = mc_plan_execute(&select_restores, NULL, NULL);
	SPITupleTable *notes = SPI_tuptable;
	bool		taken = false;
	uint64		row;

	for (row = 0; row < n; row++)
	{
		bool		isnull;
		Datum		id = SPI_getbinval(notes->vals[row], notes->tupdesc, 1, &isnull);
		bool		last = DatumGetBool(SPI_getbinval(notes->vals[row],
													  notes->tupdesc, 2, &isnull));

		mc_plan_execute(!complete ? &postpone_note :
						last ? &delete_note : &keep_note, &id, NULL);
		taken |= complete && last;
	}
	return taken;
}

bool
mc_note_next(pg_uuid_t *provider, bool *unresolved, TimestampTz *next_due)
{
	Datum		value;
	bool		isnull;

	if (mc_plan_execute(&next_note, NULL, NULL) > 0)
	{
		value = mc_plan_value(0, 1, &isnull);
		*unresolved = isnull;
		if (!isnull)
			*provider = *DatumGetUUIDP(value);
		return true;
	}
	mc_plan_execute(&next_time, NULL, NULL);
	value = mc_plan_value(0, 1, &isnull);
	*next_due = isnull ? DT_NOEND : DatumGetTimestampTz(value);
	return false;
}

void
mc_note_failed(const pg_uuid_t *provider, const ErrorData *error)
{
	Datum		values[3] = {
		provider != NULL ? UUIDPGetDatum(provider) : (Datum) 0,
		CStringGetTextDatum(unpack_sql_state(error->sqlerrcode)),
		CStringGetTextDatum(mc_error_message(error))
	};
	char		nulls[] = "   ";

	if (provider == NULL)
		nulls[0] = 'n';
	mc_plan_execute(&fail_notes, values, nulls);
}
