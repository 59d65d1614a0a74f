/*
 * task.h
 *		What of one provider is to be brought up to date.
 */
#ifndef MERITUM_CACHE_TASK_H
#define MERITUM_CACHE_TASK_H

#include "utils/date.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "custom.h"

/*
 * Claims of a month noted one by one; past that the month as a whole.  To read
 * single claims costs less than their month unless they are most of it.
 */
#define MC_MONTH_CLAIMS 512

/*
 * A month is the first of its days, or DATEVAL_NOBEGIN for claims without a
 * finite date.
 */
typedef struct McMonthTask
{
	DateADT		month;
	bool		whole;			/* all claims of the month may have changed */
	bool		coach;			/* events of the AI coach have changed */
	int			nclaims;
	pg_uuid_t  *claim;			/* else these */
	McMetrics	force;			/* recompute in any case */
	McMetrics	existing;		/* recompute where there is a total */
	McMetrics	soft;			/* the same, but leave equal values alone */
} McMonthTask;

/*
 * A custom metric that is to be recomputed.  In the trailing window its
 * figures are made; months named as existing are elsewhere kept up only where
 * they are stored, forced ones are made.  A snapshot has one month, the
 * running one, whichever is named.
 */
typedef struct McCustomTask
{
	char	   *key;
	bool		whole;			/* the window and all months stored */
	List	   *force;			/* integers, months */
	List	   *existing;
	int			attempts;		/* of the notes that were taken */
	TimestampTz since;
} McCustomTask;

/* Why a refresh happens; shown in statistics, log and provider_state. */
typedef enum McCause
{
	MC_CAUSE_COMMIT, MC_CAUSE_WORKER, MC_CAUSE_NIGHTLY, MC_CAUSE_REQUEST,
	MC_CAUSE_EVENT, MC_CAUSE_READ, MC_CAUSE_VERIFY,
	MC_N_CAUSES
} McCause;

typedef struct McTask
{
	pg_uuid_t	provider;
	McCause		cause;
	bool		whole;			/* all claims may have changed */
	bool		recheck;		/* all claims are compared; differences that
								 * nothing noted are drift */
	bool		locations;		/* practice locations have changed */
	bool		events;			/* any events of the AI coach have changed */
	bool		rules;			/* rules of the AI coach have changed */
	bool		snapshot;		/* what only snapshot metrics read has changed */
	bool		existence;		/* the providers table has changed */
	bool		full_window;	/* recompute all metrics of the window */
	McMetrics	everywhere;		/* recompute in each month that has a total */
	List	   *custom;			/* McCustomTask */
	McKeys		wanted;			/* a reader's: it must not read without them */
	List	   *raised;			/* char *: events to be logged */
	bool		at_commit;		/* part of the transaction's commit */
	DateADT		as_of;			/* 0: today */
	bool		has_as_of;
	McMonthTask *month;
	int			nmonths;
	int			capacity;
} McTask;

extern McTask *mc_task_create(const pg_uuid_t *provider, McCause cause);

/* The month's part of a task, made if there is none. */
extern McMonthTask *mc_task_month(McTask *task, DateADT month);

/* Note a claim of the month; the second, one that is not yet noted there. */
extern void mc_task_claim(McMonthTask *month, const pg_uuid_t *claim);
extern void mc_task_add_claim(McMonthTask *month, const pg_uuid_t *claim);

/* A task of its own with the same to do. */
extern McTask *mc_task_copy(const McTask *task);

/* Does it concern what is computed from claims, or custom metrics alone? */
extern bool mc_task_reads_claims(const McTask *task);
extern bool mc_task_is_empty(const McTask *task);

/* A custom metric's part of a task, made if there is none. */
extern McCustomTask *mc_task_custom(McTask *task, const char *key);
extern void mc_task_custom_force(McTask *task, const char *key, DateADT month);
extern void mc_task_custom_existing(McTask *task, const char *key, DateADT month);

/* All that is stored of some metrics. */
extern void mc_task_keys(McTask *task, const McKeys *keys);

/* Force metrics in each month of the window that ends with as_of. */
extern void mc_task_window(McTask *task, McMetrics metrics, DateADT as_of);
extern void mc_task_custom_window(McTask *task, const List *keys, DateADT as_of);

/*
 * Compare all claims.  If the transaction itself has changed some, differences
 * are no drift.
 */
extern void mc_task_recheck(McTask *task, bool changed);

/*
 * How many parts of the provider's figures were noted as changed: months,
 * what is of no month, and metrics that events named; an event is one in any
 * case.
 */
extern int	mc_task_invalidations(const McTask *task);

/* In words, and as one word for the log. */
extern const char *mc_cause_name(McCause cause);
extern const char *mc_cause_token(McCause cause);

#endif
