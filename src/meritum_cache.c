/*
 * meritum_cache.c
 *		The module: magic, and what has to be set up when it is loaded.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "dirty.h"
#include "guc.h"
#include "wake.h"
#include "worker.h"
#include "zone.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

void
_PG_init(void)
{
	mc_guc_init();
	mc_zone_init();
	mc_dirty_init();
	if (process_shared_preload_libraries_in_progress)
	{
		mc_wake_init();
		mc_worker_init();
	}
}
