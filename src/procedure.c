/*
 * procedure.c
 *		Procedures that commit as they go.
 *
 * They cannot be part of a larger transaction, and what they allocate must
 * not live in a transaction's memory.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/memutils.h"

#include "privilege.h"
#include "procedure.h"

static void
require_top_level(FunctionCallInfo fcinfo, const char *name)
{
	bool		atomic = fcinfo->context == NULL ||
		!IsA(fcinfo->context, CallContext) ||
		castNode(CallContext, fcinfo->context)->atomic;

	mc_require_unpinned(name);
	PreventCommandIfReadOnly(name);
	if (atomic)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("%s cannot run inside a transaction block or a function",
						name),
				 errdetail("It commits as it goes."),
				 errhint("Call it as a statement of its own.")));
}

void
mc_procedure_begin(McProcedure *procedure, FunctionCallInfo fcinfo,
				   const char *name)
{
	require_top_level(fcinfo, name);
	procedure->caller = CurrentMemoryContext;
	if (get_call_result_type(fcinfo, NULL, &procedure->result) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	procedure->result = BlessTupleDesc(procedure->result);
	if (SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
}

Datum
mc_procedure_end(McProcedure *procedure, Datum *values)
{
	bool		nulls[8] = {false};
	Datum		row;

	MemoryContextSwitchTo(procedure->caller);
	row = HeapTupleGetDatum(heap_form_tuple(procedure->result, values, nulls));
	SPI_finish();
	return row;
}
