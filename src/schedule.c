/*
 * schedule.c
 *		Five-field cron schedules: parsing, and the next time one is due.
 *
 * Pure arithmetic: no database access, no state, no ereport.
 *
 * A schedule names wall-clock minutes.  Each is due at the first instant at
 * which the clocks of the zone reach or pass it, which settles both ends of
 * daylight saving with one rule: a minute that the clocks skip is due right
 * after the gap, together with all others that they skip, and one that they
 * show twice is due the first time only.  The rule holds for every schedule
 * alike; so one of "every 15 minutes" rests during the repeated hour, where
 * cron would go on.
 */
#include "postgres.h"

#include <ctype.h>

#include "utils/datetime.h"
#include "utils/timestamp.h"

#include "schedule.h"

#define BIT(n) (UINT64CONST(1) << (n))

/* The calendar repeats after this many years. */
#define CALENDAR_CYCLE 400

#define SECONDS_A_MINUTE 60
#define SECONDS_A_DAY 86400

/* No zone is further than this from UTC. */
#define MAX_UTC_OFFSET (26 * 3600)

/* Difference between the Unix and the PostgreSQL epoch, in days. */
#define EPOCH_DAYS (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE)

typedef struct Field
{
	const char *name;
	int			low;
	int			high;
	const char *const *names;	/* of the values from low on, or NULL */
	int			nnames;
} Field;

typedef struct Shorthand
{
	const char *name;
	const char *schedule;
} Shorthand;

/* A wall-clock minute. */
typedef struct WallClock
{
	int			year;
	int			month;
	int			day;
	int			hour;
	int			minute;
} WallClock;

enum
{
	MINUTE_FIELD, HOUR_FIELD, DAY_FIELD, MONTH_FIELD, WEEKDAY_FIELD,
	N_FIELDS
};

static const char *const month_names[] = {
	"jan", "feb", "mar", "apr", "may", "jun",
	"jul", "aug", "sep", "oct", "nov", "dec"
};

static const char *const weekday_names[] = {
	"sun", "mon", "tue", "wed", "thu", "fri", "sat"
};

static const Field fields[N_FIELDS] = {
	[MINUTE_FIELD] = {"minute", 0, 59, NULL, 0},
	[HOUR_FIELD] = {"hour", 0, 23, NULL, 0},
	[DAY_FIELD] = {"day of month", 1, 31, NULL, 0},
	[MONTH_FIELD] = {"month", 1, 12, month_names, lengthof(month_names)},
	[WEEKDAY_FIELD] = {"day of week", 0, 7, weekday_names, lengthof(weekday_names)},
};

static const Shorthand shorthands[] = {
	{"@yearly", "0 0 1 1 *"},
	{"@annually", "0 0 1 1 *"},
	{"@monthly", "0 0 1 * *"},
	{"@weekly", "0 0 * * 0"},
	{"@daily", "0 0 * * *"},
	{"@midnight", "0 0 * * *"},
	{"@hourly", "0 * * * *"},
};

static bool
fail(McScheduleError *error, const Field *field, const char *fmt,...)
			pg_attribute_printf(3, 4);

static bool
fail(McScheduleError *error, const Field *field, const char *fmt,...)
{
	va_list		args;

	error->field = field != NULL ? field->name : NULL;
	va_start(args, fmt);
	vsnprintf(error->reason, sizeof(error->reason), fmt, args);
	va_end(args);
	return false;
}

/*
 * Read digits; false unless there are one to four of them, which is more than
 * any valid value has.
 */
static bool
read_number(const char **p, const char *end, int *value)
{
	const char *start = *p;

	*value = 0;
	while (*p < end && isdigit((unsigned char) **p))
	{
		if (*p - start == 4)
			return false;
		*value = *value * 10 + (**p - '0');
		(*p)++;
	}
	return *p > start;
}

/*
 * Read one value, a number or a name.  Sunday is 0 and, by number, also 7.
 */
static bool
read_value(const Field *field, const char **p, const char *end, int *value,
		   McScheduleError *error)
{
	const char *start = *p;
	int			length;
	int			i;

	if (*p < end && isalpha((unsigned char) **p))
	{
		while (*p < end && isalpha((unsigned char) **p))
			(*p)++;
		length = *p - start;
		for (i = 0; i < field->nnames; i++)
			if (length == 3 &&
				pg_strncasecmp(start, field->names[i], 3) == 0)
			{
				*value = field->low + i;
				return true;
			}
		if (field->nnames == 0)
			return fail(error, field, "\"%.*s\" is not a number.",
						Min(length, 20), start);
		return fail(error, field, "\"%.*s\" is neither a number nor one of the names %s to %s.",
					Min(length, 20), start, field->names[0],
					field->names[field->nnames - 1]);
	}

	if (!read_number(p, end, value))
		return fail(error, field, "A number is missing or too long in \"%.*s\".",
					(int) Min(end - start, 20), start);
	if (*value < field->low || *value > field->high)
		return fail(error, field, "%d is not in the range %d to %d.",
					*value, field->low, field->high);
	return true;
}

/*
 * Read one member of a list: a value, a range, or all, and a step for the
 * latter two.
 */
static bool
read_member(const Field *field, const char *p, const char *end, uint64 *bits,
			McScheduleError *error)
{
	const char *member = p;
	bool		single = false;
	int			low = field->low;
	int			high = field->high;
	int			step = 1;
	int			i;

	if (p == end)
		return fail(error, field, "A member of the list is empty.");
	if (*p == '*')
	{
		p++;
		/* 7 stands for Sunday too, which must not be counted twice. */
		if (field == &fields[WEEKDAY_FIELD])
			high = 6;
	}
	else
	{
		if (!read_value(field, &p, end, &low, error))
			return false;
		single = p == end || *p != '-';
		high = low;
		if (!single)
		{
			p++;
			if (!read_value(field, &p, end, &high, error))
				return false;
			/* A range may end with Sunday by name, as in fri-sun. */
			if (field == &fields[WEEKDAY_FIELD] && high == 0 && low > 0)
				high = 7;
			if (high < low)
				return fail(error, field, "The range \"%.*s\" runs backwards.",
							(int) Min(end - member, 20), member);
		}
	}
	if (p < end && *p == '/')
	{
		p++;
		if (single)
			return fail(error, field, "A step must follow a range or \"*\".");
		if (!read_number(&p, end, &step))
			return fail(error, field, "The step is not a number.");
		if (step < 1 || step > field->high - field->low + 1)
			return fail(error, field, "The step %d is not in the range 1 to %d.",
						step, field->high - field->low + 1);
	}
	if (p < end)
		return fail(error, field, "\"%.*s\" is not expected.",
					(int) Min(end - p, 20), p);

	for (i = low; i <= high; i += step)
		*bits |= BIT(i);
	return true;
}

static bool
read_field(const Field *field, const char *p, const char *end, uint64 *bits,
		   McScheduleError *error)
{
	*bits = 0;
	for (;;)
	{
		const char *comma = memchr(p, ',', end - p);

		if (!read_member(field, p, comma != NULL ? comma : end, bits, error))
			return false;
		if (comma == NULL)
			return true;
		p = comma + 1;
	}
}

static const char *
expand_shorthand(const char *text, McScheduleError *error)
{
	const char *start = text + strspn(text, " \t");
	int			length = strcspn(start, " \t");
	int			i;

	if (*start != '@')
		return text;
	if (start[length + strspn(start + length, " \t")] == '\0')
		for (i = 0; i < (int) lengthof(shorthands); i++)
			if (pg_strncasecmp(start, shorthands[i].name, length) == 0 &&
				shorthands[i].name[length] == '\0')
				return shorthands[i].schedule;
	(void) fail(error, NULL, "\"%.40s\" is not one of the shorthands.", start);
	return NULL;
}

bool
mc_schedule_parse(const char *text, McSchedule *schedule,
				  McScheduleError *error)
{
	uint64		bits[N_FIELDS];
	bool		any[N_FIELDS];
	int			n = 0;
	const char *p;

	text = expand_shorthand(text, error);
	if (text == NULL)
		return false;
	for (p = text + strspn(text, " \t"); *p != '\0'; p += strspn(p, " \t"))
	{
		const char *end = p + strcspn(p, " \t");

		if (n == N_FIELDS)
			return fail(error, NULL, "It has more than five fields.");
		if (!read_field(&fields[n], p, end, &bits[n], error))
			return false;
		any[n++] = *p == '*';
		p = end;
	}
	if (n < N_FIELDS)
		return fail(error, NULL, "It has %d of the five fields minute, hour, day of month, month and day of week.",
					n);

	if (bits[WEEKDAY_FIELD] & BIT(7))
		bits[WEEKDAY_FIELD] = (bits[WEEKDAY_FIELD] & ~BIT(7)) | BIT(0);

	schedule->minutes = bits[MINUTE_FIELD];
	schedule->hours = bits[HOUR_FIELD];
	schedule->days = bits[DAY_FIELD];
	schedule->months = bits[MONTH_FIELD];
	schedule->weekdays = bits[WEEKDAY_FIELD];

	/* As in cron: a day field that starts with * restricts nothing more. */
	schedule->either_day = !any[DAY_FIELD] && !any[WEEKDAY_FIELD];
	return true;
}

static int
days_in_month(int year, int month)
{
	return day_tab[isleap(year)][month - 1];
}

static bool
day_matches(const McSchedule *schedule, const WallClock *wall)
{
	bool		day = (schedule->days & BIT(wall->day)) != 0;
	int			julian = date2j(wall->year, wall->month, wall->day);
	bool		weekday = (schedule->weekdays & BIT(j2day(julian))) != 0;

	return schedule->either_day ? day || weekday : day && weekday;
}

/*
 * Move to the first minute that the schedule names, the given one or later.
 * Larger units are skipped whole.  Returns false if there is none.
 */
static bool
find_minute(const McSchedule *schedule, WallClock *wall)
{
	int			last_year = wall->year + CALENDAR_CYCLE;

	while (wall->year <= last_year)
	{
		if ((schedule->months & BIT(wall->month)) == 0 ||
			wall->day > days_in_month(wall->year, wall->month))
		{
			if (wall->month++ == 12)
			{
				wall->month = 1;
				wall->year++;
			}
			wall->day = 1;
			wall->hour = wall->minute = 0;
		}
		else if (wall->hour > 23 || !day_matches(schedule, wall))
		{
			wall->day++;
			wall->hour = wall->minute = 0;
		}
		else if (wall->minute > 59 ||
				 (schedule->hours & BIT(wall->hour)) == 0)
		{
			wall->hour++;
			wall->minute = 0;
		}
		else if ((schedule->minutes & BIT(wall->minute)) == 0)
			wall->minute++;
		else
			return true;
	}
	return false;
}

/*
 * The first instant at which the clocks of a zone reach or pass a wall-clock
 * minute, in Unix time.
 */
static bool
first_instant(const WallClock *wall, const pg_tz *zone, pg_time_t *instant)
{
	pg_time_t	local;
	pg_time_t	t;

	local = (pg_time_t) (date2j(wall->year, wall->month, wall->day) -
						 UNIX_EPOCH_JDATE) * SECONDS_A_DAY +
		wall->hour * 3600 + wall->minute * SECONDS_A_MINUTE;

	/* Follow the zone's changes from a time when it was surely earlier. */
	t = local - MAX_UTC_OFFSET;
	for (;;)
	{
		long int	before;
		long int	after;
		int			before_isdst;
		int			after_isdst;
		pg_time_t	boundary;
		int			result;

		result = pg_next_dst_boundary(&t, &before, &before_isdst, &boundary,
									  &after, &after_isdst, zone);
		if (result < 0)
			return false;
		*instant = local - before;
		if (result == 0 || *instant < boundary)
			return true;
		if (boundary + after >= local)
		{
			*instant = boundary;
			return true;
		}
		t = boundary;
	}
}

bool
mc_schedule_next(const McSchedule *schedule, TimestampTz after,
				 const pg_tz *zone, TimestampTz *next)
{
	struct pg_tm tm;
	fsec_t		fsec;
	int			offset;
	WallClock	wall;

	if (TIMESTAMP_NOT_FINITE(after) ||
		timestamp2tm(after, &offset, &tm, &fsec, NULL,
					 unconstify(pg_tz *, zone)) != 0)
		return false;
	wall.year = tm.tm_year;
	wall.month = tm.tm_mon;
	wall.day = tm.tm_mday;
	wall.hour = tm.tm_hour;
	wall.minute = tm.tm_min + 1;

	/*
	 * Minutes up to the one on the clock are past by the rule above.  Those
	 * after it may be too, in a repeated hour; then go on to the next one.
	 */
	while (find_minute(schedule, &wall))
	{
		pg_time_t	instant;

		if (!first_instant(&wall, zone, &instant))
			return false;
		*next = (instant - (pg_time_t) EPOCH_DAYS * SECONDS_A_DAY) *
			USECS_PER_SEC;
		if (!IS_VALID_TIMESTAMP(*next))
			return false;
		if (*next > after)
			return true;
		wall.minute++;
	}
	return false;
}
