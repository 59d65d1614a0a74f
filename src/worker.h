/*
 * worker.h
 *		The worker of a database, and what all background processes share.
 */
#ifndef MERITUM_CACHE_WORKER_H
#define MERITUM_CACHE_WORKER_H

#include "datatype/timestamp.h"
#include "utils/elog.h"

/*
 * Run a unit of work in a transaction of its own.  Returns NULL, or the error
 * that it ended with, in the caller's memory context.  The activity is shown
 * in pg_stat_activity.
 */
typedef void (*McUnit) (void *arg);
extern ErrorData *mc_worker_unit(const char *activity, McUnit unit, void *arg);

/* What each of the processes begins with. */
extern void mc_worker_signals(void);

/* Log an error that a unit ended with, but not what it may quote of claims. */
extern void mc_worker_report(const char *activity, const ErrorData *error);

/* For the loop of a process: end it or read new settings, if told to. */
extern void mc_worker_interrupts(void);

/*
 * Sleep until the latch is set or a time has come, or for some minutes.  The
 * caller resets the latch before it looks for work.
 */
extern void mc_worker_sleep(TimestampTz until);

/* Entry points of the processes. */
extern PGDLLEXPORT void mc_worker_main(Datum arg);
extern PGDLLEXPORT void mc_job_main(Datum arg);

#endif
