/*
 * metric.c
 *		What the metrics are: a table with one row each.
 *
 * To add a metric is to add a row: which facts count in it, what is added up,
 * how its list is grouped and ordered, and how its JSON is written.  fold.c
 * accumulates and value.c writes whatever the table says.  Formulas and JSON
 * shapes are those of the catalogue in the documentation.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

#include "metric.h"

#define CLAIM		.grain = MC_MONTHLY
#define BROKEN_DOWN	.grain = MC_MONTHLY, .breakdown = true
#define SNAPSHOT	.grain = MC_SNAPSHOT
#define DETAIL		MC_T_DETAIL
#define PAID		MC_T_PAID
#define COUNT(name, m)		{name, MC_F_COUNT, m}
#define MONEY(name, m)		{name, MC_F_MONEY, m}
#define RATE(name, m, of)	{name, MC_F_RATE, m, of}
#define KEY(name)			{name, MC_F_KEY}
#define C_STATE MC_C_STATE
#define C_DETAIL (MC_C_STATE | MC_C_DETAIL)
#define C_PLACE (C_DETAIL | MC_C_CENTRE)
#define C_WCB (MC_C_TYPE | MC_C_WCB_DETAIL)

const McMetric mc_metric[MC_N_METRICS] = {
	{"revenue_monthly", BROKEN_DOWN,
		.all = DETAIL | PAID,
		.reads = C_DETAIL | MC_C_ASSESSED | MC_C_SUBMITTED,
		.measure = {{0, MC_ASSESSED}, {0, MC_SUBMITTED}, {0, MC_COUNT}},
		.object = {MONEY("totalRevenue", 0), MONEY("totalSubmitted", 1),
			COUNT("claimCount", 2), {"monthlyTrend", MC_F_LIST}},
		.group = MC_GROUP_MONTH,
		.item = {KEY("month"), MONEY("revenue", 0), COUNT("count", 2)},
		.description = "assessed and submitted fees and number of paid AHCIP claims"
	},
	{"revenue_by_ba", CLAIM,
		.all = DETAIL | PAID,
		.reads = C_DETAIL | MC_C_ASSESSED | MC_C_BA,
		.measure = {{0, MC_ASSESSED}, {0, MC_COUNT}},
		.group = MC_GROUP_BA, .order = MC_BY_FIRST,
		.item = {KEY("baNumber"), MONEY("revenue", 0), COUNT("count", 1)},
		.description = "revenue of paid AHCIP claims by business arrangement"
	},
	{"revenue_by_location", CLAIM,
		.all = DETAIL | MC_T_PLACED,
		.reads = C_PLACE | MC_C_ASSESSED,
		.measure = {{PAID, MC_ASSESSED}, {0, MC_COUNT},
			{MC_T_REJECTED, MC_COUNT}, {MC_T_DECIDED, MC_COUNT}},
		.group = MC_GROUP_LOCATION, .order = MC_BY_FIRST_NAME,
		.item = {KEY("locationId"), {"locationName", MC_F_LOCATION_NAME},
			MONEY("revenue", 0), COUNT("claimCount", 1),
			RATE("rejectionRate", 2, 3), {"rrnpPremium", MC_F_LOCATION_RRNP}},
		.description = "revenue, claims, rejection rate and rural premium of each active location"
	},
	{"revenue_by_hsc", CLAIM,
		.all = DETAIL | PAID,
		.reads = C_DETAIL | MC_C_ASSESSED | MC_C_HSC,
		.measure = {{0, MC_ASSESSED}, {0, MC_COUNT}},
		.group = MC_GROUP_HSC, .order = MC_BY_FIRST,
		.item = {KEY("hscCode"), MONEY("revenue", 0), COUNT("count", 1)},
		.description = "revenue of paid AHCIP claims by health service code"
	},
	{"top_hsc_codes", CLAIM,
		.all = DETAIL | MC_T_DECIDED,
		.reads = C_DETAIL | MC_C_ASSESSED | MC_C_HSC,
		.measure = {{PAID, MC_ASSESSED}, {PAID, MC_COUNT},
			{MC_T_REJECTED, MC_COUNT}, {0, MC_COUNT}},
		.group = MC_GROUP_HSC, .order = MC_BY_FIRST, .having = 1 + 1, .limit = 10,
		.item = {KEY("hscCode"), MONEY("revenue", 0), COUNT("count", 1),
			RATE("rejectionRate", 2, 3)},
		.description = "the ten health service codes with the highest revenue, and their rejection rates"
	},
	{"claims_submitted", BROKEN_DOWN, .all = MC_T_SENT, .reads = C_STATE,
		.measure = {{0, MC_COUNT}}, .object = {COUNT("count", 0)},
		.description = "number of claims sent: submitted, assessed, paid, rejected or adjusted"
	},
	{"claims_assessed", BROKEN_DOWN, .all = MC_T_ASSESSED, .reads = C_STATE,
		.measure = {{0, MC_COUNT}}, .object = {COUNT("count", 0)},
		.description = "number of claims assessed or paid"
	},
	{"claims_paid", BROKEN_DOWN, .all = PAID, .reads = C_STATE,
		.measure = {{0, MC_COUNT}}, .object = {COUNT("count", 0)},
		.description = "number of claims paid"
	},
	{"claims_rejected", BROKEN_DOWN, .all = MC_T_REJECTED, .reads = C_STATE,
		.measure = {{0, MC_COUNT}}, .object = {COUNT("count", 0)},
		.description = "number of claims rejected"
	},
	{"claims_adjusted", BROKEN_DOWN, .all = MC_T_ADJUSTED, .reads = C_STATE,
		.measure = {{0, MC_COUNT}}, .object = {COUNT("count", 0)},
		.description = "number of claims adjusted"
	},
	{"rejection_rate_monthly", BROKEN_DOWN, .all = MC_T_DECIDED, .reads = C_STATE,
		.measure = {{MC_T_REJECTED, MC_COUNT}, {0, MC_COUNT}},
		.object = {RATE("rate", 0, 1), COUNT("totalRejected", 0),
			COUNT("totalDecided", 1)},
		.description = "rejected claims as a percentage of decided ones"
	},
	{"rejection_by_code", CLAIM,
		.all = DETAIL | MC_T_REJECTED, .reads = C_DETAIL | MC_C_CODES,
		.measure = {{0, MC_COUNT}},
		.group = MC_GROUP_CODE, .order = MC_BY_FIRST,
		.item = {KEY("code"), COUNT("count", 0)},
		.description = "explanatory codes of rejected AHCIP claims"
	},
	{"rejection_by_hsc", CLAIM,
		.all = DETAIL | MC_T_DECIDED, .reads = C_DETAIL | MC_C_HSC,
		.measure = {{MC_T_REJECTED, MC_COUNT}, {0, MC_COUNT}},
		.group = MC_GROUP_HSC, .order = MC_BY_FIRST, .having = 1 + 0,
		.item = {KEY("hscCode"), COUNT("count", 0), COUNT("total", 1),
			RATE("rate", 0, 1)},
		.description = "rejections among decided AHCIP claims by health service code"
	},
	{"rejection_resolution_funnel", CLAIM,
		.any = MC_T_REJECTED | MC_T_RESUBMITTED | MC_T_REPAID | MC_T_WRITTEN_OFF,
		.reads = C_STATE | MC_C_ONCE_REJECTED,
		.measure = {{MC_T_REJECTED, MC_COUNT}, {MC_T_RESUBMITTED, MC_COUNT},
			{MC_T_REPAID, MC_COUNT}, {MC_T_WRITTEN_OFF, MC_COUNT}},
		.object = {COUNT("rejected", 0), COUNT("resubmitted", 1),
			COUNT("paidOnResubmission", 2), COUNT("writtenOff", 3)},
		.description = "what became of rejected claims"
	},
	{"pending_pipeline", BROKEN_DOWN,
		.all = DETAIL | MC_T_WAITING, .reads = C_DETAIL | MC_C_SUBMITTED,
		.measure = {{0, MC_SUBMITTED}, {0, MC_COUNT}},
		.object = {MONEY("value", 0), COUNT("count", 1)},
		.description = "submitted fees and number of AHCIP claims queued or submitted"
	},
	{"avg_fee_per_claim", BROKEN_DOWN,
		.all = DETAIL | PAID, .reads = C_DETAIL | MC_C_ASSESSED,
		.measure = {{0, MC_ASSESSED}, {0, MC_COUNT}},
		.object = {{"avgFee", MC_F_AVERAGE, 0, 1}},
		.description = "mean assessed fee of paid AHCIP claims"
	},
	{"wcb_by_form_type", CLAIM,
		.all = MC_T_WCB | MC_T_WCB_DETAIL,
		.reads = C_WCB | MC_C_FORM | MC_C_WCB_AMOUNT,
		.measure = {{0, MC_COUNT}, {0, MC_WCB_AMOUNT}},
		.group = MC_GROUP_FORM, .order = MC_BY_FIRST,
		.item = {KEY("formId"), COUNT("count", 0), MONEY("revenue", 1)},
		.description = "number and invoiced amount of WCB claims by form"
	},
	{"wcb_timing_tier_dist", CLAIM,
		.all = MC_T_WCB | MC_T_TIER, .reads = MC_C_TYPE | MC_C_TIER,
		.measure = {{0, MC_COUNT}},
		.group = MC_GROUP_TIER, .order = MC_BY_FIRST,
		.item = {KEY("tier"), COUNT("count", 0)},
		.description = "number of WCB claims by timing tier"
	},
	{"wcb_fee_tier_analysis", CLAIM,
		.all = MC_T_WCB | MC_T_WCB_DETAIL | MC_T_TIER,
		.reads = C_WCB | MC_C_TIER | MC_C_WCB_AMOUNT,
		.measure = {{0, MC_WCB_AMOUNT}, {0, MC_COUNT}},
		.group = MC_GROUP_TIER, .order = MC_BY_KEY,
		.item = {KEY("tier"), MONEY("totalFee", 0),
			{"avgFee", MC_F_AVERAGE, 0, 1}, COUNT("count", 1)},
		.description = "invoiced amount of WCB claims by timing tier"
	},
	{"wcb_revenue_trend", CLAIM,
		.all = MC_T_WCB | MC_T_WCB_DETAIL, .reads = C_WCB | MC_C_WCB_AMOUNT,
		.measure = {{0, MC_WCB_AMOUNT}, {0, MC_COUNT}},
		.group = MC_GROUP_MONTH,
		.item = {KEY("month"), MONEY("revenue", 0), COUNT("count", 1)},
		.description = "invoiced amount and number of WCB claims by month"
	},
	{"wcb_rejection_rate", CLAIM,
		.all = MC_T_WCB | MC_T_DECIDED, .reads = C_STATE | MC_C_TYPE,
		.measure = {{MC_T_REJECTED, MC_COUNT}, {0, MC_COUNT}},
		.object = {RATE("rate", 0, 1), COUNT("totalClaims", 1),
			COUNT("totalRejected", 0)},
		.description = "rejected WCB claims as a percentage of decided ones"
	},
	{"multisite_revenue", CLAIM,
		.all = DETAIL | MC_T_PLACED | PAID, .reads = C_PLACE | MC_C_ASSESSED,
		.measure = {{0, MC_ASSESSED}},
		.group = MC_GROUP_LOCATION, .order = MC_BY_FIRST,
		.item = {KEY("locationId"), {"locationName", MC_F_LOCATION_NAME},
			MONEY("revenue", 0)},
		.description = "revenue of each active location"
	},
	{"multisite_claims", CLAIM,
		.all = DETAIL | MC_T_PLACED, .reads = C_PLACE,
		.measure = {{0, MC_COUNT}, {MC_T_REJECTED, MC_COUNT},
			{MC_T_DECIDED, MC_COUNT}},
		.group = MC_GROUP_LOCATION, .order = MC_BY_FIRST,
		.item = {KEY("locationId"), {"locationName", MC_F_LOCATION_NAME},
			COUNT("claimCount", 0), COUNT("rejectedCount", 1),
			RATE("rejectionRate", 1, 2)},
		.description = "claims and rejections of each active location"
	},
	{"multisite_rrnp", CLAIM,
		.all = DETAIL | MC_T_PLACED | PAID, .reads = C_PLACE | MC_C_ASSESSED,
		.measure = {{0, MC_ASSESSED}},
		.group = MC_GROUP_LOCATION, .order = MC_BY_RRNP,
		.item = {KEY("locationId"), {"locationName", MC_F_LOCATION_NAME},
			{"rrnpRate", MC_F_LOCATION_RRNP}, MONEY("revenue", 0)},
		.description = "rural premium rate and revenue of each active location"
	},
	{"arp_claims", CLAIM,
		.all = DETAIL | MC_T_SHADOW, .reads = C_DETAIL | MC_C_SHADOW,
		.measure = {{0, MC_COUNT}, {MC_T_ASSESSED, MC_COUNT},
			{MC_T_REJECTED, MC_COUNT}, {MC_T_ADJUSTED, MC_COUNT}},
		.object = {COUNT("count", 0), COUNT("assessed", 1),
			COUNT("rejected", 2), COUNT("adjusted", 3)},
		.description = "shadow-billed claims by state"
	},
	{"arp_tm_units", CLAIM,
		.all = DETAIL | MC_T_SHADOW,
		.reads = MC_C_DETAIL | MC_C_SHADOW | MC_C_TIME | MC_C_DATE,
		.measure = {{0, MC_TIME}},
		.object = {COUNT("units", 0), {"byDate", MC_F_LIST}},
		.group = MC_GROUP_DATE, .having = 1 + 0,
		.item = {KEY("date"), COUNT("units", 0)},
		.description = "time units of shadow-billed claims by day"
	},
	{"arp_rejection_rate", CLAIM,
		.all = DETAIL | MC_T_SHADOW | MC_T_DECIDED,
		.reads = C_DETAIL | MC_C_SHADOW,
		.measure = {{MC_T_REJECTED, MC_COUNT}, {0, MC_COUNT}},
		.object = {RATE("rate", 0, 1), COUNT("totalDecided", 1),
			COUNT("totalRejected", 0)},
		.description = "rejected shadow-billed claims as a percentage of decided ones"
	},
	{"reciprocal_claims", CLAIM,
		.all = MC_T_RECIPROCAL,
		.reads = MC_C_PROVINCE | MC_C_STATE | MC_C_ASSESSED,
		.measure = {{0, MC_COUNT}, {PAID, MC_ASSESSED}},
		.object = {COUNT("count", 0), MONEY("revenue", 1)},
		.description = "claims and revenue of patients insured by another province"
	},
	{"reciprocal_acceptance_by_province", CLAIM,
		.all = MC_T_RECIPROCAL, .reads = MC_C_PROVINCE | MC_C_STATE,
		.measure = {{MC_T_DECIDED, MC_COUNT}, {MC_T_ACCEPTED, MC_COUNT}},
		.group = MC_GROUP_PROVINCE,
		.item = {KEY("province"), COUNT("decided", 0), COUNT("accepted", 1),
			RATE("rate", 1, 0)},
		.description = "acceptance of reciprocal claims by province"
	},
	{"reciprocal_rejections_by_province", CLAIM,
		.all = MC_T_RECIPROCAL | MC_T_REJECTED | DETAIL,
		.reads = MC_C_PROVINCE | MC_C_STATE | MC_C_CODES | MC_C_DETAIL,
		.measure = {{0, MC_COUNT}},
		.group = MC_GROUP_PROVINCE_CODE, .order = MC_BY_PROVINCE,
		.item = {KEY("province"), {"code", MC_F_KEY2}, COUNT("count", 0)},
		.description = "explanatory codes of rejected reciprocal claims by province"
	},
	{"ai_coach_acceptance_rate", CLAIM,
		.all = MC_T_COACH_ANY,
		.measure = {{MC_T_COACH_ACCEPTED, MC_COUNT}, {MC_T_COACH_ANSWERED, MC_COUNT},
			{MC_T_COACH_GENERATED, MC_COUNT}, {MC_T_COACH_DISMISSED, MC_COUNT}},
		.object = {RATE("rate", 0, 1), COUNT("totalGenerated", 2),
			COUNT("totalAccepted", 0), COUNT("totalDismissed", 3)},
		.description = "accepted suggestions as a percentage of answered ones"
	},
	{"ai_coach_revenue_recovered", CLAIM,
		.all = MC_T_COACH_ACCEPTED,
		.measure = {{0, MC_IMPACT}},
		.object = {MONEY("revenue", 0)},
		.description = "revenue impact of accepted suggestions"
	},
	{"ai_coach_by_category", CLAIM,
		.all = MC_T_COACH_ANY,
		.measure = {{MC_T_COACH_ACCEPTED, MC_COUNT}, {MC_T_COACH_ANSWERED, MC_COUNT},
			{MC_T_COACH_GENERATED, MC_COUNT}, {MC_T_COACH_DISMISSED, MC_COUNT},
			{MC_T_COACH_ACCEPTED, MC_IMPACT}},
		.group = MC_GROUP_CATEGORY, .order = MC_BY_FIRST,
		.item = {KEY("category"), COUNT("generated", 2), COUNT("accepted", 0),
			COUNT("dismissed", 3), RATE("rate", 0, 1), MONEY("revenue", 4)},
		.description = "suggestions by category"
	},
	{"ai_coach_top_accepted", CLAIM,
		.all = MC_T_COACH_ACCEPTED,
		.measure = {{0, MC_COUNT}, {0, MC_IMPACT}},
		.group = MC_GROUP_RULE, .order = MC_BY_FIRST, .limit = 5,
		.item = {KEY("ruleId"), {"ruleName", MC_F_RULE_NAME},
			COUNT("acceptedCount", 0), MONEY("revenue", 1)},
		.description = "the five rules whose suggestions are accepted most"
	},
	{"ai_coach_suppressed", SNAPSHOT,
		.all = MC_T_COACH_SUPPRESSED,
		.group = MC_GROUP_RULE, .order = MC_BY_RULE_NAME,
		.item = {KEY("ruleId"), {"ruleName", MC_F_RULE_NAME}},
		.description = "rules that the provider has suppressed"
	},
	{"aging_brackets", SNAPSHOT,
		.all = MC_T_OPEN,
		.measure = {{0, MC_COUNT}, {0, MC_SUBMITTED}},
		.group = MC_GROUP_BRACKET,
		.item = {{"label", MC_F_LABEL}, {"minDays", MC_F_MIN_DAYS},
			{"maxDays", MC_F_MAX_DAYS}, COUNT("count", 0), MONEY("value", 1)},
		.description = "open claims by days since the service"
	},
	{"approaching_deadline", SNAPSHOT,
		.all = MC_T_DUE,
		.measure = {{0, MC_COUNT}},
		.object = {COUNT("count", 0), {"claims", MC_F_LIST}},
		.group = MC_GROUP_CLAIM, .order = MC_BY_DEADLINE,
		.item = {KEY("claimId"), {"deadline", MC_F_DEADLINE},
			{"daysRemaining", MC_F_DAYS_LEFT}},
		.description = "claims not yet sent whose deadline is within seven days"
	},
	{"expired_claims", SNAPSHOT,
		.all = MC_T_EXPIRED,
		.measure = {{0, MC_COUNT}}, .object = {COUNT("count", 0)},
		.description = "number of expired claims"
	},
	{"avg_resolution_time", SNAPSHOT,
		.all = MC_T_RESOLVED,
		.measure = {{0, MC_DAYS}, {0, MC_COUNT}},
		.object = {{"avgDays", MC_F_MEAN, 0, 1}, COUNT("count", 1)},
		.description = "mean days from service to payment over the trailing window"
	},
	{"stale_claims", SNAPSHOT,
		.all = MC_T_STALE,
		.measure = {{0, MC_COUNT}}, .object = {COUNT("count", 0)},
		.description = "claims not validated or queued 14 days after their creation"
	},
};

McMetrics
mc_metrics_with(uint32 traits, McGroup group)
{
	McMetrics	set = 0;
	int			m;

	for (m = 0; m < MC_N_METRICS; m++)
		if (((mc_metric[m].all | mc_metric[m].any) & traits) != 0 ||
			(group != MC_GROUP_NONE && mc_metric[m].group == group))
			set |= MC_METRIC_BIT(m);
	return set;
}

McMetrics
mc_metrics_snapshot(void)
{
	static McMetrics set = 0;
	int			m;

	if (set == 0)
		for (m = 0; m < MC_N_METRICS; m++)
			if (mc_metric[m].grain == MC_SNAPSHOT)
				set |= MC_METRIC_BIT(m);
	return set;
}

McMetrics
mc_metrics_breakdown(void)
{
	static McMetrics set = 0;
	int			m;

	if (set == 0)
		for (m = 0; m < MC_N_METRICS; m++)
			if (mc_metric[m].breakdown)
				set |= MC_METRIC_BIT(m);
	return set;
}

McMetrics
mc_metrics_grouped(void)
{
	static McMetrics set = 0;
	int			m;

	if (set == 0)
		for (m = 0; m < MC_N_METRICS; m++)
			if (mc_metric[m].group != MC_GROUP_NONE)
				set |= MC_METRIC_BIT(m);
	return set;
}

McMetrics
mc_metrics_location(void)
{
	return mc_metrics_with(MC_T_PLACED, MC_GROUP_LOCATION);
}

McMetrics
mc_metrics_coach(void)
{
	return mc_metrics_with(MC_T_COACH_ANY | MC_T_COACH_ACCEPTED |
						   MC_T_COACH_SUPPRESSED, MC_GROUP_NONE);
}

McMetrics
mc_metrics_counting(uint32 traits)
{
	McMetrics	set = 0;
	int			m;

	for (m = 0; m < MC_N_METRICS; m++)
		if (mc_metric_counts(&mc_metric[m], traits))
			set |= MC_METRIC_BIT(m);
	return set;
}

int
mc_metric_find(const char *key, int len)
{
	int			m;

	for (m = 0; m < MC_N_METRICS; m++)
		if (strlen(mc_metric[m].key) == len &&
			memcmp(mc_metric[m].key, key, len) == 0)
			return m;
	return -1;
}

Datum
mc_metric_array(McMetrics metrics)
{
	Datum		elements[MC_N_METRICS];
	int			n = 0;
	int			m;

	for (m = 0; m < MC_N_METRICS; m++)
		if (metrics & MC_METRIC_BIT(m))
			elements[n++] = CStringGetTextDatum(mc_metric[m].key);
	return PointerGetDatum(construct_array(elements, n, VARCHAROID, -1, false,
										   TYPALIGN_INT));
}

void
mc_metric_unknown(const char *key)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown metric \"%s\"", key),
			 errhint("The metrics are listed in meritum_cache.metric.")));
}

PG_FUNCTION_INFO_V1(builtin_metric);

/*
 * The table above for meritum_cache.metric.
 */
Datum
builtin_metric(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	int			m;

	InitMaterializedSRF(fcinfo, 0);
	for (m = 0; m < MC_N_METRICS; m++)
	{
		const McMetric *metric = &mc_metric[m];
		Datum		values[4];
		bool		nulls[4] = {false};

		values[0] = CStringGetTextDatum(metric->key);
		values[1] = CStringGetTextDatum(metric->grain == MC_SNAPSHOT ?
										"snapshot" : "monthly");
		values[2] = BoolGetDatum(metric->breakdown);
		values[3] = CStringGetTextDatum(metric->description);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
