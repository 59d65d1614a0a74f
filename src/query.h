/*
 * query.h
 *		The statements that read the application's tables.
 */
#ifndef MERITUM_CACHE_QUERY_H
#define MERITUM_CACHE_QUERY_H

#include "nodes/pg_list.h"
#include "utils/date.h"

#include "plan.h"
#include "source.h"

/* Which facts a derivation reads. */
typedef enum McFactScope
{
	MC_SCOPE_CLAIMS,			/* $1 uuid[] */
	MC_SCOPE_RANGE,				/* $1 provider, $2 first, $3 last date */
	MC_SCOPE_PROVIDER,			/* $1 provider */
	MC_SCOPE_ALL,				/* everything */
	MC_N_SCOPES
} McFactScope;

/*
 * The statement that derives facts, its columns as in meritum_cache.claim_fact;
 * but as the application has them: the state in any letter case, the codes as
 * jsonb, moments as timestamptz, and dates also of states that do not read them.
 * Run it as the owner of the claims (mc_source_get(MC_CLAIMS)->owner).
 */
extern McPlan *mc_query_facts(McFactScope scope);

/* The text of the same, to which an order may be added. */
extern char *mc_query_fact_text(McFactScope scope);

/* $1 uuid[]: claim_id, provider_id, date_of_service by key of a source. */
extern McPlan *mc_query_resolve(McSource source);

/* $1 provider: the statement of a source's rows; see query.c. */
extern McPlan *mc_query_rows(McSource source);

/* Run it as the owner of that table. */
extern void mc_query_scan(McSource source, Datum *values,
						  McRowCallback callback, void *arg);

/* A claim's provider, type (NULL: none) and date; false if there is none. */
extern bool mc_query_claim(const pg_uuid_t *claim, pg_uuid_t *provider,
							char **type, DateADT *date);

/* Does the attached providers table know the provider? True if not attached. */
extern bool mc_query_provider_known(const pg_uuid_t *provider);

/*
 * Active providers as palloc'd pg_uuid_t: those with status ACTIVE or, without
 * a providers table, those with a claim in the trailing window or with custom
 * metrics, or, without claims, those that have figures.
 */
extern List *mc_query_active_providers(DateADT as_of);

#endif
