/* fault_net.h - faults of the network and of the bus, for the table in fault_kinds.c. */
#ifndef TESTS_SIM_FAULT_NET_H
#define TESTS_SIM_FAULT_NET_H

#include "tests/sim/faults.h"

/* @n and everybody else, both ways. */
void cut_node(struct run *r, struct node *n, bool cut);

bool k_late(struct run *r, struct node *n);
bool k_batch(struct run *r, struct node *n);
bool k_split(struct run *r, struct node *n);
bool k_silent(struct run *r, struct node *n);
bool k_quorum(struct run *r, struct node *n);
bool k_reset(struct run *r, struct node *n);
bool k_half_open(struct run *r, struct node *n);
bool k_cut(struct run *r, struct node *n);
bool k_cut_one_way(struct run *r, struct node *n);
bool k_cut_off(struct run *r, struct node *n);
bool k_slow(struct run *r, struct node *n);
bool k_slow_reader(struct run *r, struct node *n);

#endif
