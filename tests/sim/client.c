/* client.c - a simulated client: the real libsheepdog in a process of its own.  One of its volume's
 * own, one of several that share it, or one that moves: it closes the volume and opens it through
 * another gateway. */
#include "config.h"

#include "include/sheepdog/result.h"
#include "lib/client/client.h"
#include "tests/sim/check.h"
#include "tests/sim/sim.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BIG	   (128u << 10)
#define COROUTINES 200u

struct op {
	struct work k;
	uint8_t *buf;
	struct iovec iov;
};

static void op_done(void *arg, int err)
{
	struct op *op = arg;

	task_end(&op->k, op->buf, err);
	free(op->buf);
	free(op);
}

static int op_submit(struct op *op)
{
	struct client *c = op->k.c;
	uint64_t off = (uint64_t)op->k.first * SECTOR, len = (uint64_t)op->k.nr * SECTOR;

	if (op->k.kind == WORK_FLUSH)
		return sd_flush_async(c->v, op_done, op);
	if (op->k.kind == WORK_DISCARD)
		return sd_discard_async(c->v, len, off, op_done, op);
	op->buf = malloc(len);
	assert(op->buf);
	op->iov = (struct iovec){op->buf, len};
	if (op->k.kind == WORK_READ)
		return sd_readv_async(c->v, &op->iov, 1, off, op_done, op);
	task_stamp(&op->k, op->buf);
	return sd_writev_async(c->v, &op->iov, 1, off, op_done, op);
}

static struct op *op_new(void)
{
	struct op *op = calloc(1, sizeof(*op));

	assert(op);
	return op;
}

static void submit(struct op *op)
{
	struct client *c = op->k.c;
	int e = op_submit(op);

	if (e)
		world_fail(c->w, "%s: cannot start: %s", c->name, sd_strerror(e));
}

static void drain(struct client *c)
{
	while (c->in_flight && !c->w->failed)
		co_sleep(MS);
}

/* At the end everything that was ever written is read once more: each object by an owner that has
 * settled it. */
static void read_all(struct client *c)
{
	unsigned per_obj = (1u << c->shape->shift) / SECTOR;

	for (unsigned i = 0; i < c->vol->nr_objects && !c->w->failed; i++) {
		struct op *op = op_new();
		task_begin_read(c, &op->k, i * per_obj, BIG / SECTOR);
		submit(op);
		if (i) { /* the end of the object before, where writes in two objects were */
			op = op_new();
			task_begin_read(c, &op->k, i * per_obj - 8, 8);
			submit(op);
		}
		drain(c);
	}
}

/* libsheepdog's blocking calls wait here. */
static void wait_turn(void *arg)
{
	co_sleep(50 * US);
}

struct sd_cluster *client_open_cluster(struct client *c)
{
	char gateways[256] = "";
	struct sd_cluster *sd;

	for (unsigned k = 0; k < c->shape->nr_nodes; k++) {
		size_t len = strlen(gateways);
		snprintf(gateways + len, sizeof(gateways) - len, "%s10.0.0.%u:7000", k ? "," : "",
			 1 + (c->gateway + k) % c->shape->nr_nodes);
	}
	int e = client_open_on(&c->p->env, wait_turn, c, gateways, &sd);
	assert(e == 0);
	sd_cluster_set_connect_timeout(sd, 0);
	return sd;
}

static void open_volume(struct client *c)
{
	struct sd_vdi_info info;
	unsigned flags = c->cached ? SD_OPEN_CACHE : 0;
	uint64_t start;
	int e;

	c->sd = client_open_cluster(c);
	do {
		start = c->w->now;
		e = sd_vdi_open(c->sd, c->vol->name, flags, &c->v);
		if (e && !client_passes(e))
			world_fail(c->w, "%s: opening of %s: %s (%d)", c->name, c->vol->name,
				   sd_strerror(e), e);
		if (e) { /* not while the cluster waits for its nodes; once it runs, it must */
			story(c->w, "%s > cannot open %s yet: %s", c->name, c->vol->name,
			      sd_strerror(e));
			co_sleep(20 * MS);
		}
	} while (e && !c->w->failed);
	if (e)
		return;
	task_opened(c, start);
	sd_vdi_get_info(c->v, &info);
	if (info.size < (uint64_t)c->vol->nr_objects << c->shape->shift)
		world_fail(c->w, "%s: %s has shrunk to %llu bytes", c->name, c->vol->name,
			   (unsigned long long)info.size);
	c->vol->nr_objects = (unsigned)(info.size >> c->shape->shift);
}

bool client_waits(int err)
{
	uint32_t res = SD_ERR_RESULT(err);

	return res == SD_RES_WAIT_FOR_JOIN || res == SD_RES_WAIT_FOR_FORMAT ||
	       res == SD_RES_SHUTDOWN;
}

bool client_passes(int err)
{
	return client_waits(err) || err == -ECONNREFUSED || err == -ETIMEDOUT;
}

static void close_volume(struct client *c)
{
	struct op *op = op_new();

	task_begin_flush(c, &op->k);
	submit(op);
	drain(c);
	if (c->w->failed)
		return;
	uint64_t start = c->w->now;
	int e = sd_vdi_close(c->v);
	bool lost = c->cached && SD_ERR_RESULT(e) == SD_RES_EIO;
	c->v = NULL;
	/* It gives the lock back in time, or not. */
	if (e && !lost && !client_waits(e) && e != -ETIMEDOUT)
		world_fail(c->w, "%s: close: %s", c->name, sd_strerror(e));
	struct proc *before = c->w->running;
	c->w->running = NULL;
	if (!e || lost)
		history_flush(c->vol->h, start, c->w->now, !e);
	c->w->running = before;
	sd_cluster_close(c->sd);
	c->sd = NULL;
}

/* Through another gateway, as a guest that migrates. */
static void move(struct client *c)
{
	struct prng *r = &c->w->rnd_work;

	if (c->move_at) {
		drain(c);
		if (c->w->failed)
			return;
		close_volume(c);
		c->gateway += (unsigned)prng_in(r, 1, c->shape->nr_nodes - 1);
		c->did[WORK_MOVE]++;
		story(c->w, "%s > moves %s to another gateway", c->name, c->vol->name);
		open_volume(c);
	}
	c->move_at = c->w->now + prng_in(r, 20 * MS, 1500 * MS);
}

static void grow(struct client *c)
{
	struct volume *v = c->vol;
	unsigned to = v->nr_objects + 1;

	if (c->grow_at && to <= v->max_objects) {
		int e = sd_vdi_resize(c->v, (uint64_t)to << c->shape->shift);
		if (!e) {
			story(c->w, "%s > %s has %u objects now", c->name, v->name, to);
			v->nr_objects = to;
			c->did[WORK_GROW]++;
		} else if (!client_waits(e)) {
			world_fail(c->w, "%s: resize: %s", c->name, sd_strerror(e));
		}
	}
	c->grow_at = c->w->now + prng_in(&c->w->rnd_work, 100 * MS, 4 * SEC);
}

static void run(struct client *c)
{
	struct prng *r = &c->w->rnd_work;

	open_volume(c);
	while (!c->stop && !c->w->failed) {
		task_mood(c);
		if (c->kind == CLIENT_MOVING && c->w->now >= c->move_at)
			move(c);
		if (c->vol->nr_objects < c->vol->max_objects && c->w->now >= c->grow_at)
			grow(c);
		if (c->in_flight < c->depth && c->writes != WORK_IDLE && !c->w->failed) {
			struct op *op = op_new();
			task_begin(c, &op->k);
			submit(op);
		}
		co_sleep(prng_in(r, 10 * US, c->in_flight < c->depth ? 2 * MS : 5 * MS));
	}
	drain(c);
	read_all(c);
	if (c->w->failed)
		return;
	c->vol->vid = c->v->vid;
	for (unsigned i = 0; i < c->vol->nr_objects; i++)
		c->vol->refers[i] = c->v->index[i] == c->v->vid;
	close_volume(c);
	c->finished = true;
}

static void client_co(void *arg)
{
	struct client *c = arg;

	if (c->kind == CLIENT_OLD)
		old_run(c);
	else if (c->kind == CLIENT_CHURN)
		churn_run(c);
	else
		run(c);
}

static void client_main(void *arg)
{
	struct client *c = arg;

	c->sched = co_sched_new(&c->p->env, COROUTINES);
	assert(c->sched && co_start(c->sched, client_co, c, "client"));
}

void client_start(struct client *c)
{
	if (c->finished)
		return;
	c->move_at = c->grow_at = 0;
	c->p = proc_new(c->w, c->name, c->ip, NULL);
	proc_call(c->p, client_main, c);
}

static void client_free_sched(void *arg)
{
	struct client *c = arg;

	co_sched_free(c->sched);
}

static void drop(struct client *c)
{
	co_sched_drop(c->sched);
	proc_kill(c->p);
	c->p = NULL;
	c->sched = NULL;
	c->sd = NULL;
	c->v = NULL;
	c->old = NULL;
}

/* It dies with what it has in flight: each of its writes may be there later, or not. */
void client_kill(struct client *c)
{
	if (!c->p || c->finished)
		return;
	story(c->w, "%s > killed", c->name);
	task_dropped(c);
	drop(c);
	if (c->kind == CLIENT_MOVING) /* the guest is started again elsewhere */
		c->gateway += (unsigned)prng_in(&c->w->rnd_work, 1, c->shape->nr_nodes - 1);
}

void client_end(struct client *c)
{
	if (!c->p)
		return;
	if (c->finished && !co_sched_nr(c->sched)) {
		proc_call(c->p, client_free_sched, c);
		proc_exit(c->p);
		c->p = NULL;
		c->sched = NULL;
	} else {
		drop(c);
	}
}
