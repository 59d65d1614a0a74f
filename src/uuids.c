/*
 * uuids.c
 *		Uuids as text and as arrays.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "uuids.h"

char *
mc_uuid_text(const pg_uuid_t *uuid)
{
	return DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(uuid)));
}

Datum
mc_uuid_array(const pg_uuid_t *uuids, int n)
{
	Datum	   *elements = palloc(sizeof(Datum) * Max(n, 1));
	ArrayType  *array;
	int			i;

	for (i = 0; i < n; i++)
		elements[i] = UUIDPGetDatum(&uuids[i]);
	array = construct_array(elements, n, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR);
	pfree(elements);
	return PointerGetDatum(array);
}
