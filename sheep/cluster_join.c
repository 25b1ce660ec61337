/* cluster_join.c - who may join, and what people are told.  Pure. */
#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/base/util.h"
#include "sheep/cluster_int.h"
#include "sheep/mark.h"

/* ---- texts ---- */

void net_addr_text(const struct net_addr *a, char *buf, size_t len)
{
	char ip[INET6_ADDRSTRLEN] = "?";

	if (a->family == AF_INET6) {
		inet_ntop(AF_INET6, a->ip, ip, sizeof(ip));
		snprintf(buf, len, "[%s]:%u", ip, a->port);
	} else {
		inet_ntop(AF_INET, a->ip + 12, ip, sizeof(ip));
		snprintf(buf, len, "%s:%u", ip, a->port);
	}
}

/* (sec << 32 | nsec) as people know it from `dog cluster info`. */
static char *text_of(const struct cs *s, const struct lobby *l, enum refusal why)
{
	char addr[64];

	net_addr_text(&l->j.m.addr, addr, sizeof(addr));
	switch (why) {
	case REF_VERSION:
		return str_printf("This sheep speaks another version of the protocol between "
				  "daemons than the cluster: run the same version on all nodes");
	case REF_SHUTDOWN:
		return str_printf("The cluster is shutting down: start this node again when it "
				  "has stopped");
	case REF_UUID:
		return str_printf("A daemon with this store is in the cluster already.  If the "
				  "store was copied from another node, start with an empty "
				  "directory; if its previous daemon has just died, wait a moment "
				  "and start again");
	case REF_ADDR:
		return str_printf("Another node of the cluster has the address %s: choose another "
				  "port with -p or another address with -y",
				  addr);
	case REF_FULL:
		return str_printf("The cluster has %u nodes already, which is all it can have",
				  SD_MEMBERS_MAX);
	case REF_CTIME:
		return str_printf("This store belongs to another cluster (formatted at %llx, this "
				  "one at %llx): to add the node to this cluster start with an "
				  "empty directory",
				  (unsigned long long)l->j.ctime,
				  (unsigned long long)s->params.ctime);
	case REF_AUTO:
		return str_printf("The cluster computes the virtual nodes from the capacity (it "
				  "was formatted without -V): start without -V");
	case REF_FIXED:
		return str_printf("The cluster has fixed virtual nodes (it was formatted with "
				  "-V): start with -V and a number");
	case REF_BRANCH:
		return str_printf("This node is of a branch of the cluster that a later 'dog "
				  "cluster recover force' made, and the nodes running now are "
				  "not: stop them if this node's branch is the good one, or start "
				  "it with an empty directory to give that branch up");
	case REF_EXPELLED:
		return str_printf("The other nodes heard nothing of this one for too long and "
				  "went on without it");
	default: return str_printf("The cluster refuses this node");
	}
}

char *cs_refusal_text(const struct cs *s, const struct lobby *l)
{
	return text_of(s, l, l->refused);
}

static bool is_here(const struct cs *s, const uint8_t uuid[16])
{
	for (unsigned i = 0; i < s->nr_lobby; i++)
		if (!s->lobby[i]->refused && !memcmp(s->lobby[i]->j.m.inc.uuid, uuid, 16))
			return true;
	return false;
}

char *cs_waiting_text(const struct cs *s)
{
	unsigned missing = 0, shown = 0;
	struct enc e = {0};
	char addr[64];

	for (unsigned i = 0; i < s->nr_start; i++) {
		if (is_here(s, s->start[i].uuid))
			continue;
		missing++;
		if (shown == 8)
			continue;
		net_addr_text(&s->start[i].addr, addr, sizeof(addr));
		enc_bytes(&e, ", ", shown ? 2 : 0);
		enc_bytes(&e, addr, strlen(addr));
		shown++;
	}
	if (missing > shown)
		enc_bytes(&e, ", ...", 5);
	enc_u8(&e, 0);
	char *text = NULL;
	if (!e.failed)
		text = str_printf("Waiting for %u of %u nodes of epoch %u to come back: %s (if "
				  "they are lost for good: dog cluster recover force)",
				  missing, s->nr_start, cs_newest(s) ? cs_newest(s)->epoch : 0,
				  (char *)e.p);
	free(e.p);
	return text;
}

/* ---- joiners ---- */

void join_done(struct join *j)
{
	free(j->names);
	j->names = NULL;
	j->nr_names = 0;
}

int join_copy(struct join *to, const struct join *from)
{
	*to = *from;
	to->names = NULL;
	if (!from->nr_names)
		return 0;
	to->names = calloc(from->nr_names, sizeof(*to->names));
	if (!to->names) {
		to->nr_names = 0;
		return -ENOMEM;
	}
	memcpy(to->names, from->names, from->nr_names * sizeof(*to->names));
	return 0;
}

void lobby_free(struct lobby *l)
{
	join_done(&l->j);
	free(l->acks);
	free(l);
}

static bool has_name(const struct cs *s, uint32_t epoch, const uint8_t name[8])
{
	const struct hist *h = cs_hist(s, epoch);

	return h && !memcmp(h->name, name, sizeof(h->name));
}

bool cs_given_up(const struct cs *s, const struct join *j, uint32_t *common)
{
	uint32_t best = 0;

	*common = 0;
	if (j->key.epoch == 0 && !j->given_up)
		return false; /* it was never in a cluster */
	for (unsigned i = j->nr_names; i > 0 && !best; i--)
		if (has_name(s, j->names[i - 1].epoch, j->names[i - 1].name))
			best = j->names[i - 1].epoch;
	bool other = j->key.epoch && (!j->nr_names || best != j->key.epoch);
	if (!other && !j->given_up)
		return false;
	*common = best;
	if (j->given_up && j->common_epoch < best)
		*common = j->common_epoch;
	return true;
}

static enum refusal check_others(const struct cs *s, const struct lobby *l)
{
	const struct member *m = &l->j.m;
	unsigned here = 0;

	for (unsigned i = 0; i < s->nr_lobby; i++) {
		const struct lobby *o = s->lobby[i];
		if (o == l || o->refused)
			continue;
		here++;
		if (!memcmp(o->j.m.inc.uuid, m->inc.uuid, sizeof(m->inc.uuid)) &&
		    MARKED(cs_ref_uuid))
			return REF_UUID;
		if (o->j.m.addr.port == m->addr.port &&
		    !memcmp(o->j.m.addr.ip, m->addr.ip, sizeof(m->addr.ip)))
			return REF_ADDR;
		if (!s->params.ctime && l->j.ctime && o->j.ctime && o->j.ctime != l->j.ctime)
			return REF_CTIME;
	}
	return here >= SD_MEMBERS_MAX ? REF_FULL : REF_NONE;
}

enum refusal cs_join_check(const struct cs *s, const struct lobby *l)
{
	const struct member *m = &l->j.m;
	uint32_t common;

	if (s->status == CLUSTER_SHUTDOWN && MARKED(cs_ref_shutdown))
		return REF_SHUTDOWN;
	if (s->params.ctime && l->j.ctime && l->j.ctime != s->params.ctime)
		return REF_CTIME;
	if (s->params.ctime && !m->gateway) {
		if ((s->params.flags & SD_CLUSTER_AUTO_VNODES) && m->fixed_vnodes)
			return REF_AUTO;
		if (!(s->params.flags & SD_CLUSTER_AUTO_VNODES) && !m->fixed_vnodes)
			return REF_FIXED;
	}
	if (s->live && l->j.key.forces > s->forces && cs_given_up(s, &l->j, &common))
		return REF_BRANCH;
	return check_others(s, l);
}
