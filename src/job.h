/*
 * job.h
 *		Scheduled jobs: when each of meritum_cache.job is due, and the processes
 *		that execute them.
 */
#ifndef MERITUM_CACHE_JOB_H
#define MERITUM_CACHE_JOB_H

#include "datatype/timestamp.h"

/*
 * In the worker.  Step is for each time that wanted is true, inside a bracket
 * (owner.h); launch starts the processes that it chose, and comes after the
 * commit of its transaction.  Next step is when wanted will be true at the
 * latest; changed jobs and ended processes set the worker's latch.
 */
extern void mc_job_watch(void); /* once, before all others */
extern bool mc_job_wanted(TimestampTz now);
extern void mc_job_step(TimestampTz now);
extern void mc_job_launch(void);
extern TimestampTz mc_job_next_step(void);

/* Read the jobs anew at the next step: after an error, or a new setting. */
extern void mc_job_forget(void);

/* What the process of a job finds in bgw_extra. */
typedef struct McJobRequest
{
	int64		run;
	Oid			relation;		/* job_run: another one after DROP EXTENSION */
	Oid			database;
	Oid			owner;
} McJobRequest;

/* In milliseconds; raises 22023 unless positive. */
extern int	mc_job_parse_timeout(const Interval *timeout);

#endif
