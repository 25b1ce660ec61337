/* bus_split.c - the simulated cluster driver: splits and the loss of quorum (B4). */
#include "config.h"

#include "tests/sim/bus_int.h"

#include <assert.h>
#include <stdlib.h>

static void put_out(struct sim_bus *sb, const bool *away, const char *reason, uint64_t told)
{
	struct bus *b;

	cds_list_for_each_entry (b, &sb->buses, node)
		if (b->member && away[b->p->ip])
			bus_put_out(b, reason, prng_in(&sb->w->rnd_bus, 0, told));
}

/* The side that goes on sees the others leave. */
static void noticed(struct event *ev)
{
	struct sim_bus *sb = caa_container_of(ev, struct sim_bus, notice);
	bool which[BUS_MEMBERS] = {false};

	for (unsigned i = 0; i < sb->nr_members; i++)
		which[i] = sb->away[sb->members[i].ip];
	bus_remove(sb, which, true);
}

bool bus_split(struct sim_bus *sb, bool ips[64], uint64_t notice, uint64_t told)
{
	unsigned nr[2] = {0, 0};
	struct bus *b;

	for (unsigned i = 0; i < sb->nr_members; i++)
		nr[ips[sb->members[i].ip]]++;
	if (sb->split || !nr[0] || !nr[1])
		return false;
	if (nr[1] > nr[0] || (nr[1] == nr[0] && ips[sb->members[0].ip]))
		for (unsigned i = 0; i < BUS_IPS; i++)
			ips[i] = !ips[i];
	memcpy(sb->away, ips, sizeof(sb->away));
	sb->split = true;
	cds_list_for_each_entry (b, &sb->buses, node)
		if (b->member && sb->away[b->p->ip] && b->limit > sb->nr_items) {
			/* What is on its way may still arrive. */
			b->limit = prng_in(&sb->w->rnd_bus, b->next, sb->nr_items);
			if (b->pe_set && b->next >= b->limit) {
				pevent_del(&b->pe);
				b->pe_set = false;
			}
		}
	put_out(sb, sb->away, "no quorum on this side of a split", told);
	sb->notice.fn = noticed;
	sb->notice.what = "split";
	event_set(sb->w, &sb->notice, sb->w->now + notice);
	return true;
}

/* Members from now on again, with nothing missed. */
static void rejoin(struct sim_bus *sb, struct bus *b)
{
	if (b->out_set)
		pevent_del(&b->out);
	b->out_set = false;
	b->limit = UINT64_MAX;
	bus_schedule(b);
}

void bus_join(struct sim_bus *sb)
{
	bool which[BUS_MEMBERS] = {false};
	struct sent *m, *next;
	struct bus *b;

	if (!sb->split)
		return;
	sb->split = false;
	event_del(sb->w, &sb->notice);
	cds_list_for_each_entry (b, &sb->buses, node) {
		int i = bus_member_idx(sb, &b->inc);
		if (i < 0 || !sb->away[b->p->ip])
			continue;
		if (b->is_out)
			which[i] = true;
		else
			rejoin(sb, b);
	}
	cds_list_for_each_entry_safe (m, next, &sb->sent, node)
		if (!m->ev.idx) /* held meanwhile; void if its sender was noticed to be gone */
			event_set(sb->w, &m->ev, sb->w->now);
	bus_remove(sb, which, true);
}

void bus_silent(struct sim_bus *sb, uint32_t ip, uint64_t told)
{
	bool which[BUS_MEMBERS] = {false};
	struct bus *b;

	cds_list_for_each_entry (b, &sb->buses, node)
		if (b->member && b->p->ip == ip)
			bus_put_out(b, "nobody heard of this node any more", told);
	for (unsigned i = 0; i < sb->nr_members; i++)
		which[i] = sb->members[i].ip == ip;
	bus_remove(sb, which, true);
}

unsigned bus_nr_members(const struct sim_bus *sb)
{
	return sb->nr_members;
}

bool bus_is_split(const struct sim_bus *sb)
{
	return sb->split;
}

void bus_lose_quorum(struct sim_bus *sb, uint64_t told, uint64_t ns)
{
	bool all[BUS_IPS];

	memset(all, true, sizeof(all));
	put_out(sb, all, "the cluster has no quorum", told);
	sb->nr_members = 0;
	sb->quorum_after = sb->w->now + ns;
}
