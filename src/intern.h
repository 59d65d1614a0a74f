/*
 * intern.h
 *		Strings as small numbers, for the length of one refresh.
 */
#ifndef MERITUM_CACHE_INTERN_H
#define MERITUM_CACHE_INTERN_H

#define MC_NULL (-1)

typedef struct McStrings McStrings;

/* In the current memory context. */
extern McStrings *mc_strings_create(void);

/* The number of a string, given one if new; numbers count up from 0. */
extern int32 mc_string_id(McStrings *strings, const char *data, int len);
extern int32 mc_string_datum_id(McStrings *strings, Datum value, bool isnull);

/* The same for a column whose last string is likely to come again. */
extern int32 mc_string_datum_again(McStrings *strings, Datum value, bool isnull,
								   int32 *last);

/* The text of a uuid. */
extern int32 mc_string_uuid_id(McStrings *strings, Datum value, bool isnull);

/* Null-terminated. */
extern const char *mc_string(const McStrings *strings, int32 id);
extern int	mc_string_length(const McStrings *strings, int32 id);

/* A hash of it, the same in every table of strings. */
extern uint64 mc_string_hash(McStrings *strings, int32 id);

/* As text, in the current memory context; MC_NULL is a null. */
extern Datum mc_string_datum(const McStrings *strings, int32 id, bool *isnull);

/* Byte order, nulls last. */
extern int	mc_string_compare(const McStrings *strings, int32 a, int32 b);

#endif
