/*
 * custom.h
 *		Metrics of an organisation's own: an SQL query each.
 */
#ifndef MERITUM_CACHE_CUSTOM_H
#define MERITUM_CACHE_CUSTOM_H

#include "metric.h"
#include "plan.h"

typedef struct McCustom
{
	char	   *key;
	McGrain		grain;
	char	   *query;
	char	   *search_path;	/* that it runs with */
	Oid			owner;			/* whose rights it runs with */
	McPlan		plan;
	int			running;		/* executions of it in progress */
	bool		dropped;		/* goes when the last of these ends */
} McCustom;

/* A set of metrics, built-in ones and others by their keys, each once. */
typedef struct McKeys
{
	McMetrics	builtin;
	List	   *custom;			/* char * */
} McKeys;

/*
 * The definition of a key, NULL if there is none.  It is valid until the next
 * call that looks one up, or while it is running.
 */
extern McCustom *mc_custom_find(const char *key, int len);
extern bool mc_custom_any(void);

/*
 * From now to the end of the transaction no metric is dropped.  To be called
 * before any lock of a provider or of rows that the drop would want.
 */
extern void mc_custom_hold(void);

/* Their keys, in the current context, ascending. */
extern List *mc_custom_keys(void);

/* Release a definition that was running. */
extern void mc_custom_release(McCustom *custom);

/* The keys of a text[] without nulls; raises 22023 or 22004. */
extern McKeys mc_keys_parse(Datum keys);

/* All that begin with a prefix. */
extern McKeys mc_keys_with_prefix(const char *prefix);

/* The same as varchar[]. */
extern Datum mc_keys_array(const McKeys *keys);

extern void mc_keys_add(McKeys *keys, const char *key);
extern bool mc_keys_empty(const McKeys *keys);

/* Is a string in a list of strings? */
extern bool mc_key_in(const List *list, const char *key);

#endif
