/*
 * zone.h
 *		The time zone of the figures, today, and calendar months.
 */
#ifndef MERITUM_CACHE_ZONE_H
#define MERITUM_CACHE_ZONE_H

#include "pgtime.h"
#include "utils/date.h"

/* Called from _PG_init: remembers the zone the server was started with. */
extern void mc_zone_init(void);

/*
 * The zone of meritum_cache.timezone, else the one the server is configured
 * with; never the session's own.  May run a query the first time.
 */
extern pg_tz *mc_zone(void);
extern const char *mc_zone_name(void);

/*
 * The date in that zone of a date, timestamp or timestamptz, told by its type;
 * a timestamp without time zone is taken as written in the zone.
 */
extern DateADT mc_date_of(Oid type, Datum moment);

/* The current date in that zone. */
extern DateADT mc_today(void);

/* A month is the date of its first day. */
extern DateADT mc_month_of(DateADT date);
extern DateADT mc_month_end(DateADT month);
extern DateADT mc_month_add(DateADT month, int months);

/* The months before the running one that a refresh keeps current. */
#define MC_WINDOW_MONTHS 12

/* Months whose figures are stored on first read. */
#define MC_READ_MONTHS 24

#endif
