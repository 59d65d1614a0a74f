/*
 * guc.c
 *		Every setting of the extension.
 *
 * Settings that only the postmaster can act on are defined as PGC_POSTMASTER
 * when the library is preloaded, and as PGC_SIGHUP otherwise, where they are
 * without effect: a session that loads the library on demand may no longer
 * define a postmaster setting.
 */
#include "postgres.h"

#include <limits.h>

#include "miscadmin.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/varlena.h"

#include "compat.h"
#include "guc.h"

const char *const mc_dimension_name[MC_N_DIMS] = {
	[MC_DIM_CLAIM_TYPE] = "claim_type",
	[MC_DIM_BA_NUMBER] = "ba_number",
	[MC_DIM_LOCATION_ID] = "location_id",
};

int			mc_refresh_mode = MC_REFRESH_COMMIT;
int			mc_on_error = MC_ON_ERROR_WARN;
int			mc_commit_limit = 1000;
int			mc_stale_after = 60;
int			mc_dimension_mask = 0;
char	   *mc_timezone_setting = NULL;
int			mc_retention_months = 24;
int			mc_batch_size = 10;
int			mc_batch_workers = 1;
int			mc_batch_delay = 0;
char	   *mc_databases = NULL;
char	   *mc_worker_role = NULL;
int			mc_max_parallel_jobs = 2;
int			mc_job_run_retention = 30;
int			mc_log_min_duration = -1;
bool		mc_log_invalidations = false;
char	   *mc_notify_channel = NULL;
const pg_uuid_t *mc_pin = NULL;

static char *dimensions_setting = NULL;
static char *provider_setting = NULL;

static const struct config_enum_entry refresh_modes[] = {
	{"commit", MC_REFRESH_COMMIT, false},
	{"async", MC_REFRESH_ASYNC, false},
	{NULL, 0, false}
};

static const struct config_enum_entry on_errors[] = {
	{"warn", MC_ON_ERROR_WARN, false},
	{"error", MC_ON_ERROR_ERROR, false},
	{NULL, 0, false}
};

/*
 * Turn the list of dimensions into a mask, kept as the setting's extra data.
 */
static bool
check_dimensions(char **newval, void **extra, GucSource source)
{
	char	   *copy = pstrdup(*newval);
	List	   *names;
	ListCell   *lc;
	int			mask = 0;

	if (!SplitIdentifierString(copy, ',', &names))
	{
		GUC_check_errdetail("The list syntax is invalid.");
		return false;
	}
	foreach(lc, names)
	{
		char	   *name = lfirst(lc);
		int			dim;

		for (dim = 0; dim < MC_N_DIMS; dim++)
			if (strcmp(name, mc_dimension_name[dim]) == 0)
				break;
		if (dim == MC_N_DIMS)
		{
			GUC_check_errdetail("Unknown dimension \"%s\".", name);
			GUC_check_errhint("The dimensions are claim_type, ba_number and location_id.");
			return false;
		}
		mask |= 1 << dim;
	}

	*extra = mc_guc_malloc(sizeof(int));
	if (*extra == NULL)
		return false;
	*(int *) *extra = mask;
	return true;
}

static void
assign_dimensions(const char *newval, void *extra)
{
	mc_dimension_mask = *(int *) extra;
}

/*
 * The pin is kept as the setting's extra data.  Only this extension sets it,
 * to what uuid_out wrote.
 */
static bool
check_provider(char **newval, void **extra, GucSource source)
{
	Datum		provider;

	if (**newval == '\0')
		return true;
	provider = DirectFunctionCall1(uuid_in, CStringGetDatum(*newval));
	*extra = mc_guc_malloc(sizeof(pg_uuid_t));
	if (*extra == NULL)
		return false;
	*(pg_uuid_t *) *extra = *DatumGetUUIDP(provider);
	return true;
}

static void
assign_provider(const char *newval, void *extra)
{
	mc_pin = extra;
}

static bool
check_timezone(char **newval, void **extra, GucSource source)
{
	pg_tz	   *zone;

	if (**newval == '\0')
		return true;
	zone = pg_tzset(*newval);
	if (zone == NULL || !pg_tz_acceptable(zone))
	{
		GUC_check_errdetail("Unknown time zone \"%s\".", *newval);
		return false;
	}
	return true;
}

static bool
check_name_length(char **newval, void **extra, GucSource source)
{
	if (strlen(*newval) >= NAMEDATALEN)
	{
		GUC_check_errdetail("The name must be shorter than %d bytes.",
							NAMEDATALEN);
		return false;
	}
	return true;
}

static bool
check_databases(char **newval, void **extra, GucSource source)
{
	List	   *names;

	if (SplitIdentifierString(pstrdup(*newval), ',', &names))
		return true;
	GUC_check_errdetail("The list syntax is invalid.");
	return false;
}

static void
define_session_settings(void)
{
	DefineCustomEnumVariable("meritum_cache.refresh_mode",
							 "When the figures follow a change of claims.",
							 "commit: with the commit of the change; async: shortly after it, by the background worker.",
							 &mc_refresh_mode, MC_REFRESH_COMMIT, refresh_modes,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomEnumVariable("meritum_cache.on_error",
							 "What a failing refresh does to the transaction that changed the claims.",
							 "warn: it commits and the refresh stays pending; error: it aborts.",
							 &mc_on_error, MC_ON_ERROR_WARN, on_errors,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("meritum_cache.commit_limit",
							"Cells refreshed at commit before the rest is left to the background worker.",
							"A cell is one metric of one provider in one month.",
							&mc_commit_limit, 1000, 0, INT_MAX,
							PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("meritum_cache.stale_after",
							"Age at which a figure counts as stale.",
							NULL,
							&mc_stale_after, 60, 0, 60 * 24 * 365,
							PGC_USERSET, GUC_UNIT_MIN, NULL, NULL, NULL);
	DefineCustomStringVariable("meritum_cache.notify_channel",
							   "Channel that is notified of each committed refresh.",
							   "Empty turns the notification off.",
							   &mc_notify_channel, "",
							   PGC_USERSET, 0, check_name_length, NULL, NULL);
	DefineCustomIntVariable("meritum_cache.log_min_duration",
							"Logs each refresh that takes at least this long.",
							"-1 turns the logging off.",
							&mc_log_min_duration, -1, -1, INT_MAX,
							PGC_SUSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomBoolVariable("meritum_cache.log_invalidations",
							 "Logs each invalidation by an event.",
							 NULL,
							 &mc_log_invalidations, false,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("meritum_cache.provider",
							   "Provider that the session is pinned to.",
							   "Empty means none; set by meritum_set_provider().",
							   &provider_setting, "",
							   PGC_INTERNAL, GUC_NOT_IN_SAMPLE | GUC_NO_RESET_ALL,
							   check_provider, assign_provider, NULL);
}

static void
define_reload_settings(void)
{
	DefineCustomStringVariable("meritum_cache.dimensions",
							   "Dimensions by which figures are broken down.",
							   "A list of claim_type, ba_number and location_id; takes effect with each provider's next refresh.",
							   &dimensions_setting,
							   "claim_type, ba_number, location_id",
							   PGC_SIGHUP, GUC_LIST_INPUT,
							   check_dimensions, assign_dimensions, NULL);
	DefineCustomStringVariable("meritum_cache.timezone",
							   "Time zone of today, of the dates of timestamps, and of jobs that name none.",
							   "Empty means the time zone that the server is configured with.",
							   &mc_timezone_setting, "",
							   PGC_SIGHUP, 0, check_timezone, NULL, NULL);
	DefineCustomIntVariable("meritum_cache.retention_months",
							"Months of figures that the cleanup keeps.",
							NULL,
							&mc_retention_months, 24, 1, 1200,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("meritum_cache.batch_size",
							"Providers refreshed in one transaction of the nightly batch, at most.",
							NULL,
							&mc_batch_size, 10, 1, 10000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("meritum_cache.batch_workers",
							"Processes that share the nightly batch.",
							"The one that it is called in, and background workers that help it.",
							&mc_batch_workers, 1, 1, 64,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("meritum_cache.batch_delay",
							"Pause between two transactions of the nightly batch.",
							"Each process of the batch pauses.",
							&mc_batch_delay, 0, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomStringVariable("meritum_cache.worker_role",
							   "Role as which the background worker runs.",
							   "Empty means the owner of the extension.",
							   &mc_worker_role, "",
							   PGC_SIGHUP, 0, check_name_length, NULL, NULL);
	DefineCustomIntVariable("meritum_cache.max_parallel_jobs",
							"Jobs of one database that run at the same time.",
							NULL,
							&mc_max_parallel_jobs, 2, 1, 64,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("meritum_cache.job_run_retention",
							"Days for which runs of jobs are kept in meritum_cache.job_run.",
							NULL,
							&mc_job_run_retention, 30, 1, 36500,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
}

void
mc_guc_init(void)
{
	define_session_settings();
	define_reload_settings();

	DefineCustomStringVariable("meritum_cache.databases",
							   "Databases that get a background worker.",
							   "A comma-separated list of names.",
							   &mc_databases, "postgres",
							   process_shared_preload_libraries_in_progress ?
							   PGC_POSTMASTER : PGC_SIGHUP,
							   GUC_LIST_INPUT, check_databases, NULL, NULL);

	MarkGUCPrefixReserved("meritum_cache");
}
