/* fault_disk.c - what goes wrong with disks.
 *
 * What damages a copy is drawn only when all is at rest and every volume has two copies or more,
 * and while that node is the patient nothing else goes wrong (faults.c) until all is at rest again:
 * one copy at most is bad, and the others are in sync.
 */
#include "config.h"

#include "sheep/sync_int.h"
#include "tests/sim/fault_disk.h"

static bool repairs(const struct run *r)
{
	for (unsigned i = 0; i < r->shape.nr_nodes; i++)
		if (r->node[i].installed && r->node[i].sh->sync->repairing.nr)
			return true;
	return false;
}

bool all_well(struct run *r)
{
	if (!at_rest(r) || repairs(r) || (r->admin && !admin_ready(r)))
		return false;
	for (unsigned i = 0; i < LATER_MAX; i++)
		if (r->later[i].used)
			return false;
	return true;
}

/* @n's copies may become bad. */
static bool may_damage(struct run *r, struct node *n)
{
	return r->shape.copies > 1 && !r->patient && n->started && all_well(r);
}

/* From now on only what was begun with goes wrong. */
static void becomes_patient(struct run *r, struct node *n, enum fault f)
{
	world_fault(&r->w, f);
	r->patient = n;
	net_on_send(r->w.net, NULL, 0);
	bus_watch(r->w.bus, NULL, 0, 0);
	event_del(&r->w, &r->doom);
	event_del(&r->w, &r->ambush);
}

bool k_stall(struct run *r, struct node *n)
{
	story(&r->w, "%s > its disk stalls", n->name);
	world_fault(&r->w, FAULT_STALL);
	disk_set_stall(n->disk, r->w.now + prng_in(&r->w.rnd_fault, 0, 500 * MS));
	return true;
}

/* ---- rot ---- */

/* Until the next fault: the other copies are good, and there. */
bool k_rot(struct run *r, struct node *n)
{
	if (r->shape.copies < 2 || !all_well(r) || !disk_rot(n->disk, &r->w.rnd_fault, false))
		return false;
	story(&r->w, "%s > a bit rots", n->name);
	world_fault(&r->w, FAULT_BIT_ROT);
	return true;
}

/* It is in the header of an object, and is found when the daemon starts. */
bool k_rot_start(struct run *r, struct node *n)
{
	if (!may_damage(r, n) || !disk_rot(n->disk, &r->w.rnd_fault, true))
		return false;
	story(&r->w, "%s > a bit of an object's header rots, and it is killed", n->name);
	becomes_patient(r, n, FAULT_ROT_START);
	node_kill(n);
	return true;
}

/* ---- errors ---- */

static void errors_end(struct run *r, struct node *n, uint32_t arg)
{
	story(&r->w, "%s > its disk works again", n->name);
	disk_set_errors(n->disk, 0, 0);
	disk_set_full(n->disk, false);
}

bool k_io_errors(struct run *r, struct node *n)
{
	static const unsigned rates[] = {2000, 20000, 200000, 1000000};
	struct prng *p = &r->w.rnd_fault;
	unsigned what = (unsigned)prng_in(p, 0, 2), rate = rates[prng_in(p, 0, 3)];

	if (!may_damage(r, n) || !later(r, prng_in(p, 10 * MS, SEC), errors_end, n, 0))
		return false;
	story(&r->w, "%s > its disk has errors: %s%s", n->name, what != 1 ? "reads " : "",
	      what != 0 ? "writes" : "");
	becomes_patient(r, n, FAULT_IO_ERROR);
	disk_set_errors(n->disk, what != 1 ? rate : 0, what != 0 ? rate : 0);
	return true;
}

/* Somebody else fills it. */
bool k_full(struct run *r, struct node *n)
{
	struct prng *p = &r->w.rnd_fault;

	if (!may_damage(r, n) || !later(r, prng_in(p, 10 * MS, 2 * SEC), errors_end, n, 0))
		return false;
	story(&r->w, "%s > its disk is full", n->name);
	becomes_patient(r, n, FAULT_DISK_FULL);
	disk_set_full(n->disk, true);
	return true;
}

/* ---- another disk ---- */

bool k_new_disk(struct run *r, struct node *n)
{
	if (!may_damage(r, n))
		return false;
	story(&r->w, "%s > gets a new, empty disk", n->name);
	becomes_patient(r, n, FAULT_NEW_DISK);
	node_kill(n);
	disk_wipe(n->disk);
	return true;
}
