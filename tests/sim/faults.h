/* faults.h - what is drawn and when (faults.c), and the kinds of faults there are (fault_*.c).
 *
 * Swarm: each seed has a random half of the kinds, so that rare combinations are not drowned by the
 * common faults.  Survivable only, that is, nothing that DESIGN 5.8 does not promise to survive.
 * What is not, and how it is kept out:
 *  - Some replicas lose power while others, who have cached writes in their kernel, are not in
 *    sync: with cached clients one node loses power, and only when all is at rest
 *    (may_lose_power()); or all do, and the histories are told (k_power_all()).
 *  - The last good copy of a block rots: only at rest, with two copies or more, one block at a
 *    time, and what was not found by the next fault is given back (k_rot(), unrot()): also by one
 *    that was armed before, as the death of an owner (seed 400087 at 07eea7e).
 *  - The last good copy of anything is on a disk that fails, is full or is replaced: only when
 *    all_well(), with two copies or more, and while that node is the patient nothing else goes
 *    wrong (fault_disk.c): a bad copy counts as lost until it is good again.
 *  - Clocks that differ by more than SD_DRIFT_NS over a lease: DRIFT_MAX.  Monotonic clocks that
 *    stop with the machine: a suspended machine's goes on here (node_pause()).
 *  - Machines or disks that never come back: everything comes back at heal().
 */
#ifndef TESTS_SIM_FAULTS_H
#define TESTS_SIM_FAULTS_H

#include "tests/sim/run.h"

struct kind {
	const char *name;
	unsigned weight;
	/* Needs so long to matter: not in seeds whose faults come faster. */
	uint64_t gap_ns;
	/* Do it to @n, which runs; false: it cannot be now. */
	bool (*fn)(struct run *r, struct node *n);
	bool rest; /* only when all_well(): that may be waited for */
};
extern const struct kind fault_kinds[]; /* the last one has no name; at most 64 */

/* ---- faults.c ---- */

/* Call @fn(@r, @n, @arg) after @ns, unless all heals first; false: there are too many already. */
bool later(struct run *r, uint64_t ns, void (*fn)(struct run *r, struct node *n, uint32_t arg),
	   struct node *n, uint32_t arg);
/* Some node; some node that runs (NULL: none). */
struct node *any_node(struct run *r);
struct node *any_running(struct run *r);
/* What has rotted is good again, found or not: before anything else goes wrong. */
void unrot(struct run *r);
bool may_lose_power(struct run *r);
/* At rest, no repair is going on, and nothing that was begun is going to end. */
bool all_well(struct run *r);
void kill_client(struct run *r);
/* Clients only read, for so long. */
void calm(struct run *r, uint64_t ns);

#endif
