/*
 * share.h
 *		What each process of the nightly batch does of it.
 */
#ifndef MERITUM_CACHE_SHARE_H
#define MERITUM_CACHE_SHARE_H

#include "lib/stringinfo.h"
#include "nodes/pg_list.h"
#include "port/atomics.h"
#include "utils/date.h"
#include "utils/uuid.h"

typedef struct McBatchProvider
{
	pg_uuid_t	id;
	bool		recheck;		/* its facts may differ from its claims */
} McBatchProvider;

/*
 * What the processes have in common: in shared memory, if there are several.
 * Only next changes; it hands out the providers.
 */
typedef struct McBatch
{
	DateADT		as_of;
	int64		run;			/* marks the providers that are done */
	bool		resumes;		/* some may be done already */
	int			size;			/* providers a transaction, at most */
	int			delay;			/* between two, in milliseconds */
	pg_atomic_uint32 next;
	uint32		nproviders;
	McBatchProvider provider[FLEXIBLE_ARRAY_MEMBER];	/* in their locks' order */
} McBatch;

/* Allocates it; the caller fills in the rest. */
extern McBatch *mc_batch_create(uint32 nproviders);
extern Size mc_batch_size_of(uint32 nproviders);

typedef struct McCounts
{
	int64		skipped;		/* done by the run that this one continues */
	int64		processed;
	int64		entries;
	int64		failed;
} McCounts;

/* The work of one process, and what it did since the last reset. */
typedef struct McShare
{
	MemoryContext context;
	MemoryContext scratch;		/* reset with each provider */
	McBatch    *batch;
	bool		waits;			/* for the locks of providers */
	List	   *held;			/* providers locked by the transaction */
	McCounts	counts;
	StringInfoData taken;		/* indexes of providers, uint32 */
	StringInfoData errors;		/* members of a JSON array */
} McShare;

/* Its memory goes with the current context. */
extern void mc_share_init(McShare *share, McBatch *batch);

/*
 * Refresh providers in the current transaction, until it ought to be
 * committed; false if there are none left to take.  A provider whose lock
 * somebody else holds is passed over, unless the share waits.
 */
extern bool mc_share_work(McShare *share);

/* After the commit, when what was done has been told. */
extern void mc_share_reset(McShare *share);

/* Between two transactions. */
extern void mc_share_pause(const McShare *share);

#endif
