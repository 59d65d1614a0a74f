/*
 * attempt.h
 *		Doing something that may fail without failing the transaction.
 */
#ifndef MERITUM_CACHE_ATTEMPT_H
#define MERITUM_CACHE_ATTEMPT_H

#include "utils/elog.h"

/*
 * Do something in a subtransaction.  Returns the error if it failed, in the
 * current context, NULL if not.  With a bound, no lock is waited for longer
 * than so many milliseconds; 0 means as long as the session says.
 */
extern ErrorData *mc_attempt(void (*work) (void *), void *arg, int bound);

#endif
