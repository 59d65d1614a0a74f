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

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "note.h"
#include "plan.h"

/* No pause is longer than an hour, unless the clock was set back since. */
#define IS_DUE \
	" (n.next_attempt_at <= clock_timestamp()" \
	"  OR n.next_attempt_at > clock_timestamp() + interval '1 hour'" \
	"  AND n.next_attempt_at < 'infinity')"

static McPlan insert_note = {
	"INSERT INTO meritum_cache.pending_refresh"
	" (provider_id, month, claims, scope, keys, cause, attempts, sqlstate,"
	" message, next_attempt_at)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9,"
	" clock_timestamp() + make_interval(secs => $7))",
	"uuid,date,uuid[],text,uuid[],text,int4,text,text", SPI_OK_INSERT
};

static McPlan take_notes = {
	"DELETE FROM meritum_cache.pending_refresh n WHERE n.provider_id = $1"
	" RETURNING n.scope, n.month, n.claims",
	"uuid", SPI_OK_DELETE_RETURNING
};

static McPlan any_note = {
	"SELECT 1 FROM meritum_cache.pending_refresh n WHERE n.provider_id = $1 LIMIT 1",
	"uuid", SPI_OK_SELECT
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

static Datum
uuid_array(const pg_uuid_t *uuids, int n)
{
	Datum	   *elements = palloc(sizeof(Datum) * Max(n, 1));
	int			i;

	for (i = 0; i < n; i++)
		elements[i] = UUIDPGetDatum(&uuids[i]);
	return PointerGetDatum(construct_array(elements, n, UUIDOID, UUID_LEN,
										   false, TYPALIGN_CHAR));
}

/* Insert one note; provider NULL for one of keys. */
static void
write_note(const pg_uuid_t *provider, const DateADT *month,
		   const pg_uuid_t *claims, int nclaims, const char *scope,
		   const pg_uuid_t *keys, int nkeys, const char *cause,
		   const ErrorData *error)
{
	Datum		values[9];
	char		nulls[] = "         ";

	memset(values, 0, sizeof(values));
	if (provider != NULL)
		values[0] = UUIDPGetDatum(provider);
	else
		nulls[0] = 'n';
	if (month != NULL)
		values[1] = DateADTGetDatum(*month);
	else
		nulls[1] = 'n';
	if (nclaims > 0)
		values[2] = uuid_array(claims, nclaims);
	else
		nulls[2] = 'n';
	values[3] = CStringGetTextDatum(scope);
	if (nkeys > 0)
		values[4] = uuid_array(keys, nkeys);
	else
		nulls[4] = 'n';
	values[5] = CStringGetTextDatum(cause);
	values[6] = Int32GetDatum(error != NULL ? 1 : 0);
	if (error != NULL)
	{
		values[7] = CStringGetTextDatum(unpack_sql_state(error->sqlerrcode));
		values[8] = CStringGetTextDatum(mc_error_message(error));
	}
	else
		nulls[7] = nulls[8] = 'n';
	mc_plan_execute(&insert_note, values, nulls);
}

void
mc_note_write(const McTask *task, const ErrorData *error)
{
	const char *cause = mc_cause_name(task->cause);
	int			i;

	for (i = 0; i < lengthof(flag_scopes); i++)
		if (FLAG(task, i))
			write_note(&task->provider, NULL, NULL, 0, flag_scopes[i].scope,
					   NULL, 0, cause, error);
	for (i = 0; i < task->nmonths; i++)
	{
		const McMonthTask *month = &task->month[i];

		if (month->whole)
			write_note(&task->provider, &month->month, NULL, 0, "month",
					   NULL, 0, cause, error);
		else if (month->nclaims > 0)
			write_note(&task->provider, &month->month, month->claim,
					   month->nclaims, "claims", NULL, 0, cause, error);
		if (month->coach)
			write_note(&task->provider, &month->month, NULL, 0, "coach",
					   NULL, 0, cause, error);
	}
}

void
mc_note_write_keys(McSource source, const pg_uuid_t *keys, int n)
{
	write_note(NULL, NULL, NULL, 0, mc_source_def[source].name, keys, n,
			   mc_cause_name(MC_CAUSE_COMMIT), NULL);
}

bool
mc_note_request(const pg_uuid_t *provider)
{
	Datum		value = UUIDPGetDatum(provider);

	if (mc_plan_execute(&any_request, &value, NULL) > 0)
		return false;
	write_note(provider, NULL, NULL, 0, "request", NULL, 0,
			   mc_cause_name(MC_CAUSE_REQUEST), NULL);
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

int
mc_note_take(McTask *task)
{
	Datum		value = UUIDPGetDatum(&task->provider);
	uint64		n = mc_plan_execute(&take_notes, &value, NULL);
	SPITupleTable *notes = SPI_tuptable;
	uint64		row;

	for (row = 0; row < n; row++)
	{
		bool		isnull;
		char	   *scope = TextDatumGetCString(SPI_getbinval(notes->vals[row],
															  notes->tupdesc, 1, &isnull));
		Datum		month = SPI_getbinval(notes->vals[row], notes->tupdesc, 2, &isnull);
		int			i;

		for (i = 0; i < lengthof(flag_scopes); i++)
			if (strcmp(scope, flag_scopes[i].scope) == 0)
				FLAG(task, i) = true;
		if (isnull)
			continue;
		if (strcmp(scope, "month") == 0)
			mc_task_month(task, DatumGetDateADT(month))->whole = true;
		else if (strcmp(scope, "coach") == 0)
			mc_task_month(task, DatumGetDateADT(month))->coach = true;
		else if (strcmp(scope, "claims") == 0)
		{
			Datum		claims = SPI_getbinval(notes->vals[row],
											   notes->tupdesc, 3, &isnull);

			if (!isnull)
				take_claims(mc_task_month(task, DatumGetDateADT(month)), claims);
		}
	}
	return (int) n;
}

bool
mc_note_pending(const pg_uuid_t *provider)
{
	Datum		value = UUIDPGetDatum(provider);

	return mc_plan_execute(&any_note, &value, NULL) > 0;
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
	write_note(NULL, NULL, NULL, 0, "restore", NULL, 0,
			   mc_cause_name(MC_CAUSE_WORKER), NULL);
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
