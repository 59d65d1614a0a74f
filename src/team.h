/*
 * team.h
 *		The processes that help with the nightly batch.
 */
#ifndef MERITUM_CACHE_TEAM_H
#define MERITUM_CACHE_TEAM_H

#include "share.h"

/* What a helper has committed since its last report. */
typedef struct McReport
{
	McCounts	counts;
	uint32		ntaken;
	uint32		errors_length;
	bool		last;
} McReport;

/*
 * Start helpers, at most n.  Returns the copy of the batch that they and the
 * caller take providers from; if none can be started, the given one.
 */
extern McBatch *mc_team_start(McBatch *batch, int n);

/*
 * Hand the reports that have arrived to the callback; false if there were
 * none.  What arrives sets the process's latch.
 */
typedef void (*McHear) (const McReport *report, const uint32 *taken,
						const char *errors, void *arg);
extern bool mc_team_hear(McHear hear, void *arg);

/* Whether reports may still arrive. */
extern bool mc_team_at_work(void);

/*
 * Stop the helpers and wait for their exit; the copy of the batch is gone.
 * Does nothing if there are none.  An exit of the process stops them, too.
 */
extern void mc_team_stop(void);

/* Entry point of a helper. */
extern PGDLLEXPORT void mc_helper_main(Datum arg);

#endif
