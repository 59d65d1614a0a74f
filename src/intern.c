/*
 * intern.c
 *		Strings as small numbers, for the length of one refresh.
 *
 * Facts share few distinct codes, so that comparing and grouping them by
 * number is cheap.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/builtins.h"

#include "compat.h"
#include "intern.h"
#include "uuids.h"

typedef struct StringKey
{
	const char *data;
	int			len;
} StringKey;

typedef struct StringEntry
{
	StringKey	key;
	uint32		hash;
	char		status;
	int32		id;
} StringEntry;

#define SH_PREFIX		strtab
#define SH_ELEMENT_TYPE	StringEntry
#define SH_KEY_TYPE		StringKey
#define SH_KEY			key
#define SH_HASH_KEY(tb, key) hash_bytes((const unsigned char *) (key).data, (key).len)
#define SH_EQUAL(tb, a, b) ((a).len == (b).len && memcmp((a).data, (b).data, (a).len) == 0)
#define SH_SCOPE		static inline
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a) ((a)->hash)
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

struct McStrings
{
	MemoryContext context;
	strtab_hash *table;
	StringKey  *string;
	uint64	   *hash;			/* of each; 0: not yet computed */
	int			n;
	int			capacity;
};

McStrings *
mc_strings_create(void)
{
	McStrings  *strings = palloc(sizeof(McStrings));

	strings->context = CurrentMemoryContext;
	strings->table = strtab_create(CurrentMemoryContext, 64, NULL);
	strings->n = 0;
	strings->capacity = 64;
	strings->string = palloc(sizeof(StringKey) * strings->capacity);
	strings->hash = palloc(sizeof(uint64) * strings->capacity);
	return strings;
}

int32
mc_string_id(McStrings *strings, const char *data, int len)
{
	StringKey	key = {data, len};
	StringEntry *entry;
	bool		found;
	char	   *copy;

	entry = strtab_lookup(strings->table, key);
	if (entry != NULL)
		return entry->id;

	copy = MemoryContextAlloc(strings->context, len + 1);
	memcpy(copy, data, len);
	copy[len] = '\0';
	key.data = copy;
	entry = strtab_insert(strings->table, key, &found);
	if (strings->n == strings->capacity)
	{
		strings->capacity *= 2;
		strings->string = repalloc(strings->string,
								   sizeof(StringKey) * strings->capacity);
		strings->hash = repalloc(strings->hash,
								 sizeof(uint64) * strings->capacity);
	}
	strings->string[strings->n] = key;
	strings->hash[strings->n] = 0;
	return entry->id = strings->n++;
}

int32
mc_string_datum_id(McStrings *strings, Datum value, bool isnull)
{
	struct varlena *text;
	int32		id;

	if (isnull)
		return MC_NULL;
	text = PG_DETOAST_DATUM_PACKED(value);
	id = mc_string_id(strings, VARDATA_ANY(text), VARSIZE_ANY_EXHDR(text));
	if ((Pointer) text != DatumGetPointer(value))
		pfree(text);
	return id;
}

int32
mc_string_datum_again(McStrings *strings, Datum value, bool isnull, int32 *last)
{
	struct varlena *text = (struct varlena *) DatumGetPointer(value);

	if (isnull)
		return MC_NULL;
	if (*last != MC_NULL && VARATT_IS_1B(text) && !VARATT_IS_1B_E(text) &&
		VARSIZE_ANY_EXHDR(text) == strings->string[*last].len &&
		memcmp(VARDATA_ANY(text), strings->string[*last].data,
			   strings->string[*last].len) == 0)
		return *last;
	return *last = mc_string_datum_id(strings, value, false);
}

int32
mc_string_uuid_id(McStrings *strings, Datum value, bool isnull)
{
	char	   *text;

	if (isnull)
		return MC_NULL;
	text = mc_uuid_text(DatumGetUUIDP(value));
	return mc_string_id(strings, text, strlen(text));
}

const char *
mc_string(const McStrings *strings, int32 id)
{
	return strings->string[id].data;
}

int
mc_string_length(const McStrings *strings, int32 id)
{
	return strings->string[id].len;
}

Datum
mc_string_datum(const McStrings *strings, int32 id, bool *isnull)
{
	*isnull = id == MC_NULL;
	if (*isnull)
		return (Datum) 0;
	return PointerGetDatum(cstring_to_text_with_len(strings->string[id].data,
													strings->string[id].len));
}

uint64
mc_string_hash(McStrings *strings, int32 id)
{
	uint64	   *hash = &strings->hash[id];

	if (*hash == 0)
		*hash = hash_bytes_extended((const unsigned char *) strings->string[id].data,
									strings->string[id].len, 0);
	return *hash;
}

int
mc_string_compare(const McStrings *strings, int32 a, int32 b)
{
	const StringKey *x;
	const StringKey *y;
	int			cmp;

	if (a == b)
		return 0;
	if (a == MC_NULL || b == MC_NULL)
		return a == MC_NULL ? 1 : -1;
	x = &strings->string[a];
	y = &strings->string[b];
	cmp = memcmp(x->data, y->data, Min(x->len, y->len));
	return cmp != 0 ? cmp : x->len - y->len;
}
