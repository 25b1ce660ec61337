/* gw_fence.c - clients that are gone when another one opens the volume (gateway_int.h, G8). */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "tests/unit/gw_tests.h"

static void opened(struct rig *r, uint32_t vid)
{
	struct vdi *v = rig_vdi(r, vid);

	v->opens++;
	for (unsigned i = 0; i < r->nr; i++)
		if (r->n[i].up)
			gateway_vdi_changed(&r->n[i].sh, v);
}

static struct rig *start_fence(uint32_t *vid, uint64_t *o)
{
	struct rig *r = start(3, 3, vid);

	*o = SD_DATA_OID(*vid, 0);
	assert_int_equal(rq(r, 0, CREATE, *o, 0, pat(0), 4096, 0), SD_RES_SUCCESS);
	return r;
}

/* On the way to the owner when the volume is opened.  Whose client is gone is not done; who is
 * there does not notice. */
void fence_on_the_way(void **state)
{
	uint32_t vid;
	uint64_t o;
	struct rig *r = start_fence(&vid, &o);
	struct gw_client gone = {.conn_id = 3}, there = {.conn_id = 4};
	struct tr t[3] = {0};

	r->blocked[1][0] = true;
	t[0].g.client = t[1].g.client = gone;
	t[2].g.client = there;
	tr_start(r, &t[0], 1, WRITE, o, 0, pat(1), 4096, 0);
	tr_start(r, &t[1], 1, CREATE, o, 0, pat(2), 4096, 0);
	tr_start(r, &t[2], 1, WRITE, o, 8192, pat(3), 4096, 0);
	rig_sleep(r, 10 * MS);
	gateway_conn_closed(&r->n[1].sh, &gone);
	opened(r, vid);
	assert_int_equal(rq(r, 2, CREATE, o, 4096, pat(4), 4096, 0), SD_RES_SUCCESS);
	unsigned forwards = r->n[0].nr_forward;
	rig_unblock(r, 1, 0);
	assert_int_equal(tr_wait(r, &t[0]), NOTHING);
	assert_int_equal(tr_wait(r, &t[1]), NOTHING);
	assert_int_equal(tr_wait(r, &t[2]), SD_RES_SUCCESS);
	assert_int_equal(r->n[0].nr_forward, forwards + 4); /* it came again */
	for (int i = 0; i < 3; i++) {
		const uint8_t *p = rig_obj(r, i, o)->data;
		assert_true(all(p, 4096, 0) && all(p + 4096, 4096, 4) && all(p + 8192, 4096, 3));
		tr_end(&t[i]);
	}
	rig_free(r);
}

/* At the owner, waiting, when the volume is opened: what has no version yet is not done; what has
 * one comes before all that is served after. */
void fence_at_the_owner(void **state)
{
	uint32_t vid;
	uint64_t o;
	struct rig *r = start_fence(&vid, &o);
	struct gw_client gone = {.conn_id = 3, .client_id = 9, .session = 1};
	struct gw_client there = {.conn_id = 4, .client_id = 10, .session = 1};
	struct tr t[4] = {0};

	r->n[2].insync = false;
	t[0].g.client = t[1].g.client = gone;
	t[2].g.client = there;
	tr_start(r, &t[0], 1, WRITE, o, 0, pat(1), 4096, 0); /* has a version */
	rig_sleep(r, 10 * MS);
	tr_start(r, &t[1], 1, WRITE, o, 0, pat(2), 8192, 0); /* waits behind it */
	rig_sleep(r, 10 * MS);
	tr_start(r, &t[2], 1, WRITE, o, 4096, pat(3), 4096, 0); /* behind that one */
	rig_sleep(r, 10 * MS);
	gateway_conn_closed(&r->n[1].sh, &gone);
	opened(r, vid);
	tr_start(r, &t[3], 2, WRITE, o, 0, pat(4), 512, 0);
	rig_sleep(r, 10 * MS);
	assert_false(t[0].done || t[1].done || t[2].done || t[3].done);
	r->n[2].insync = true;
	rig_kick(&r->n[2]);
	tr_wait(r, &t[0]); /* it was done; nobody hears of it */
	assert_int_equal(tr_wait(r, &t[1]), NOTHING);
	assert_int_equal(tr_wait(r, &t[2]), SD_RES_SUCCESS);
	assert_int_equal(tr_wait(r, &t[3]), SD_RES_SUCCESS);
	for (int i = 0; i < 4; i++)
		tr_end(&t[i]);
	const uint8_t *p = rig_obj(r, 1, o)->data;
	assert_true(all(p, 512, 4) && all(p + 512, 4096 - 512, 1) && all(p + 4096, 4096, 3));
	rig_free(r);
}

/* The client has opened the volume at a place in the order that the owner has not reached. */
struct ahead {
	struct rig *r;
	struct peer_call c;
};

static void ahead_co(void *arg)
{
	struct ahead *a = arg;

	gateway_forwarded(&a->r->n[0].sh, &a->r->n[1].sh.self.inc, &a->c);
}

void fence_behind(void **state)
{
	uint32_t vid;
	uint64_t o;
	struct rig *r = start_fence(&vid, &o);
	struct ahead a = {.r = r};
	struct sd_req req = {.opcode = SD_OP_REMOVE_OBJ, .flags = SD_FLAG_WRITE};
	unsigned barriers = r->nr_barriers;

	req.obj.oid = o;
	memcpy(a.c.req.client, &req, sizeof(req));
	a.c.req.op = PEER_FORWARD;
	a.c.req.ver_seq = rig_vdi(r, vid)->opens;
	rig_co(r, ahead_co, &a);
	assert_int_equal(r->nr_barriers, barriers);
	a.c.req.ver_seq++;
	rig_co(r, ahead_co, &a);
	assert_int_equal(a.c.rsp.result, SD_RES_SUCCESS);
	assert_int_equal(r->nr_barriers, barriers + 1); /* it has asked first */
	rig_free(r);
}

/* A write of the header is a command: refused when the volume was opened in between.  Its sender is
 * there, and decides anew. */
void fence_header(void **state)
{
	uint32_t vid;
	uint64_t o, size = 128ull << 20;
	struct rig *r = start_fence(&vid, &o);
	struct tr t = {0};

	tr_start(r, &t, 0, WRITE, SD_INODE_OID(vid), offsetof(struct sd_inode_header, vdi_size),
		 &size, 8, 0);
	rig_sleep(r, 500); /* the command takes twice as long */
	opened(r, vid);
	assert_int_equal(tr_wait(r, &t), SD_RES_SUCCESS);
	assert_true(rig_vdi(r, vid)->size == size);
	tr_end(&t);
	/* header and index in one, the client goes when the header is on the bus */
	struct gw_client gone = {.conn_id = 3};
	uint8_t *w = calloc(1, IDX(2));
	memcpy(w, &(struct sd_inode_header){.vdi_size = 2 * size}, sizeof(struct sd_inode_header));
	memcpy(w + IDX(0), &vid, 4);
	t = (struct tr){.g.client = gone};
	r->mix = true;
	tr_start(r, &t, 1, WRITE, SD_INODE_OID(vid), 0, w, IDX(2), 0);
	while (rig_vdi(r, vid)->size == size)
		rig_sleep(r, 1000);
	gateway_conn_closed(&r->n[1].sh, &gone);
	opened(r, vid);
	assert_int_equal(tr_wait(r, &t), NOTHING);
	assert_int_equal(idx_get(r, 0, vid, 0), 0);
	tr_end(&t);
	free(w);
	rig_free(r);
}

/* The client goes while its request waits to be forwarded, behind one of a connection before. */
void fence_late(void **state)
{
	uint32_t vid;
	uint64_t o;
	struct rig *r = start_fence(&vid, &o);
	struct gw_client cl[2] = {{.conn_id = 11}, {.conn_id = 12}};
	struct tr t[2] = {0};

	r->blocked[1][0] = true;
	for (int i = 0; i < 2; i++) {
		t[i].g.client = cl[i];
		tr_start(r, &t[i], 1, WRITE, o, 8192 * i, pat(1 + i), 4096, 0);
		rig_sleep(r, 10 * MS);
		gateway_conn_closed(&r->n[1].sh, &cl[i]);
		assert_false(t[i].done);
	}
	rig_unblock(r, 1, 0);
	tr_wait(r, &t[0]);
	assert_int_equal(tr_wait(r, &t[1]), NOTHING);
	assert_int_equal(r->n[0].nr_forward, 1);
	assert_int_equal(rig_obj(r, 0, o)->data[0], 1);
	tr_end(&t[0]);
	tr_end(&t[1]);
	rig_free(r);
}
