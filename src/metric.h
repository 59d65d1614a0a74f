/*
 * metric.h
 *		What the metrics are: a table with one row each.
 */
#ifndef MERITUM_CACHE_METRIC_H
#define MERITUM_CACHE_METRIC_H

#include "nodes/pg_list.h"

#include "compat.h"

typedef enum McGrain
{
	MC_MONTHLY,
	MC_SNAPSHOT,
	MC_N_GRAINS
} McGrain;

/* What selects facts; a fact has the trait or has it not. */
#define MC_T_PAID			(1U << 0)
#define MC_T_REJECTED		(1U << 1)
#define MC_T_ASSESSED		(1U << 2)	/* ASSESSED or PAID */
#define MC_T_ADJUSTED		(1U << 3)
#define MC_T_DECIDED		(1U << 4)
#define MC_T_ACCEPTED		(1U << 5)	/* decided and not REJECTED */
#define MC_T_SENT			(1U << 6)
#define MC_T_OPEN			(1U << 7)
#define MC_T_WAITING		(1U << 8)	/* QUEUED or SUBMITTED */
#define MC_T_RESUBMITTED	(1U << 9)	/* once rejected, QUEUED or sent, not
										 * REJECTED */
#define MC_T_REPAID			(1U << 10)	/* once rejected and PAID */
#define MC_T_WRITTEN_OFF	(1U << 11)
#define MC_T_EXPIRED		(1U << 12)
#define MC_T_DETAIL			(1U << 13)	/* AHCIP-detailed */
#define MC_T_WCB			(1U << 14)	/* claim_type WCB */
#define MC_T_WCB_DETAIL		(1U << 15)
#define MC_T_TIER			(1U << 16)	/* has a timing tier */
#define MC_T_SHADOW			(1U << 17)
#define MC_T_RECIPROCAL		(1U << 18)
#define MC_T_PLACED			(1U << 19)	/* at an active location */
#define MC_T_DUE			(1U << 20)	/* deadline 0 to 7 days ahead */
#define MC_T_STALE			(1U << 21)	/* not sent 14 days after creation */
#define MC_T_RESOLVED		(1U << 22)	/* paid, served in the trailing window */
#define MC_T_CLAIM			(1U << 23)	/* any claim */
#define MC_T_COACH_ANY		(1U << 24)	/* AI coach: a known event */
#define MC_T_COACH_GENERATED (1U << 25)
#define MC_T_COACH_ACCEPTED	(1U << 26)
#define MC_T_COACH_DISMISSED (1U << 27)
#define MC_T_COACH_ANSWERED	(1U << 28)	/* accepted or dismissed */
#define MC_T_COACH_SUPPRESSED (1U << 29)	/* a suppressed rule */

/* Strings of a fact. */
typedef enum McId
{
	MC_ID_STATE, MC_ID_TYPE, MC_ID_BA, MC_ID_CENTRE, MC_ID_HSC, MC_ID_FORM,
	MC_ID_TIER, MC_ID_PROVINCE, MC_ID_CATEGORY, MC_ID_RULE,
	MC_N_IDS
} McId;

/* Amounts of a fact; money is in ten-thousandths. */
typedef enum McAmount
{
	MC_NO_AMOUNT,				/* ends a list of measures */
	MC_COUNT,					/* is 1: counts facts */
	MC_SUBMITTED, MC_ASSESSED, MC_WCB_AMOUNT, MC_TIME, MC_IMPACT, MC_DAYS,
	MC_N_AMOUNTS
} McAmount;

/* By what a list groups facts. */
typedef enum McGroup
{
	MC_GROUP_NONE,
	MC_GROUP_BA, MC_GROUP_HSC, MC_GROUP_FORM, MC_GROUP_TIER,
	MC_GROUP_PROVINCE, MC_GROUP_CATEGORY, MC_GROUP_RULE,	/* by one string */
	MC_GROUP_CODE,				/* each explanatory code */
	MC_GROUP_PROVINCE_CODE,
	MC_GROUP_LOCATION,			/* each active location, also when empty */
	MC_GROUP_BRACKET,			/* the four brackets of age */
	MC_GROUP_MONTH, MC_GROUP_DATE,
	MC_GROUP_CLAIM				/* each claim */
} McGroup;

/* A number that is accumulated: over facts with all the traits. */
typedef struct McMeasure
{
	uint32		traits;
	McAmount	amount;
} McMeasure;

/* How a member of a JSON object is made. */
typedef enum McFormat
{
	MC_F_END,
	MC_F_COUNT,					/* measure a, a number */
	MC_F_MONEY,					/* measure a, a string with two decimals */
	MC_F_RATE,					/* 100 * a / b, a string with two decimals */
	MC_F_AVERAGE,				/* a / b, money */
	MC_F_MEAN,					/* a / b, a number with one decimal or null */
	MC_F_LIST,					/* the list of groups, inside an object */
	MC_F_KEY,					/* the group's string, or uuid */
	MC_F_KEY2,					/* second string of the group */
	MC_F_RULE_NAME,
	MC_F_LOCATION_NAME, MC_F_LOCATION_RRNP,
	MC_F_LABEL, MC_F_MIN_DAYS, MC_F_MAX_DAYS,	/* of a bracket */
	MC_F_DEADLINE, MC_F_DAYS_LEFT
} McFormat;

typedef struct McMember
{
	const char *name;
	McFormat	format;
	int			a;
	int			b;
} McMember;

/* Order of a list; ties are broken by the key. */
typedef enum McOrder
{
	MC_BY_KEY,
	MC_BY_FIRST,				/* measure 0, descending */
	MC_BY_FIRST_NAME,			/* the same, then location name, then key */
	MC_BY_RRNP,					/* the location's rate, descending */
	MC_BY_RULE_NAME,
	MC_BY_DEADLINE,
	MC_BY_PROVINCE				/* key ascending, measure 0 descending, code */
} McOrder;

/* Columns of a claim that a metric may read. */
#define MC_C_STATE			(1U << 0)
#define MC_C_TYPE			(1U << 1)
#define MC_C_DETAIL			(1U << 2)
#define MC_C_WCB_DETAIL		(1U << 3)
#define MC_C_BA				(1U << 4)
#define MC_C_CENTRE			(1U << 5)
#define MC_C_HSC			(1U << 6)
#define MC_C_SUBMITTED		(1U << 7)
#define MC_C_ASSESSED		(1U << 8)
#define MC_C_WCB_AMOUNT		(1U << 9)
#define MC_C_SHADOW			(1U << 10)
#define MC_C_TIME			(1U << 11)
#define MC_C_CODES			(1U << 12)
#define MC_C_FORM			(1U << 13)
#define MC_C_TIER			(1U << 14)
#define MC_C_PROVINCE		(1U << 15)
#define MC_C_ONCE_REJECTED	(1U << 16)
#define MC_C_DATE			(1U << 17)
#define MC_C_DEADLINE		(1U << 18)
#define MC_C_CREATED		(1U << 19)
#define MC_C_RESOLVED		(1U << 20)

#define MC_MAX_MEASURES 6
#define MC_MAX_MEMBERS 8

typedef struct McMetric
{
	const char *key;
	McGrain		grain;
	bool		breakdown;		/* rows by dimension are kept as well */
	uint32		all;			/* a fact counts if it has all of these */
	uint32		any;			/* and, if not 0, one of these */
	uint32		reads;			/* MC_C_*: which changes of it matter */
	McMeasure	measure[MC_MAX_MEASURES];
	McMember	object[MC_MAX_MEMBERS]; /* none: the value is the list */
	McGroup		group;			/* of the list */
	McMember	item[MC_MAX_MEMBERS];
	McOrder		order;
	int			having;			/* 1 + measure that an item needs, 0: none */
	int			limit;			/* items, 0: all */
	const char *description;
} McMetric;

#define MC_N_METRICS 40

extern const McMetric mc_metric[MC_N_METRICS];

/* Sets of metrics, a bit each. */
typedef uint64 McMetrics;

#define MC_METRIC_BIT(m) (UINT64CONST(1) << (m))
#define MC_ALL_METRICS (MC_METRIC_BIT(MC_N_METRICS) - 1)

extern McMetrics mc_metrics_snapshot(void);
extern McMetrics mc_metrics_breakdown(void);
extern McMetrics mc_metrics_grouped(void);
extern McMetrics mc_metrics_with(uint32 traits, McGroup group);

/* Metrics that list or count locations, and those of AI events. */
extern McMetrics mc_metrics_location(void);
extern McMetrics mc_metrics_coach(void);

/* Metrics that count a fact with these traits. */
extern McMetrics mc_metrics_counting(uint32 traits);

/* Number of a metric by its key, -1 if unknown. */
extern int	mc_metric_find(const char *key, int len);

mc_noreturn extern void mc_metric_unknown(const char *key);

/* Their keys as varchar[]. */
extern Datum mc_metric_array(McMetrics metrics);

static inline bool
mc_metric_counts(const McMetric *metric, uint32 traits)
{
	return (traits & metric->all) == metric->all &&
		(metric->any == 0 || (traits & metric->any) != 0);
}

#endif
