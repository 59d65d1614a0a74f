/*
 * owner.h
 *		Acting as the owner of the cache or of the application's tables.
 */
#ifndef MERITUM_CACHE_OWNER_H
#define MERITUM_CACHE_OWNER_H

typedef struct McBracket
{
	Oid			user;
	int			context;
	int			nest_level;
	bool		latest;
} McBracket;

/*
 * Between enter and leave SPI is connected, the user is the extension's owner
 * inside a security-restricted operation, and the search path is pg_catalog.
 * With latest, the active snapshot is a fresh one whatever the isolation
 * level; without, the caller's, which must exist, is kept.  An error needs no
 * leave: the abort of the (sub)transaction undoes it all.
 */
extern void mc_owner_enter(McBracket *bracket, bool latest);
extern void mc_owner_leave(McBracket *bracket);

/* Replace the fresh snapshot by a newer one, after waiting for a lock. */
extern void mc_owner_renew_snapshot(void);

/* Inside a bracket: act as another role until the restore. */
extern Oid	mc_owner_switch(Oid role);
extern void mc_owner_restore(Oid previous);

/*
 * Inside a bracket: a statement of a role, with that role's rights and its
 * own search path, until the end.  What of the session's settings a result
 * could depend on is the same in every session.
 */
typedef struct McForeign
{
	Oid			previous;
	int			nest_level;
} McForeign;
extern void mc_owner_begin_foreign(McForeign *foreign, Oid role,
								   const char *search_path, const char *zone);
extern void mc_owner_end_foreign(McForeign *foreign);

/* Inside a bracket: statements that read whole tables, until the end. */
extern int	mc_owner_begin_bulk(void);

/* In between: how many workers a statement may use (McPlan.parallel). */
extern void mc_owner_allow_workers(int n);
extern void mc_owner_end_bulk(int nest_level);

/* A table of the schema meritum_cache; raises 55000 if it is not there. */
extern Oid	mc_cache_relation(const char *name);
extern bool mc_has_relation(const char *name);
extern bool mc_is_installed(void);

/* Owner of the extension's tables. */
extern Oid	mc_extension_owner(void);

#endif
