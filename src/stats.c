/*
 * stats.c
 *		Shared counters of refreshes: meritum_cache.stat_refresh.
 *
 * Each database has a slot in shared memory with the counters of each cause.
 * The lock guards which database a slot belongs to: whoever counts or reads
 * holds it shared, whoever gives a slot to a database or resets one holds it
 * exclusively.  The counters are atomic, so that commits do not wait for each
 * other to count; columns of one row may be a refresh apart.
 *
 * There are SLOTS slots.  When one more database needs a slot, it gets that of
 * the database that has counted nothing for the longest time, which most
 * likely has been dropped.
 *
 * The counters tell what work was done: a refresh whose transaction aborts
 * afterwards has been counted.  A clean shutdown writes them to a file that
 * the next start reads and removes; after a crash they start from zero.
 *
 * Figures of single providers are not here but in provider_state, which a
 * refresh writes in any case.
 */
#include "postgres.h"

#include <unistd.h>

#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "port/atomics.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "owner.h"
#include "plan.h"
#include "privilege.h"
#include "stats.h"

#define MC_STATISTICS "meritum_cache statistics"
#define SLOTS 64

#define STATS_FILE PGSTAT_STAT_PERMANENT_DIRECTORY "/meritum_cache.stat"
#define STATS_TEMPORARY STATS_FILE ".tmp"

/* Grows when the layout of the file changes. */
#define FILE_FORMAT 0x4d430001

typedef enum Counter
{
	REFRESHES, WRITTEN, UNCHANGED, ERRORS, TOTAL_TIME, MAX_TIME,
	N_COUNTERS
} Counter;

/* Times are in microseconds. */
typedef pg_atomic_uint64 Counters[MC_N_CAUSES][N_COUNTERS];

typedef struct DatabaseSlot
{
	Oid			database;		/* InvalidOid: free */
	TimestampTz reset_at;		/* all counters are from then on */
	pg_atomic_uint64 used_at;	/* TimestampTz, about */
	Counters	counters;
} DatabaseSlot;

typedef struct Statistics
{
	LWLock	   *lock;			/* guards database and reset_at of all slots */
	DatabaseSlot slot[SLOTS];
} Statistics;

/* What a slot held at some time, for the file and for the view. */
typedef struct SlotCopy
{
	Oid			database;
	TimestampTz reset_at;
	uint64		used_at;
	uint64		counters[MC_N_CAUSES][N_COUNTERS];
} SlotCopy;

typedef struct FileHeader
{
	uint32		format;
	uint32		slot_size;
	uint32		nslots;
} FileHeader;

/* NULL unless the library was preloaded. */
static Statistics *statistics = NULL;

static shmem_request_hook_type previous_request = NULL;
static shmem_startup_hook_type previous_startup = NULL;

/*
 * What a reset takes off the counters in provider_state.  They themselves may
 * be changed only under the providers' locks, which are too many to take.
 */
static McPlan lock_baseline = {
	"LOCK TABLE meritum_cache.stat_baseline IN SHARE ROW EXCLUSIVE MODE",
	"", SPI_OK_UTILITY
};

static McPlan clear_baseline = {
	"DELETE FROM meritum_cache.stat_baseline", "", SPI_OK_DELETE
};

static McPlan fill_baseline = {
	"INSERT INTO meritum_cache.stat_baseline (provider_id, created_at,"
	" refreshes, invalidations, reset_at)"
	" SELECT s.provider_id, s.created_at, s.refreshes, s.invalidations, $1"
	" FROM meritum_cache.provider_state s",
	"timestamptz", SPI_OK_INSERT
};

/*
 * The file
 */

static void
init_slots(void)
{
	int			i,
				cause,
				counter;

	for (i = 0; i < SLOTS; i++)
	{
		DatabaseSlot *slot = &statistics->slot[i];

		slot->database = InvalidOid;
		pg_atomic_init_u64(&slot->used_at, 0);
		for (cause = 0; cause < MC_N_CAUSES; cause++)
			for (counter = 0; counter < N_COUNTERS; counter++)
				pg_atomic_init_u64(&slot->counters[cause][counter], 0);
	}
}

static void
load_slot(DatabaseSlot *slot, const SlotCopy *saved)
{
	int			cause,
				counter;

	slot->database = saved->database;
	slot->reset_at = saved->reset_at;
	pg_atomic_write_u64(&slot->used_at, saved->used_at);
	for (cause = 0; cause < MC_N_CAUSES; cause++)
		for (counter = 0; counter < N_COUNTERS; counter++)
			pg_atomic_write_u64(&slot->counters[cause][counter],
								saved->counters[cause][counter]);
}

static void
copy_slot(SlotCopy *copy, DatabaseSlot *slot)
{
	int			cause,
				counter;

	memset(copy, 0, sizeof(SlotCopy));
	copy->database = slot->database;
	copy->reset_at = slot->reset_at;
	copy->used_at = pg_atomic_read_u64(&slot->used_at);
	for (cause = 0; cause < MC_N_CAUSES; cause++)
		for (counter = 0; counter < N_COUNTERS; counter++)
			copy->counters[cause][counter] =
				pg_atomic_read_u64(&slot->counters[cause][counter]);
}

/* Returns whether the file was read to its end. */
static bool
read_slots(FILE *file)
{
	FileHeader	header;
	SlotCopy	saved;
	int			i;

	if (fread(&header, sizeof(header), 1, file) != 1 ||
		header.format != FILE_FORMAT || header.slot_size != sizeof(SlotCopy) ||
		header.nslots > SLOTS)
		return false;
	for (i = 0; i < header.nslots; i++)
	{
		if (fread(&saved, sizeof(saved), 1, file) != 1)
			return false;
		load_slot(&statistics->slot[i], &saved);
	}
	return true;
}

/*
 * The file is removed as soon as it is read: counters of before a crash, which
 * leaves no new file, must not come back.
 */
static void
load_statistics(void)
{
	FILE	   *file = AllocateFile(STATS_FILE, PG_BINARY_R);

	if (file == NULL)
	{
		if (errno != ENOENT)
			ereport(LOG,
					(errcode_for_file_access(),
					 errmsg("could not read file \"%s\": %m", STATS_FILE)));
		return;
	}
	if (!read_slots(file))
	{
		init_slots();
		ereport(LOG,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("ignoring invalid data in file \"%s\"", STATS_FILE)));
	}
	FreeFile(file);
	unlink(STATS_FILE);
}

static bool
write_slots(FILE *file)
{
	FileHeader	header = {FILE_FORMAT, sizeof(SlotCopy), SLOTS};
	SlotCopy	saved;
	int			i;

	if (fwrite(&header, sizeof(header), 1, file) != 1)
		return false;
	for (i = 0; i < SLOTS; i++)
	{
		copy_slot(&saved, &statistics->slot[i]);
		if (fwrite(&saved, sizeof(saved), 1, file) != 1)
			return false;
	}
	return true;
}

/*
 * Has the server been shut down cleanly?  An immediate shutdown, which the
 * next start has to recover from, ends the postmaster with code 0 too.
 */
static bool
shut_down_cleanly(void)
{
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);

	return crc_ok && (control->state == DB_SHUTDOWNED ||
					  control->state == DB_SHUTDOWNED_IN_RECOVERY);
}

/*
 * At the exit of the postmaster, when all other processes have ended.
 */
static void
save_statistics(int code, Datum arg)
{
	FILE	   *file;
	bool		written;

	if (code != 0 || statistics == NULL || !shut_down_cleanly())
		return;
	file = AllocateFile(STATS_TEMPORARY, PG_BINARY_W);
	written = file != NULL && write_slots(file);
	if (file != NULL && FreeFile(file) != 0)
		written = false;
	if (written)
		(void) durable_rename(STATS_TEMPORARY, STATS_FILE, LOG);
	else
	{
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", STATS_TEMPORARY)));
		unlink(STATS_TEMPORARY);
	}
}

/*
 * The memory
 */

static void
request_memory(void)
{
	if (previous_request != NULL)
		previous_request();
	RequestAddinShmemSpace(sizeof(Statistics));
	RequestNamedLWLockTranche(MC_STATISTICS, 1);
}

static void
attach_memory(void)
{
	bool		found;

	if (previous_startup != NULL)
		previous_startup();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	statistics = ShmemInitStruct(MC_STATISTICS, sizeof(Statistics), &found);
	if (!found)
	{
		init_slots();
		statistics->lock = &GetNamedLWLockTranche(MC_STATISTICS)->lock;
	}
	LWLockRelease(AddinShmemInitLock);

	/* the postmaster, which alone sees the end of all other processes */
	if (!IsUnderPostmaster)
		on_shmem_exit(save_statistics, (Datum) 0);
	if (!found)
		load_statistics();
}

void
mc_stats_init(void)
{
	previous_request = shmem_request_hook;
	shmem_request_hook = request_memory;
	previous_startup = shmem_startup_hook;
	shmem_startup_hook = attach_memory;
}

/*
 * Counting
 */

/* The slot of a database, NULL if it has none.  The lock must be held. */
static DatabaseSlot *
find_slot(Oid database)
{
	static int	last = 0;		/* of this database, most likely */
	int			i;

	if (statistics->slot[last].database == database)
		return &statistics->slot[last];
	for (i = 0; i < SLOTS; i++)
		if (statistics->slot[i].database == database)
		{
			last = i;
			return &statistics->slot[i];
		}
	return NULL;
}

static void
mark_used(DatabaseSlot *slot)
{
	pg_atomic_write_u64(&slot->used_at, GetCurrentStatementStartTimestamp());
}

/* The lock must be held exclusively. */
static void
reset_slot(DatabaseSlot *slot, TimestampTz now)
{
	int			cause,
				counter;

	slot->reset_at = now;
	for (cause = 0; cause < MC_N_CAUSES; cause++)
		for (counter = 0; counter < N_COUNTERS; counter++)
			pg_atomic_write_u64(&slot->counters[cause][counter], 0);
}

/*
 * Give this database a slot, still with the counters of another one.  The
 * lock must be held exclusively.
 */
static DatabaseSlot *
take_slot(void)
{
	DatabaseSlot *slot = &statistics->slot[0];
	int			i;

	/* a free one was never used, and so comes before all others */
	for (i = 1; i < SLOTS; i++)
		if (pg_atomic_read_u64(&statistics->slot[i].used_at) <
			pg_atomic_read_u64(&slot->used_at))
			slot = &statistics->slot[i];
	slot->database = MyDatabaseId;
	mark_used(slot);
	return slot;
}

/*
 * The counters of a cause in this database.  Returns with the lock held.
 */
static pg_atomic_uint64 *
lock_counters(McCause cause)
{
	DatabaseSlot *slot;

	LWLockAcquire(statistics->lock, LW_SHARED);
	slot = find_slot(MyDatabaseId);
	if (slot == NULL)
	{
		LWLockRelease(statistics->lock);
		LWLockAcquire(statistics->lock, LW_EXCLUSIVE);
		slot = find_slot(MyDatabaseId);
	}
	if (slot == NULL)
	{
		slot = take_slot();
		reset_slot(slot, GetCurrentTimestamp());
	}
	mark_used(slot);
	return slot->counters[cause];
}

static void
raise_to(pg_atomic_uint64 *counter, uint64 value)
{
	uint64		current = pg_atomic_read_u64(counter);

	/* a failed exchange stores what is there now */
	while (current < value &&
		   !pg_atomic_compare_exchange_u64(counter, &current, value))
		;
}

void
mc_stats_refreshed(McCause cause, int64 written, int64 unchanged, double ms)
{
	uint64		time = (uint64) (ms * 1000.0);
	pg_atomic_uint64 *counters;

	if (statistics == NULL)
		return;
	counters = lock_counters(cause);
	pg_atomic_fetch_add_u64(&counters[REFRESHES], 1);
	pg_atomic_fetch_add_u64(&counters[WRITTEN], written);
	pg_atomic_fetch_add_u64(&counters[UNCHANGED], unchanged);
	pg_atomic_fetch_add_u64(&counters[TOTAL_TIME], time);
	raise_to(&counters[MAX_TIME], time);
	LWLockRelease(statistics->lock);
}

void
mc_stats_failed(McCause cause, int n)
{
	if (statistics == NULL || n == 0)
		return;
	pg_atomic_fetch_add_u64(&lock_counters(cause)[ERRORS], n);
	LWLockRelease(statistics->lock);
}

/*
 * Showing
 */

static void
put_cause(ReturnSetInfo *rsinfo, McCause cause, const SlotCopy *slot)
{
	const uint64 *count = slot->counters[cause];
	Datum		values[8];
	bool		nulls[8] = {false};

	values[0] = CStringGetTextDatum(mc_cause_name(cause));
	values[1] = Int64GetDatum(count[REFRESHES]);
	values[2] = Int64GetDatum(count[WRITTEN]);
	values[3] = Int64GetDatum(count[UNCHANGED]);
	values[4] = Int64GetDatum(count[ERRORS]);
	values[5] = Float8GetDatum(count[TOTAL_TIME] / 1000.0);
	values[6] = Float8GetDatum(count[MAX_TIME] / 1000.0);
	values[7] = TimestampTzGetDatum(slot->reset_at);
	nulls[7] = !OidIsValid(slot->database);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

PG_FUNCTION_INFO_V1(refresh_statistics);

Datum
refresh_statistics(PG_FUNCTION_ARGS)
{
	DatabaseSlot *slot;
	SlotCopy	copy = {0};
	int			cause;

	if (statistics == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("refreshes are not counted"),
				 errhint("Add meritum_cache to shared_preload_libraries and restart the server.")));
	InitMaterializedSRF(fcinfo, 0);

	/* rows are made without the lock: that may raise an error */
	LWLockAcquire(statistics->lock, LW_SHARED);
	slot = find_slot(MyDatabaseId);
	if (slot != NULL)
		copy_slot(&copy, slot);
	LWLockRelease(statistics->lock);
	for (cause = 0; cause < MC_N_CAUSES; cause++)
		put_cause((ReturnSetInfo *) fcinfo->resultinfo, cause, &copy);
	return (Datum) 0;
}

/* The shared counters of this database. */
static void
reset_refreshes(TimestampTz now)
{
	DatabaseSlot *slot;

	if (statistics == NULL)
		return;
	LWLockAcquire(statistics->lock, LW_EXCLUSIVE);
	slot = find_slot(MyDatabaseId);
	if (slot == NULL)
		slot = take_slot();
	reset_slot(slot, now);
	LWLockRelease(statistics->lock);
}

static void
reset_providers(TimestampTz now)
{
	Datum		value = TimestampTzGetDatum(now);
	McBracket	bracket;
	int			bulk;

	mc_owner_enter(&bracket, true);
	mc_plan_execute(&lock_baseline, NULL, NULL);
	mc_owner_renew_snapshot();
	bulk = mc_owner_begin_bulk();
	mc_plan_execute(&clear_baseline, NULL, NULL);
	mc_plan_execute(&fill_baseline, &value, NULL);
	mc_owner_end_bulk(bulk);
	mc_owner_leave(&bracket);
}

PG_FUNCTION_INFO_V1(meritum_stat_reset);

Datum
meritum_stat_reset(PG_FUNCTION_ARGS)
{
	TimestampTz now = GetCurrentTimestamp();

	mc_require_unpinned("meritum_stat_reset");
	reset_providers(now);
	reset_refreshes(now);
	PG_RETURN_VOID();
}
