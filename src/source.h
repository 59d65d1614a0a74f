/*
 * source.h
 *		The application's tables: what is read of them and which are attached.
 */
#ifndef MERITUM_CACHE_SOURCE_H
#define MERITUM_CACHE_SOURCE_H

#include "utils/date.h"
#include "utils/relcache.h"
#include "utils/uuid.h"

typedef enum McSource
{
	MC_CLAIMS,
	MC_AHCIP_CLAIM_DETAILS,
	MC_WCB_CLAIM_DETAILS,
	MC_WCB_INVOICE_LINES,
	MC_CLAIM_AUDIT_HISTORY,
	MC_PATIENTS,
	MC_PROVIDERS,
	MC_PRACTICE_LOCATIONS,
	MC_AI_SUGGESTION_EVENTS,
	MC_AI_PROVIDER_LEARNING,
	MC_AI_RULES,
	MC_N_SOURCES
} McSource;

#define MC_MAX_COLUMNS 11

typedef struct McSourceColumn
{
	const char *name;
	Oid			type;			/* what it must be, or cast implicitly to */
} McSourceColumn;

typedef struct McSourceDef
{
	const char *name;
	int			ncolumns;
	McSourceColumn column[MC_MAX_COLUMNS];
} McSourceDef;

extern const McSourceDef mc_source_def[MC_N_SOURCES];

/* Columns by their place in the definitions, where code needs to name one. */
enum
{
	MC_CLAIM_ID = 0, MC_CLAIM_PROVIDER, MC_CLAIM_PATIENT, MC_CLAIM_TYPE,
	MC_CLAIM_STATE, MC_CLAIM_DATE, MC_CLAIM_DEADLINE, MC_CLAIM_VALIDATION,
	MC_CLAIM_CREATED, MC_CLAIM_UPDATED, MC_CLAIM_DELETED
};

/* The trigger of an attached table that notes its rows. */
#define MC_ROW_TRIGGER "meritum_cache_row"

/* An attached table. */
typedef struct McAttached
{
	Oid			relid;			/* InvalidOid: not attached */
	Oid			owner;
	char	   *column[MC_MAX_COLUMNS]; /* names in the table */
} McAttached;

/* Number of a source by its name, -1 if there is none of that name. */
extern int	mc_source_by_name(const char *name);

/*
 * The attached table of a source, NULL if none.  The result is valid until
 * the next call that may process invalidations; copy what must live longer.
 */
extern const McAttached *mc_source_get(McSource source);
extern void mc_source_require(void);	/* 55000 unless claims are attached */

/*
 * Are claims attached, and has every attached table its trigger?  They come
 * last in a restore.
 */
extern bool mc_source_complete(void);

/*
 * Can a column of the type be read as the wanted one, without any function but
 * the server's own, and as it is by the triggers?
 */
extern bool mc_source_type_fits(Oid type, Oid wanted);

/* A number that changes whenever the attached tables are read anew. */
extern uint64 mc_source_generation(void);

/*
 * Does a foreign key of the one table, on its given column, reference the
 * other?  Then a row of the other is there before any that names it.
 */
extern bool mc_source_references(McSource source, int column, McSource referenced);

#endif
