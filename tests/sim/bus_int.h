/* bus_int.h - inside of bus*.c: the simulated cluster driver. */
#ifndef TESTS_SIM_BUS_INT_H
#define TESTS_SIM_BUS_INT_H

#include "tests/sim/sim.h"

#include <string.h>

#define BUS_IPS	    64u
#define BUS_MEMBERS (NODES_MAX * 3u)

struct mem { /* a member, as the driver sees it */
	struct bus_member m;
	uint32_t ip;
	char name[16]; /* for the story: node and start number */
};

struct item { /* one place of the order */
	uint64_t nr, at;
	bool view;
	struct incarnation from; /* messages: the sender, its how manieth */
	uint64_t seq;
	size_t len;
	void *data; /* message, or array of struct bus_member: present, then left */
	unsigned nr_members, nr_left;
};

struct sent { /* not in the order yet */
	struct event ev;
	struct cds_list_head node;
	struct bus *from; /* NULL: it has died, the message with it or not */
	struct sim_bus *sb;
	struct incarnation inc;
	uint32_t ip;
	uint64_t seq;
	size_t len;
	uint8_t data[];
};

struct bus { /* one member */
	struct cds_list_head node;
	struct sim_bus *sb;
	struct proc *p;
	struct incarnation inc;
	struct bus_cb cb;
	void *arg;
	uint64_t next, limit;	     /* the item it gets next; below @limit only */
	uint64_t nr_sent, nr_owned;  /* messages sent, and got back */
	const struct item *view;     /* the last one delivered */
	uint64_t last_sent_at, gate; /* gate: when the next batch comes */
	struct pevent pe, out;	     /* a delivery, the news that it is out */
	const char *reason;
	bool pe_set, out_set, member, closing, in_cb, is_out;
	struct event join;
};

struct death { /* that the others have not noticed */
	struct event ev;
	struct sim_bus *sb;
	struct incarnation inc;
	uint32_t ip;
	bool silent;
	struct death *next;
};

struct sim_bus {
	struct world *w;
	struct item **items;
	size_t nr_items, cap_items;
	struct cds_list_head buses;
	struct mem members[BUS_MEMBERS]; /* oldest first */
	unsigned nr_members;
	struct cds_list_head sent;
	/* by ip: up to so late; exactly so late; only at multiples of; not at all */
	uint64_t lag[BUS_IPS], late[BUS_IPS], batch[BUS_IPS];
	bool held[BUS_IPS];
	struct death *deaths;
	/* a split */
	bool away[BUS_IPS]; /* on the side that does not go on */
	bool split;
	struct event notice;   /* the others notice */
	uint64_t quorum_after; /* nobody can join before */
	struct event *watch;
	unsigned watch_type, watch_left;
	uint32_t last_joiner;
};

static inline bool bus_same(const struct incarnation *a, const struct incarnation *b)
{
	return a->start == b->start && !memcmp(a->uuid, b->uuid, sizeof(a->uuid));
}

/* ---- bus.c ---- */

void bus_schedule(struct bus *b);
/* -1: not a member. */
int bus_member_idx(const struct sim_bus *sb, const struct incarnation *inc);
/* @which[i]: member i leaves, all of them in one change of the membership. */
void bus_remove(struct sim_bus *sb, const bool *which, bool silent);
/* It is not a member any more, and hears of it @after ns. */
void bus_put_out(struct bus *b, const char *reason, uint64_t after);

#endif
