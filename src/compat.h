/*
 * compat.h
 *		What differs between the supported server versions; the only file that
 *		asks for the version.
 */
#ifndef MERITUM_CACHE_COMPAT_H
#define MERITUM_CACHE_COMPAT_H

#if PG_VERSION_NUM < 150000
#error "meritum_cache needs PostgreSQL 15 or later"
#endif

/* Access to variable-length data has a header of its own from 16 on. */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* guc.c frees the extra data of a setting with guc_free() from 16 on. */
#if PG_VERSION_NUM >= 160000
#define mc_guc_malloc(size) guc_malloc(LOG, size)
#else
#define mc_guc_malloc(size) malloc(size)
#endif

/* pg_class_ownercheck() and its like became one function in 16. */
#if PG_VERSION_NUM >= 160000
#define mc_owns_relation(relid, role) \
	object_ownercheck(RelationRelationId, relid, role)
#else
#define mc_owns_relation(relid, role) pg_class_ownercheck(relid, role)
#endif

/* PortalRun() lost its argument run_once in 18. */
#if PG_VERSION_NUM >= 180000
#define mc_portal_run(portal, top_level, receiver) \
	PortalRun(portal, FETCH_ALL, top_level, receiver, receiver, NULL)
#else
#define mc_portal_run(portal, top_level, receiver) \
	PortalRun(portal, FETCH_ALL, top_level, true, receiver, receiver, NULL)
#endif

/* EvalPlanQualInit() got another argument in 16. */
#if PG_VERSION_NUM >= 160000
#define mc_eval_plan_qual_init(epq, estate) \
	EvalPlanQualInit(epq, estate, NULL, NIL, -1, NIL)
#else
#define mc_eval_plan_qual_init(epq, estate) \
	EvalPlanQualInit(epq, estate, NULL, NIL, -1)
#endif

/* Before a declaration; 18 has another word for it. */
#if PG_VERSION_NUM >= 180000
#define mc_noreturn pg_noreturn
#else
#define mc_noreturn pg_attribute_noreturn()
#endif

/* From 19 on the state of building JSON holds its result too. */
#if PG_VERSION_NUM >= 190000
#define McJsonState JsonbInState
#define mc_json_push(state, token, value) pushJsonbValue(state, token, value)
#else
typedef struct McJsonState
{
	struct JsonbParseState *parseState;
	struct JsonbValue *result;
} McJsonState;
#define mc_json_push(state, token, value) \
	((void) ((state)->result = \
			 pushJsonbValue(&(state)->parseState, token, value)))
#endif

/* isQueryUsingTempRelation() became more general in 19. */
#if PG_VERSION_NUM >= 190000
#define mc_uses_temp(query) \
	query_uses_temp_object(query, &(ObjectAddress) {0})
#else
#define mc_uses_temp(query) isQueryUsingTempRelation(query)
#endif

#endif
