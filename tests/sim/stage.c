/* stage.c - see stage.h: the cluster of a scenario, and the hands on it. */
#include "config.h"

#include "lib/proto/ring.h"
#include "sheep/peer.h"
#include "sheep/sync_int.h"
#include "tests/sim/check.h"
#include "tests/sim/stage.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define DISK_SIZE (16ull << 30)
#define WAIT_NS	  (60 * SEC) /* for any step */

static bool off(const struct stage *s)
{
	return s->w->failed;
}

/* Run the world until @fn says so. */
static void until(struct stage *s, bool (*fn)(struct stage *s, void *arg), void *arg,
		  const char *what)
{
	uint64_t end = s->w->now + WAIT_NS;

	while (!off(s) && !fn(s, arg)) {
		if (!world_step(s->w) || s->w->now > end)
			world_fail(s->w, "scenario: waited in vain: %s", what);
	}
}

static bool never(struct stage *s, void *arg)
{
	return s->w->now >= *(uint64_t *)arg;
}

void pass(struct stage *s, uint64_t ns)
{
	uint64_t end = s->w->now + ns;

	until(s, never, &end, "time");
}

struct node *node_at(struct stage *s, char role)
{
	unsigned i = (unsigned)(role - 'P');

	assert(i < s->nr_nodes);
	return &s->node[s->role[i]];
}

static uint64_t object_oid(const struct stage *s)
{
	return (uint64_t)s->vid << 32 | s->object;
}

/* ---- processes ---- */

static bool is_started(struct stage *s, void *arg)
{
	struct node *n = arg;

	if (!n->p) /* refused for the moment */
		node_start(n);
	return n->started;
}

void until_started(struct stage *s, char role)
{
	until(s, is_started, node_at(s, role), "a start");
}

void start(struct stage *s, char role)
{
	if (!off(s) && !node_at(s, role)->p)
		node_start(node_at(s, role));
}

void dies(struct stage *s, char role)
{
	if (!off(s) && node_at(s, role)->p)
		node_kill(node_at(s, role));
}

void power_cut(struct stage *s, const char *roles)
{
	unsigned replicas = 0;

	for (; !off(s) && *roles; roles++) {
		replicas += (unsigned)(*roles - 'P') < s->copies;
		node_power_cut(node_at(s, *roles));
	}
	if (replicas == s->copies)
		cast_power_cut(s);
}

void pauses(struct stage *s, char role)
{
	if (off(s) || !node_at(s, role)->p)
		return;
	story(s->w, "%s > is paused", node_at(s, role)->name);
	proc_pause(node_at(s, role)->p);
}

void goes_on(struct stage *s, char role)
{
	if (off(s) || !node_at(s, role)->p)
		return;
	story(s->w, "%s > goes on", node_at(s, role)->name);
	proc_resume(node_at(s, role)->p);
}

static bool rot(struct stage *s, void *arg)
{
	char name[17];

	snprintf(name, sizeof(name), "%016llx", (unsigned long long)object_oid(s));
	return disk_rot_object(((struct node *)arg)->disk, name);
}

void rots(struct stage *s, char role)
{
	until(s, rot, node_at(s, role), "all of an object on the disk");
	if (!off(s))
		story(s->w, "%s > a bit of the object rots", node_at(s, role)->name);
}

/* ---- links and the bus ---- */

static void link_set(struct stage *s, char from, char to, bool held)
{
	struct node *a = node_at(s, from), *b = node_at(s, to);

	if (off(s))
		return;
	story(s->w, "%s > what it sends to %s %s", a->name, b->name, held ? "is held" : "flows");
	net_cut(s->w->net, a->ip, b->ip, held);
}

void cut(struct stage *s, char from, char to)
{
	link_set(s, from, to, true);
}

void joined(struct stage *s, char from, char to)
{
	link_set(s, from, to, false);
}

void lets(struct stage *s, char from, char to)
{
	struct node *a = node_at(s, from), *b = node_at(s, to);

	if (off(s))
		return;
	story(s->w, "%s > what it has sent to %s until now arrives", a->name, b->name);
	net_let(s->w->net, a->ip, b->ip);
	pass(s, 10 * MS);
}

void old_links_hold(struct stage *s, char from, char to, bool held)
{
	struct node *a = node_at(s, from), *b = node_at(s, to);

	if (off(s))
		return;
	story(s->w, "%s > what is on its connections to %s %s", a->name, b->name,
	      held ? "is held" : "arrives");
	net_hold_open(s->w->net, a->ip, b->ip, held);
}

void slow(struct stage *s, char from, char to, uint64_t ns)
{
	struct node *a = node_at(s, from), *b = node_at(s, to);

	if (off(s))
		return;
	story(s->w, "%s > what it sends to %s takes %u ms more", a->name, b->name,
	      (unsigned)(ns / MS));
	net_slow_link(s->w->net, a->ip, b->ip, ns);
}

void loses_links(struct stage *s, char from, char to)
{
	struct node *a = node_at(s, from), *b = node_at(s, to);

	if (off(s))
		return;
	story(s->w, "%s > loses its connections to %s", a->name, b->name);
	net_lose(s->w->net, a->ip, b->ip);
}

void falls_silent(struct stage *s, char role, uint64_t told)
{
	if (off(s))
		return;
	story(s->w, "%s > falls silent", node_at(s, role)->name);
	bus_silent(s->w->bus, node_at(s, role)->ip, told);
}

void holds_bus(struct stage *s, char role)
{
	if (off(s))
		return;
	story(s->w, "%s > gets nothing more from the bus", node_at(s, role)->name);
	bus_hold(s->w->bus, node_at(s, role)->ip, true);
}

void gets_bus(struct stage *s, char role)
{
	if (off(s))
		return;
	story(s->w, "%s > gets what it missed from the bus", node_at(s, role)->name);
	bus_late(s->w->bus, node_at(s, role)->ip, 0);
	bus_hold(s->w->bus, node_at(s, role)->ip, false);
}

void late_bus(struct stage *s, char role, uint64_t ns)
{
	if (off(s))
		return;
	story(s->w, "%s > the bus is %u ms late", node_at(s, role)->name, (unsigned)(ns / MS));
	bus_late(s->w->bus, node_at(s, role)->ip, ns);
}

/* ---- what nodes know ---- */

static const struct view *view_of(const struct node *n)
{
	return n->p && n->started && n->sh->cluster ? cluster_view(n->sh->cluster) : NULL;
}

uint32_t epoch_of(struct stage *s, char role)
{
	const struct view *v = view_of(node_at(s, role));

	return v ? v->epoch : 0;
}

uint64_t node_start_nr(struct stage *s, char role)
{
	const struct node *n = node_at(s, role);

	return n->p && n->started ? n->sh->self.inc.start : 0;
}

/* Of the data path: the view's hooks have run. */
static uint32_t served(const struct node *n)
{
	return n->p && n->started && n->sh->sync ? sync_epoch(n->sh) : 0;
}

struct waiting {
	struct node *n;
	uint32_t epoch;
	const char *roles;
	const struct step *op;
};

static bool epoch_served(struct stage *s, void *arg)
{
	const struct waiting *q = arg;

	return served(q->n) >= q->epoch;
}

void until_epoch(struct stage *s, char role, uint32_t epoch)
{
	struct waiting q = {.n = node_at(s, role), .epoch = epoch ? epoch : 1};

	until(s, epoch_served, &q, "an epoch");
}

static bool has_members(struct stage *s, void *arg)
{
	const struct waiting *q = arg;
	const struct view *v = view_of(q->n);

	if (!v || served(q->n) != v->epoch || v->nr != strlen(q->roles))
		return false;
	for (unsigned k = 0; q->roles[k]; k++) {
		bool found = false;
		for (unsigned i = 0; i < v->nr; i++)
			found |= v->members[i].addr.ip[15] == node_at(s, q->roles[k])->ip;
		if (!found)
			return false;
	}
	return true;
}

void until_view(struct stage *s, char role, const char *members)
{
	struct waiting q = {.n = node_at(s, role), .roles = members};

	until(s, has_members, &q, "a view");
}

static bool rests(struct stage *s, void *arg)
{
	const char *roles = arg;

	for (; *roles; roles++) {
		const struct node *n = node_at(s, *roles);
		const struct view *v = view_of(n);
		if (!v || cluster_status(n->sh->cluster) != CLUSTER_RUNNING ||
		    v->nr != strlen(arg) || !sync_at_rest(n->sh))
			return false;
	}
	return true;
}

void until_rest(struct stage *s, const char *roles)
{
	until(s, rests, (void *)roles, "rest");
}

static struct obj_ver ver_of(const struct stage *s, const struct node *n)
{
	struct obj_info info = {0};

	if (n->p && n->started && n->sh->store)
		store_lookup(n->sh->store, object_oid(s), &info);
	return info.ver;
}

struct obj_ver version_at(struct stage *s, char role)
{
	return ver_of(s, node_at(s, role));
}

bool applied(struct stage *s, char role, const struct step *w)
{
	const struct node *n = node_at(s, role);

	return obj_ver_cmp(ver_of(s, n), w->before[n->idx]) != 0;
}

static bool has_applied(struct stage *s, void *arg)
{
	const struct waiting *q = arg;

	return q->n->started && obj_ver_cmp(ver_of(s, q->n), q->op->before[q->n->idx]) != 0;
}

static bool has_removed(struct stage *s, void *arg)
{
	return !ver_of(s, arg).gen;
}

void until_removed(struct stage *s, char role)
{
	until(s, has_removed, node_at(s, role), "a removal");
}

void until_applied(struct stage *s, char role, const struct step *w)
{
	struct waiting q = {.n = node_at(s, role), .op = w};

	until(s, has_applied, &q, "a write to be applied");
	pass(s, 5 * MS); /* it lands, and is answered */
}

static bool in_sync(struct stage *s, void *arg)
{
	struct node *n = arg;
	uint32_t e = served(n);

	return e && sync_is(n->sh, e, object_oid(s), (uint8_t)s->copies);
}

static bool not_in_sync(struct stage *s, void *arg)
{
	return served(arg) && !in_sync(s, arg);
}

void until_in_sync(struct stage *s, char role)
{
	until(s, in_sync, node_at(s, role), "in sync");
}

void until_not_in_sync(struct stage *s, char role)
{
	until(s, not_in_sync, node_at(s, role), "todo");
}

static bool pulling(struct stage *s, void *arg)
{
	const struct node *n = arg;

	return served(n) && map_get(&n->sh->sync->pulling, object_oid(s));
}

void until_pulling(struct stage *s, char role)
{
	until(s, pulling, node_at(s, role), "a pull");
}

void expect(struct stage *s, bool good, const char *what)
{
	if (!good)
		world_fail(s->w, "contents: %s", what);
}

/* Steps for the version before an operation. */
void stage_versions(struct stage *s, struct obj_ver *ver)
{
	for (unsigned i = 0; i < s->nr_nodes; i++)
		ver[i] = ver_of(s, &s->node[i]);
}

/* ---- beginning and end ---- */

static bool have_stopped(struct stage *s, void *arg)
{
	const uint64_t *starts = arg;

	for (unsigned i = 0; i < s->nr_nodes; i++)
		if (s->node[i].p && s->node[i].nr_starts == starts[i])
			return false;
	return true;
}

void until_stopped(struct stage *s)
{
	uint64_t starts[NODES_MAX];

	for (unsigned i = 0; i < s->nr_nodes; i++)
		starts[i] = s->node[i].nr_starts;
	until(s, have_stopped, starts, "the stop of all");
}

static bool all_rest(struct stage *s, void *arg)
{
	uint64_t hash = 0;

	for (unsigned i = 0; i < s->nr_nodes; i++)
		if (!s->node[i].p)
			node_start(&s->node[i]);
	for (unsigned i = 0; i < s->nr_nodes; i++) {
		struct node *n = &s->node[i];
		const struct view *v = view_of(n);
		if (!v || n->sh->exiting || v->nr != s->nr_nodes || !sync_at_rest(n->sh) ||
		    cluster_status(n->sh->cluster) != CLUSTER_RUNNING)
			return false;
		if (i && cluster_state_hash(n->sh->cluster) != hash)
			return false;
		hash = cluster_state_hash(n->sh->cluster);
	}
	return true;
}

static bool all_started(struct stage *s, void *arg)
{
	for (unsigned i = 0; i < s->nr_nodes; i++)
		if (!s->node[i].started)
			return false;
	return true;
}

/* The order of the nodes along the ring, from the scenario's object on. */
static void give_roles(struct stage *s)
{
	const struct view *v = view_of(&s->node[0]);
	uint32_t idx[SD_COPIES_MAX];

	if (off(s))
		return;
	unsigned n = ring_lookup(v->ring, sd_hash_oid(object_oid(s)), s->nr_nodes, idx);
	assert(n == s->nr_nodes - s->nr_gateways);
	for (unsigned i = 0; i < n; i++)
		s->role[i] = v->members[idx[i]].addr.ip[15] - 1u;
	for (unsigned i = 0; i < s->nr_nodes; i++)
		story(s->w, "%s > is %c", s->node[s->role[i]].name, 'P' + (int)i);
}

static bool first_gone(struct stage *s, void *arg)
{
	return !s->node[0].p;
}

void stage_gateways(struct stage *s, unsigned nodes, unsigned copies, unsigned gateways)
{
	s->nr_nodes = nodes;
	s->copies = copies;
	s->nr_gateways = gateways;
	s->vid = sd_hash_vdi("v");
	for (unsigned i = 0; i < nodes; i++) {
		s->role[i] = i;
		node_init(&s->node[i], s->w, i, DISK_SIZE);
		s->node[i].gateway = i >= nodes - gateways;
		node_start(&s->node[i]);
	}
	until(s, all_started, NULL, "the start");
	cast_format(s);
	until(s, all_rest, NULL, "rest after the format");
	give_roles(s);
	/* Who made the volume gives it away: the first to use it is its owner. */
	if (!off(s))
		node_stop(&s->node[0]);
	until(s, first_gone, NULL, "a stop");
	until(s, all_rest, NULL, "rest at the beginning");
}

void stage_cluster(struct stage *s, unsigned nodes, unsigned copies)
{
	stage_gateways(s, nodes, copies, 0);
}

void stage_heal(struct stage *s)
{
	if (off(s))
		return;
	story(s->w, "all > heals");
	net_heal(s->w->net);
	for (unsigned i = 0; i < s->nr_nodes; i++) {
		struct node *n = &s->node[i];
		bus_late(s->w->bus, n->ip, 0);
		bus_hold(s->w->bus, n->ip, false);
		if (n->p && n->p->paused)
			proc_resume(n->p);
		disk_set_stall(n->disk, 0);
		disk_set_full(n->disk, false);
		disk_set_errors(n->disk, 0, 0);
		disk_unrot(n->disk);
	}
	until(s, all_rest, NULL, "rest");
}

static bool step_world(void *arg)
{
	struct stage *s = arg;

	return !off(s) && world_step(s->w);
}

static enum object_is object_is(void *arg, uint64_t oid)
{
	return stage_refers(arg, oid) ? OBJECT_PART : OBJECT_LOOSE;
}

static bool all_gone(struct stage *s, void *arg)
{
	for (unsigned i = 0; i < s->nr_nodes; i++)
		if (s->node[i].p)
			return false;
	return true;
}

void stage_end(struct stage *s)
{
	char why[400];

	stage_heal(s);
	cast_end(s);
	if (!off(s) && !history_check(s->h, why, sizeof(why)))
		world_fail(s->w, "history: %s", why);
	until(s, all_rest, NULL, "rest at the end");
	if (!off(s))
		contents_check(s->w, s->node, s->nr_nodes, step_world, object_is, s);
	cast_gone(s);
	for (unsigned i = 0; i < s->nr_nodes && !off(s); i++)
		node_stop(&s->node[i]);
	until(s, all_gone, NULL, "the daemons' end");
}

void stage_free(struct stage *s)
{
	cast_gone(s);
	for (unsigned i = 0; i < s->nr_nodes; i++)
		node_done(&s->node[i]);
	if (s->h)
		history_free(s->h);
}
