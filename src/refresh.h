/*
 * refresh.h
 *		The pipeline: lock, sync the facts, aggregate, write the cells.
 */
#ifndef MERITUM_CACHE_REFRESH_H
#define MERITUM_CACHE_REFRESH_H

#include "cell.h"
#include "source.h"
#include "task.h"

typedef struct McOutcome
{
	McWritten	cells;
	int			differences;	/* facts that were not as stored */
	int			drift;			/* of these, without any note of a change */
	List	   *moved;			/* McMoved: claims noted that are another's */
	bool		known;			/* the providers table has the provider */
	List	   *custom;			/* char *: custom metrics written */
	int			failed;			/* custom metrics that left a note */
} McOutcome;

/* Raises 55000 unless there is something to refresh from. */
extern void mc_refresh_require(void);

/* How a refresh waits for the provider's lock. */
typedef enum McWait
{
	MC_WAIT,
	MC_NO_WAIT					/* do nothing if it is taken */
} McWait;

/*
 * Do what the task asks for, in the current transaction.  With notes, the
 * provider's pending notes are settled with it.  The caller needs no bracket.
 * Returns false only with MC_NO_WAIT, if somebody else holds the lock.
 */
extern bool mc_refresh_task(McTask *task, McWait wait, bool notes,
							McOutcome *outcome);

/*
 * The same in a subtransaction and with bounded waits for locks.  Returns the
 * error if it failed, NULL if not; *done says whether anything was done.
 */
extern ErrorData *mc_refresh_attempt(McTask *task, McWait wait, bool notes,
									 bool *done, McOutcome *outcome);

/* mc_refresh_unresolved in the same way; false if it failed. */
extern bool mc_refresh_attempt_unresolved(void);

/*
 * At commit: refresh what the tasks ask for, or leave notes of it, as the
 * settings say.  A failing refresh becomes a note and a warning unless
 * meritum_cache.on_error says otherwise.  Returns true if notes were left.
 * Sorts the tasks.
 */
extern bool mc_refresh_settle(McTask **tasks, int n);

/*
 * For the worker: settle the notes of a provider, or those of keys (unless
 * with MC_NO_WAIT another process is at it).
 */
extern void mc_refresh_notes(const pg_uuid_t *provider);
extern void mc_refresh_unresolved(McWait wait);

/*
 * The claims of changed rows: calls found for each claim.  Rows are named by
 * the keys in uuid[]; needs a bracket.  For ai_rules found is called with no
 * claim, once for each provider.
 */
typedef void (*McFound) (const pg_uuid_t *key, const pg_uuid_t *provider,
						 DateADT date, const pg_uuid_t *claim, void *arg);
extern void mc_refresh_resolve(McSource source, Datum keys, McFound found,
							   void *arg);

/* The same without a bracket, in a subtransaction; false if it failed. */
extern bool mc_refresh_attempt_resolve(McSource source, Datum keys,
									   McFound found, void *arg);

/*
 * All metrics of the trailing window; with recheck the facts are compared with
 * the source tables first.  Returns how many entries were written.
 */
extern int64 mc_refresh_full(const pg_uuid_t *provider, DateADT as_of,
							 bool recheck);

#endif
