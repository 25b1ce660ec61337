/* client.c - a simulated client: the real libsheepdog in a process of its own; random work on few
 * blocks, so that operations collide; everything it sees goes into the history. */
#include "config.h"

#include "lib/client/client.h"
#include "tests/sim/check.h"
#include "tests/sim/sim.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SECTOR	   512u
#define BIG	   (128u << 10) /* an intent in the store */
#define COROUTINES 200u
#define IDLE	   1000u

struct op {
	struct client *c;
	unsigned first, nr; /* sectors of the volume */
	uint8_t *buf;
	struct iovec iov;
	uint64_t value, start;
	size_t write;
	enum { OP_READ, OP_WRITE, OP_DISCARD, OP_FLUSH } kind;
};

/* What a sector holds: its value and, so that one in a wrong place is found, where it belongs. */
static void stamp(uint8_t *buf, unsigned first, unsigned nr, uint64_t value)
{
	for (unsigned i = 0; i < nr; i++)
		for (unsigned k = 0; k < SECTOR; k += 16) {
			uint64_t w[2] = {value, value ? first + i : 0};
			memcpy(buf + i * SECTOR + k, w, sizeof(w));
		}
}

static void saw(struct op *op)
{
	struct client *c = op->c;

	for (unsigned i = 0; i < op->nr; i++) {
		const uint8_t *p = op->buf + i * SECTOR;
		uint64_t first[2], w[2];
		memcpy(first, p, sizeof(first));
		for (unsigned k = 16; k < SECTOR; k += 16) {
			memcpy(w, p + k, sizeof(w));
			if (memcmp(w, first, sizeof(w)))
				world_fail(c->w, "%s: sector %u is torn inside", c->name,
					   op->first + i);
		}
		if (first[1] != (first[0] ? op->first + i : 0))
			world_fail(c->w, "%s: sector %u holds what belongs to sector %llu", c->name,
				   op->first + i, (unsigned long long)first[1]);
		c->w->running = NULL; /* the history outlives the client */
		history_read(c->h, op->first + i, first[0], op->start, c->w->now);
		c->w->running = c->p;
	}
}

static void op_done(void *arg, int err)
{
	struct op *op = arg;
	struct client *c = op->c;

	c->in_flight--;
	c->nr_ops++;
	if (err && err != -ECANCELED)
		world_fail(c->w, "%s: %s of sectors %u+%u failed: %s", c->name,
			   op->kind == OP_READ	    ? "read"
			   : op->kind == OP_WRITE   ? "write"
			   : op->kind == OP_DISCARD ? "discard"
						    : "flush",
			   op->first, op->nr, sd_strerror(err));
	if (!err && op->kind == OP_READ)
		saw(op);
	if (!err && (op->kind == OP_WRITE || op->kind == OP_DISCARD))
		history_written(c->h, op->write, c->w->now);
	if (c->w->now - op->start > c->longest)
		c->longest = c->w->now - op->start;
	free(op->buf);
	free(op);
}

static struct op *op_new(struct client *c, int kind, unsigned first, unsigned nr)
{
	struct op *op = calloc(1, sizeof(*op));

	assert(op);
	op->c = c;
	op->start = c->w->now;
	op->kind = kind;
	op->first = first;
	op->nr = nr;
	return op;
}

static int op_read(struct op *op)
{
	struct client *c = op->c;
	uint64_t len = (uint64_t)op->nr * SECTOR;

	c->in_flight++;
	op->buf = malloc(len);
	assert(op->buf);
	op->iov = (struct iovec){op->buf, len};
	return sd_readv_async(c->v, &op->iov, 1, (uint64_t)op->first * SECTOR, op_done, op);
}

/* At the end everything that was ever written is read once more: each object by an owner that has
 * settled it. */
static void read_all(struct client *c)
{
	unsigned per_obj = (1u << c->shape->shift) / SECTOR;

	for (unsigned i = 0; i < c->shape->nr_objects && !c->w->failed; i++) {
		int e = op_read(op_new(c, OP_READ, i * per_obj, BIG / SECTOR));
		if (e)
			world_fail(c->w, "%s: cannot read: %s", c->name, sd_strerror(e));
		while (c->in_flight && !c->w->failed)
			co_sleep(MS);
	}
}

/* One random operation. */
static int op_start(struct client *c)
{
	struct prng *r = &c->w->rnd_work;
	const struct sim_shape *sh = c->shape;
	struct op *op = op_new(c, OP_READ, 0, 8);
	unsigned dice = (unsigned)prng_in(r, 0, 99), writes = c->writes;
	unsigned per_obj = (1u << sh->shift) / SECTOR;
	unsigned obj = (unsigned)prng_in(r, 0, sh->nr_objects - 1);

	op->first = obj * per_obj + (unsigned)prng_in(r, 0, sh->blocks - 1) * 8;
	op->kind = dice < writes ? OP_WRITE
		   : dice < 92	 ? OP_READ
		   : dice < 96	 ? OP_FLUSH
				 : OP_DISCARD;
	if (op->kind == OP_DISCARD && !sh->discards)
		op->kind = OP_READ;
	if (op->kind == OP_WRITE && prng_chance(r, 1, 12)) {
		op->first = obj * per_obj;
		op->nr = BIG / SECTOR;
	} else if (op->kind == OP_WRITE && prng_chance(r, 1, 4)) { /* a part of a block */
		op->nr = (unsigned)prng_in(r, 1, 7);
		op->first += (unsigned)prng_in(r, 0, 8 - op->nr);
	}
	if (op->kind == OP_DISCARD) {
		op->first = obj * per_obj;
		op->nr = per_obj;
	}
	if (op->kind == OP_READ)
		return op_read(op);
	c->in_flight++;
	if (op->kind == OP_FLUSH)
		return sd_flush_async(c->v, op_done, op);
	uint64_t off = (uint64_t)op->first * SECTOR, len = (uint64_t)op->nr * SECTOR;
	op->value = op->kind == OP_WRITE ? ++c->w->next_value : 0;
	c->w->running = NULL;
	op->write = history_write(c->h, op->first, op->nr, op->value, op->start);
	c->w->running = c->p;
	if (op->kind == OP_DISCARD)
		return sd_discard_async(c->v, len, off, op_done, op);
	op->buf = malloc(len);
	assert(op->buf);
	op->iov = (struct iovec){op->buf, len};
	stamp(op->buf, op->first, op->nr, op->value);
	return sd_writev_async(c->v, &op->iov, 1, off, op_done, op);
}

/* What a dead owner left different on its replicas is seen only while nobody writes. */
static void change_mood(struct client *c)
{
	static const unsigned moods[] = {0, 5, 45, 45, 90, IDLE};

	if (c->w->now < c->mood_until)
		return;
	c->writes = moods[prng_in(&c->w->rnd_work, 0, 5)];
	c->mood_until = c->w->now + prng_in(&c->w->rnd_work, 5 * MS, 400 * MS);
}

/* libsheepdog's blocking calls wait here. */
static void wait_turn(void *arg)
{
	co_sleep(50 * US);
}

static void client_run(struct client *c)
{
	int e = client_open_on(&c->p->env, wait_turn, c, c->gateways, &c->sd);

	assert(e == 0);
	sd_cluster_set_connect_timeout(c->sd, 0);
	/* Not while the cluster waits for its nodes; once it runs, it must. */
	while ((e = sd_vdi_open(c->sd, c->volume, c->cached ? SD_OPEN_CACHE : 0, &c->v))) {
		story(c->w, "%s > cannot open %s yet: %s", c->name, c->volume, sd_strerror(e));
		co_sleep(20 * MS);
	}
	story(c->w, "%s > has opened %s", c->name, c->volume);
	while (!c->stop && !c->w->failed) {
		change_mood(c);
		if (c->in_flight < c->depth && c->writes != IDLE) {
			e = op_start(c);
			if (e)
				world_fail(c->w, "%s: cannot start: %s", c->name, sd_strerror(e));
		}
		co_sleep(prng_in(&c->w->rnd_work, 10 * US,
				 c->in_flight < c->depth ? 2 * MS : 5 * MS));
	}
	while (c->in_flight && !c->w->failed)
		co_sleep(MS);
	read_all(c);
	if (c->w->failed)
		return;
	c->vid = c->v->vid;
	for (unsigned i = 0; i < c->shape->nr_objects; i++)
		c->refers[i] = c->v->index[i] == c->vid;
	e = sd_vdi_close(c->v);
	if (e)
		world_fail(c->w, "%s: close: %s", c->name, sd_strerror(e));
	sd_cluster_close(c->sd);
	c->finished = true;
}

static void client_co(void *arg)
{
	client_run(arg);
}

static void client_main(void *arg)
{
	struct client *c = arg;

	c->sched = co_sched_new(&c->p->env, COROUTINES);
	assert(c->sched && co_start(c->sched, client_co, c, "client"));
}

void client_start(struct client *c)
{
	c->p = proc_new(c->w, c->name, c->ip, NULL);
	proc_call(c->p, client_main, c);
}

static void client_free_sched(void *arg)
{
	struct client *c = arg;

	co_sched_free(c->sched);
}

/* It dies with what it has in flight: each of its writes may be there later, or not. */
void client_kill(struct client *c)
{
	if (!c->p || c->finished)
		return;
	story(c->w, "%s > killed", c->name);
	co_sched_drop(c->sched);
	proc_kill(c->p);
	c->p = NULL;
	c->sched = NULL;
	c->in_flight = 0;
}

void client_end(struct client *c)
{
	if (!c->p)
		return;
	if (c->finished && !co_sched_nr(c->sched)) {
		proc_call(c->p, client_free_sched, c);
		proc_exit(c->p);
	} else {
		co_sched_drop(c->sched);
		proc_kill(c->p);
	}
	c->p = NULL;
}
