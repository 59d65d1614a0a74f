/*
 * codes.c
 *		Explanatory codes of an assessment, from JSON of any shape.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

#include "codes.h"

/* The text of a scalar that counts as a code; NULL for null. */
static char *
code_text(const JsonbValue *value)
{
	switch (value->type)
	{
		case jbvString:
			return pnstrdup(value->val.string.val, value->val.string.len);
		case jbvNumeric:
			return DatumGetCString(DirectFunctionCall1(numeric_out,
													   NumericGetDatum(value->val.numeric)));
		case jbvBool:
			return pstrdup(value->val.boolean ? "true" : "false");
		default:
			return NULL;
	}
}

int
mc_codes_extract(Jsonb *json, char ***codes)
{
	int			n = 0;
	int			i;

	*codes = NULL;
	if (!JB_ROOT_IS_ARRAY(json) || JB_ROOT_IS_SCALAR(json) ||
		JB_ROOT_COUNT(json) == 0)
		return 0;
	*codes = palloc(sizeof(char *) * JB_ROOT_COUNT(json));
	for (i = 0; i < JB_ROOT_COUNT(json); i++)
	{
		JsonbValue *element = getIthJsonbValueFromContainer(&json->root, i);
		JsonbValue	member;
		char	   *text;

		if (element->type == jbvBinary &&
			JsonContainerIsObject(element->val.binary.data) &&
			getKeyJsonValueFromContainer(element->val.binary.data, "code", 4, &member))
			element = &member;
		text = code_text(element);
		if (text != NULL)
			(*codes)[n++] = text;
	}
	return n;
}
