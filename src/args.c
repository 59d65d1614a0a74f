/*
 * args.c
 *		Arguments of the SQL functions, checked.
 */
#include "postgres.h"

#include "utils/datetime.h"

#include "args.h"
#include "guc.h"
#include "privilege.h"
#include "zone.h"

/* Days, more than the trailing window has. */
#define MC_AS_OF_MARGIN 1000

void
mc_arg_required(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name)));
}

const pg_uuid_t *
mc_arg_provider(FunctionCallInfo fcinfo, int n)
{
	mc_arg_required(fcinfo, n, "provider_id");
	mc_require_provider(PG_GETARG_UUID_P(n));
	return PG_GETARG_UUID_P(n);
}

McKeys
mc_arg_keys(FunctionCallInfo fcinfo, int n)
{
	mc_arg_required(fcinfo, n, "metric_keys");
	return mc_keys_parse(PG_GETARG_DATUM(n));
}

DateADT
mc_arg_date(FunctionCallInfo fcinfo, int n, const char *name)
{
	mc_arg_required(fcinfo, n, name);
	if (DATE_NOT_FINITE(PG_GETARG_DATEADT(n)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be finite", name)));
	return PG_GETARG_DATEADT(n);
}

DateADT
mc_arg_as_of(FunctionCallInfo fcinfo, int n)
{
	DateADT		as_of;

	if (PG_ARGISNULL(n))
		return mc_today();
	as_of = mc_arg_date(fcinfo, n, "as_of");

	/* the months around it must be dates as well */
	if (!IS_VALID_DATE(as_of - MC_AS_OF_MARGIN) ||
		!IS_VALID_DATE(as_of + MC_AS_OF_MARGIN))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("as_of is out of range")));
	return as_of;
}

int
mc_arg_max_age(FunctionCallInfo fcinfo, int n)
{
	if (PG_ARGISNULL(n))
		return mc_stale_after;
	if (PG_GETARG_INT32(n) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_age_minutes must not be negative")));
	return PG_GETARG_INT32(n);
}

void
mc_check_period(DateADT first, DateADT last)
{
	if (first > last)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("period_end must not be before period_start")));
}
