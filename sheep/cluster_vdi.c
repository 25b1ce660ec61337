/* cluster_vdi.c - the VDI table of the state machine: names, vids, owners, locks.  Pure.
 *
 *  D1 A vid, once given, stays in the table until the cluster is formatted: the run of vids that
 *     begins at a name's hash has no holes (protocol.md 4.5, T16).
 *  D2 A generation comes from one counter of the whole cluster and is given once.
 *  D3 What an owner says is heard only with its own generation (WHY B15).
 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "sheep/cluster_int.h"
#include "sheep/mark.h"

#define LOCK_NONE   1u
#define LOCK_NORMAL 2u
#define LOCK_SHARED 3u

/* ---- the table ---- */

void vdi_free(struct vdi *v)
{
	free(v->lock_owner);
	free(v->lock_addr);
	free(v);
}

void cs_vdi_free_all(struct cs *s)
{
	for (unsigned i = 0; i < s->nr_vdis; i++)
		vdi_free(s->vdis[i]);
	free(s->vdis);
	s->vdis = NULL;
	s->nr_vdis = s->cap_vdis = 0;
}

unsigned cs_vdi_at(const struct cs *s, uint32_t vid)
{
	unsigned lo = 0, hi = s->nr_vdis;

	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;
		if (s->vdis[mid]->vid < vid)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

struct vdi *cs_vdi(const struct cs *s, uint32_t vid)
{
	unsigned at = cs_vdi_at(s, vid);

	return at < s->nr_vdis && s->vdis[at]->vid == vid ? s->vdis[at] : NULL;
}

int cs_vdi_add(struct cs *s, unsigned at, struct vdi *v)
{
	if (s->nr_vdis == s->cap_vdis) {
		unsigned cap = s->cap_vdis ? s->cap_vdis * 2 : 16;
		struct vdi **n = realloc(s->vdis, cap * sizeof(*n));
		if (!n)
			return -ENOMEM;
		s->vdis = n;
		s->cap_vdis = cap;
	}
	memmove(s->vdis + at + 1, s->vdis + at, (s->nr_vdis - at) * sizeof(*s->vdis));
	s->vdis[at] = v;
	s->nr_vdis++;
	return 0;
}

/* ---- names (protocol.md 4.5, 6.1) ---- */

static uint32_t run_start(const char *name)
{
	char padded[SD_NAME_LEN + 1] = {0};

	memcpy(padded, name, strnlen(name, SD_NAME_LEN));
	uint32_t h = sd_hash_vdi(padded);
	return h ? h : 1;
}

/* Walks the run of used vids that begins at a name's hash, and around the end of the range. */
struct run {
	uint32_t vid; /* the next one to look for; at the end: the first free one */
	unsigned at, left;
};

static void run_begin(const struct cs *s, struct run *r, const char *name)
{
	r->vid = run_start(name);
	r->at = cs_vdi_at(s, r->vid);
	r->left = s->nr_vdis;
}

static struct vdi *run_next(const struct cs *s, struct run *r)
{
	if (!r->left || r->at >= s->nr_vdis || s->vdis[r->at]->vid != r->vid)
		return NULL;
	struct vdi *v = s->vdis[r->at++];
	r->left--;
	if (++r->vid == SD_NR_VDIS) {
		r->vid = 1;
		r->at = 0;
	}
	return v;
}

static bool name_is(const char *a, const char *b)
{
	return !strncmp(a, b, SD_NAME_LEN);
}

uint32_t cs_lookup(const struct cs *s, const char *name, const char *tag, uint32_t snapid,
		   struct vdi **ret)
{
	struct vdi *v, *newest = NULL, *working = NULL, *snap = NULL;
	struct run r;

	*ret = NULL;
	run_begin(s, &r, name);
	while ((v = run_next(s, &r))) {
		if (v->deleted || v->creating || !name_is(v->name, name))
			continue;
		newest = v;
		if (!v->snap_ctime)
			working = v;
		else if ((tag[0] && name_is(v->tag, tag)) || (snapid && v->snap_id == snapid))
			snap = v;
	}
	if (!tag[0] && !snapid) {
		*ret = newest && newest == working ? working : NULL;
		return *ret ? SD_RES_SUCCESS : SD_RES_NO_VDI;
	}
	*ret = snap;
	return snap ? SD_RES_SUCCESS : working ? SD_RES_NO_TAG : SD_RES_NO_VDI;
}

static void vdi_unlock(struct vdi *v)
{
	free(v->lock_owner);
	free(v->lock_addr);
	v->lock_owner = NULL;
	v->lock_addr = NULL;
	v->lock_nr = 0;
	v->lock_state = LOCK_NONE;
}

/* The name is free at once, the vid stays in use (T15, T16); somebody removes the objects.  The
 * size stays: it says which objects there may be that no index entry names (clients read 0, T37).
 */
static void vdi_bury(struct vdi *v)
{
	if (v->creating) /* no more than its inode can be there */
		v->size = 0;
	memset(v->name, 0, sizeof(v->name));
	v->family++;
	v->deleted = true;
	v->creating = false;
	v->reclaiming = true;
	v->cached = v->cache_lost = false;
	vdi_unlock(v);
}

/* ---- owners ---- */

static bool owner_lives(const struct cs *s, const struct vdi *v)
{
	return v->owned && cs_member(s, &v->owner) >= 0;
}

/* D3.  @v may be NULL. */
static uint32_t owner_check(const struct vdi *v, const struct incarnation *from,
			    const struct cmd *cmd)
{
	if (!v)
		return SD_RES_NO_VDI;
	if ((!v->owned || !inc_same(&v->owner, from) || v->gen != cmd->gen) && MARKED(cs_owner_old))
		return SD_RES_VDI_NOT_LOCKED;
	return SD_RES_SUCCESS;
}

static void vdi_own(struct cs *s, struct vdi *v, const struct incarnation *from, bool clean)
{
	v->owned = true;
	v->owner = *from;
	v->gen = ++s->gen;
	v->clean = clean;
}

static uint32_t vdi_claim(struct cs *s, const struct incarnation *from, struct cmd *cmd)
{
	struct vdi *v = cs_vdi(s, cmd->vid);

	if (!v)
		return SD_RES_NO_VDI;
	if (owner_lives(s, v) && !inc_same(&v->owner, from) && MARKED(cs_claim_owned)) {
		cmd->ret_owner = v->owner;
		return SD_RES_VDI_LOCKED;
	}
	/* An owner that did not release, be it dead or confused, leaves it dirty. */
	MARK(cs_claim);
	bool clean = !v->owned && v->clean;
	vdi_own(s, v, from, clean);
	cmd->ret_gen = v->gen;
	cmd->ret_dirty = !clean;
	if (!clean)
		MARK(cs_claim_dirty);
	return SD_RES_SUCCESS;
}

static uint32_t vdi_header(struct vdi *v, const struct cmd *cmd)
{
	if (v->deleted)
		return SD_RES_NO_VDI;
	if (cmd->ctime != v->opens && MARKED(cs_header_opened))
		return SD_RES_OLD_NODE_VER; /* its client may have been gone by then */
	if (cmd->size > (uint64_t)SD_NR_OBJS_MAX << v->shift)
		return SD_RES_INVALID_PARMS;
	memcpy(v->tag, cmd->tag, sizeof(v->tag));
	v->vm_state_size = cmd->vm_state_size;
	v->vm_clock_nsec = cmd->vm_clock_nsec;
	if (cmd->size > v->size) /* T36: never smaller */
		v->size = cmd->size;
	return SD_RES_SUCCESS;
}

static uint32_t vdi_owner_cmd(struct cs *s, const struct incarnation *from, struct cmd *cmd)
{
	struct vdi *v = cs_vdi(s, cmd->vid);
	uint32_t res = owner_check(v, from, cmd);

	if (res != SD_RES_SUCCESS)
		return res;
	switch (cmd->type) {
	case CMD_RELEASE:
		MARK(cs_release);
		v->owned = false;
		v->clean = cmd->clean;
		if (cmd->clean) /* it has flushed everything */
			v->cached = false;
		if (v->creating && MARKED(cs_create_given_up)) /* it gives the creation up */
			vdi_bury(v);
		return SD_RES_SUCCESS;
	case CMD_CLEAN:
		MARK(cs_clean);
		v->clean = true;
		return SD_RES_SUCCESS;
	case CMD_CACHED:
		if (v->deleted)
			return SD_RES_NO_VDI;
		v->cached = true;
		return SD_RES_SUCCESS;
	case CMD_VDI_VISIBLE:
		if (v->deleted)
			return SD_RES_NO_VDI;
		v->creating = false;
		return SD_RES_SUCCESS;
	default: assert(cmd->type == CMD_VDI_HEADER); return vdi_header(v, cmd);
	}
}

/* DESIGN 5.4: set by whoever finds that all copies of an object lost power; cleared by the owner,
 * which has told a client, or by an open.  Several nodes find it, of several objects: what is found
 * in one epoch was lost before it, and is told once. */
static uint32_t vdi_cache_lost(struct cs *s, const struct incarnation *from, struct cmd *cmd)
{
	struct vdi *v = cs_vdi(s, cmd->vid);

	if (!v || v->deleted)
		return SD_RES_NO_VDI;
	if (cmd->on && MARKED(cs_cache_lost)) {
		uint32_t e = cs_newest(s)->epoch;
		if (v->cached && v->lost_epoch != e) {
			v->cache_lost = true;
			v->lost_epoch = e;
		}
		return SD_RES_SUCCESS;
	}
	uint32_t res = cmd->gen ? owner_check(v, from, cmd) : SD_RES_SUCCESS;
	if (res == SD_RES_SUCCESS) {
		cmd->ret_lost = v->cache_lost;
		v->cache_lost = false;
	}
	return res;
}

/* ---- create, delete ---- */

static bool create_valid(const struct cs *s, struct cmd *cmd)
{
	if (!cmd->copies) {
		cmd->copies = s->params.copies;
		cmd->copy_policy = s->params.copy_policy;
	}
	if (!cmd->shift)
		cmd->shift = s->params.shift;
	return cmd->name[0] && memchr(cmd->name, '\0', SD_NAME_LEN) &&
	       cmd->copies <= SD_COPIES_MAX && cmd->shift >= SD_OBJ_SHIFT_MIN &&
	       cmd->shift <= SD_OBJ_SHIFT_MAX &&
	       cmd->size <= (uint64_t)SD_NR_OBJS_MAX << cmd->shift;
}

/* VDI_EXIST, AGAIN while somebody is just creating it, or SUCCESS with the next snapshot id. */
static uint32_t create_name(const struct cs *s, struct cmd *cmd, uint32_t *snap_id)
{
	struct vdi *v;
	struct run r;

	*snap_id = 1;
	run_begin(s, &r, cmd->name);
	while ((v = run_next(s, &r))) {
		if (v->deleted || !name_is(v->name, cmd->name))
			continue;
		cmd->ret_vid = v->vid;
		if (v->creating)
			return SD_RES_AGAIN;
		if (!v->snap_ctime)
			return SD_RES_VDI_EXIST;
		*snap_id = v->snap_id + 1;
	}
	return SD_RES_SUCCESS;
}

/* The first free vid at or after the name's hash (4.5); 0: none. */
static uint32_t create_vid(const struct cs *s, const char *name)
{
	struct run r;

	if (s->nr_vdis >= SD_NR_VDIS - 1)
		return 0;
	run_begin(s, &r, name);
	while (run_next(s, &r))
		;
	return r.vid;
}

static uint32_t vdi_create(struct cs *s, const struct incarnation *from, struct cmd *cmd, int *err)
{
	uint32_t snap_id, vid, res;

	if (!create_valid(s, cmd))
		return SD_RES_INVALID_PARMS;
	if (cmd->snapid || cmd->base_vid || cmd->store_policy || cmd->copy_policy)
		return SD_RES_NO_SUPPORT; /* snapshots, clones, hypervolumes, erasure coding */
	res = create_name(s, cmd, &snap_id);
	if (res != SD_RES_SUCCESS)
		return res;
	vid = create_vid(s, cmd->name);
	if (!vid)
		return SD_RES_FULL_VDI;
	struct vdi *v = calloc(1, sizeof(*v));
	if (!v || cs_vdi_add(s, cs_vdi_at(s, vid), v) < 0) {
		free(v);
		*err = -ENOMEM;
		return SD_RES_NO_MEM;
	}
	v->vid = vid;
	memcpy(v->name, cmd->name, sizeof(v->name));
	v->create_time = cmd->time / 1000000000u << 32 | cmd->time % 1000000000u;
	v->size = cmd->size;
	v->snap_id = snap_id;
	v->family = 1;
	v->create_epoch = cs_newest(s)->epoch;
	v->copies = cmd->copies;
	v->shift = cmd->shift;
	v->lock_state = LOCK_NONE;
	v->creating = true;
	vdi_own(s, v, from, true); /* nothing of it exists */
	cmd->ret_vid = vid;
	cmd->ret_gen = v->gen;
	cmd->ret_copies = v->copies;
	cmd->ret_shift = v->shift;
	return SD_RES_SUCCESS;
}

static uint32_t vdi_delete(struct cs *s, struct cmd *cmd)
{
	struct vdi *v;
	uint32_t res = cs_lookup(s, cmd->name, cmd->tag, cmd->snapid, &v);

	if (res != SD_RES_SUCCESS)
		return res;
	cmd->ret_vid = v->vid;
	cmd->ret_copies = v->copies;
	cmd->ret_shift = v->shift;
	vdi_bury(v);
	return SD_RES_SUCCESS;
}

static uint32_t vdi_reclaimed(const struct cs *s, const struct incarnation *from, struct cmd *cmd)
{
	struct vdi *v = cs_vdi(s, cmd->vid);

	if (!v || !v->deleted)
		return SD_RES_NO_VDI;
	if (owner_lives(s, v)) {
		if (!inc_same(&v->owner, from)) {
			cmd->ret_owner = v->owner;
			return SD_RES_VDI_LOCKED;
		}
		if (v->gen != cmd->gen)
			return SD_RES_VDI_NOT_LOCKED;
	}
	v->reclaiming = false;
	v->owned = false;
	v->clean = true;
	return SD_RES_SUCCESS;
}

int cs_vdi_left(struct cs *s, struct cs_out *out)
{
	for (unsigned i = 0; i < s->nr_vdis; i++) {
		struct vdi *v = s->vdis[i];
		bool changed = false;
		if (v->creating && !owner_lives(s, v) && MARKED(cs_creator_died)) {
			vdi_bury(v);
			changed = true;
		}
		/* A dead gateway's shared participation ends, its normal lock does not (6.4). */
		for (unsigned k = 0; v->lock_state == LOCK_SHARED && k < v->lock_nr;) {
			if (cs_member(s, &v->lock_owner[k]) >= 0) {
				k++;
				continue;
			}
			v->lock_nr--;
			memmove(&v->lock_owner[k], &v->lock_owner[k + 1],
				(v->lock_nr - k) * sizeof(*v->lock_owner));
			memmove(&v->lock_addr[k], &v->lock_addr[k + 1],
				(v->lock_nr - k) * sizeof(*v->lock_addr));
			changed = true;
		}
		if (v->lock_state == LOCK_SHARED && !v->lock_nr)
			vdi_unlock(v);
		if (changed && cs_out_vid(out, v->vid) < 0)
			return -ENOMEM;
	}
	return 0;
}

void cs_vdi_unlock_all(struct cs *s)
{
	for (unsigned i = 0; i < s->nr_vdis; i++)
		vdi_unlock(s->vdis[i]);
}

/* ---- locks (protocol.md 6.4) ---- */

static int lock_find(const struct vdi *v, const struct incarnation *inc)
{
	for (unsigned i = 0; i < v->lock_nr; i++)
		if (inc_same(&v->lock_owner[i], inc))
			return (int)i;
	return -1;
}

static uint32_t lock_add(const struct cs *s, struct vdi *v, const struct incarnation *from,
			 uint8_t state, int *err)
{
	struct incarnation *o = realloc(v->lock_owner, (v->lock_nr + 1) * sizeof(*o));
	if (o)
		v->lock_owner = o;
	struct net_addr *a = realloc(v->lock_addr, (v->lock_nr + 1) * sizeof(*a));
	if (a)
		v->lock_addr = a;
	if (!o || !a) {
		*err = -ENOMEM;
		return SD_RES_NO_MEM;
	}
	o[v->lock_nr] = *from;
	a[v->lock_nr++] = s->members[cs_member(s, from)].addr;
	v->lock_state = state;
	return SD_RES_SUCCESS;
}

static uint32_t lock_take(const struct cs *s, struct vdi *v, const struct incarnation *from,
			  uint8_t type, int *err)
{
	bool shared = type == 1;

	if (type == VDI_OPEN)
		return SD_RES_SUCCESS;
	if (!shared && v->snap_ctime)
		return SD_RES_SUCCESS; /* [REC]: readers of a snapshot do not exclude each other */
	if (v->lock_state == LOCK_NONE)
		return lock_add(s, v, from, shared ? LOCK_SHARED : LOCK_NORMAL, err);
	if (!shared || v->lock_state == LOCK_NORMAL || v->lock_nr == VDI_LOCKS_MAX ||
	    lock_find(v, from) >= 0)
		return SD_RES_VDI_LOCKED;
	return lock_add(s, v, from, LOCK_SHARED, err);
}

static uint32_t vdi_lock(struct cs *s, const struct incarnation *from, struct cmd *cmd, int *err)
{
	struct vdi *v;
	uint32_t res = cs_lookup(s, cmd->name, cmd->tag, cmd->snapid, &v);

	if (res != SD_RES_SUCCESS)
		return res;
	cmd->vid = cmd->ret_vid = v->vid;
	cmd->ret_copies = v->copies;
	cmd->ret_shift = v->shift;
	res = lock_take(s, v, from, cmd->lock_type, err);
	if (res == SD_RES_SUCCESS)
		v->opens++;
	return res;
}

/* Always SUCCESS; a normal lock is freed by any node, a shared one by its holder. */
static uint32_t vdi_unlock_cmd(struct cs *s, const struct incarnation *from, struct cmd *cmd)
{
	struct vdi *v = cs_vdi(s, cmd->vid);

	if (!v || v->lock_state == LOCK_NONE)
		return SD_RES_SUCCESS;
	if (cmd->lock_type != 1) {
		if (v->lock_state == LOCK_NORMAL)
			vdi_unlock(v);
		return SD_RES_SUCCESS;
	}
	int k = v->lock_state == LOCK_SHARED ? lock_find(v, from) : -1;
	if (k < 0)
		return SD_RES_SUCCESS;
	v->lock_nr--;
	memmove(&v->lock_owner[k], &v->lock_owner[k + 1],
		(v->lock_nr - k) * sizeof(*v->lock_owner));
	memmove(&v->lock_addr[k], &v->lock_addr[k + 1], (v->lock_nr - k) * sizeof(*v->lock_addr));
	if (!v->lock_nr)
		vdi_unlock(v);
	return SD_RES_SUCCESS;
}

/* ---- all of them ---- */

static uint32_t vdi_cmd_allowed(const struct cs *s, const struct incarnation *from,
				const struct cmd *cmd)
{
	if (!s->params.ctime)
		return SD_RES_WAIT_FOR_FORMAT;
	if (s->status == CLUSTER_WAIT_JOIN || !s->live || cs_member(s, from) < 0)
		return SD_RES_WAIT_FOR_JOIN;
	if (s->status != CLUSTER_SHUTDOWN)
		return SD_RES_SUCCESS;
	switch (cmd->type) { /* what owners need to come to an end goes on */
	case CMD_VDI_CREATE:
	case CMD_VDI_DELETE:
	case CMD_VDI_LOCK:
	case CMD_CLAIM: return SD_RES_SHUTDOWN;
	default: return SD_RES_SUCCESS;
	}
}

int cs_vdi_cmd(struct cs *s, const struct incarnation *from, struct cmd *cmd, struct cs_out *out)
{
	int err = 0;

	cmd->result = vdi_cmd_allowed(s, from, cmd);
	if (cmd->result != SD_RES_SUCCESS)
		return 0;
	switch (cmd->type) {
	case CMD_VDI_CREATE: cmd->result = vdi_create(s, from, cmd, &err); break;
	case CMD_VDI_DELETE: cmd->result = vdi_delete(s, cmd); break;
	case CMD_VDI_RECLAIMED: cmd->result = vdi_reclaimed(s, from, cmd); break;
	case CMD_VDI_LOCK: cmd->result = vdi_lock(s, from, cmd, &err); break;
	case CMD_VDI_UNLOCK: cmd->result = vdi_unlock_cmd(s, from, cmd); break;
	case CMD_CLAIM: cmd->result = vdi_claim(s, from, cmd); break;
	case CMD_CACHE_LOST: cmd->result = vdi_cache_lost(s, from, cmd); break;
	case CMD_SESSION: cmd->result = cs_session_open(s, cmd, &err); return err;
	default: cmd->result = vdi_owner_cmd(s, from, cmd);
	}
	if (err == 0 && cmd->result == SD_RES_SUCCESS)
		err = cs_out_vid(out, cmd->ret_vid ? cmd->ret_vid : cmd->vid);
	return err;
}
