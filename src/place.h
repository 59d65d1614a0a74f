/*
 * place.h
 *		A provider's active practice locations.
 */
#ifndef MERITUM_CACHE_PLACE_H
#define MERITUM_CACHE_PLACE_H

#include "utils/uuid.h"

#include "intern.h"

/* An active practice location of the provider. */
typedef struct McPlace
{
	int32		id;				/* string of the uuid */
	int32		name;
	int32		centre;
	int64		rate;			/* ten-thousandths */
} McPlace;

typedef struct McPlaces
{
	int			n;
	McPlace    *place;			/* ordered by uuid */
} McPlaces;

/* From the source table; needs a bracket. */
extern McPlaces *mc_places_derive(McStrings *strings, const pg_uuid_t *provider);

/* As they are kept in provider_state: a text[], four elements each. */
extern Datum mc_places_pack(const McStrings *strings, const McPlaces *places);
extern McPlaces *mc_places_unpack(McStrings *strings, Datum packed);

#endif
