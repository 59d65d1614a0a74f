/*
 * zone.c
 *		The time zone of the figures, today, and calendar months.
 *
 * A figure must not depend on who computes it, so the session's TimeZone,
 * which a role, a database or a driver may have set, is never used.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

#include "guc.h"
#include "owner.h"
#include "plan.h"
#include "zone.h"

/* Name of the server's zone: from the postmaster, or found on first use. */
static char server_zone[TZ_STRLEN_MAX + 1];

/*
 * Without preloading there is no postmaster to have remembered the setting,
 * and the session's reset value may come from its role, database or client:
 * read the configuration files.
 */
static McPlan configured_zone = {
	"SELECT setting FROM pg_file_settings"
	" WHERE lower(name) = 'timezone' AND error IS NULL AND setting IS NOT NULL"
	" ORDER BY seqno DESC LIMIT 1",
	"", SPI_OK_SELECT
};

void
mc_zone_init(void)
{
	if (process_shared_preload_libraries_in_progress)
		strlcpy(server_zone, pg_get_timezone_name(session_timezone),
				sizeof(server_zone));
}

static void
find_server_zone(void)
{
	McBracket	bracket;
	const char *name = "GMT";
	bool		isnull;

	mc_owner_enter(&bracket, true);
	if (mc_plan_execute(&configured_zone, NULL, NULL) > 0)
		name = TextDatumGetCString(mc_plan_value(0, 1, &isnull));
	strlcpy(server_zone, name, sizeof(server_zone));
	mc_owner_leave(&bracket);
}

const char *
mc_zone_name(void)
{
	if (mc_timezone_setting[0] != '\0')
		return mc_timezone_setting;
	if (server_zone[0] == '\0')
		find_server_zone();
	return server_zone;
}

pg_tz *
mc_zone(void)
{
	static pg_tz *zone = NULL;
	const char *name = mc_zone_name();

	/* the server's look-up is by hash, which is dear for each of many rows */
	if (zone != NULL && strcmp(pg_get_timezone_name(zone), name) == 0)
		return zone;
	zone = pg_tzset(name);
	if (zone == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("time zone \"%s\" not recognized", name)));
	return zone;
}

DateADT
mc_date_of(Oid type, Datum moment)
{
	struct pg_tm tm;
	fsec_t		fsec;
	int			tz;
	bool		zoned = type == TIMESTAMPTZOID;

	if (type == DATEOID)
		return DatumGetDateADT(moment);
	if (TIMESTAMP_IS_NOEND(DatumGetTimestamp(moment)))
		return DATEVAL_NOEND;
	if (TIMESTAMP_IS_NOBEGIN(DatumGetTimestamp(moment)) ||
		timestamp2tm(DatumGetTimestamp(moment), zoned ? &tz : NULL, &tm, &fsec,
					 NULL, zoned ? mc_zone() : NULL) != 0)
		return DATEVAL_NOBEGIN;
	return date2j(tm.tm_year, tm.tm_mon, tm.tm_mday) - POSTGRES_EPOCH_JDATE;
}

DateADT
mc_today(void)
{
	return mc_date_of(TIMESTAMPTZOID,
					  TimestampTzGetDatum(GetCurrentTimestamp()));
}

DateADT
mc_month_of(DateADT date)
{
	int			year,
				month,
				day;

	/* all infinite dates form one month of their own */
	if (DATE_NOT_FINITE(date))
		return DATEVAL_NOBEGIN;
	j2date(date + POSTGRES_EPOCH_JDATE, &year, &month, &day);
	return date - (day - 1);
}

DateADT
mc_month_add(DateADT month, int months)
{
	int			year,
				mon,
				day,
				n;

	j2date(month + POSTGRES_EPOCH_JDATE, &year, &mon, &day);
	n = year * 12 + (mon - 1) + months;
	return date2j(n / 12, n % 12 + 1, 1) - POSTGRES_EPOCH_JDATE;
}

DateADT
mc_month_end(DateADT month)
{
	return mc_month_add(month, 1) - 1;
}
