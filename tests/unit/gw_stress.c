/* gw_stress.c - random clients over gateways that die, views that are late, messages that are slow
 * and come twice; each block is checked against what its client was told. */
#include "config.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/gw_tests.h"

#define CLIENTS 12
#define BLOCKS	6 /* of each client */
#define OBJECTS 5
#define ROUNDS	14
#ifndef SEEDS
#define SEEDS 12
#endif

struct cli {
	struct rig *r;
	uint32_t vid;
	unsigned i;
	uint64_t session, next;
	uint64_t acked[BLOCKS], maybe[BLOCKS]; /* value; 0: zeros */
	int node;
	uint64_t nr_ops;
	bool *stop;
	bool done;
};

static void cli_reconnect(struct cli *c)
{
	struct rig *r = c->r;

	c->session++;
	do {
		if (!r->n[c->node].up || !rig_rand(r, 2))
			c->node = rig_rand(r, r->nr);
		if (!r->n[c->node].up)
			co_sleep(MS);
	} while (!r->n[c->node].up);
}

/* Until it is answered, through whatever gateway is there. */
static uint32_t cli_do(struct cli *c, struct gw_request *g)
{
	struct gw_request t;

	for (;;) {
		t = *g;
		t.client = (struct gw_client){.client_id = c->i + 1,
					      .session = c->session,
					      .conn_id = c->session};
		struct node *n = &c->r->n[c->node];
		if (n->up) {
			gateway_handle(&n->sh, &t);
			if (!t.error)
				break;
		}
		cli_reconnect(c);
	}
	g->reply = t.reply;
	g->reply_len = t.reply_len;
	return t.rsp.result;
}

static uint64_t place(const struct cli *c, unsigned b, uint32_t *off)
{
	*off = (c->i * BLOCKS + b) * 4096;
	return SD_DATA_OID(c->vid, (c->i + b) % OBJECTS);
}

static void cli_write(struct cli *c, unsigned b, bool cached)
{
	struct gw_request g = {0};
	uint64_t v = (uint64_t)(c->i + 1) << 32 | ++c->next, *p;
	uint32_t off;

	g.req.opcode = SD_OP_WRITE_OBJ;
	g.req.flags = SD_FLAG_WRITE | (cached ? SD_FLAG_CACHE : 0);
	g.req.data_length = 4096;
	g.req.obj.oid = place(c, b, &off);
	g.req.obj.offset = off;
	g.payload = buf_new(c->r->pool, 4096);
	p = g.payload->data;
	for (unsigned i = 0; i < 512; i++)
		p[i] = v;
	c->maybe[b] = v;
	uint32_t res = cli_do(c, &g);
	assert(res == SD_RES_SUCCESS);
	c->acked[b] = v;
	buf_put(g.payload);
}

static void cli_read(struct cli *c, unsigned b)
{
	struct gw_request g = {0};
	uint32_t off;

	g.req.opcode = SD_OP_READ_OBJ;
	g.req.data_length = 4096;
	g.req.obj.oid = place(c, b, &off);
	g.req.obj.offset = off;
	uint32_t res = cli_do(c, &g);
	assert(res == SD_RES_SUCCESS && g.reply_len == 4096);
	const uint64_t *p = g.reply->data;
	for (unsigned i = 0; i < 512; i++)
		assert(p[i] == c->acked[b]); /* I1, I2 */
	buf_put(g.reply);
}

static void cli_flush(struct cli *c)
{
	struct gw_request g = {0};

	g.req.opcode = SD_OP_FLUSH_VDI;
	g.req.obj.oid = SD_INODE_OID(c->vid);
	uint32_t res = cli_do(c, &g);
	assert(res == SD_RES_SUCCESS);
}

static void cli_co(void *arg)
{
	struct cli *c = arg;

	while (!*c->stop) {
		unsigned b = rig_rand(c->r, BLOCKS), what = rig_rand(c->r, 20);
		if (!what)
			cli_flush(c);
		else if (what < 12)
			cli_write(c, b, what & 1);
		else
			cli_read(c, b);
		c->nr_ops++;
	}
	for (unsigned b = 0; b < BLOCKS; b++)
		cli_read(c, b);
	c->done = true;
}

/* Kill one and bring it back, or delay a view, or only churn. */
static void upset(struct rig *r)
{
	int i = rig_rand(r, r->nr), late = rig_rand(r, r->nr);

	r->n[late].torn_view = true;
	rig_sleep(r, rig_rand(r, 20) * MS);
	if (rig_rand(r, 4)) {
		rig_kill(r, i);
		rig_sleep(r, rig_rand(r, 10) * MS);
		rig_view(r);
		rig_sleep(r, rig_rand(r, 30) * MS);
		rig_restart(r, i);
	}
	rig_view(r);
	rig_sleep(r, rig_rand(r, 20) * MS);
	r->n[late].torn_view = false;
	rig_apply(&r->n[late]);
	rig_sleep(r, rig_rand(r, 20) * MS);
	rig_recover(r);
	rig_sleep(r, rig_rand(r, 50) * MS);
}

static void stress_seed(uint64_t seed)
{
	struct rig *r = rig_new(3, 3);
	static struct cli cli[CLIENTS];
	uint32_t vid;
	bool stop = false;
	uint64_t ops = 0;

	memset(cli, 0, sizeof(cli));
	r->rng ^= seed * 0x9e3779b97f4a7c15ull;
	r->delay_us = 1 + rig_rand(r, 3000);
	r->dup = rig_rand(r, 2) ? 5 : 0;
	r->mix = true;
	rig_view(r);
	uint32_t res = rq_create(r, 0, "s", 64 << 20, &vid);
	for (uint32_t i = 0; i < OBJECTS; i++)
		res |= rq(r, 0, SD_OP_CREATE_AND_WRITE_OBJ, SD_DATA_OID(vid, i), 0, NULL, 0, 0);
	assert(res == SD_RES_SUCCESS);
	for (unsigned i = 0; i < CLIENTS; i++) {
		cli[i] = (struct cli){.r = r, .vid = vid, .i = i, .node = i % 3, .stop = &stop};
		assert(co_start(r->sched, cli_co, &cli[i], "stress"));
	}
	for (unsigned i = 0; i < ROUNDS; i++)
		upset(r);
	stop = true;
	for (unsigned i = 0; i < CLIENTS; i++) {
		bool ok = rig_run(r, &cli[i].done, 60000 * MS);
		assert(ok);
		(void)ok;
		ops += cli[i].nr_ops;
	}
	assert(ops > 200);
	rig_sleep(r, 100 * MS);
	rig_compare(r); /* I3 */
	rig_free(r);
}

void stress(void **state)
{
	for (uint64_t seed = 1; seed <= SEEDS; seed++)
		stress_seed(seed);
}
