/* gw_cluster.c - the fake cluster of gw_rig.h: one table for all nodes, commands take their time.
 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/gw_rig.h"

enum cluster_status cluster_status(const struct cluster *c)
{
	return CLUSTER_RUNNING;
}

struct view *cluster_view(const struct cluster *c)
{
	return c->view;
}

struct view *view_get(struct view *v)
{
	v->refs++;
	return v;
}

void view_put(struct view *v)
{
	if (!v || --v->refs)
		return;
	ring_free(v->ring);
	free(v->members);
	free(v);
}

int view_find(const struct view *v, const struct incarnation *inc)
{
	for (unsigned i = 0; i < v->nr; i++)
		if (inc_same(&v->members[i].inc, inc))
			return i;
	return -1;
}

uint32_t cluster_epoch(const struct cluster *c)
{
	return c->view ? c->view->epoch : 0;
}

const struct cluster_params *cluster_params(const struct cluster *c)
{
	return &c->rig->params;
}

struct vdi *rig_vdi(struct rig *r, uint32_t vid)
{
	return map_get(&r->table, vid);
}

const struct vdi *cluster_vdi(const struct cluster *c, uint32_t vid)
{
	return rig_vdi(c->rig, vid);
}

bool cluster_lease(const struct cluster *c)
{
	return !c->n->no_lease;
}

uint64_t cluster_serve_after(const struct cluster *c)
{
	return c->n->serve_after;
}

uint64_t cluster_session(const struct cluster *c, uint64_t client_id)
{
	return (uintptr_t)map_get(&c->rig->sessions, client_id);
}

const struct vdi *cluster_vdi_next(const struct cluster *c, uint32_t after)
{
	for (uint32_t vid = after + 1; vid < c->rig->next_vid; vid++)
		if (rig_vdi(c->rig, vid))
			return rig_vdi(c->rig, vid);
	return NULL;
}

static bool owner_alive(struct rig *r, const struct vdi *v)
{
	return v->owned && view_find(r->view, &v->owner) >= 0;
}

static struct vdi *by_name(struct rig *r, const char *name)
{
	for (uint32_t vid = 1; vid < r->next_vid; vid++) {
		struct vdi *v = rig_vdi(r, vid);
		if (v && !v->deleted && !strcmp(v->name, name))
			return v;
	}
	return NULL;
}

static uint32_t do_create(struct rig *r, struct node *n, struct cmd *cmd)
{
	struct vdi *v;

	if (by_name(r, cmd->name))
		return SD_RES_VDI_EXIST;
	v = calloc(1, sizeof(*v));
	v->vid = r->next_vid++;
	memcpy(v->name, cmd->name, sizeof(v->name));
	v->size = cmd->size;
	v->copies = cmd->copies ? cmd->copies : r->params.copies;
	v->shift = SHIFT;
	v->creating = v->owned = true;
	v->owner = n->sh.self.inc;
	v->gen = ++r->gen;
	map_set(&r->table, v->vid, v);
	cmd->vid = cmd->ret_vid = v->vid;
	cmd->ret_gen = v->gen;
	cmd->ret_copies = v->copies;
	cmd->ret_shift = v->shift;
	return SD_RES_SUCCESS;
}

static uint32_t do_claim(struct rig *r, struct node *n, struct vdi *v, struct cmd *cmd)
{
	r->nr_claims++;
	if (owner_alive(r, v) && !inc_same(&v->owner, &n->sh.self.inc)) {
		cmd->ret_owner = v->owner;
		return SD_RES_VDI_LOCKED;
	}
	cmd->ret_dirty = v->owned || !v->clean;
	v->owned = true;
	v->clean = !cmd->ret_dirty;
	v->owner = n->sh.self.inc;
	v->gen = cmd->ret_gen = ++r->gen;
	return SD_RES_SUCCESS;
}

static uint32_t do_owner(struct rig *r, struct node *n, struct vdi *v, struct cmd *cmd)
{
	if (!v->owned || !inc_same(&v->owner, &n->sh.self.inc) || v->gen != cmd->gen)
		return SD_RES_VDI_NOT_LOCKED;
	switch (cmd->type) {
	case CMD_RELEASE:
		v->owned = false;
		v->clean = cmd->clean;
		if (cmd->clean)
			v->cached = false;
		break;
	case CMD_CACHED:
		if (v->deleted)
			return SD_RES_NO_VDI;
		r->nr_cached++;
		v->cached = true;
		break;
	case CMD_VDI_VISIBLE: v->creating = false; break;
	case CMD_CLEAN: v->clean = true; break;
	case CMD_CACHE_LOST:
		cmd->ret_lost = v->cache_lost;
		v->cache_lost = cmd->on;
		break;
	case CMD_VDI_RECLAIMED: v->reclaiming = v->owned = false; break;
	case CMD_VDI_HEADER:
		if (cmd->ctime != v->opens)
			return SD_RES_OLD_NODE_VER;
		memcpy(v->tag, cmd->tag, sizeof(v->tag));
		v->size = cmd->size;
		v->vm_state_size = cmd->vm_state_size;
		v->vm_clock_nsec = cmd->vm_clock_nsec;
		break;
	default: abort();
	}
	return SD_RES_SUCCESS;
}

static uint32_t do_apply(struct rig *r, struct node *n, struct cmd *cmd)
{
	struct vdi *v;

	if (cmd->type == CMD_BARRIER) {
		r->nr_barriers++;
		return SD_RES_SUCCESS;
	}
	if (cmd->type == CMD_SESSION) {
		r->nr_sessions++;
		if (cmd->size > (uintptr_t)map_get(&r->sessions, cmd->gen))
			map_set(&r->sessions, cmd->gen, (void *)(uintptr_t)cmd->size);
		return SD_RES_SUCCESS;
	}
	if (cmd->type == CMD_VDI_CREATE)
		return do_create(r, n, cmd);
	v = cmd->type == CMD_VDI_DELETE ? by_name(r, cmd->name) : rig_vdi(r, cmd->vid);
	if (!v)
		return SD_RES_NO_VDI;
	if (cmd->type == CMD_CLAIM)
		return do_claim(r, n, v, cmd);
	if (cmd->type != CMD_VDI_DELETE)
		return do_owner(r, n, v, cmd);
	v->deleted = v->reclaiming = true;
	cmd->vid = cmd->ret_vid = v->vid;
	return SD_RES_SUCCESS;
}

int cluster_do(struct cluster *c, struct cmd *cmd)
{
	struct rig *r = c->rig;
	struct vdi *v;

	co_sleep(1000 * (1 + (r->mix ? rig_rand(r, 500) : 0)));
	if (!c->n->alive)
		return -ENOTCONN;
	if (c->n->do_fails) {
		c->n->do_fails--;
		return -ENOMEM;
	}
	cmd->result = do_apply(r, c->n, cmd);
	v = rig_vdi(r, cmd->vid);
	for (unsigned i = 0; v && i < r->nr; i++)
		if (r->n[i].up)
			gateway_vdi_changed(&r->n[i].sh, v);
	co_sleep(1000 * (1 + (r->mix ? rig_rand(r, 500) : 0))); /* durable here */
	if (!c->n->alive)
		return -ENOTCONN;
	if (cmd->ret_gen > c->n->persisted_gen)
		c->n->persisted_gen = cmd->ret_gen;
	return 0;
}
