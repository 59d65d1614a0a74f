/*
 * plan.h
 *		SQL statements as saved SPI plans, executed with checked results.
 */
#ifndef MERITUM_CACHE_PLAN_H
#define MERITUM_CACHE_PLAN_H

#include "executor/spi.h"
#include "executor/tuptable.h"
#include "utils/date.h"

/*
 * A statement.  Define it beside the code that runs it, as a static variable:
 *
 *		static McPlan delete_note = {
 *			"DELETE FROM meritum_cache.pending_refresh WHERE note_id = $1",
 *			"int8", SPI_OK_DELETE
 *		};
 *
 * It is prepared on first use and kept for the session.
 */
typedef struct McPlan
{
	const char *sql;
	const char *types;			/* of the parameters, comma-separated */
	int			result;			/* expected SPI_OK_* */
	bool		discreet;		/* its errors may quote claims: hide their text */
	SPIPlanPtr	plan;			/* filled on first use */
	bool		replan;			/* plan for the values of each call */
	bool		parallel;		/* may use parallel workers */
} McPlan;

/* Called for each row; the slot is valid during the call only. */
typedef void (*McRowCallback) (TupleTableSlot *slot, void *arg);

/*
 * Both need SPI to be connected and an active snapshot, which is the one the
 * statement sees, together with all that the transaction did before it.
 * nulls is an array of ' ' and 'n' as for SPI, or NULL if none is null.
 */
extern uint64 mc_plan_execute(McPlan *plan, Datum *values, const char *nulls);
extern void mc_plan_scan(McPlan *plan, Datum *values, const char *nulls,
						 McRowCallback callback, void *arg);

/* Make what was written without a statement visible to the next one. */
extern void mc_plan_advance(void);

/* A statement that can have no plan, such as GRANT. */
extern void mc_plan_utility(const char *sql);

/* Forget a prepared statement whose text is about to change. */
extern void mc_plan_forget(McPlan *plan);

/*
 * Do something else whose errors may quote claims as those of a discreet
 * statement may.
 */
extern void mc_plan_discreetly(void (*work) (void *arg), void *arg);

/* What may be said of an error: never contents of a claim. */
extern const char *mc_error_message(const ErrorData *error);

/* The value in a row of SPI_tuptable after mc_plan_execute. */
extern Datum mc_plan_value(uint64 row, int column, bool *isnull);

/* The same of a date; DATEVAL_NOBEGIN if it is null. */
extern DateADT mc_plan_date(uint64 row, int column);

#endif
