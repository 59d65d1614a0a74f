/*
 * procedure.h
 *		Procedures that commit as they go.
 */
#ifndef MERITUM_CACHE_PROCEDURE_H
#define MERITUM_CACHE_PROCEDURE_H

#include "access/tupdesc.h"
#include "fmgr.h"

typedef struct McProcedure
{
	MemoryContext caller;
	TupleDesc	result;
} McProcedure;

/*
 * Between begin and end SPI is connected and SPI_commit may be called.  Begin
 * raises 2D000 where that is not possible; end returns the row of the result,
 * whose values are copied.
 */
extern void mc_procedure_begin(McProcedure *procedure, FunctionCallInfo fcinfo,
							   const char *name);
extern Datum mc_procedure_end(McProcedure *procedure, Datum *values);

#endif
