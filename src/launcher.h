/*
 * launcher.h
 *		The launcher: starts a worker for each database that is to have one.
 */
#ifndef MERITUM_CACHE_LAUNCHER_H
#define MERITUM_CACHE_LAUNCHER_H

/* Called from _PG_init while shared_preload_libraries is being processed. */
extern void mc_launcher_init(void);

/* Whether meritum_cache.databases names the current database. */
extern bool mc_launcher_lists_database(void);

/* Entry point of the process. */
extern PGDLLEXPORT void mc_launcher_main(Datum arg);

#endif
