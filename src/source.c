/*
 * source.c
 *		The application's tables: what is read of them and which are attached.
 *
 * Which tables are attached is read from meritum_cache.source_table and kept
 * for the session, until a change of that table, of an attached one or of the
 * time zone makes it invalid.  Nothing here writes.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "parser/parse_coerce.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "owner.h"
#include "probe.h"
#include "source.h"
#include "zone.h"

const McSourceDef mc_source_def[MC_N_SOURCES] = {
	[MC_CLAIMS] = {"claims", 11, {
		{"claim_id", UUIDOID}, {"physician_id", UUIDOID},
		{"patient_id", UUIDOID}, {"claim_type", TEXTOID},
		{"state", TEXTOID}, {"date_of_service", DATEOID},
		{"submission_deadline", DATEOID}, {"validation_result", JSONBOID},
		{"created_at", TIMESTAMPTZOID}, {"updated_at", TIMESTAMPTZOID},
		{"deleted_at", TIMESTAMPTZOID},
	}},
	[MC_AHCIP_CLAIM_DETAILS] = {"ahcip_claim_details", 9, {
		{"claim_id", UUIDOID}, {"ba_number", TEXTOID},
		{"functional_centre", TEXTOID}, {"health_service_code", TEXTOID},
		{"shadow_billing_flag", BOOLOID}, {"time_spent", INT4OID},
		{"submitted_fee", NUMERICOID}, {"assessed_fee", NUMERICOID},
		{"assessment_explanatory_codes", JSONBOID},
	}},
	[MC_WCB_CLAIM_DETAILS] = {"wcb_claim_details", 3, {
		{"wcb_claim_detail_id", UUIDOID}, {"claim_id", UUIDOID},
		{"form_id", TEXTOID},
	}},
	[MC_WCB_INVOICE_LINES] = {"wcb_invoice_lines", 2, {
		{"wcb_claim_detail_id", UUIDOID}, {"amount", NUMERICOID},
	}},
	[MC_CLAIM_AUDIT_HISTORY] = {"claim_audit_history", 2, {
		{"claim_id", UUIDOID}, {"new_state", TEXTOID},
	}},
	[MC_PATIENTS] = {"patients", 2, {
		{"patient_id", UUIDOID}, {"phn_province", TEXTOID},
	}},
	[MC_PROVIDERS] = {"providers", 2, {
		{"provider_id", UUIDOID}, {"status", TEXTOID},
	}},
	[MC_PRACTICE_LOCATIONS] = {"practice_locations", 6, {
		{"location_id", UUIDOID}, {"provider_id", UUIDOID},
		{"name", TEXTOID}, {"functional_centre", TEXTOID},
		{"rrnp_rate", NUMERICOID}, {"is_active", BOOLOID},
	}},
	[MC_AI_SUGGESTION_EVENTS] = {"ai_suggestion_events", 6, {
		{"provider_id", UUIDOID}, {"rule_id", UUIDOID},
		{"event_type", TEXTOID}, {"category", TEXTOID},
		{"revenue_impact", NUMERICOID}, {"created_at", TIMESTAMPTZOID},
	}},
	[MC_AI_PROVIDER_LEARNING] = {"ai_provider_learning", 3, {
		{"provider_id", UUIDOID}, {"rule_id", UUIDOID},
		{"is_suppressed", BOOLOID},
	}},
	[MC_AI_RULES] = {"ai_rules", 2, {
		{"rule_id", UUIDOID}, {"name", TEXTOID},
	}},
};

/* What the session knows of the attached tables; strings in its context. */
static struct
{
	bool		callback_registered;
	bool		valid;
	uint64		generation;		/* counts invalidations */
	uint64		reads;			/* counts readings */
	Oid			relid;			/* of source_table, when it was read */
	char		zone[TZ_STRLEN_MAX + 1];	/* that the statements were built
											 * with */
	McAttached	table[MC_N_SOURCES];
} attached;

static MemoryContext attached_context = NULL;


int
mc_source_by_name(const char *name)
{
	int			i;

	for (i = 0; i < MC_N_SOURCES; i++)
		if (strcmp(mc_source_def[i].name, name) == 0)
			return i;
	return -1;
}

/*
 * A change of source_table, or of the columns or the owner of an attached
 * table, makes us read again.
 */
static void
forget_attached(Datum arg, Oid relid)
{
	bool		ours = relid == InvalidOid || relid == attached.relid;
	int			i;

	for (i = 0; i < MC_N_SOURCES && !ours; i++)
		ours = attached.table[i].relid == relid;
	if (ours)
	{
		attached.valid = false;
		attached.generation++;
	}
}

/*
 * Take one row of source_table.  A table that was dropped behind our back is
 * treated as not attached.
 */
static void
read_source_row(HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;
	char	   *name = TextDatumGetCString(heap_getattr(tuple, 1, desc, &isnull));
	Oid			relid = DatumGetObjectId(heap_getattr(tuple, 2, desc, &isnull));
	Jsonb	   *columns = DatumGetJsonbP(heap_getattr(tuple, 3, desc, &isnull));
	int			source = mc_source_by_name(name);
	McAttached *table;
	HeapTuple	class;
	int			i;

	if (source < 0)
		return;
	class = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	if (!HeapTupleIsValid(class))
		return;
	table = &attached.table[source];
	table->relid = relid;
	table->owner = ((Form_pg_class) GETSTRUCT(class))->relowner;
	ReleaseSysCache(class);

	for (i = 0; i < mc_source_def[source].ncolumns; i++)
	{
		const char *column = mc_source_def[source].column[i].name;
		JsonbValue	value;

		if (getKeyJsonValueFromContainer(&columns->root, column,
										 strlen(column), &value) &&
			value.type == jbvString)
			table->column[i] = pnstrdup(value.val.string.val,
										value.val.string.len);
		else
			table->column[i] = pstrdup(column);
	}
}

static void
read_attached(void)
{
	const char *zone = mc_zone_name();
	uint64		generation;

	if (attached.valid && strcmp(attached.zone, zone) == 0)
		return;

	if (!attached.callback_registered)
	{
		CacheRegisterRelcacheCallback(forget_attached, (Datum) 0);
		attached.callback_registered = true;
		attached_context = AllocSetContextCreate(TopMemoryContext,
												 "meritum_cache source tables",
												 ALLOCSET_SMALL_SIZES);
	}
	MemoryContextReset(attached_context);
	memset(attached.table, 0, sizeof(attached.table));
	attached.relid = mc_cache_relation("source_table");

	/* an invalidation that comes during the scan makes it invalid at once */
	generation = attached.generation;
	strlcpy(attached.zone, zone, sizeof(attached.zone));
	mc_probe_rows(attached.relid, attached_context, read_source_row);
	attached.valid = generation == attached.generation;
	attached.reads++;
}

bool
mc_source_complete(void)
{
	int			i;

	if (mc_source_get(MC_CLAIMS) == NULL)
		return false;
	for (i = 0; i < MC_N_SOURCES; i++)
		if (OidIsValid(attached.table[i].relid) &&
			!OidIsValid(get_trigger_oid(attached.table[i].relid,
										MC_ROW_TRIGGER, true)))
			return false;
	return true;
}

bool
mc_source_type_fits(Oid type, Oid wanted)
{
	static const struct
	{
		Oid			wanted;
		Oid			type;
	}			others[] = {
		{TEXTOID, BPCHAROID}, {INT4OID, INT2OID}, {JSONBOID, JSONOID},
		{NUMERICOID, INT2OID}, {NUMERICOID, INT4OID}, {NUMERICOID, INT8OID},
		{TIMESTAMPTZOID, TIMESTAMPOID}, {TIMESTAMPTZOID, DATEOID},
	};
	Oid			base = getBaseType(type);
	int			i;

	for (i = 0; i < lengthof(others); i++)
		if (others[i].wanted == wanted && others[i].type == base)
			return true;
	return IsBinaryCoercible(base, wanted);
}

uint64
mc_source_generation(void)
{
	read_attached();
	return attached.reads;
}

bool
mc_source_references(McSource source, int column, McSource referenced)
{
	Relation	rel;
	AttrNumber	attno;
	bool		found = false;
	ListCell   *lc;

	if (!OidIsValid(attached.table[source].relid) ||
		!OidIsValid(attached.table[referenced].relid))
		return false;
	rel = table_open(attached.table[source].relid, AccessShareLock);
	attno = get_attnum(RelationGetRelid(rel),
					   attached.table[source].column[column]);
	foreach(lc, RelationGetFKeyList(rel))
	{
		ForeignKeyCacheInfo *key = lfirst(lc);

		if (key->confrelid == attached.table[referenced].relid &&
			key->nkeys == 1 && key->conkey[0] == attno)
			found = true;
	}
	table_close(rel, AccessShareLock);
	return found;
}

const McAttached *
mc_source_get(McSource source)
{
	read_attached();
	return OidIsValid(attached.table[source].relid) ?
		&attached.table[source] : NULL;
}

void
mc_source_require(void)
{
	if (mc_source_get(MC_CLAIMS) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no claims table is attached"),
				 errhint("Run SELECT * FROM meritum_attach().")));
}
