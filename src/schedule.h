/*
 * schedule.h
 *		Five-field cron schedules: parsing, and the next time one is due.
 */
#ifndef MERITUM_CACHE_SCHEDULE_H
#define MERITUM_CACHE_SCHEDULE_H

#include "datatype/timestamp.h"
#include "pgtime.h"

/* What is due, as bits: bit n stands for the value n. */
typedef struct McSchedule
{
	uint64		minutes;		/* 0 to 59 */
	uint64		hours;			/* 0 to 23 */
	uint64		days;			/* 1 to 31 */
	uint64		months;			/* 1 to 12 */
	uint64		weekdays;		/* 0 to 6, 0 is Sunday */
	bool		either_day;		/* days or weekdays, rather than both */
} McSchedule;

/* Why a text is no schedule. */
typedef struct McScheduleError
{
	const char *field;			/* NULL: not the fault of one field */
	char		reason[128];	/* a sentence */
} McScheduleError;

/* Returns false and fills error if the text is malformed; raises nothing. */
extern bool mc_schedule_parse(const char *text, McSchedule *schedule,
							  McScheduleError *error);

/*
 * The first time strictly later than after at which the schedule is due by
 * the clocks of the zone.  Returns false if there is none.
 */
extern bool mc_schedule_next(const McSchedule *schedule, TimestampTz after,
							 const pg_tz *zone, TimestampTz *next);

#endif
