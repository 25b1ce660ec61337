/* fault_disk.h - the kinds of faults of fault_disk.c (faults.h), for the table in fault_kinds.c. */
#ifndef TESTS_SIM_FAULT_DISK_H
#define TESTS_SIM_FAULT_DISK_H

#include "tests/sim/faults.h"

bool k_stall(struct run *r, struct node *n);
bool k_rot(struct run *r, struct node *n);
bool k_rot_start(struct run *r, struct node *n);
bool k_io_errors(struct run *r, struct node *n);
bool k_full(struct run *r, struct node *n);
bool k_new_disk(struct run *r, struct node *n);

#endif
