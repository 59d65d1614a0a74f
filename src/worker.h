/*
 * worker.h
 *		The background processes: launcher, a worker for each database, and
 *		jobs.
 */
#ifndef MERITUM_CACHE_WORKER_H
#define MERITUM_CACHE_WORKER_H

#include "utils/elog.h"

/* Called from _PG_init while shared_preload_libraries is being processed. */
extern void mc_worker_init(void);

/* Whether meritum_cache.databases names the current database. */
extern bool mc_worker_expected(void);

/*
 * Run a unit of work in a transaction of its own.  Returns NULL, or the error
 * that it ended with, in the caller's memory context.  The activity is shown
 * in pg_stat_activity.
 */
typedef void (*McUnit) (void *arg);
extern ErrorData *mc_worker_unit(const char *activity, McUnit unit, void *arg);

/* What each of the processes begins with. */
extern void mc_worker_signals(void);

/* Entry points of the processes. */
extern PGDLLEXPORT void mc_launcher_main(Datum arg);
extern PGDLLEXPORT void mc_worker_main(Datum arg);
extern PGDLLEXPORT void mc_job_main(Datum arg);

#endif
