/* cluster_codec.c - the cluster module's messages and its state as bytes.
 *
 * Canonical: equal states have equal encodings (C6).  What comes from the wire or the disk is
 * checked for form: a decoder fails, it never asserts.
 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "sheep/cluster_int.h"

/* ---- primitives ---- */

void enc_bytes(struct enc *e, const void *p, size_t len)
{
	if (e->failed || !len)
		return;
	if (e->cap - e->len < len) {
		size_t cap = e->cap ? e->cap * 2 : 512;
		while (cap - e->len < len)
			cap *= 2;
		uint8_t *n = realloc(e->p, cap);
		if (!n) {
			e->failed = true;
			return;
		}
		e->p = n;
		e->cap = cap;
	}
	memcpy(e->p + e->len, p, len);
	e->len += len;
}

void enc_u8(struct enc *e, uint8_t v)
{
	enc_bytes(e, &v, 1);
}

static void enc_le(struct enc *e, uint64_t v, unsigned n)
{
	uint8_t b[8];

	for (unsigned i = 0; i < n; i++)
		b[i] = (uint8_t)(v >> (8 * i));
	enc_bytes(e, b, n);
}

void enc_u16(struct enc *e, uint16_t v)
{
	enc_le(e, v, 2);
}

void enc_u32(struct enc *e, uint32_t v)
{
	enc_le(e, v, 4);
}

void enc_u64(struct enc *e, uint64_t v)
{
	enc_le(e, v, 8);
}

void enc_inc(struct enc *e, const struct incarnation *i)
{
	enc_bytes(e, i->uuid, sizeof(i->uuid));
	enc_u64(e, i->start);
}

void dec_bytes(struct dec *d, void *p, size_t len)
{
	if (d->failed || dec_left(d) < len) {
		d->failed = true;
		memset(p, 0, len);
		return;
	}
	memcpy(p, d->p, len);
	d->p += len;
}

uint8_t dec_u8(struct dec *d)
{
	uint8_t v;

	dec_bytes(d, &v, 1);
	return v;
}

static uint64_t dec_le(struct dec *d, unsigned n)
{
	uint8_t b[8];
	uint64_t v = 0;

	dec_bytes(d, b, n);
	for (unsigned i = 0; i < n; i++)
		v |= (uint64_t)b[i] << (8 * i);
	return v;
}

uint16_t dec_u16(struct dec *d)
{
	return (uint16_t)dec_le(d, 2);
}

uint32_t dec_u32(struct dec *d)
{
	return (uint32_t)dec_le(d, 4);
}

uint64_t dec_u64(struct dec *d)
{
	return dec_le(d, 8);
}

void dec_inc(struct dec *d, struct incarnation *i)
{
	dec_bytes(d, i->uuid, sizeof(i->uuid));
	i->start = dec_u64(d);
}

static bool dec_bool(struct dec *d)
{
	uint8_t v = dec_u8(d);

	if (v > 1)
		d->failed = true;
	return v;
}

/* A count of things that take at least @size bytes each: nothing absurd is allocated. */
static unsigned dec_count(struct dec *d, uint32_t max, size_t size)
{
	uint32_t n = dec_u32(d);

	if (n > max || (uint64_t)n * size > dec_left(d)) {
		d->failed = true;
		return 0;
	}
	return n;
}

/* Names: up to 256 bytes, perhaps without a NUL. */
static void enc_name(struct enc *e, const char *s)
{
	size_t n = strnlen(s, SD_NAME_LEN);

	enc_u16(e, (uint16_t)n);
	enc_bytes(e, s, n);
}

static void dec_name(struct dec *d, char *s)
{
	uint16_t n = dec_u16(d);

	memset(s, 0, SD_NAME_LEN);
	if (n > SD_NAME_LEN)
		d->failed = true;
	else
		dec_bytes(d, s, n);
	if (memchr(s, 0, n))
		d->failed = true;
}

static void enc_addr(struct enc *e, const struct net_addr *a)
{
	enc_u8(e, a->family == AF_INET ? 4 : a->family == AF_INET6 ? 6 : 0);
	enc_bytes(e, a->ip, sizeof(a->ip));
	enc_u16(e, a->port);
}

static void dec_addr(struct dec *d, struct net_addr *a)
{
	uint8_t f = dec_u8(d);

	memset(a, 0, sizeof(*a));
	a->family = f == 4 ? AF_INET : f == 6 ? AF_INET6 : 0;
	if (f != 0 && f != 4 && f != 6)
		d->failed = true;
	dec_bytes(d, a->ip, sizeof(a->ip));
	a->port = dec_u16(d);
}

#define MEMBER_LEN 100u

static void enc_member(struct enc *e, const struct member *m)
{
	enc_inc(e, &m->inc);
	enc_addr(e, &m->addr);
	enc_addr(e, &m->io_addr);
	enc_u32(e, m->zone);
	enc_u16(e, m->nr_vnodes);
	enc_u16(e, m->fixed_vnodes);
	enc_u8(e, m->gateway);
	enc_u64(e, m->space);
	enc_bytes(e, m->boot_id, sizeof(m->boot_id));
	enc_u8(e, m->given_up);
	enc_u32(e, m->common_epoch);
}

static void dec_member(struct dec *d, struct member *m)
{
	memset(m, 0, sizeof(*m));
	dec_inc(d, &m->inc);
	dec_addr(d, &m->addr);
	dec_addr(d, &m->io_addr);
	m->zone = dec_u32(d);
	m->nr_vnodes = dec_u16(d);
	m->fixed_vnodes = dec_u16(d);
	m->gateway = dec_bool(d);
	m->space = dec_u64(d);
	dec_bytes(d, m->boot_id, sizeof(m->boot_id));
	m->given_up = dec_bool(d);
	m->common_epoch = dec_u32(d);
}

/* ---- messages ---- */

void msg_begin(struct enc *e, enum cmd_type type, uint64_t id)
{
	enc_u8(e, CLUSTER_MSG_VERSION);
	enc_u8(e, (uint8_t)type);
	enc_u64(e, id);
}

bool msg_decode(struct dec *d, struct msg_head *h)
{
	h->version = dec_u8(d);
	uint8_t type = dec_u8(d);
	h->id = dec_u64(d);
	h->type = (enum cmd_type)type;
	return !d->failed && type < CMD_NR;
}

void cmd_encode(struct enc *e, const struct cmd *c)
{
	enc_u32(e, c->vid);
	enc_u64(e, c->gen);
	enc_name(e, c->name);
	enc_name(e, c->tag);
	enc_u32(e, c->snapid);
	enc_u32(e, c->base_vid);
	enc_u64(e, c->size);
	enc_u64(e, c->vm_state_size);
	enc_u64(e, c->vm_clock_nsec);
	enc_u64(e, c->ctime);
	enc_u8(e, c->copies);
	enc_u8(e, c->copy_policy);
	enc_u8(e, c->store_policy);
	enc_u8(e, c->shift);
	enc_u8(e, c->lock_type);
	enc_u16(e, c->flags);
	enc_bytes(e, c->store, sizeof(c->store));
	enc_u64(e, c->time);
	enc_u64(e, c->random);
	enc_u8(e, c->clean);
	enc_u8(e, c->on);
	enc_inc(e, &c->target);
}

bool cmd_decode(struct dec *d, struct cmd *c)
{
	c->vid = dec_u32(d);
	c->gen = dec_u64(d);
	dec_name(d, c->name);
	dec_name(d, c->tag);
	c->snapid = dec_u32(d);
	c->base_vid = dec_u32(d);
	c->size = dec_u64(d);
	c->vm_state_size = dec_u64(d);
	c->vm_clock_nsec = dec_u64(d);
	c->ctime = dec_u64(d);
	c->copies = dec_u8(d);
	c->copy_policy = dec_u8(d);
	c->store_policy = dec_u8(d);
	c->shift = dec_u8(d);
	c->lock_type = dec_u8(d);
	c->flags = dec_u16(d);
	dec_bytes(d, c->store, sizeof(c->store));
	c->time = dec_u64(d);
	c->random = dec_u64(d);
	c->clean = dec_bool(d);
	c->on = dec_bool(d);
	dec_inc(d, &c->target);
	c->store[sizeof(c->store) - 1] = '\0';
	return !d->failed && !dec_left(d);
}

void join_encode(struct enc *e, const struct join *j)
{
	enc_u64(e, j->attempt);
	enc_member(e, &j->m);
	enc_u64(e, j->ctime);
	enc_u32(e, j->key.forces);
	enc_u32(e, j->key.epoch);
	enc_u64(e, j->key.pos);
	enc_u64(e, j->max_gen);
	enc_u32(e, j->clean_epoch);
	enc_bytes(e, j->clean_name, sizeof(j->clean_name));
	enc_u64(e, j->random);
	enc_u64(e, j->time);
	enc_u8(e, j->given_up);
	enc_u32(e, j->common_epoch);
	enc_u32(e, j->nr_names);
	for (unsigned i = 0; i < j->nr_names; i++) {
		enc_u32(e, j->names[i].epoch);
		enc_bytes(e, j->names[i].name, sizeof(j->names[i].name));
	}
}

int join_decode(struct dec *d, struct join *j)
{
	memset(j, 0, sizeof(*j));
	j->attempt = dec_u64(d);
	dec_member(d, &j->m);
	j->ctime = dec_u64(d);
	j->key.forces = dec_u32(d);
	j->key.epoch = dec_u32(d);
	j->key.pos = dec_u64(d);
	j->max_gen = dec_u64(d);
	j->clean_epoch = dec_u32(d);
	dec_bytes(d, j->clean_name, sizeof(j->clean_name));
	j->random = dec_u64(d);
	j->time = dec_u64(d);
	j->given_up = dec_bool(d);
	j->common_epoch = dec_u32(d);
	unsigned n = dec_count(d, CLUSTER_HISTORY, 12);
	if (n) {
		j->names = calloc(n, sizeof(*j->names));
		if (!j->names)
			return -ENOMEM;
	}
	j->nr_names = n;
	for (unsigned i = 0; i < n; i++) {
		j->names[i].epoch = dec_u32(d);
		dec_bytes(d, j->names[i].name, sizeof(j->names[i].name));
	}
	return d->failed ? -EBADMSG : 0;
}

void state_msg_encode(struct enc *e, const struct state_msg *m)
{
	enc_u8(e, (uint8_t)m->kind);
	enc_inc(e, &m->target);
	enc_u64(e, m->attempt);
	enc_u32(e, m->chunk);
	enc_u8(e, m->last);
	enc_bytes(e, m->data, m->len);
}

bool state_msg_decode(struct dec *d, struct state_msg *m)
{
	uint8_t kind = dec_u8(d);

	m->kind = (enum state_kind)kind;
	dec_inc(d, &m->target);
	m->attempt = dec_u64(d);
	m->chunk = dec_u32(d);
	m->last = dec_bool(d);
	m->data = d->p;
	m->len = dec_left(d);
	return !d->failed && kind >= STATE_FOR_JOINER && kind <= STATE_REFUSAL;
}

/* ---- the state ---- */

static void enc_vdi(struct enc *e, const struct vdi *v)
{
	const bool bits[] = {v->deleted,    v->creating, v->reclaiming, v->cached,
			     v->cache_lost, v->owned,	 v->clean};

	enc_u32(e, v->vid);
	for (unsigned i = 0; i < sizeof(bits) / sizeof(bits[0]); i++)
		enc_u8(e, bits[i]);
	enc_name(e, v->name);
	enc_name(e, v->tag);
	enc_u64(e, v->create_time);
	enc_u64(e, v->snap_ctime);
	enc_u64(e, v->vm_clock_nsec);
	enc_u64(e, v->size);
	enc_u64(e, v->vm_state_size);
	enc_u32(e, v->snap_id);
	enc_u32(e, v->parent_vid);
	enc_u32(e, v->family);
	enc_u32(e, v->create_epoch);
	enc_u32(e, v->btree_counter);
	enc_u32(e, v->lost_epoch);
	enc_u8(e, v->copies);
	enc_u8(e, v->copy_policy);
	enc_u8(e, v->store_policy);
	enc_u8(e, v->shift);
	enc_inc(e, &v->owner);
	enc_u64(e, v->gen);
	enc_u64(e, v->opens);
	enc_u8(e, v->lock_state);
	enc_u8(e, v->lock_nr);
	for (unsigned i = 0; i < v->lock_nr; i++) {
		enc_inc(e, &v->lock_owner[i]);
		enc_addr(e, &v->lock_addr[i]);
	}
}

static int dec_vdi_locks(struct dec *d, struct vdi *v)
{
	uint8_t n = dec_u8(d);

	if (n > VDI_LOCKS_MAX)
		d->failed = true;
	if (d->failed || !n)
		return 0;
	v->lock_owner = calloc(n, sizeof(*v->lock_owner));
	v->lock_addr = calloc(n, sizeof(*v->lock_addr));
	if (!v->lock_owner || !v->lock_addr)
		return -ENOMEM;
	v->lock_nr = n;
	for (unsigned i = 0; i < n; i++) {
		dec_inc(d, &v->lock_owner[i]);
		dec_addr(d, &v->lock_addr[i]);
	}
	return 0;
}

static int dec_vdi(struct dec *d, struct vdi *v)
{
	v->vid = dec_u32(d);
	v->deleted = dec_bool(d);
	v->creating = dec_bool(d);
	v->reclaiming = dec_bool(d);
	v->cached = dec_bool(d);
	v->cache_lost = dec_bool(d);
	v->owned = dec_bool(d);
	v->clean = dec_bool(d);
	dec_name(d, v->name);
	dec_name(d, v->tag);
	v->create_time = dec_u64(d);
	v->snap_ctime = dec_u64(d);
	v->vm_clock_nsec = dec_u64(d);
	v->size = dec_u64(d);
	v->vm_state_size = dec_u64(d);
	v->snap_id = dec_u32(d);
	v->parent_vid = dec_u32(d);
	v->family = dec_u32(d);
	v->create_epoch = dec_u32(d);
	v->btree_counter = dec_u32(d);
	v->lost_epoch = dec_u32(d);
	v->copies = dec_u8(d);
	v->copy_policy = dec_u8(d);
	v->store_policy = dec_u8(d);
	v->shift = dec_u8(d);
	dec_inc(d, &v->owner);
	v->gen = dec_u64(d);
	v->opens = dec_u64(d);
	v->lock_state = dec_u8(d);
	return dec_vdi_locks(d, v);
}

static int dec_vdis(struct dec *d, struct cs *s)
{
	unsigned n = dec_count(d, SD_NR_VDIS, 64);
	uint32_t before = 0;

	for (unsigned i = 0; i < n && !d->failed; i++) {
		struct vdi *v = calloc(1, sizeof(*v));
		if (!v)
			return -ENOMEM;
		if (dec_vdi(d, v) < 0 || cs_vdi_add(s, s->nr_vdis, v) < 0) {
			vdi_free(v);
			return -ENOMEM;
		}
		if (v->vid <= before || v->vid >= SD_NR_VDIS)
			d->failed = true;
		before = v->vid;
	}
	return 0;
}

/* A member that the epoch before had, the same, is a reference to it: index + 1. */
static void enc_hist(struct enc *e, const struct hist *h, const struct hist *before)
{
	enc_u32(e, h->epoch);
	enc_bytes(e, h->name, sizeof(h->name));
	enc_u64(e, h->time);
	enc_u8(e, h->forced);
	enc_u32(e, h->nr);
	for (unsigned i = 0; i < h->nr; i++) {
		uint32_t ref = 0;
		for (unsigned k = 0; before && k < before->nr && !ref; k++)
			if (before->members[k].node == h->members[i].node)
				ref = k + 1;
		enc_u32(e, ref);
		enc_u16(e, h->members[i].nr_vnodes);
		if (!ref)
			enc_member(e, &h->members[i].node->m);
	}
}

static int dec_hist_member(struct dec *d, struct hist *h, unsigned i, const struct hist *before)
{
	uint32_t ref = dec_u32(d);

	h->members[i].nr_vnodes = dec_u16(d);
	if (ref) {
		if (!before || ref > before->nr) {
			d->failed = true;
			return 0;
		}
		h->members[i].node = before->members[ref - 1].node;
		h->members[i].node->refs++;
		return 0;
	}
	struct cs_node *n = calloc(1, sizeof(*n));
	if (!n)
		return -ENOMEM;
	n->refs = 1;
	dec_member(d, &n->m);
	h->members[i].node = n;
	return 0;
}

static int dec_hists(struct dec *d, struct cs *s)
{
	unsigned n = dec_count(d, CLUSTER_HISTORY, 25);
	int r = 0;

	for (unsigned i = 0; i < n && !d->failed && r == 0; i++) {
		const struct hist *before = i ? s->hist[i - 1] : NULL;
		struct hist *h = calloc(1, sizeof(*h));
		if (!h)
			return -ENOMEM;
		s->hist[s->nr_hist++] = h;
		h->epoch = dec_u32(d);
		dec_bytes(d, h->name, sizeof(h->name));
		h->time = dec_u64(d);
		h->forced = dec_bool(d);
		if (before && h->epoch <= before->epoch)
			d->failed = true;
		unsigned nr = dec_count(d, SD_MEMBERS_MAX, 6);
		h->members = calloc(nr ? nr : 1, sizeof(*h->members));
		if (!h->members)
			return -ENOMEM;
		while (h->nr < nr && !d->failed && r == 0) {
			r = dec_hist_member(d, h, h->nr, before);
			if (h->members[h->nr].node)
				h->nr++;
		}
	}
	return r;
}

static void enc_lobby(struct enc *e, const struct lobby *l)
{
	join_encode(e, &l->j);
	enc_u8(e, l->synced);
	enc_u8(e, l->admitted);
	enc_u8(e, (uint8_t)l->refused);
	enc_u32(e, l->nr_acks);
	for (unsigned i = 0; i < l->nr_acks; i++)
		enc_inc(e, &l->acks[i]);
	enc_u8(e, l->accused);
	if (l->accused)
		enc_inc(e, &l->accuser);
}

static int dec_lobby(struct dec *d, struct lobby *l)
{
	int r = join_decode(d, &l->j);

	if (r == -ENOMEM)
		return r;
	l->synced = dec_bool(d);
	l->admitted = dec_bool(d);
	uint8_t refused = dec_u8(d);
	if (refused >= REF_NR)
		d->failed = true;
	l->refused = (enum refusal)refused;
	unsigned n = dec_count(d, CLUSTER_LOBBY_MAX, sizeof(struct incarnation));
	if (n) {
		l->acks = calloc(n, sizeof(*l->acks));
		if (!l->acks)
			return -ENOMEM;
	}
	for (; l->nr_acks < n; l->nr_acks++)
		dec_inc(d, &l->acks[l->nr_acks]);
	l->accused = dec_bool(d);
	if (l->accused)
		dec_inc(d, &l->accuser);
	return 0;
}

static void enc_members(struct enc *e, const struct cs *s)
{
	enc_u32(e, s->nr_members);
	for (unsigned i = 0; i < s->nr_members; i++)
		enc_member(e, &s->members[i]);
	enc_u32(e, s->nr_start);
	for (unsigned i = 0; i < s->nr_start; i++) {
		enc_bytes(e, s->start[i].uuid, sizeof(s->start[i].uuid));
		enc_addr(e, &s->start[i].addr);
	}
	enc_u32(e, s->nr_lobby);
	for (unsigned i = 0; i < s->nr_lobby; i++)
		enc_lobby(e, s->lobby[i]);
}

static void enc_session(struct enc *e, const struct cs_session *x)
{
	enc_u64(e, x->client);
	enc_u64(e, x->session);
	enc_u64(e, x->pos);
}

static void enc_head(struct enc *e, const struct cs *s)
{
	enc_u32(e, CLUSTER_STATE_VERSION);
	enc_u64(e, s->params.ctime);
	enc_u16(e, s->params.flags);
	enc_u8(e, s->params.copies);
	enc_u8(e, s->params.copy_policy);
	enc_u8(e, s->params.shift);
	enc_u8(e, s->params.disable_recovery);
	enc_bytes(e, s->params.store, sizeof(s->params.store));
	enc_u8(e, (uint8_t)s->status);
	enc_u8(e, s->live);
	enc_u32(e, s->forces);
	enc_u64(e, s->pos);
	enc_u64(e, s->gen);
	enc_u64(e, s->last_time);
	enc_u64(e, s->silent);
}

void cs_encode(const struct cs *s, struct enc *e)
{
	enc_head(e, s);
	enc_u32(e, s->nr_hist);
	for (unsigned i = 0; i < s->nr_hist; i++)
		enc_hist(e, s->hist[i], i ? s->hist[i - 1] : NULL);
	enc_members(e, s);
	enc_u32(e, s->nr_vdis);
	for (unsigned i = 0; i < s->nr_vdis; i++)
		enc_vdi(e, s->vdis[i]);
	enc_u32(e, s->nr_sessions);
	for (unsigned i = 0; i < s->nr_sessions; i++)
		enc_session(e, &s->sessions[i]);
}

/* Which of @nr belong to that round: from *@from, how many. */
static unsigned sample(unsigned nr, uint64_t round, unsigned *from)
{
	unsigned parts = (nr + CLUSTER_SAMPLE - 1) / CLUSTER_SAMPLE;

	*from = parts ? (unsigned)(round % parts) * CLUSTER_SAMPLE : 0;
	return nr - *from < CLUSTER_SAMPLE ? nr - *from : CLUSTER_SAMPLE;
}

void cs_encode_sample(const struct cs *s, uint64_t round, struct enc *e)
{
	const struct hist *h = cs_newest(s);
	unsigned from, n;

	enc_head(e, s);
	enc_u32(e, s->nr_hist);
	if (h) {
		enc_u32(e, h->epoch);
		enc_bytes(e, h->name, sizeof(h->name));
		enc_u64(e, h->time);
	}
	enc_members(e, s);
	enc_u32(e, s->nr_vdis);
	n = sample(s->nr_vdis, round, &from);
	for (unsigned i = from; i < from + n; i++)
		enc_vdi(e, s->vdis[i]);
	enc_u32(e, s->nr_sessions);
	n = sample(s->nr_sessions, round, &from);
	for (unsigned i = from; i < from + n; i++)
		enc_session(e, &s->sessions[i]);
}

static void dec_params(struct dec *d, struct cs *s)
{
	s->params.ctime = dec_u64(d);
	s->params.flags = dec_u16(d);
	s->params.copies = dec_u8(d);
	s->params.copy_policy = dec_u8(d);
	s->params.shift = dec_u8(d);
	s->params.disable_recovery = dec_bool(d);
	dec_bytes(d, s->params.store, sizeof(s->params.store));
	if (s->params.store[sizeof(s->params.store) - 1])
		d->failed = true;
	uint8_t status = dec_u8(d);
	if (status > CLUSTER_SHUTDOWN)
		d->failed = true;
	s->status = (enum cluster_status)status;
	s->live = dec_bool(d);
	s->forces = dec_u32(d);
	s->pos = dec_u64(d);
	s->gen = dec_u64(d);
	s->last_time = dec_u64(d);
	s->silent = dec_u64(d);
}

/* Two tables of fixed-size entries: members of the epoch, start set. */
static int dec_nodes(struct dec *d, struct cs *s)
{
	unsigned n = dec_count(d, SD_MEMBERS_MAX, MEMBER_LEN);

	s->members = calloc(n ? n : 1, sizeof(*s->members));
	if (!s->members)
		return -ENOMEM;
	for (; s->nr_members < n; s->nr_members++)
		dec_member(d, &s->members[s->nr_members]);
	n = dec_count(d, SD_MEMBERS_MAX + CLUSTER_LOBBY_MAX, 35);
	s->start = calloc(n ? n : 1, sizeof(*s->start));
	if (!s->start)
		return -ENOMEM;
	for (; s->nr_start < n; s->nr_start++) {
		struct start_node *sn = &s->start[s->nr_start];
		dec_bytes(d, sn->uuid, sizeof(sn->uuid));
		dec_addr(d, &sn->addr);
	}
	return 0;
}

static int dec_lobbies(struct dec *d, struct cs *s)
{
	unsigned n = dec_count(d, CLUSTER_LOBBY_MAX, MEMBER_LEN);
	int r = 0;

	s->lobby = calloc(n ? n : 1, sizeof(*s->lobby));
	if (!s->lobby)
		return -ENOMEM;
	while (s->nr_lobby < n && !d->failed && r == 0) {
		struct lobby *l = calloc(1, sizeof(*l));
		if (!l)
			return -ENOMEM;
		s->lobby[s->nr_lobby++] = l;
		r = dec_lobby(d, l);
	}
	return r;
}

static int dec_sessions(struct dec *d, struct cs *s)
{
	unsigned n = dec_count(d, CLUSTER_SESSIONS, sizeof(struct cs_session));

	if (n) {
		s->sessions = calloc(CLUSTER_SESSIONS, sizeof(*s->sessions));
		if (!s->sessions)
			return -ENOMEM;
	}
	for (; s->nr_sessions < n; s->nr_sessions++) {
		struct cs_session *x = &s->sessions[s->nr_sessions];
		x->client = dec_u64(d);
		x->session = dec_u64(d);
		x->pos = dec_u64(d);
		if (s->nr_sessions && x[-1].client >= x->client)
			d->failed = true;
	}
	return 0;
}

int cs_decode(const void *p, size_t len, struct cs **ret)
{
	struct dec d = {.p = p, .end = (const uint8_t *)p + len};
	struct cs *s = cs_new();
	int r;

	*ret = NULL;
	if (!s)
		return -ENOMEM;
	if (dec_u32(&d) != CLUSTER_STATE_VERSION && !d.failed) {
		cs_free(s);
		return -EPROTO;
	}
	dec_params(&d, s);
	r = dec_hists(&d, s);
	if (r == 0 && !d.failed)
		r = dec_nodes(&d, s);
	if (r == 0 && !d.failed)
		r = dec_lobbies(&d, s);
	if (r == 0 && !d.failed)
		r = dec_vdis(&d, s);
	if (r == 0 && !d.failed)
		r = dec_sessions(&d, s);
	if (r == 0 && (d.failed || dec_left(&d)))
		r = -EBADMSG;
	if (r < 0) {
		cs_free(s);
		return r;
	}
	*ret = s;
	return 0;
}
