/*
 * attempt.c
 *		Doing something that may fail without failing the transaction.
 */
#include "postgres.h"

#include "access/xact.h"
#include "storage/proc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "attempt.h"

ErrorData *
mc_attempt(void (*work) (void *), void *arg, int bound)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;
	int			lock_timeout = LockTimeout;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	if (bound > 0)
		LockTimeout = lock_timeout > 0 ? Min(lock_timeout, bound) : bound;
	PG_TRY();
	{
		work(arg);
		LockTimeout = lock_timeout;
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		LockTimeout = lock_timeout;
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return error;
}
