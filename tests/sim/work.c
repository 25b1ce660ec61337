/* work.c - what clients do, drawn from the seed: random operations on few blocks, so that they
 * collide; everything they see goes into the history of their volume. */
#include "config.h"

#include "include/sheepdog/result.h"
#include "lib/client/client.h"
#include "tests/sim/check.h"
#include "tests/sim/sim.h"

#include <errno.h>
#include <string.h>

#define BIG ((128u << 10) / SECTOR) /* an intent in the store */

const char *const work_names[WORK_NR] = {"read", "write", "discard", "flush", "open",
					 "move", "grow",  "create",  "delete"};

void task_stamp(const struct work *k, uint8_t *buf)
{
	for (unsigned i = 0; i < k->nr; i++)
		for (unsigned j = 0; j < SECTOR; j += 16) {
			uint64_t w[2] = {k->value, k->value ? k->first + i : 0};
			memcpy(buf + i * SECTOR + j, w, sizeof(w));
		}
}

static void saw(struct work *k, const uint8_t *buf)
{
	struct client *c = k->c;

	for (unsigned i = 0; i < k->nr; i++) {
		const uint8_t *p = buf + i * SECTOR;
		uint64_t first[2], w[2];
		memcpy(first, p, sizeof(first));
		for (unsigned j = 16; j < SECTOR; j += 16) {
			memcpy(w, p + j, sizeof(w));
			if (memcmp(w, first, sizeof(w)))
				world_fail(c->w, "%s: sector %u is torn inside", c->name,
					   k->first + i);
		}
		/* A value says where it belongs, so that one in a wrong place is found. */
		if (first[1] != (first[0] ? k->first + i : 0))
			world_fail(c->w, "%s: sector %u holds what belongs to sector %llu", c->name,
				   k->first + i, (unsigned long long)first[1]);
		history_read(c->vol->h, k->first + i, first[0], k->start, c->w->now);
	}
}

/* Is @err what a fault of this run allows? */
static bool allowed(const struct work *k, int err)
{
	const struct world *w = k->c->w;
	bool changes = k->kind == WORK_WRITE || k->kind == WORK_DISCARD;

	if (SD_ERR_RESULT(err) == SD_RES_NO_SPACE)
		return changes && w->faults[FAULT_DISK_FULL];
	if (SD_ERR_RESULT(err) == SD_RES_EIO) /* what was cached is lost: history_check() knows */
		return k->kind == WORK_FLUSH && k->c->cached;
	return false;
}

static uint64_t session(const struct client *c)
{
	return c->sd ? c->sd->session : 0;
}

static void begin(struct client *c, struct work *k)
{
	k->c = c;
	k->start = c->w->now;
	k->breaks = c->w->nr_breaks;
	k->session = session(c);
	c->in_flight++;
}

void task_begin_read(struct client *c, struct work *k, unsigned first, unsigned nr)
{
	*k = (struct work){.kind = WORK_READ, .first = first, .nr = nr};
	begin(c, k);
}

void task_begin_flush(struct client *c, struct work *k)
{
	*k = (struct work){.kind = WORK_FLUSH};
	begin(c, k);
}

static void draw_range(struct client *c, struct work *k)
{
	struct prng *r = &c->w->rnd_work;
	const struct sim_shape *sh = c->shape;
	unsigned per_obj = (1u << sh->shift) / SECTOR;
	unsigned obj = (unsigned)prng_in(r, 0, c->vol->nr_objects - 1), dice;

	k->first = obj * per_obj + (unsigned)prng_in(r, 0, sh->blocks - 1) * 8;
	k->nr = 8;
	if (k->kind == WORK_DISCARD) {
		k->first = obj * per_obj;
		k->nr = per_obj;
		return;
	}
	dice = (unsigned)prng_in(r, 0, 47);
	if (dice < (k->kind == WORK_WRITE ? 4 : 1)) {
		k->first = obj * per_obj;
		k->nr = BIG;
	} else if (k->kind == WORK_WRITE && dice < 16) { /* a part of a block */
		k->nr = (unsigned)prng_in(r, 1, 7);
		k->first += (unsigned)prng_in(r, 0, 8 - k->nr);
	} else if (dice < 18 && obj) { /* in two objects */
		k->first = obj * per_obj - 4;
	}
}

void task_begin(struct client *c, struct work *k)
{
	struct prng *r = &c->w->rnd_work;
	unsigned dice = (unsigned)prng_in(r, 0, 99);

	*k = (struct work){.kind = dice < c->writes ? WORK_WRITE
				   : dice < 92	    ? WORK_READ
				   : dice < 96	    ? WORK_FLUSH
						    : WORK_DISCARD};
	if (k->kind == WORK_DISCARD && !c->vol->discards)
		k->kind = WORK_READ;
	if (k->kind != WORK_FLUSH)
		draw_range(c, k);
	begin(c, k);
	if (k->kind != WORK_WRITE && k->kind != WORK_DISCARD)
		return;
	struct proc *before = c->w->running;
	c->w->running = NULL; /* the history outlives the client */
	k->value = k->kind == WORK_WRITE ? ++c->w->next_value : 0;
	k->write = history_write(c->vol->h, k->first, k->nr, k->value, k->start);
	history_writer(c->vol->h, k->write, c->idx, c->cached);
	c->w->running = before;
}

void task_end(struct work *k, const uint8_t *buf, int err)
{
	struct client *c = k->c;
	struct proc *before = c->w->running;
	struct history *h = c->vol->h;

	c->w->running = NULL;
	c->in_flight--;
	if (!err)
		c->did[k->kind]++;
	if (c->w->now - k->start > c->longest)
		c->longest = c->w->now - k->start;
	if (err && err != -ECANCELED && !allowed(k, err))
		world_fail(c->w, "%s: %s of sectors %u+%u failed: %s", c->name, work_names[k->kind],
			   k->first, k->nr, sd_strerror(err));
	else if (k->kind == WORK_READ && !err)
		saw(k, buf);
	else if (k->kind == WORK_FLUSH && err != -ECANCELED)
		history_flush(h, k->start, c->w->now, !err);
	if (k->kind == WORK_WRITE || k->kind == WORK_DISCARD) {
		if (!err)
			history_written(h, k->write, c->w->now);
		else if (err != -ECANCELED)
			history_failed(h, k->write, c->w->now);
		if (c->w->nr_breaks != k->breaks || session(c) != k->session)
			history_resent(h, k->write);
	}
	c->w->running = before;
}

void task_mood(struct client *c)
{
	static const unsigned moods[] = {0, 5, 45, 45, 90, WORK_IDLE};

	if (c->w->now < c->mood_until)
		return;
	c->writes = moods[prng_in(&c->w->rnd_work, 0, 5)];
	c->mood_until = c->w->now + prng_in(&c->w->rnd_work, 5 * MS, 400 * MS);
}

void task_opened(struct client *c, uint64_t start)
{
	struct proc *before = c->w->running;

	c->w->running = NULL;
	history_open(c->vol->h, start, c->w->now);
	c->w->running = before;
	c->did[WORK_OPEN]++;
	story(c->w, "%s > has opened %s", c->name, c->vol->name);
}

void task_dropped(struct client *c)
{
	c->in_flight = 0;
	if (c->vol)
		history_died(c->vol->h, c->idx);
}
