/* cluster_epoch.c - what makes an epoch: format, start, force, members that come and go.  Pure. */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "sheep/cluster_int.h"
#include "sheep/mark.h"
#include "sheep/plant.h"

#define NS_PER_S 1000000000u

/* ---- the history ---- */

static bool addr_same(const struct net_addr *a, const struct net_addr *b)
{
	return a->family == b->family && a->port == b->port && !memcmp(a->ip, b->ip, sizeof(a->ip));
}

/* All but nr_vnodes. */
static bool member_same(const struct member *a, const struct member *b)
{
	return inc_same(&a->inc, &b->inc) && addr_same(&a->addr, &b->addr) &&
	       addr_same(&a->io_addr, &b->io_addr) && a->zone == b->zone &&
	       a->fixed_vnodes == b->fixed_vnodes && a->gateway == b->gateway &&
	       a->space == b->space && !memcmp(a->boot_id, b->boot_id, sizeof(a->boot_id)) &&
	       a->given_up == b->given_up && a->common_epoch == b->common_epoch;
}

static struct cs_node *node_get(const struct hist *before, const struct member *m)
{
	for (unsigned i = 0; before && i < before->nr; i++)
		if (member_same(&before->members[i].node->m, m)) {
			before->members[i].node->refs++;
			return before->members[i].node;
		}
	struct cs_node *n = calloc(1, sizeof(*n));
	if (!n)
		return NULL;
	n->refs = 1;
	n->m = *m;
	n->m.nr_vnodes = 0;
	return n;
}

/* A record of the present members. */
static struct hist *hist_new(const struct cs *s, const struct hist *before)
{
	struct hist *h = calloc(1, sizeof(*h));

	if (!h)
		return NULL;
	h->members = calloc(s->nr_members ? s->nr_members : 1, sizeof(*h->members));
	if (!h->members) {
		free(h);
		return NULL;
	}
	for (; h->nr < s->nr_members; h->nr++) {
		struct cs_node *n = node_get(before, &s->members[h->nr]);
		if (!n) {
			hist_free(h);
			return NULL;
		}
		h->members[h->nr].node = n;
		h->members[h->nr].nr_vnodes = s->members[h->nr].nr_vnodes;
	}
	return h;
}

static void hist_push(struct cs *s, struct hist *h)
{
	if (s->nr_hist == CLUSTER_HISTORY) {
		hist_free(s->hist[0]);
		memmove(&s->hist[0], &s->hist[1], (CLUSTER_HISTORY - 1) * sizeof(s->hist[0]));
		s->nr_hist--;
	}
	assert(!s->nr_hist || s->hist[s->nr_hist - 1]->epoch < h->epoch);
	s->hist[s->nr_hist++] = h;
}

/* ---- members ---- */

static int member_cmp(const void *a, const void *b)
{
	const struct member *x = a, *y = b;
	int r = memcmp(x->addr.ip, y->addr.ip, sizeof(x->addr.ip));

	if (r)
		return r;
	if (x->addr.port != y->addr.port)
		return x->addr.port < y->addr.port ? -1 : 1;
	return memcmp(x->inc.uuid, y->inc.uuid, sizeof(x->inc.uuid));
}

/* protocol.md 8: recomputed for each epoch. */
static int members_vnodes(const struct cs *s, struct member *m, unsigned nr)
{
	uint64_t *space = calloc(nr ? nr : 1, sizeof(*space));
	uint16_t *vnodes = calloc(nr ? nr : 1, sizeof(*vnodes));
	bool ok = space && vnodes, autov = s->params.flags & SD_CLUSTER_AUTO_VNODES;

	for (unsigned i = 0; ok && i < nr; i++)
		space[i] = m[i].gateway ? 0 : m[i].space;
	if (ok)
		ring_auto_vnodes(space, nr, vnodes);
	for (unsigned i = 0; ok && i < nr; i++)
		m[i].nr_vnodes = m[i].gateway ? 0 : autov ? vnodes[i] : m[i].fixed_vnodes;
	free(space);
	free(vnodes);
	return ok ? 0 : -ENOMEM;
}

/* A member as it comes into an epoch. */
static struct member member_of(const struct cs *s, const struct lobby *l)
{
	struct member m = l->j.m;

	m.nr_vnodes = 0;
	m.given_up = cs_given_up(s, &l->j, &m.common_epoch);
	if (m.given_up)
		MARK(cs_given_up);
	return m;
}

static void lobby_in(struct cs *s, const struct member *m)
{
	struct lobby *l = cs_lobby(s, &m->inc);

	if (!l)
		return;
	l->admitted = false;
	l->nr_acks = 0;
	join_done(&l->j);
	l->j.key = (struct cs_key){0};
	l->j.given_up = false;
}

int cs_start_set(struct cs *s)
{
	struct start_node *n = calloc(s->nr_members + s->nr_lobby + 1, sizeof(*n));
	unsigned nr = 0;

	if (!n)
		return -ENOMEM;
	for (unsigned i = 0; i < s->nr_members; i++) {
		memcpy(n[nr].uuid, s->members[i].inc.uuid, sizeof(n[nr].uuid));
		n[nr++].addr = s->members[i].addr;
	}
	for (unsigned i = 0; i < s->nr_lobby; i++) {
		const struct lobby *l = s->lobby[i];
		if (!l->admitted || cs_member(s, &l->j.m.inc) >= 0)
			continue;
		memcpy(n[nr].uuid, l->j.m.inc.uuid, sizeof(n[nr].uuid));
		n[nr++].addr = l->j.m.addr;
	}
	free(s->start);
	s->start = n;
	s->nr_start = nr;
	return 0;
}

/* Takes @m over, whatever happens. */
static int members_set(struct cs *s, struct member *m, unsigned nr)
{
	qsort(m, nr, sizeof(*m), member_cmp);
	free(s->members);
	s->members = m;
	s->nr_members = nr;
	for (unsigned i = 0; i < nr; i++)
		lobby_in(s, &m[i]);
	return cs_start_set(s);
}

/* A name that nobody had to send: the members' own randomness, and where we are. */
static int name_guess(const struct cs *s, uint32_t epoch, uint8_t name[8])
{
	const struct hist *h = cs_newest(s);
	struct enc e = {0};

	if (h)
		enc_bytes(&e, h->name, sizeof(h->name));
	enc_u32(&e, epoch);
	enc_u64(&e, s->pos);
	for (unsigned i = 0; i < s->nr_members; i++) {
		const struct lobby *l = cs_lobby(s, &s->members[i].inc);
		enc_inc(&e, &s->members[i].inc);
		enc_u64(&e, l ? l->j.random : 0);
	}
	uint64_t hash = e.failed ? 0 : sd_hash(e.p, e.len);
	bool failed = e.failed;
	free(e.p);
	for (unsigned i = 0; i < 8; i++)
		name[i] = (uint8_t)(hash >> (8 * i));
	return failed ? -ENOMEM : 0;
}

int cs_epoch_next(struct cs *s, const struct lobby *const *joiners, unsigned nr_joiners,
		  const struct cmd *cmd, struct cs_out *out)
{
	uint32_t epoch = cs_newest(s) ? cs_newest(s)->epoch + 1 : 1;
	struct member *m = calloc(s->nr_members + nr_joiners + 1, sizeof(*m));
	unsigned nr = 0;

	if (!m)
		return -ENOMEM;
	for (unsigned i = 0; i < s->nr_members; i++)
		if (cs_is_here(s, &s->members[i].inc))
			m[nr++] = s->members[i];
	for (unsigned i = 0; i < nr_joiners; i++)
		m[nr++] = member_of(s, joiners[i]);
	assert(nr && nr <= SD_MEMBERS_MAX);
	int r = members_vnodes(s, m, nr);
	if (r == 0) {
		r = members_set(s, m, nr);
	} else {
		free(m);
	}
	struct hist *h = r == 0 ? hist_new(s, cs_newest(s)) : NULL;
	if (!h)
		return -ENOMEM;
	h->epoch = epoch;
	h->time = (cmd ? cmd->time : s->last_time) / NS_PER_S;
	h->forced = cmd && cmd->type == CMD_FORCE_RECOVER;
	for (unsigned i = 0; cmd && i < 8; i++)
		h->name[i] = (uint8_t)(cmd->random >> (8 * i));
	if (!cmd && name_guess(s, epoch, h->name) < 0) {
		hist_free(h);
		return -ENOMEM;
	}
	MARK(cs_epoch);
	hist_push(s, h);
	cs_acquit_all(s);
	out->epoch = true;
	out->clean = false;
	out->guess = !cmd;
	return cs_vdi_left(s, out);
}

/* ---- joining, in two steps ---- */

int cs_admit(struct cs *s, struct lobby *l)
{
	l->refused = cs_join_check(s, l);
	if (l->refused)
		return 0;
	MARK(cs_admit);
	l->admitted = true;
	l->nr_acks = 0;
	return cs_start_set(s);
}

static int admit_rest(struct cs *s)
{
	for (unsigned i = 0; i < s->nr_lobby; i++) {
		struct lobby *l = s->lobby[i];
		if (!l->synced || l->refused || cs_member(s, &l->j.m.inc) >= 0)
			continue;
		int r = cs_admit(s, l);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Have all that are present and have the state made durable that the start set has @l? */
static bool all_acked(const struct cs *s, const struct lobby *l)
{
	for (unsigned i = 0; i < s->nr_lobby; i++) {
		const struct lobby *o = s->lobby[i];
		unsigned k = 0;
		if (!o->synced || o->refused)
			continue;
		while (k < l->nr_acks && !inc_same(&l->acks[k], &o->j.m.inc))
			k++;
		if (k == l->nr_acks)
			return false;
	}
	return true;
}

/* An ACK came (@cmd), or the membership changed (NULL): who has left, who is in? */
int cs_admitted(struct cs *s, const struct cmd *cmd, struct cs_out *out)
{
	const struct lobby **in = calloc(s->nr_lobby + 1, sizeof(*in));
	unsigned nr = 0;
	bool left = false;
	int r = 0;

	if (!in)
		return -ENOMEM;
	for (unsigned i = 0; i < s->nr_lobby; i++)
		if (s->lobby[i]->admitted && (all_acked(s, s->lobby[i]) || PLANTED(join_at_once)))
			in[nr++] = s->lobby[i];
	if (nr)
		MARK(cs_admitted);
	for (unsigned i = 0; i < s->nr_members; i++)
		left |= !cs_is_here(s, &s->members[i].inc);
	if (nr || left)
		r = cs_epoch_next(s, in, nr, cmd, out);
	else if (!cmd) {
		MARK(cs_joiner_died);
		r = cs_start_set(s); /* a joiner that has died is taken out of it */
	}
	free(in);
	return r;
}

/* ---- start ---- */

static const struct lobby *start_lobby(const struct cs *s, const struct start_node *n)
{
	for (unsigned i = 0; i < s->nr_lobby; i++) {
		const struct lobby *l = s->lobby[i];
		if (l->synced && !l->refused && !memcmp(l->j.m.inc.uuid, n->uuid, sizeof(n->uuid)))
			return l;
	}
	return NULL;
}

/* May the epoch go on as it was?  All of the start set left it in good order, and the ring of the
 * members is the same. */
static bool start_clean(const struct cs *s)
{
	const struct hist *h = cs_newest(s);

	if (!h || s->nr_start != h->nr)
		return false;
	for (unsigned i = 0; i < h->nr; i++) {
		const struct member *old = &h->members[i].node->m;
		struct start_node n;
		memcpy(n.uuid, old->inc.uuid, sizeof(n.uuid));
		const struct lobby *l = start_lobby(s, &n);
		bool in_start = false;
		for (unsigned k = 0; k < s->nr_start; k++)
			in_start |= !memcmp(s->start[k].uuid, n.uuid, sizeof(n.uuid));
		if (!l || !in_start || l->j.clean_epoch != h->epoch ||
		    memcmp(l->j.clean_name, h->name, sizeof(h->name)))
			return false;
		const struct member *m = &l->j.m;
		if (!addr_same(&m->addr, &old->addr) || m->zone != old->zone ||
		    m->gateway != old->gateway || m->fixed_vnodes != old->fixed_vnodes ||
		    (!m->space) != (!old->space) || l->j.given_up)
			return false;
	}
	return true;
}

/* The same epoch with the members' new incarnations. */
static int start_same(struct cs *s, struct cs_out *out)
{
	struct hist *old = s->hist[s->nr_hist - 1], *h;
	struct member *m = calloc(old->nr ? old->nr : 1, sizeof(*m));
	unsigned nr = old->nr;

	if (!m)
		return -ENOMEM;
	for (unsigned i = 0; i < nr; i++) {
		struct start_node n;
		memcpy(n.uuid, old->members[i].node->m.inc.uuid, sizeof(n.uuid));
		m[i] = start_lobby(s, &n)->j.m;
		m[i].nr_vnodes = old->members[i].nr_vnodes;
		m[i].given_up = false;
		m[i].common_epoch = 0;
	}
	int r = members_set(s, m, nr);
	if (r < 0)
		return r;
	h = hist_new(s, s->nr_hist > 1 ? s->hist[s->nr_hist - 2] : NULL);
	if (!h)
		return -ENOMEM;
	h->epoch = old->epoch;
	memcpy(h->name, old->name, sizeof(h->name));
	h->time = old->time;
	h->forced = old->forced;
	s->hist[s->nr_hist - 1] = h;
	hist_free(old);
	out->epoch = true;
	out->clean = true;
	out->guess = false;
	return cs_vdi_left(s, out);
}

/* It begins to run, with new incarnations of all. */
static void go_live(struct cs *s)
{
	s->pos = ((s->pos >> 32) + 1) << 32;
	s->live = true;
	s->status = CLUSTER_RUNNING;
	s->params.disable_recovery = false; /* protocol.md 9.8 */
	cs_vdi_unlock_all(s);		    /* 6.4 */
}

int cs_try_start(struct cs *s, struct cs_out *out)
{
	int r;

	if (s->status != CLUSTER_WAIT_JOIN || cs_best(s))
		return 0;
	for (unsigned i = 0; i < s->nr_start; i++)
		if (!start_lobby(s, &s->start[i]) && MARKED(cs_start_waits))
			return 0;
	if (!s->nr_start)
		return 0;
	bool clean = start_clean(s);
	go_live(s);
	if (clean && MARKED(cs_start_clean)) {
		r = start_same(s, out);
	} else {
		MARK(cs_start_anew);
		const struct lobby **in = calloc(s->nr_start, sizeof(*in));
		if (!in)
			return -ENOMEM;
		for (unsigned i = 0; i < s->nr_start; i++)
			in[i] = start_lobby(s, &s->start[i]);
		unsigned nr = s->nr_start;
		s->nr_members = 0; /* all of them are dead */
		r = cs_epoch_next(s, in, nr, NULL, out);
		free(in);
	}
	return r < 0 ? r : admit_rest(s);
}

uint32_t cs_force(struct cs *s, const struct cmd *cmd, struct cs_out *out, int *err)
{
	unsigned nr = 0;

	if (!s->params.ctime)
		return SD_RES_WAIT_FOR_FORMAT;
	if (s->status != CLUSTER_WAIT_JOIN)
		return SD_RES_FORCE_RECOVER;
	if (cs_best(s))
		return SD_RES_AGAIN; /* its state is on the way */
	const struct lobby **in = calloc(s->nr_lobby + 1, sizeof(*in));
	if (!in) {
		*err = -ENOMEM;
		return SD_RES_NO_MEM;
	}
	for (unsigned i = 0; i < s->nr_start; i++) {
		const struct lobby *l = start_lobby(s, &s->start[i]);
		if (l)
			in[nr++] = l;
	}
	for (unsigned i = 0; !nr && i < s->nr_lobby; i++)
		if (s->lobby[i]->synced && !s->lobby[i]->refused)
			in[nr++] = s->lobby[i];
	if (nr) {
		go_live(s);
		MARK(cs_force);
		s->forces++;
		s->gen += 1ull << 32;
		s->nr_members = 0;
		s->silent = s->pos; /* whoever is given up may still run */
		out->silent = true;
		*err = cs_epoch_next(s, in, nr, cmd, out);
		if (*err == 0)
			*err = admit_rest(s);
	}
	free(in);
	return nr ? SD_RES_SUCCESS : SD_RES_WAIT_FOR_JOIN;
}

/* ---- format ---- */

static uint32_t format_valid(const struct cs *s, const struct cmd *cmd)
{
	if (s->status == CLUSTER_SHUTDOWN)
		return SD_RES_SHUTDOWN;
	if (!cmd->ctime || !cmd->copies || cmd->copies > SD_COPIES_MAX ||
	    cmd->shift < SD_OBJ_SHIFT_MIN || cmd->shift > SD_OBJ_SHIFT_MAX)
		return SD_RES_INVALID_PARMS;
	for (unsigned i = 0; i < s->nr_lobby; i++) {
		const struct lobby *l = s->lobby[i];
		bool autov = cmd->flags & SD_CLUSTER_AUTO_VNODES;
		if (!l->refused && l->synced && !l->j.m.gateway &&
		    autov == (l->j.m.fixed_vnodes != 0))
			return SD_RES_INVALID_VNODES_STRATEGY;
	}
	return SD_RES_SUCCESS;
}

uint32_t cs_format(struct cs *s, const struct cmd *cmd, struct cs_out *out, int *err)
{
	unsigned nr = 0;

	if (s->params.ctime && cmd->ctime == s->params.ctime && s->live)
		return SD_RES_SUCCESS; /* the same request once more */
	uint32_t res = format_valid(s, cmd);
	if (res != SD_RES_SUCCESS)
		return res;
	const struct lobby **in = calloc(s->nr_lobby + 1, sizeof(*in));
	if (!in) {
		*err = -ENOMEM;
		return SD_RES_NO_MEM;
	}
	cs_forget(s);
	s->params = (struct cluster_params){.ctime = cmd->ctime,
					    .flags = cmd->flags,
					    .copies = cmd->copies,
					    .copy_policy = cmd->copy_policy,
					    .shift = cmd->shift};
	memcpy(s->params.store, cmd->store, sizeof(s->params.store));
	for (unsigned i = 0; i < s->nr_lobby; i++) {
		struct lobby *l = s->lobby[i];
		l->admitted = false;
		if (!l->synced && !l->refused)
			l->refused = cs_join_check(s, l);
		if (!l->synced || l->refused)
			continue; /* who has just come joins afterwards */
		/* Whatever it had belongs to no cluster any more. */
		join_done(&l->j);
		l->j.ctime = cmd->ctime;
		l->j.key = (struct cs_key){0};
		l->j.clean_epoch = 0;
		l->j.given_up = false;
		in[nr++] = l;
	}
	go_live(s);
	MARK(cs_format);
	out->format = true;
	*err = cs_epoch_next(s, in, nr, cmd, out);
	free(in);
	return SD_RES_SUCCESS;
}
