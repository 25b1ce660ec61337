/* drivers.c - the cluster drivers that are built in, the one to prefer first. */
#include "config.h"

#include <stddef.h>

#include "sheep/cluster/driver.h"

extern const struct bus_driver bus_local;

const struct bus_driver *const bus_drivers[] = {&bus_local, NULL};
