/*
 * plan.c
 *		SQL statements as saved SPI plans, executed with checked results.
 *
 * This is the only file that prepares statements.  Every statement sees the
 * active snapshot, advanced to the current command, whatever the isolation
 * level: callers decide which snapshot that is.
 */
#include "postgres.h"

#include "access/xact.h"
#include "nodes/params.h"
#include "parser/parse_type.h"
#include "tcop/dest.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/varlena.h"

#include "owner.h"
#include "plan.h"

#define MC_MAX_PARAMS 32

typedef struct CallbackReceiver
{
	DestReceiver pub;
	McRowCallback callback;
	void	   *arg;
} CallbackReceiver;

/*
 * Resolve the comma-separated parameter types of a statement.
 */
static int
parse_types(const char *types, Oid *oids)
{
	char	   *copy = pstrdup(types);
	char	   *type;
	char	   *rest = copy;
	int			n = 0;

	while ((type = strsep(&rest, ",")) != NULL)
	{
		int32		typmod;

		if (*type == '\0')
			continue;
		if (n == MC_MAX_PARAMS)
			elog(ERROR, "too many parameters: %s", types);
		parseTypeString(type, &oids[n++], &typmod, 0);
	}
	pfree(copy);
	return n;
}

static void
prepare(McPlan *plan)
{
	Oid			oids[MC_MAX_PARAMS];
	int			n;
	SPIPlanPtr	prepared;

	if (plan->plan != NULL)
		return;

	/*
	 * Generic plans: our statements look rows up by indexed keys, and a
	 * session that runs one only a few times must not plan it anew each time.
	 * What others wrote (replan) the server plans as it does for them.
	 */
	n = parse_types(plan->types, oids);
	prepared = SPI_prepare_cursor(plan->sql, n, oids,
								  (plan->replan ? 0 : CURSOR_OPT_GENERIC_PLAN) |
								  (plan->parallel ? CURSOR_OPT_PARALLEL_OK : 0));
	if (prepared == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", plan->sql,
			 SPI_result_code_string(SPI_result));
	if (SPI_keepplan(prepared) != 0)
		elog(ERROR, "could not keep \"%s\"", plan->sql);
	plan->plan = prepared;
}

void
mc_plan_forget(McPlan *plan)
{
	if (plan->plan != NULL)
		SPI_freeplan(plan->plan);
	plan->plan = NULL;
}

void
mc_plan_advance(void)
{
	CommandCounterIncrement();
	UpdateActiveSnapshotCommandId();
}

const char *
mc_error_message(const ErrorData *error)
{
	switch (ERRCODE_TO_CATEGORY(error->sqlerrcode))
	{
		case ERRCODE_DATA_EXCEPTION:
			return "data exception";
		case ERRCODE_FEATURE_NOT_SUPPORTED: /* as for a fee of NaN */
			return "value that is not supported";
		case ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION:
			return "integrity constraint violation";
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
		case ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION:
			return error->message;
	}
	return "error raised by a function or trigger";
}

/*
 * The error of a statement that reads claims, or stores what comes of them, may
 * quote them in its message, detail or context: raise another one of its kind.
 */
static void
rethrow_discreetly(MemoryContext context)
{
	ErrorData  *error;
	const char *message;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	message = mc_error_message(error);
	if (message == error->message)
		PG_RE_THROW();
	FlushErrorState();
	ereport(ERROR,
			(errcode(error->sqlerrcode),
			 errmsg("could not read claims or store figures: %s", message),
			 error->constraint_name != NULL && error->table_name != NULL ?
			 errdetail("Constraint \"%s\" of table \"%s\".",
					   error->constraint_name, error->table_name) : 0));
}

void
mc_plan_discreetly(void (*work) (void *arg), void *arg)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		work(arg);
	}
	PG_CATCH();
	{
		rethrow_discreetly(context);
	}
	PG_END_TRY();
}

static uint64
execute(McPlan *plan, Datum *values, const char *nulls)
{
	bool		reads = plan->result == SPI_OK_SELECT;
	int			result;

	prepare(plan);
	if (!reads)
		mc_plan_advance();
	result = SPI_execute_snapshot(plan->plan, values, nulls,
								  GetActiveSnapshot(), InvalidSnapshot,
								  reads, true, 0);
	if (result != plan->result)
		elog(ERROR, "unexpected result %s of \"%s\"",
			 SPI_result_code_string(result), plan->sql);
	if (!reads)
		mc_plan_advance();
	return SPI_processed;
}

uint64
mc_plan_execute(McPlan *plan, Datum *values, const char *nulls)
{
	MemoryContext context = CurrentMemoryContext;
	volatile uint64 n = 0;

	if (!plan->discreet)
		return execute(plan, values, nulls);
	PG_TRY();
	{
		n = execute(plan, values, nulls);
	}
	PG_CATCH();
	{
		rethrow_discreetly(context);
	}
	PG_END_TRY();
	return n;
}

static bool
receive_row(TupleTableSlot *slot, DestReceiver *self)
{
	CallbackReceiver *receiver = (CallbackReceiver *) self;

	slot_getallattrs(slot);
	receiver->callback(slot, receiver->arg);
	return true;
}

static void
receiver_startup(DestReceiver *self, int operation, TupleDesc tupdesc)
{
}

static void
receiver_done(DestReceiver *self)
{
}

static ParamListInfo
make_params(McPlan *plan, Datum *values, const char *nulls)
{
	int			n = SPI_getargcount(plan->plan);
	ParamListInfo params;
	int			i;

	if (n == 0)
		return NULL;
	params = makeParamList(n);
	for (i = 0; i < n; i++)
	{
		ParamExternData *p = &params->params[i];

		p->value = values[i];
		p->isnull = nulls != NULL && nulls[i] == 'n';
		p->pflags = PARAM_FLAG_CONST;
		p->ptype = SPI_getargtypeid(plan->plan, i);
	}
	return params;
}

static void
scan(McPlan *plan, Datum *values, const char *nulls, McRowCallback callback,
	 void *arg)
{
	CallbackReceiver receiver = {
		.pub = {receive_row, receiver_startup, receiver_done, receiver_done,
		DestNone},
		.callback = callback,
		.arg = arg
	};
	SPIExecuteOptions options = {0};
	int			result;

	Assert(plan->result == SPI_OK_SELECT);
	prepare(plan);
	options.params = make_params(plan, values, nulls);
	options.read_only = true;
	options.dest = &receiver.pub;
	result = SPI_execute_plan_extended(plan->plan, &options);
	if (result != SPI_OK_SELECT && result != SPI_OK_UTILITY)
		elog(ERROR, "unexpected result %s of \"%s\"",
			 SPI_result_code_string(result), plan->sql);
}

void
mc_plan_scan(McPlan *plan, Datum *values, const char *nulls,
			 McRowCallback callback, void *arg)
{
	MemoryContext context = CurrentMemoryContext;

	if (!plan->discreet)
	{
		scan(plan, values, nulls, callback, arg);
		return;
	}
	PG_TRY();
	{
		scan(plan, values, nulls, callback, arg);
	}
	PG_CATCH();
	{
		rethrow_discreetly(context);
	}
	PG_END_TRY();
}

void
mc_plan_utility(const char *sql)
{
	int			result = SPI_execute(sql, false, 0);

	if (result != SPI_OK_UTILITY)
		elog(ERROR, "unexpected result %s of \"%s\"",
			 SPI_result_code_string(result), sql);
}

Datum
mc_plan_value(uint64 row, int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc,
						 column, isnull);
}

DateADT
mc_plan_date(uint64 row, int column)
{
	bool		isnull;
	Datum		value = mc_plan_value(row, column, &isnull);

	return isnull ? DATEVAL_NOBEGIN : DatumGetDateADT(value);
}
