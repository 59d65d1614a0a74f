/*
 * rows.h
 *		Rows of the extension's tables, written without a statement.
 */
#ifndef MERITUM_CACHE_ROWS_H
#define MERITUM_CACHE_ROWS_H

#include "storage/itemptr.h"

typedef struct McRows McRows;

/*
 * Open a table of the schema meritum_cache, which has so many columns, to write
 * some of its rows; nothing else may be executed before it is closed.  Needs a
 * bracket.
 */
extern McRows *mc_rows_open(const char *table, int ncolumns);
extern void mc_rows_close(McRows *rows);

/* A row of all columns, in their order. */
extern void mc_rows_insert(McRows *rows, const Datum *values,
						   const bool *nulls);

/*
 * Change columns, counted from 0, of the row that was read at this place, or
 * with columns NULL all; or delete it.  Raise 40001 if it is no longer there:
 * under the provider's lock only somebody who changes the table by hand can
 * have moved it.
 */
extern void mc_rows_update(McRows *rows, const ItemPointerData *tid, int ncolumns,
						   const int *columns, const Datum *values,
						   const bool *nulls);
extern void mc_rows_delete(McRows *rows, const ItemPointerData *tid);

#endif
