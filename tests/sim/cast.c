/* cast.c - the clients of a scenario (stage.h): the real libsheepdog, one operation at a time, all
 * of it in one history. */
#include "config.h"

#include "include/sheepdog/proto.h"
#include "lib/client/client.h"
#include "tests/sim/check.h"
#include "tests/sim/stage.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define SECTOR	   512u
#define BLOCK	   8u /* sectors */
#define BIG	   256u
#define OBJECTS	   2u
#define SHIFT	   SD_OBJ_SHIFT_MIN
#define COROUTINES 50u
#define CAST_IP	   50u
#define OP_NS	   (60 * SEC)

static void wait_turn(void *arg)
{
	co_sleep(50 * US);
}

static void open_co(void *arg)
{
	struct cast *c = arg;

	assert(client_open_on(&c->p->env, wait_turn, c, c->gateways, &c->sd) == 0);
	sd_cluster_set_connect_timeout(c->sd, 0);
	while (sd_vdi_open(c->sd, c->volume, c->cached ? SD_OPEN_CACHE : 0, &c->v))
		co_sleep(20 * MS);
	c->open = true;
}

static void close_co(void *arg)
{
	struct cast *c = arg;
	int e = c->v ? sd_vdi_close(c->v) : 0;

	if (e)
		world_fail(c->st->w, "%s: close: %s", c->name, sd_strerror(e));
	sd_cluster_close(c->sd);
	c->ended = true;
}

static void format_co(void *arg)
{
	struct cast *c = arg;
	struct stage *s = c->st;
	struct sd_create_opts opts = {.copies = (uint8_t)s->copies, .object_shift = SHIFT};
	struct sd_req req = {.proto_ver = SD_INTERNAL_PROTO_VER,
			     .opcode = SD_OP_MAKE_FS,
			     .flags = SD_FLAG_WRITE,
			     .data_length = 6};
	struct sd_rsp rsp = {0};

	assert(client_open_on(&c->p->env, wait_turn, c, c->gateways, &c->sd) == 0);
	sd_cluster_set_connect_timeout(c->sd, 0);
	req.cluster.copies = (uint8_t)s->copies;
	req.cluster.flags = SD_CLUSTER_AUTO_VNODES;
	int e = sd_request(c->sd, &req, "plain", NULL, NULL, &rsp);
	if (!e && !rsp.result && !s->bare)
		e = sd_vdi_create(c->sd, "v", OBJECTS << SHIFT, &opts, &s->vid);
	if (e || rsp.result)
		world_fail(s->w, "format and create: %d, %x", e, rsp.result);
	c->open = true;
}

static void admin_co(void *arg)
{
	struct cast *c = arg;
	struct sd_req req = {.proto_ver = SD_INTERNAL_PROTO_VER, .opcode = c->st->admin_op};
	uint8_t nodes[4096];
	size_t len = sizeof(nodes);
	struct sd_rsp rsp = {0};

	assert(client_open_on(&c->p->env, wait_turn, c, c->gateways, &c->sd) == 0);
	req.data_length = sizeof(nodes);
	int e = sd_request(c->sd, &req, NULL, nodes, &len, &rsp);
	if (e || rsp.result)
		world_fail(c->st->w, "contents: the administrator: %d, %x", e, rsp.result);
	c->open = true;
}

static void create_co(void *arg)
{
	struct cast *c = arg;
	struct stage *s = c->st;
	struct sd_create_opts opts = {.copies = (uint8_t)s->copies, .object_shift = SHIFT};

	assert(client_open_on(&c->p->env, wait_turn, c, c->gateways, &c->sd) == 0);
	sd_cluster_set_connect_timeout(c->sd, 0);
	for (;;) {
		int e = sd_vdi_create(c->sd, c->volume, OBJECTS << SHIFT, &opts, &s->vid);
		if ((!e || SD_ERR_RESULT(e) == SD_RES_VDI_EXIST) &&
		    !sd_vdi_open(c->sd, c->volume, 0, &c->v))
			break;
		co_sleep(20 * MS);
	}
	c->open = true;
}

/* ---- its life ---- */

struct entry {
	struct cast *c;
	void (*fn)(void *arg);
};

static void enter(void *arg)
{
	struct entry *e = arg;

	if (!e->c->sched)
		e->c->sched = co_sched_new(&e->c->p->env, COROUTINES);
	assert(e->c->sched && co_start(e->c->sched, e->fn, e->c, "cast"));
}

static void enter_as(struct cast *c, void (*fn)(void *arg))
{
	struct entry e = {c, fn};

	proc_call(c->p, enter, &e);
}

static bool wait_for(struct stage *s, const bool *flag, const char *who, const char *what)
{
	uint64_t end = s->w->now + OP_NS;

	while (!s->w->failed && !*flag)
		if (!world_step(s->w) || s->w->now > end)
			world_fail(s->w, "waited in vain: %s: %s", who, what);
	return !s->w->failed;
}

static void gateways(struct cast *c, const char *roles)
{
	for (unsigned i = 0; roles[i]; i++) {
		size_t len = strlen(c->gateways);
		snprintf(c->gateways + len, sizeof(c->gateways) - len, "%s10.0.0.%u:7000",
			 i ? "," : "", node_at(c->st, roles[i])->ip);
	}
}

static struct cast *cast_new(struct stage *s, unsigned idx, const char *roles,
			     void (*fn)(void *arg))
{
	struct cast *c = &s->cast[idx];

	*c = (struct cast){.st = s, .volume = "v", .ip = CAST_IP + idx};
	snprintf(c->name, sizeof(c->name), "c%u", idx);
	gateways(c, roles);
	c->p = proc_new(s->w, c->name, c->ip, NULL);
	enter_as(c, fn);
	return c;
}

struct cast *client(struct stage *s, const char *roles, bool cached)
{
	struct cast *c = &s->cast[s->nr_clients];

	assert(s->nr_clients < STAGE_CLIENTS);
	if (s->w->failed) {
		c->st = s;
		return c;
	}
	c = cast_new(s, s->nr_clients++, roles, open_co);
	c->cached = cached;
	wait_for(s, &c->open, c->name, "open");
	story(s->w, "%s > has opened the volume at %s", c->name, roles);
	return c;
}

struct cast *creator(struct stage *s, const char *roles)
{
	struct cast *c = &s->cast[s->nr_clients];

	assert(s->nr_clients < STAGE_CLIENTS);
	c->st = s;
	return s->w->failed ? c : cast_new(s, s->nr_clients++, roles, create_co);
}

bool has_opened(const struct cast *c)
{
	return c->open;
}

void until_open(struct cast *c)
{
	wait_for(c->st, &c->open, c->name, "open");
}

static void drop(struct cast *c)
{
	struct stage *s = c->st;

	for (unsigned i = 0; i < s->nr_steps; i++)
		if (s->step[i].c == c && !s->step[i].done)
			s->step[i].dead = true;
	co_sched_drop(c->sched);
	proc_kill(c->p);
	c->p = NULL;
	c->sched = NULL;
}

void client_dies(struct stage *s, struct cast *c)
{
	if (s->w->failed)
		return;
	story(s->w, "%s > killed", c->name);
	drop(c);
}

static void sched_free(void *arg)
{
	struct cast *c = arg;

	co_sched_free(c->sched);
}

static void leaves(struct cast *c)
{
	struct world *w = c->st->w;

	if (!c->p || w->failed)
		return;
	enter_as(c, close_co);
	if (!wait_for(c->st, &c->ended, c->name, "close"))
		return;
	while (co_sched_nr(c->sched) && world_step(w))
		;
	proc_call(c->p, sched_free, c);
	proc_exit(c->p);
	c->p = NULL;
}

void cast_format(struct stage *s)
{
	struct cast *c;

	s->h = history_new((OBJECTS << SHIFT) / SECTOR);
	if (s->w->failed)
		return;
	c = cast_new(s, STAGE_CLIENTS, "P", format_co);
	if (wait_for(s, &c->open, "administrator", "format and create"))
		leaves(c);
}

void administers(struct stage *s, char role, uint8_t op)
{
	const char at[2] = {role};

	if (s->w->failed)
		return;
	story(s->w, "admin > op %x at %c", op, role);
	s->admin_op = op;
	struct cast *c = cast_new(s, STAGE_CLIENTS, at, admin_co);
	if (wait_for(s, &c->open, "administrator", "an order"))
		leaves(c);
}

void cast_power_cut(struct stage *s)
{
	unsigned nr = (1u << SHIFT) / SECTOR;

	history_cut(s->h, s->object * nr, nr, s->w->now);
}

/* ---- operations ---- */

static void stamp(struct step *op)
{
	for (unsigned i = 0; i < op->nr; i++)
		for (unsigned k = 0; k < SECTOR; k += 16) {
			uint64_t w[2] = {op->value, op->block * BLOCK + i};
			memcpy(op->buf + i * SECTOR + k, w, sizeof(w));
		}
}

static void saw(struct step *op)
{
	struct world *w = op->c->st->w;

	memcpy(&op->value, op->buf, sizeof(op->value));
	for (unsigned i = 0; i < op->nr; i++) {
		uint64_t v;
		memcpy(&v, op->buf + i * SECTOR, sizeof(v));
		history_read(op->c->st->h, op->block * BLOCK + i, v, op->start, w->now);
	}
	story(w, "%s > reads block %u: value %llx", op->c->name, op->block,
	      (unsigned long long)op->value);
}

static void op_done(void *arg, int err)
{
	struct step *op = arg;
	struct world *w = op->c->st->w;
	static const char *const names[] = {"read", "write", "flush", "discard"};

	op->done = true;
	op->err = err;
	w->running = NULL; /* the history outlives the client */
	if (!err && op->kind == STEP_READ)
		saw(op);
	else
		story(w, "%s > %s of block %u: %s", op->c->name, names[op->kind], op->block,
		      err ? sd_strerror(err) : "answered");
	if (!err && (op->kind == STEP_WRITE || op->kind == STEP_DISCARD))
		history_written(op->c->st->h, op->write, w->now);
	if (op->kind == STEP_FLUSH)
		history_flush(op->c->st->h, op->start, w->now, !err);
	w->running = op->c->p;
}

static void issue(void *arg)
{
	struct step *op = arg;
	struct sd_vdi *v = op->c->v;
	uint64_t at = (uint64_t)op->block * BLOCK * SECTOR, len = (uint64_t)op->nr * SECTOR;
	int e = 0;

	switch (op->kind) {
	case STEP_READ: e = sd_readv_async(v, &op->iov, 1, at, op_done, op); break;
	case STEP_WRITE: e = sd_writev_async(v, &op->iov, 1, at, op_done, op); break;
	case STEP_FLUSH: e = sd_flush_async(v, op_done, op); break;
	case STEP_DISCARD: e = sd_discard_async(v, len, at, op_done, op); break;
	}
	assert(e == 0);
}

static struct step *begin(struct cast *c, enum step_kind kind, unsigned block, unsigned nr)
{
	struct stage *s = c->st;
	struct step *op = &s->step[s->nr_steps];

	op->c = c;
	pass(s, US); /* what was answered before has ended before this */
	if (s->w->failed || !c->p)
		return op;
	assert(++s->nr_steps < STAGE_OPS);
	*op = (struct step){.c = c, .kind = kind, .block = block, .nr = nr, .start = s->w->now};
	stage_versions(s, op->before);
	if (kind == STEP_READ || kind == STEP_WRITE) {
		op->buf = malloc(nr * SECTOR);
		assert(op->buf);
		op->iov = (struct iovec){op->buf, nr * SECTOR};
	}
	if (kind == STEP_WRITE || kind == STEP_DISCARD) {
		op->value = kind == STEP_WRITE ? ++s->w->next_value : 0;
		op->write = history_write(s->h, block * BLOCK, nr, op->value, op->start);
		history_writer(s->h, op->write, (unsigned)(c - s->cast), c->cached);
		story(s->w, "%s > writes value %llx to block %u", c->name,
		      (unsigned long long)op->value, block);
	}
	if (kind == STEP_WRITE)
		stamp(op);
	proc_call(c->p, issue, op);
	return op;
}

struct step *writes(struct cast *c, unsigned block)
{
	return begin(c, STEP_WRITE, block, BLOCK);
}

struct step *writes_big(struct cast *c)
{
	return begin(c, STEP_WRITE, 0, BIG);
}

struct step *reads(struct cast *c, unsigned block)
{
	return begin(c, STEP_READ, block, BLOCK);
}

struct step *flushes(struct cast *c)
{
	return begin(c, STEP_FLUSH, 0, 0);
}

struct step *discards(struct cast *c)
{
	return begin(c, STEP_DISCARD, 0, (1u << SHIFT) / SECTOR);
}

void until_done(struct stage *s, struct step *op)
{
	wait_for(s, &op->done, op->c->name, "an operation");
	if (op->err && !s->w->failed)
		world_fail(s->w, "%s%s: %s", op->kind == STEP_READ ? "history: a read of " : "",
			   op->c->name, sd_strerror(op->err));
}

void wrote(struct cast *c, unsigned block)
{
	until_done(c->st, writes(c, block));
}

uint64_t has_read(struct cast *c, unsigned block)
{
	struct step *op = reads(c, block);

	until_done(c->st, op);
	return op->value;
}

void flushed(struct cast *c)
{
	until_done(c->st, flushes(c));
}

void discarded(struct cast *c)
{
	until_done(c->st, discards(c));
}

/* ---- the end ---- */

bool stage_refers(const struct stage *s, uint64_t oid)
{
	if (SD_OID_VID(oid) != s->vid || !SD_OID_IS_DATA(oid))
		return true;
	return SD_OID_IDX(oid) < OBJECTS && s->index[SD_OID_IDX(oid)] == s->vid;
}

void cast_end(struct stage *s)
{
	char all[NODES_MAX + 1] = {0};

	for (unsigned i = 0; i < s->nr_nodes; i++)
		all[i] = (char)('P' + (int)i);
	for (unsigned i = 0; i < s->nr_steps; i++)
		if (s->step[i].c->p && !s->step[i].dead)
			wait_for(s, &s->step[i].done, s->step[i].c->name, "an answer");
	for (unsigned i = 0; i < s->nr_clients; i++)
		leaves(&s->cast[i]);
	if (s->w->failed)
		return;
	struct cast *c = cast_new(s, STAGE_CLIENTS, all, open_co);
	if (!wait_for(s, &c->open, "the last reader", "open"))
		return;
	for (unsigned i = 0; i < OBJECTS; i++) {
		until_done(s, begin(c, STEP_READ, (i << SHIFT) / SECTOR / BLOCK, BIG));
		s->index[i] = s->w->failed ? 0 : c->v->index[i];
	}
	leaves(c);
}

/* What is left of them, without manners. */
void cast_gone(struct stage *s)
{
	for (unsigned i = 0; i <= STAGE_CLIENTS; i++)
		if (s->cast[i].p)
			drop(&s->cast[i]);
	for (unsigned i = 0; i < s->nr_steps; i++) {
		free(s->step[i].buf);
		s->step[i].buf = NULL;
	}
}
