/*
 * fact.h
 *		Facts: what the metrics read of a claim, in memory and in
 *		meritum_cache.claim_fact.
 */
#ifndef MERITUM_CACHE_FACT_H
#define MERITUM_CACHE_FACT_H

#include "storage/itemptr.h"
#include "utils/date.h"
#include "utils/uuid.h"

#include "intern.h"
#include "metric.h"
#include "place.h"

/*
 * One row that metrics count: a claim, or an event or rule of the AI coach.
 * Strings are numbers in the set's table of strings, MC_NULL for null; amounts
 * are ten-thousandths.  A date that is not finite belongs to no month.
 */
typedef struct McFact
{
	uint32		traits;			/* MC_T_*: which metrics count it */
	DateADT		date;
	int32		id[MC_N_IDS];
	int64		amount[MC_N_AMOUNTS];
	pg_uuid_t	claim;
	int32		ncodes;
	int32	   *codes;			/* explanatory codes of a rejected claim */
	DateADT		deadline;		/* MC_NO_DATE: none */
	DateADT		created_on;
	DateADT		resolved_on;
	bool		has_ahcip;
	bool		has_wcb;
	bool		shadow;
	bool		once_rejected;
	bool		dead;			/* removed by a sync, or filtered out */
	ItemPointerData tid;		/* in claim_fact; invalid for derived facts */
} McFact;

#define MC_NO_DATE DATEVAL_NOBEGIN

typedef struct McFactSet
{
	McStrings  *strings;
	int32		last[MC_N_IDS]; /* strings of the fact read before */
	MemoryContext context;
	McFact	   *fact;
	int			n;
	int			capacity;
} McFactSet;

/* The table of strings that facts need; in the current memory context. */
extern McStrings *mc_fact_strings(void);

extern McFactSet *mc_fact_set(McStrings *strings);
extern McFact *mc_fact_add(McFactSet *set);

/* Stored facts of a provider whose date is within the range, inclusive. */
extern void mc_fact_load(McFactSet *set, const pg_uuid_t *provider,
						 DateADT first, DateADT last);

/* A claim that was looked for with one provider and belongs to another. */
typedef struct McMoved
{
	pg_uuid_t	claim;
	pg_uuid_t	provider;
	DateADT		date;
} McMoved;

/*
 * The same facts derived from the source tables.  By claims, those that
 * belong to another provider are passed over and, as palloc'd McMoved, added
 * to the list *moved in the current memory context.
 */
extern void mc_fact_derive_claims(McFactSet *set, const pg_uuid_t *provider,
								  const pg_uuid_t *claims, int n,
								  List **moved);
extern void mc_fact_derive_range(McFactSet *set, const pg_uuid_t *provider,
								 DateADT first, DateADT last);
extern void mc_fact_derive_provider(McFactSet *set, const pg_uuid_t *provider);

/*
 * Compare stored and derived facts, bring the stored set up to date and, with
 * write, claim_fact too.  in_scope says of a stored fact whether the derived
 * set would hold it if its claim still were as stored.  For each difference
 * changed is called: old is NULL for a new claim, new for one that is gone;
 * columns are the MC_C_* that differ.  Returns the number of differences.
 */
typedef bool (*McInScope) (const McFact *fact, void *arg);
typedef void (*McChanged) (const McFact *old, const McFact *new,
						   uint32 columns, void *arg);
extern int	mc_fact_sync(McFactSet *stored, McFactSet *derived,
						 const pg_uuid_t *provider, bool write,
						 McInScope in_scope, McChanged changed, void *arg);

/*
 * Each fact of all providers; the fact and its strings are valid during the
 * call only, which may write only if they come in order.  Needs a bracket.
 */
typedef enum McFactScan
{
	MC_SCAN_STORED,
	MC_SCAN_DERIVED,
	MC_SCAN_ORDERED				/* derived, in the order of claim_fact's key */
} McFactScan;
typedef void (*McFactFound) (const pg_uuid_t *provider,
							 McStrings *strings, const McFact *fact,
							 void *arg);
extern void mc_fact_scan(McFactScan what, McFactFound found, void *arg);

/*
 * A hash of what mc_fact_sync compares: equal facts have equal ones.
 */
extern uint64 mc_fact_hash(McStrings *strings, const McFact *fact);

/* Set the traits that depend on where and when. */
extern void mc_fact_place(McFact *fact, const McPlaces *places);
extern void mc_fact_date(McFact *fact, DateADT as_of);

/* Events and suppressed rules of the AI coach. */
extern void mc_fact_load_events(McFactSet *set, const pg_uuid_t *provider,
								DateADT first, DateADT last);
extern void mc_fact_load_suppressed(McFactSet *set, const pg_uuid_t *provider);

/*
 * Names of the rules that the set's facts mention, by the number of the rule's
 * string; NULL where ai_rules has none.
 */
extern const char **mc_fact_rule_names(McFactSet *set);

/* Fill claim_fact from the source tables for all providers at once. */
extern uint64 mc_fact_fill(void);

/* Forget the facts of a provider. */
extern void mc_fact_remove_provider(const pg_uuid_t *provider);

#endif
