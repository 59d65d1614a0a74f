/*
 * guc.h
 *		Settings of the extension, all named meritum_cache.*.
 */
#ifndef MERITUM_CACHE_GUC_H
#define MERITUM_CACHE_GUC_H

#include "utils/uuid.h"

typedef enum McRefreshMode
{
	MC_REFRESH_COMMIT,
	MC_REFRESH_ASYNC
} McRefreshMode;

typedef enum McOnError
{
	MC_ON_ERROR_WARN,
	MC_ON_ERROR_ERROR
} McOnError;

/* The breakdowns that can be kept, as bits of mc_dimension_mask. */
typedef enum McDimension
{
	MC_DIM_CLAIM_TYPE,
	MC_DIM_BA_NUMBER,
	MC_DIM_LOCATION_ID,
	MC_N_DIMS
} McDimension;

extern const char *const mc_dimension_name[MC_N_DIMS];

extern int	mc_refresh_mode;
extern int	mc_on_error;
extern int	mc_commit_limit;
extern int	mc_stale_after;			/* minutes */
extern int	mc_dimension_mask;
extern char *mc_timezone_setting;	/* empty: the server's */
extern int	mc_retention_months;
extern int	mc_batch_size;
extern int	mc_batch_workers;
extern int	mc_batch_delay;			/* milliseconds */
extern char *mc_databases;
extern char *mc_worker_role;		/* empty: the extension's owner */
extern int	mc_max_parallel_jobs;
extern int	mc_job_run_retention;	/* days */
extern int	mc_log_min_duration;	/* milliseconds, -1: off */
extern bool mc_log_invalidations;
extern char *mc_notify_channel;

/* The provider that the session is pinned to, NULL if none. */
extern const pg_uuid_t *mc_pin;

extern void mc_guc_init(void);

#endif
