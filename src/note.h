/*
 * note.h
 *		Durable notes of pending work: meritum_cache.pending_refresh.
 */
#ifndef MERITUM_CACHE_NOTE_H
#define MERITUM_CACHE_NOTE_H

#include "datatype/timestamp.h"
#include "utils/uuid.h"

#include "source.h"
#include "task.h"

/* Attempts after which a note is parked. */
#define MC_MAX_ATTEMPTS 10

/*
 * All need a bracket (owner.h).
 */

/* Leave notes of all that a task asks for; error is that of the attempt. */
extern void mc_note_write(const McTask *task, const ErrorData *error);

/*
 * Leave a note of changed rows whose claims another transaction may be about
 * to insert: they are looked up again when all that runs now has ended.
 */
extern void mc_note_write_keys(McSource source, const pg_uuid_t *keys, int n);

/* Queue a refresh of everything the provider has; false if queued already. */
extern bool mc_note_request(const pg_uuid_t *provider);

/*
 * Delete the provider's notes and add to the task what they ask for.  Notes
 * of single metrics are left alone that are not due (for the worker) or that
 * the task is not about (for others), unless it is about all.
 */
extern int	mc_note_take(McTask *task);

/*
 * Has the provider notes that the active snapshot sees, other than of single
 * metrics, or of one of these metrics?
 */
extern bool mc_note_pending(const pg_uuid_t *provider, const McKeys *keys);

/*
 * Under the provider's lock: the query of a metric failed, whose notes the
 * task may have taken, which counts as an attempt of the worker only; or it
 * succeeded for all that is stored.
 */
extern void mc_note_metric_failed(const pg_uuid_t *provider,
								  const McCustomTask *metric, McCause cause,
								  const ErrorData *error);
extern void mc_note_metric_done(const pg_uuid_t *provider, const char *key);

/* Are there notes of keys, which may come to be of any provider? */
extern bool mc_note_keys_pending(void);

/*
 * Take the notes of keys: calls resolve for each, and then deletes it if no
 * transaction that could bring its claims still runs, or keeps it for later.
 */
typedef void (*McResolve) (McSource source, Datum keys, void *arg);
extern void mc_note_take_keys(McResolve resolve, void *arg);

/*
 * Leave a note that the attached tables were restored from a dump.  Taking it
 * returns whether everything is to be refreshed now: not before the restore is
 * complete, and what ran then has ended.
 */
extern void mc_note_write_restore(void);
extern bool mc_note_take_restore(bool complete);

/*
 * The provider of the oldest note that is due, or unresolved if that has none.
 * Returns false if none is due; then *next_due is when the next one will be,
 * DT_NOEND if there is none at all.
 */
extern bool mc_note_next(pg_uuid_t *provider, bool *unresolved,
						 TimestampTz *next_due);

/*
 * Record that settling a provider's notes (NULL: those of keys) failed: the
 * next attempt comes later, after ten they are parked.
 */
extern void mc_note_failed(const pg_uuid_t *provider, const ErrorData *error);


#endif
