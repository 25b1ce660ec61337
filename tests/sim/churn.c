/* churn.c - a client that creates volumes, writes a little, reads it back, deletes them: what is
 * deleted must stay deleted, whoever rejoins (DESIGN I7), what is not must stay. */
#include "config.h"

#include "include/sheepdog/result.h"
#include "lib/client/client.h"
#include "tests/sim/sim.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NAMES 4u
#define BLOCK 4096u

struct churn { /* what is known of each name; outlives the client's process */
	enum { GONE, THERE, UNKNOWN } state[NAMES];
	unsigned number[NAMES]; /* of the name: a new one after one that is UNKNOWN, because what
				 * was asked for may still be done */
	uint64_t value[NAMES];	/* written to both of its objects, */
	bool doubt[NAMES];	/* perhaps in part */
};

struct churn *churn_new(void)
{
	struct churn *ch = calloc(1, sizeof(*ch));

	assert(ch);
	return ch;
}

#define NAME_LEN 24u
static const char *name_of(const struct client *c, char buf[NAME_LEN], unsigned i)
{
	snprintf(buf, NAME_LEN, "t%u.%u", i, c->churn->number[i]);
	return buf;
}

static void fill(uint64_t *block, uint64_t value, unsigned obj)
{
	for (unsigned i = 0; i < BLOCK / 8; i++)
		block[i] = value ^ (uint64_t)obj << 60;
}

static bool fine(struct client *c, const char *what, unsigned i, int e)
{
	if (e)
		world_fail(c->w, "%s: %s of t%u: %s (%d)", c->name, what, i, sd_strerror(e), e);
	return !e;
}

/* Changes are refused where a disk is full; how much of it was done is not known. */
static bool full(const struct client *c, int e)
{
	return SD_ERR_RESULT(e) == SD_RES_NO_SPACE && c->w->faults[FAULT_DISK_FULL];
}

/* The value is written to each object, in place of the older one. */
static void write_both(struct client *c, struct sd_vdi *v, unsigned i)
{
	struct churn *ch = c->churn;
	uint64_t block[BLOCK / 8];
	uint64_t value = ++c->w->next_value;

	ch->doubt[i] = true;
	for (unsigned obj = 0; obj < 2 && !c->w->failed; obj++) {
		fill(block, value, obj);
		int e = sd_write(v, block, BLOCK, (uint64_t)obj << c->shape->shift);
		if (full(c, e))
			return;
		fine(c, "write", i, e);
	}
	ch->value[i] = value;
	ch->doubt[i] = false;
}

static void read_both(struct client *c, struct sd_vdi *v, unsigned i)
{
	struct churn *ch = c->churn;
	uint64_t block[BLOCK / 8], want[BLOCK / 8];

	for (unsigned obj = 0; obj < 2 && !c->w->failed; obj++) {
		if (!fine(c, "read", i, sd_read(v, block, BLOCK, (uint64_t)obj << c->shape->shift)))
			return;
		fill(want, ch->value[i], obj);
		if (!ch->value[i])
			memset(want, 0, sizeof(want));
		if (!ch->doubt[i] && memcmp(block, want, BLOCK))
			world_fail(c->w, "%s: t%u, object %u holds %llx, not %llx", c->name, i, obj,
				   (unsigned long long)block[0], (unsigned long long)want[0]);
	}
}

static void create(struct client *c, struct sd_cluster *sd, unsigned i)
{
	struct sd_create_opts opts = {.copies = (uint8_t)c->shape->copies,
				      .object_shift = (uint8_t)c->shape->shift};
	struct churn *ch = c->churn;
	char name[NAME_LEN];

	ch->state[i] = UNKNOWN;
	ch->value[i] = 0;
	ch->doubt[i] = false;
	int e = sd_vdi_create(sd, name_of(c, name, i), 2ull << c->shape->shift, &opts, NULL);
	if (client_passes(e) || full(c, e) || !fine(c, "create", i, e))
		return;
	ch->state[i] = THERE;
	c->did[WORK_CREATE]++;
}

static void delete (struct client *c, struct sd_cluster *sd, unsigned i)
{
	struct churn *ch = c->churn;
	char name[NAME_LEN];

	ch->state[i] = UNKNOWN;
	int e = sd_vdi_delete(sd, name_of(c, name, i));
	if (client_passes(e) || !fine(c, "deletion", i, e))
		return;
	ch->state[i] = GONE;
	c->did[WORK_DELETE]++;
	story(c->w, "%s > has deleted t%u", c->name, i);
}

/* Is it there, as it should be?  NULL: it is not. */
static struct sd_vdi *look(struct client *c, struct sd_cluster *sd, unsigned i)
{
	struct churn *ch = c->churn;
	struct sd_vdi *v = NULL;
	char name[NAME_LEN];
	int e;

	while (client_passes(e = sd_vdi_open(sd, name_of(c, name, i), 0, &v)))
		co_sleep(20 * MS);
	if (e && SD_ERR_RESULT(e) != SD_RES_NO_VDI)
		fine(c, "opening", i, e);
	else if (e && ch->state[i] == THERE)
		world_fail(c->w, "%s: t%u is lost", c->name, i);
	else if (!e && ch->state[i] == GONE)
		world_fail(c->w, "%s: t%u was deleted and is back", c->name, i);
	return e ? NULL : v;
}

static void one(struct client *c, struct sd_cluster *sd, unsigned i)
{
	struct prng *r = &c->w->rnd_work;
	struct churn *ch = c->churn;

	if (ch->state[i] == UNKNOWN) {
		ch->number[i]++;
		ch->state[i] = GONE;
	}
	struct sd_vdi *v = look(c, sd, i);

	if (!v) {
		if (!c->w->failed && !c->stop)
			create(c, sd, i);
		return;
	}
	read_both(c, v, i);
	if (!c->w->failed && !c->stop && prng_chance(r, 2, 3))
		write_both(c, v, i);
	int e = c->w->failed ? 0 : sd_vdi_close(v);
	if (!client_passes(e))
		fine(c, "close", i, e);
	if (!c->w->failed && !c->stop && prng_chance(r, 1, 3))
		delete (c, sd, i);
}

void churn_run(struct client *c)
{
	struct sd_cluster *sd = client_open_cluster(c);

	while (!c->stop && !c->w->failed) {
		one(c, sd, (unsigned)prng_in(&c->w->rnd_work, 0, NAMES - 1));
		co_sleep(prng_in(&c->w->rnd_work, 0, 100 * MS));
	}
	for (unsigned i = 0; i < NAMES && !c->w->failed; i++)
		one(c, sd, i);
	if (c->w->failed)
		return;
	story(c->w, "%s > has created %llu volumes and deleted %llu", c->name,
	      (unsigned long long)c->did[WORK_CREATE], (unsigned long long)c->did[WORK_DELETE]);
	sd_cluster_close(sd);
	c->finished = true;
}
