/*
 * run.h
 *		Runs of jobs: rows of meritum_cache.job_run.
 *
 * All functions that reach the tables or take locks need a bracket (owner.h).
 */
#ifndef MERITUM_CACHE_RUN_H
#define MERITUM_CACHE_RUN_H

#include "datatype/timestamp.h"
#include "utils/date.h"

/*
 * A process holds the lock of the run it executes from begin or insert on, so
 * that a run is cut off if it is running and its lock is free.  The lock lasts
 * until it is released, or the process exits.
 */
extern void mc_run_unlock(void);

/* The lock of the nightly batch; false if it is held already. */
extern bool mc_run_lock_batch(void);
extern void mc_run_unlock_batch(void);

/*
 * Queue a run.  With scheduled not DT_NOBEGIN, when it was due: then nothing
 * is queued, and 0 returned, if a run of the schedule is queued already.
 */
extern int64 mc_run_queue(const char *job, TimestampTz scheduled);

/* A queued run begins in this process; false if it is not queued any more. */
extern bool mc_run_begin(int64 run);

/* The run that began in this process, 0 if none: it is no job's. */
extern int64 mc_run_current(void);

/* A run that nothing queued begins in this process. */
extern int64 mc_run_insert(const char *job);

/* A queued run will not be executed. */
extern void mc_run_refuse(int64 run, const char *status, const char *message);

/* A running run ends; message may be NULL. */
extern void mc_run_finish(int64 run, const char *status, const char *message);

/* Mark running runs whose process is gone as aborted. */
extern void mc_run_sweep(void);

/* Delete runs older than meritum_cache.job_run_retention. */
extern void mc_run_prune(void);

/*
 * The nightly batch.  Start returns the run that this one continues, or the
 * run itself; done is what the earlier ones did.
 */
extern int64 mc_run_start_batch(int64 run, DateADT as_of);
extern void mc_run_report_batch(int64 run, int64 done, int64 total,
								int64 entries, const char *errors);

#endif
