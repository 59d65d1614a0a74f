/*
 * wake.c
 *		The shared register of background workers, and how to wake one.
 *
 * The register is an array in shared memory, guarded by one lock.  A process
 * enters itself and leaves at its exit; a crash resets the memory with
 * everything else, so that an entry always stands for a live process.
 *
 * A latch may be set just after its process has left, when it belongs to
 * somebody else: that one wakes for nothing, which every latch's user must
 * expect.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"

#include "wake.h"

#define MC_REGISTER "meritum_cache workers"

typedef struct WorkerSlot
{
	Oid			database;		/* InvalidOid: free */
	int			pid;
	Latch	   *latch;			/* in shared memory too */
	bool		woken;			/* since the worker last looked */
	bool		jobs_changed;	/* likewise */
} WorkerSlot;

typedef struct Register
{
	LWLock	   *lock;			/* guards all that follows */
	Latch	   *launcher;		/* NULL: none runs */
	int			nslots;
	WorkerSlot	slot[FLEXIBLE_ARRAY_MEMBER];
} Register;

/* NULL unless the library was preloaded. */
static Register *workers = NULL;

/* To be told with the next wake; one too many after an abort does no harm. */
static bool tell_jobs_changed = false;

static shmem_request_hook_type previous_request = NULL;
static shmem_startup_hook_type previous_startup = NULL;

/*
 * A worker takes one of the server's worker processes, so that this many
 * slots never run out.
 */
static Size
register_size(void)
{
	return add_size(offsetof(Register, slot),
					mul_size(max_worker_processes, sizeof(WorkerSlot)));
}

static void
request_memory(void)
{
	if (previous_request != NULL)
		previous_request();
	RequestAddinShmemSpace(register_size());
	RequestNamedLWLockTranche(MC_REGISTER, 1);
}

static void
attach_memory(void)
{
	bool		found;

	if (previous_startup != NULL)
		previous_startup();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	workers = ShmemInitStruct(MC_REGISTER, register_size(), &found);
	if (!found)
	{
		memset(workers, 0, register_size());
		workers->lock = &GetNamedLWLockTranche(MC_REGISTER)->lock;
		workers->nslots = max_worker_processes;
	}
	LWLockRelease(AddinShmemInitLock);
}

void
mc_wake_init(void)
{
	previous_request = shmem_request_hook;
	shmem_request_hook = request_memory;
	previous_startup = shmem_startup_hook;
	shmem_startup_hook = attach_memory;
}

bool
mc_wake_available(void)
{
	return workers != NULL;
}

/*
 * The slot of a database, NULL if it has none.  The lock must be held.
 */
static WorkerSlot *
find_slot(Oid database)
{
	int			i;

	for (i = 0; i < workers->nslots; i++)
		if (workers->slot[i].database == database)
			return &workers->slot[i];
	return NULL;
}

void
mc_wake_worker(void)
{
	WorkerSlot *slot;

	if (workers == NULL || !OidIsValid(MyDatabaseId))
		return;
	LWLockAcquire(workers->lock, tell_jobs_changed ? LW_EXCLUSIVE : LW_SHARED);
	slot = find_slot(MyDatabaseId);
	if (slot != NULL)
	{
		if (tell_jobs_changed)
			slot->jobs_changed = true;
		/* the only write under a shared lock, and of one value */
		slot->woken = true;
		SetLatch(slot->latch);
	}
	LWLockRelease(workers->lock);
	tell_jobs_changed = false;
}

void
mc_wake_jobs_changed(void)
{
	tell_jobs_changed = true;
}

bool
mc_wake_pending(void)
{
	WorkerSlot *slot;
	bool		woken;

	LWLockAcquire(workers->lock, LW_SHARED);
	slot = find_slot(MyDatabaseId);
	woken = slot != NULL && slot->woken;
	LWLockRelease(workers->lock);
	return woken;
}

bool
mc_wake_take(void)
{
	WorkerSlot *slot;
	bool		changed;

	LWLockAcquire(workers->lock, LW_EXCLUSIVE);
	slot = find_slot(MyDatabaseId);
	changed = slot != NULL && slot->jobs_changed;
	if (slot != NULL)
		slot->woken = slot->jobs_changed = false;
	LWLockRelease(workers->lock);
	return changed;
}

int
mc_wake_worker_pid(Oid database)
{
	WorkerSlot *slot;
	int			pid;

	LWLockAcquire(workers->lock, LW_SHARED);
	slot = find_slot(database);
	pid = slot != NULL ? slot->pid : 0;
	LWLockRelease(workers->lock);
	return pid;
}

static void
leave_at_exit(int code, Datum arg)
{
	mc_wake_leave();
}

bool
mc_wake_enter(void)
{
	WorkerSlot *slot = NULL;

	/* Before the entry, so that no exit can leave one behind. */
	before_shmem_exit(leave_at_exit, (Datum) 0);

	LWLockAcquire(workers->lock, LW_EXCLUSIVE);
	if (find_slot(MyDatabaseId) == NULL)
	{
		slot = find_slot(InvalidOid);
		if (slot != NULL)
		{
			slot->database = MyDatabaseId;
			slot->pid = MyProcPid;
			slot->latch = &MyProc->procLatch;
		}
	}
	LWLockRelease(workers->lock);
	return slot != NULL;
}

void
mc_wake_leave(void)
{
	WorkerSlot *slot;

	LWLockAcquire(workers->lock, LW_EXCLUSIVE);
	slot = find_slot(MyDatabaseId);
	if (slot != NULL && slot->pid == MyProcPid)
	{
		memset(slot, 0, sizeof(WorkerSlot));
		if (workers->launcher != NULL)
			SetLatch(workers->launcher);
	}
	LWLockRelease(workers->lock);
}

static void
leave_launcher(int code, Datum arg)
{
	LWLockAcquire(workers->lock, LW_EXCLUSIVE);
	if (workers->launcher == &MyProc->procLatch)
		workers->launcher = NULL;
	LWLockRelease(workers->lock);
}

void
mc_wake_enter_launcher(void)
{
	before_shmem_exit(leave_launcher, (Datum) 0);

	LWLockAcquire(workers->lock, LW_EXCLUSIVE);
	workers->launcher = &MyProc->procLatch;
	LWLockRelease(workers->lock);
}
