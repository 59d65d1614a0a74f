/*
 * drift.c
 *		Finding providers whose facts differ from their claims.
 *
 * The nightly batch looks at every claim.  Reading each provider's claims by
 * index takes several times as long as reading all of them at once, so this
 * compares checksums first: for each provider the sum of the hashes of its
 * facts, as stored and as derived.  Claims and facts change in the same
 * transaction, or a note is pending, so that in one snapshot the sums are equal
 * for every provider that has neither notes nor drift; the others the batch
 * compares claim by claim, under their locks.  That a difference escapes takes
 * a collision of 64 bits, and it would be met again by other hashes after the
 * next change of the claim.
 *
 * Memory is bounded by the number of providers.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "storage/proc.h"

#include "attempt.h"
#include "drift.h"
#include "fact.h"
#include "owner.h"

typedef struct Checksum
{
	pg_uuid_t	provider;
	char		status;			/* of the hash table */
	uint64		stored;
	uint64		derived;
} Checksum;

#define SH_PREFIX		sumtab
#define SH_ELEMENT_TYPE	Checksum
#define SH_KEY_TYPE		pg_uuid_t
#define SH_KEY			provider
#define SH_HASH_KEY(tb, key) hash_bytes((key).data, UUID_LEN)
#define SH_EQUAL(tb, a, b) (memcmp((a).data, (b).data, UUID_LEN) == 0)
#define SH_SCOPE		static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

struct McDrift
{
	sumtab_hash *sums;
};

static Checksum *
get_checksum(McDrift *drift, const pg_uuid_t *provider)
{
	bool		found;
	Checksum   *sum = sumtab_insert(drift->sums, *provider, &found);

	if (!found)
		sum->stored = sum->derived = 0;
	return sum;
}

static void
add_stored(const pg_uuid_t *provider, McStrings *strings,
		   const McFact *fact, void *arg)
{
	get_checksum(arg, provider)->stored += mc_fact_hash(strings, fact);
}

static void
add_derived(const pg_uuid_t *provider, McStrings *strings,
			const McFact *fact, void *arg)
{
	get_checksum(arg, provider)->derived += mc_fact_hash(strings, fact);
}

static void
compare(void *arg)
{
	McBracket	bracket;

	mc_owner_enter(&bracket, true);
	mc_fact_scan(MC_SCAN_STORED, add_stored, arg);
	mc_fact_scan(MC_SCAN_DERIVED, add_derived, arg);
	mc_owner_leave(&bracket);
}

/*
 * A claim that cannot be read, such as one with an amount out of range, must
 * cost its own provider only: each is then compared by itself.
 */
McDrift *
mc_drift_find(void)
{
	McDrift    *drift = palloc(sizeof(McDrift));
	ErrorData  *error;

	drift->sums = sumtab_create(CurrentMemoryContext, 256, NULL);
	error = mc_attempt(compare, drift, DeadlockTimeout);
	if (error == NULL)
		return drift;
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		ReThrowError(error);
	mc_drift_free(drift);
	return NULL;
}

void
mc_drift_free(McDrift *drift)
{
	if (drift == NULL)
		return;
	sumtab_destroy(drift->sums);
	pfree(drift);
}

bool
mc_drift_has(McDrift *drift, const pg_uuid_t *provider)
{
	Checksum   *sum;

	if (drift == NULL)
		return true;
	sum = sumtab_lookup(drift->sums, *provider);
	return sum != NULL && sum->stored != sum->derived;
}
