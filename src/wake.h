/*
 * wake.h
 *		The shared register of background workers, and how to wake one.
 */
#ifndef MERITUM_CACHE_WAKE_H
#define MERITUM_CACHE_WAKE_H

/* Called from _PG_init while shared_preload_libraries is being processed. */
extern void mc_wake_init(void);

/* Whether the library was preloaded, and so a worker can exist. */
extern bool mc_wake_available(void);

/*
 * Set the latch of this database's worker, if there is one.  Raises nothing
 * and needs no transaction, so that a commit callback may call it.
 */
extern void mc_wake_worker(void);

/*
 * Jobs are being changed: the next mc_wake_worker of this process tells so.
 * An invalidation alone would not do, since it is sent after the callbacks of
 * the commit, when the worker that they woke may be asleep again.
 */
extern void mc_wake_jobs_changed(void);

/*
 * In the worker, which looks for work after take: has it been woken since?
 * The latch does not tell, for whatever waits during the look resets it.
 */
extern bool mc_wake_pending(void);

/* Begin a new look; returns whether jobs were changed since the last one. */
extern bool mc_wake_take(void);

/*
 * The worker of this database enters and leaves the register.  Enter returns
 * false if another live worker holds the database already.  The exit of the
 * process leaves by itself.
 */
extern bool mc_wake_enter(void);
extern void mc_wake_leave(void);

/* Pid of a database's worker, 0 if it has none. */
extern int	mc_wake_worker_pid(Oid database);

/* From now to its exit, wake this process whenever a worker leaves. */
extern void mc_wake_enter_launcher(void);

#endif
