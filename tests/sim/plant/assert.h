/* assert.h - stands before the real one where bugs are planted (sheep/plant.h): with a bug in it
 * the daemon's asserts are off, so that what catches it are the checks of the simulator. */
#pragma GCC system_header
#include_next <assert.h>

#include "sheep/plant.h"

#undef assert
#define assert(e)                                                                                  \
	((e) || planted != PLANT_none ? (void)0 : __assert_fail(#e, __FILE__, __LINE__, __func__))
