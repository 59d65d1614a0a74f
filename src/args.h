/*
 * args.h
 *		Arguments of the SQL functions, checked.
 */
#ifndef MERITUM_CACHE_ARGS_H
#define MERITUM_CACHE_ARGS_H

#include "fmgr.h"
#include "utils/date.h"
#include "utils/jsonb.h"
#include "utils/uuid.h"

#include "custom.h"

/* Raises 22004 if the argument is null; name is that of the SQL parameter. */
extern void mc_arg_required(FunctionCallInfo fcinfo, int n, const char *name);

/* The same for the provider; raises 42501 if the caller may not act for it. */
extern const pg_uuid_t *mc_arg_provider(FunctionCallInfo fcinfo, int n);

/* A text[] of metric keys, see mc_keys_parse. */
extern McKeys mc_arg_keys(FunctionCallInfo fcinfo, int n);

/* A finite date; raises 22023 if it is not. */
extern DateADT mc_arg_date(FunctionCallInfo fcinfo, int n, const char *name);

/* The same with today where null; raises 22023 at the ends of the calendar. */
extern DateADT mc_arg_as_of(FunctionCallInfo fcinfo, int n);

/* Minutes, by default those of meritum_cache.stale_after. */
extern int	mc_arg_max_age(FunctionCallInfo fcinfo, int n);

/* Raises 22023 unless first <= last. */
extern void mc_check_period(DateADT first, DateADT last);

#endif
