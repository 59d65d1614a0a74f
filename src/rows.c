/*
 * rows.c
 *		Rows of the extension's tables, written without a statement.
 *
 * A refresh writes a few dozen rows whose place it knows, and every commit in
 * async mode a note: to plan, start and end a statement for that costs as much
 * as the rows themselves.  Constraints, indexes and row triggers are served as
 * by a statement's; statement triggers do not fire.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "owner.h"
#include "plan.h"
#include "rows.h"

struct McRows
{
	Relation	rel;
	EState	   *estate;
	ResultRelInfo *result;
	EPQState	epq;			/* for row triggers */
	TupleTableSlot *old;
	TupleTableSlot *new;
};

McRows *
mc_rows_open(const char *table, int ncolumns)
{
	McRows	   *rows = palloc0(sizeof(McRows));

	mc_plan_advance();
	rows->rel = table_open(mc_cache_relation(table), RowExclusiveLock);
	if (RelationGetNumberOfAttributes(rows->rel) != ncolumns)
		elog(ERROR, "meritum_cache.%s has other columns than expected", table);
	rows->estate = CreateExecutorState();
	rows->estate->es_snapshot = GetActiveSnapshot();
	rows->result = makeNode(ResultRelInfo);
	InitResultRelInfo(rows->result, rows->rel, 0, NULL, 0);
	ExecOpenIndices(rows->result, false);
	mc_eval_plan_qual_init(&rows->epq, rows->estate);
	rows->old = table_slot_create(rows->rel, &rows->estate->es_tupleTable);
	rows->new = table_slot_create(rows->rel, &rows->estate->es_tupleTable);
	AfterTriggerBeginQuery();
	return rows;
}

void
mc_rows_close(McRows *rows)
{
	AfterTriggerEndQuery(rows->estate);
	EvalPlanQualEnd(&rows->epq);
	ExecCloseIndices(rows->result);
	ExecResetTupleTable(rows->estate->es_tupleTable, false);
	FreeExecutorState(rows->estate);
	table_close(rows->rel, NoLock);
	pfree(rows);
	mc_plan_advance();
}

void
mc_rows_insert(McRows *rows, const Datum *values, const bool *nulls)
{
	TupleTableSlot *slot = rows->new;
	int			n = slot->tts_tupleDescriptor->natts;

	ExecClearTuple(slot);
	memcpy(slot->tts_values, values, sizeof(Datum) * n);
	memcpy(slot->tts_isnull, nulls, sizeof(bool) * n);
	ExecStoreVirtualTuple(slot);
	ExecSimpleRelationInsert(rows->result, rows->estate, slot);
	ResetPerTupleExprContext(rows->estate);
}

static void
fetch(McRows *rows, const ItemPointerData *tid)
{
	if (!table_tuple_fetch_row_version(rows->rel, (ItemPointer) tid,
									   GetActiveSnapshot(),
									   rows->old))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("meritum_cache.%s was changed by another transaction",
						RelationGetRelationName(rows->rel))));
}

void
mc_rows_update(McRows *rows, const ItemPointerData *tid, int ncolumns, const int *columns,
			   const Datum *values, const bool *nulls)
{
	TupleTableSlot *slot = rows->new;
	int			n = slot->tts_tupleDescriptor->natts;
	int			i;

	fetch(rows, tid);
	slot_getallattrs(rows->old);
	ExecClearTuple(slot);
	memcpy(slot->tts_values, rows->old->tts_values, sizeof(Datum) * n);
	memcpy(slot->tts_isnull, rows->old->tts_isnull, sizeof(bool) * n);
	for (i = 0; i < ncolumns; i++)
	{
		int			column = columns != NULL ? columns[i] : i;

		slot->tts_values[column] = values[i];
		slot->tts_isnull[column] = nulls[i];
	}
	ExecStoreVirtualTuple(slot);
	ExecSimpleRelationUpdate(rows->result, rows->estate, &rows->epq, rows->old,
							 slot);
	ResetPerTupleExprContext(rows->estate);
}

void
mc_rows_delete(McRows *rows, const ItemPointerData *tid)
{
	fetch(rows, tid);
	ExecSimpleRelationDelete(rows->result, rows->estate, &rows->epq, rows->old);
	ResetPerTupleExprContext(rows->estate);
}
