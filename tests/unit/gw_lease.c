/* gw_lease.c - leases, handover, sessions on the bus, cached generations (DESIGN 4.4, 5.1, 5.4). */
#include "config.h"

#include <string.h>

#include "tests/unit/gw_tests.h"

static struct node *owner_of(struct rig *r, uint32_t vid)
{
	struct vdi *v = rig_vdi(r, vid);

	return v->owned ? &r->n[v->owner.uuid[0]] : NULL;
}

/* Does @t wait for as long as the owner has no lease? */
static void held(struct rig *r, struct tr *t, uint32_t result)
{
	rig_sleep(r, 200 * MS);
	assert_false(t->done);
	r->n[0].no_lease = false;
	rig_sleep(r, 50 * MS);
	assert_true(t->done);
	assert_int_equal(t->g.rsp.result, result);
	r->n[0].no_lease = true;
}

/* WHY B7: nothing leaves the owner without its lease, be it from a replica or from memory. */
void lease(void **state)
{
	uint32_t vid, e = 0;
	struct rig *r = start(3, 3, &vid);
	uint64_t o = SD_DATA_OID(vid, 0), none = SD_DATA_OID(vid, 1), ino = SD_INODE_OID(vid);
	struct tr t = {0};

	assert_int_equal(rq(r, 0, CREATE, o, 0, pat(1), 4096, 0), SD_RES_SUCCESS);
	assert_int_equal(idx_set(r, 0, vid, 0, vid, 0), SD_RES_SUCCESS);
	r->n[0].no_lease = true;
	for (int node = 0; node < 2; node++) { /* its own client's, and a forwarded one */
		tr_start(r, &t, node, READ, o, 0, NULL, 4096, 0);
		unsigned before = r->n[0].nr_read;
		held(r, &t, SD_RES_SUCCESS);
		assert_int_equal(r->n[0].nr_read, before + 1); /* the lease is asked for after it */
		assert_true(all(t.g.reply->data, 4096, 1));
		tr_end(&t);
		tr_start(r, &t, node, READ, none, 0, NULL, 4096, 0);
		held(r, &t, SD_RES_NO_OBJ);
		tr_end(&t);
		tr_start(r, &t, node, WRITE, o, 0, pat(1), 4096, 0);
		held(r, &t, SD_RES_SUCCESS);
		tr_end(&t);
		tr_start(r, &t, node, FLUSH, ino, 0, NULL, 0, 0);
		held(r, &t, SD_RES_SUCCESS);
		tr_end(&t);
		tr_start(r, &t, node, READ, ino, 0, NULL, 4096, 0); /* the header */
		if (node == 0)
			held(r, &t, SD_RES_SUCCESS);
		assert_int_equal(tr_wait(r, &t), SD_RES_SUCCESS);
		tr_end(&t);
	}
	e = vid; /* no change: answered from the index in memory */
	unsigned writes = r->n[1].nr_write;
	tr_start(r, &t, 0, WRITE, ino, IDX(0), &e, 4, CACHE);
	held(r, &t, SD_RES_SUCCESS);
	assert_int_equal(r->n[1].nr_write, writes);
	tr_end(&t);
	/* nobody waits any more; the daemon stops */
	struct gw_client cl = t.g.client = (struct gw_client){.conn_id = 9};
	tr_start(r, &t, 0, READ, o, 0, NULL, 4096, 0);
	rig_sleep(r, 100 * MS);
	gateway_conn_closed(&r->n[0].sh, &cl);
	assert_int_equal(tr_wait(r, &t), NOTHING);
	tr_end(&t);
	memset(&t, 0, sizeof(t));
	tr_start(r, &t, 0, WRITE, o, 0, pat(7), 4096, 0);
	rig_sleep(r, 100 * MS);
	assert_int_equal(rig_obj(r, 2, o)->data[0], 7);
	rig_kill(r, 0);
	assert_int_equal(tr_wait(r, &t), NOTHING);
	tr_end(&t);
	rig_free(r);
}

/* A base is read without a lease: the copy that is made of it waits. */
void lease_cow(void **state)
{
	uint32_t vid, other;
	struct rig *r = start(3, 3, &vid);
	uint64_t o = SD_DATA_OID(vid, 0), p;
	struct tr t = {0};

	assert_int_equal(rq_create(r, 0, "b", 64ull << 20, &other), SD_RES_SUCCESS);
	p = SD_DATA_OID(other, 0);
	assert_int_equal(rq(r, 0, CREATE, o, 0, pat(1), 4096, 0), SD_RES_SUCCESS);
	r->n[0].no_lease = true;
	uint8_t data[512];
	memset(data, 2, sizeof(data));
	/* tr_start clears the request: the base is named afterwards, before it runs */
	tr_start(r, &t, 0, CREATE, p, 0, data, sizeof(data), SD_FLAG_COW);
	t.g.req.obj.cow_oid = o;
	rig_sleep(r, 200 * MS);
	assert_false(t.done);
	assert_null(rig_obj(r, 1, p));
	r->n[0].no_lease = false;
	assert_int_equal(tr_wait(r, &t), SD_RES_SUCCESS);
	tr_end(&t);
	assert_int_equal(rig_obj(r, 1, p)->data[0], 2);
	assert_int_equal(rig_obj(r, 1, p)->data[512], 1);
	rig_free(r);
}

/* After somebody fell silent a claim serves nothing before his lease is over, whatever comes. */
void claim_waits(void **state)
{
	static const uint8_t ops[] = {READ, WRITE, FLUSH, CREATE, DISCARD};
	uint32_t vid;
	struct rig *r = start(3, 3, &vid);
	uint64_t o = SD_DATA_OID(vid, 0), p = SD_DATA_OID(vid, 1);
	struct tr t[2][5] = {0};

	assert_int_equal(rq(r, 0, CREATE, o, 0, pat(1), 4096, 0), SD_RES_SUCCESS);
	rig_kill(r, 0);
	r->n[1].serve_after = r->n[2].serve_after = r->now + 900 * MS;
	unsigned versions = r->n[1].nr_version, flushes = r->n[1].nr_flush;
	rig_view(r);
	for (int k = 0; k < 2; k++)
		for (int i = 0; i < 5; i++) {
			bool data = ops[i] == WRITE || ops[i] == CREATE;
			tr_start(r, &t[k][i], 1 + k, ops[i],
				 ops[i] == FLUSH ? SD_INODE_OID(vid)
				 : i < 2	 ? o
						 : p,
				 0, data ? pat(3) : NULL, ops[i] == FLUSH || i == 4 ? 0 : 4096, 0);
		}
	rig_sleep(r, 800 * MS);
	assert_true(r->nr_claims <= 2); /* each of them, once; one is refused */
	for (int k = 0; k < 2; k++)
		for (int i = 0; i < 5; i++)
			assert_false(t[k][i].done);
	assert_int_equal(r->n[1].nr_version, versions);
	assert_int_equal(r->n[1].nr_flush, flushes);
	assert_int_equal(rig_obj(r, 1, o)->data[0], 1);
	rig_sleep(r, 200 * MS);
	for (int k = 0; k < 2; k++)
		for (int i = 0; i < 5; i++) {
			assert_int_equal(tr_wait(r, &t[k][i]), SD_RES_SUCCESS);
			tr_end(&t[k][i]);
		}
	/* a new volume had no owner: no wait */
	r->n[1].serve_after = r->now + 900 * MS;
	uint64_t before = r->now;
	assert_int_equal(rq_create(r, 1, "b", 64ull << 20, &vid), SD_RES_SUCCESS);
	assert_int_equal(rq(r, 1, CREATE, SD_DATA_OID(vid, 0), 0, pat(1), 512, 0), SD_RES_SUCCESS);
	assert_true(r->now - before < 100 * MS);
	rig_free(r);
}

/* While a claim waits, the next claimer must not count it as serving; the daemon stops in it. */
void claim_wait_ends(void **state)
{
	uint32_t vid;
	struct rig *r = start(3, 3, &vid);
	uint64_t o = SD_DATA_OID(vid, 0);
	struct tr t = {0}, u = {0};

	assert_int_equal(rq(r, 0, CREATE, o, 0, pat(1), 4096, 0), SD_RES_SUCCESS);
	rig_kill(r, 0);
	r->n[1].serve_after = r->now + 5000 * MS;
	rig_view(r);
	tr_start(r, &t, 1, READ, o, 0, NULL, 4096, 0);
	rig_sleep(r, 100 * MS);
	tr_start(r, &u, 2, READ, o, 0, NULL, 4096, 0); /* waits at node 1 */
	rig_sleep(r, 100 * MS);
	assert_ptr_equal(owner_of(r, vid), &r->n[1]);
	rig_kill(r, 1);
	assert_int_equal(tr_wait(r, &t), NOTHING);
	tr_end(&t);
	assert_false(u.done);
	rig_view(r);
	assert_int_equal(tr_wait(r, &u), SD_RES_SUCCESS);
	assert_ptr_equal(owner_of(r, vid), &r->n[2]);
	tr_end(&u);
	rig_free(r);
}

/* Others name us the owner while our claim still waits: an object that is torn everywhere is not
 * looked at before (its size, its ring are those of the VDI that we do not own yet). */
void claim_torn(void **state)
{
	uint32_t vid;
	struct rig *r = start(3, 3, &vid);
	uint64_t o = SD_DATA_OID(vid, 0);
	struct peer_call c = {.req = {.op = PEER_TORN, .oid = o}};
	struct tr t = {0};

	assert_int_equal(rq(r, 0, CREATE, o, 0, pat(1), 4096, 0), SD_RES_SUCCESS);
	rig_kill(r, 0);
	r->n[1].serve_after = r->now + 500 * MS;
	rig_view(r);
	tr_start(r, &t, 1, READ, o, 0, NULL, 4096, 0);
	rig_sleep(r, 100 * MS);
	assert_ptr_equal(owner_of(r, vid), &r->n[1]);
	gateway_torn(&r->n[1].sh, &c);
	assert_int_equal(tr_wait(r, &t), SD_RES_SUCCESS);
	assert_true(all(t.g.reply->data, 4096, 1));
	tr_end(&t);
	assert_int_equal(rq(r, 1, WRITE, o, 4096, pat(2), 4096, 0), SD_RES_SUCCESS);
	assert_int_equal(rq_read(r, 1, o, 4096, got, 4096), SD_RES_SUCCESS);
	assert_true(all(got, 4096, 2));
	gateway_torn(&r->n[1].sh, &c); /* now it is ours */
	assert_int_equal(rq_read(r, 1, o, 0, got, 4096), SD_RES_SUCCESS);
	assert_true(all(got, 4096, 1));
	rig_free(r);
}

/* ---- handover ---- */

/* Clients at these nodes (bits) write, for @ms. */
static void use(struct rig *r, uint32_t vid, unsigned nodes, unsigned ms)
{
	static int c;

	for (unsigned t = 0; t < ms; t += 50) {
		for (int n = 0; n < 3; n++)
			if (nodes >> n & 1)
				assert_int_equal(rq(r, n, WRITE, SD_DATA_OID(vid, n), 0,
						    pat(++c & 0xff), 4096, CACHE),
						 SD_RES_SUCCESS);
		rig_sleep(r, 50 * MS);
	}
}

static struct rig *start_objects(uint32_t *vid)
{
	struct rig *r = start(3, 3, vid);

	for (int n = 0; n < 3; n++)
		assert_int_equal(rq(r, 0, CREATE, SD_DATA_OID(*vid, n), 0, pat(0), 4096, 0),
				 SD_RES_SUCCESS);
	return r;
}

void handover(void **state)
{
	uint32_t vid;
	struct rig *r = start_objects(&vid);

	/* created at node 0, used at node 1 */
	use(r, vid, 2, 1000);
	assert_ptr_equal(owner_of(r, vid), &r->n[0]);
	use(r, vid, 2, 1000);
	assert_ptr_equal(owner_of(r, vid), &r->n[1]);
	unsigned forwards = r->n[0].nr_forward, versions = r->n[2].nr_version;
	use(r, vid, 2, 500);
	assert_int_equal(r->n[0].nr_forward, forwards); /* no detour any more */
	assert_int_equal(r->n[2].nr_version, versions); /* it began clean: one replica knows */
	assert_int_equal(r->nr_claims, 1);
	/* a migration: the next client is at node 2, the old one is quiet but still there */
	struct tr t = {0};
	t.g.client = (struct gw_client){.conn_id = 4};
	tr_start(r, &t, 1, WRITE, SD_DATA_OID(vid, 1), 0, pat(1), 512, 0);
	assert_int_equal(tr_wait(r, &t), SD_RES_SUCCESS);
	tr_end(&t);
	use(r, vid, 4, 4000);
	assert_ptr_equal(owner_of(r, vid), &r->n[1]);
	gateway_conn_closed(&r->n[1].sh, &t.g.client);
	use(r, vid, 4, 200);
	assert_ptr_equal(owner_of(r, vid), &r->n[2]);
	assert_false(rig_obj(r, 0, SD_DATA_OID(vid, 1))->cached); /* flushed before */
	/* it is gone for long, though its connection is open */
	t.g.client.conn_id = 5;
	tr_start(r, &t, 2, WRITE, SD_DATA_OID(vid, 1), 0, pat(1), 512, 0);
	assert_int_equal(tr_wait(r, &t), SD_RES_SUCCESS);
	tr_end(&t);
	use(r, vid, 1, 4500);
	assert_ptr_equal(owner_of(r, vid), &r->n[2]);
	use(r, vid, 1, 1500);
	assert_ptr_equal(owner_of(r, vid), &r->n[0]);
	assert_int_equal(r->nr_claims, 3);
	rig_compare(r);
	rig_free(r);
}

/* Several others, or clients of its own: it stays. */
void handover_not(void **state)
{
	uint32_t vid;
	struct rig *r = start_objects(&vid);

	use(r, vid, 6, 10000);
	assert_ptr_equal(owner_of(r, vid), &r->n[0]);
	use(r, vid, 3, 10000);
	assert_ptr_equal(owner_of(r, vid), &r->n[0]);
	assert_int_equal(r->nr_claims, 0);
	use(r, vid, 2, 2000);
	assert_ptr_equal(owner_of(r, vid), &r->n[1]);
	rig_free(r);
}

/* What is in work does not end: it is served as before, and tried again later. */
void handover_stuck(void **state)
{
	uint32_t vid;
	struct rig *r = start_objects(&vid);
	struct tr t = {0}, u = {0};

	use(r, vid, 2, 1000);
	r->n[2].insync = false;
	tr_start(r, &t, 1, WRITE, SD_DATA_OID(vid, 0), 0, pat(9), 4096, 0);
	rig_sleep(r, 1000 * MS);
	for (int i = 0; i < 20; i++) { /* reads of another object */
		assert_int_equal(rq_read(r, 1, SD_DATA_OID(vid, 1), 0, got, 512), SD_RES_SUCCESS);
		rig_sleep(r, 50 * MS);
	}
	assert_ptr_equal(owner_of(r, vid), &r->n[0]);
	assert_false(t.done);
	tr_start(r, &u, 1, WRITE, SD_DATA_OID(vid, 0), 8192, pat(8), 4096, 0);
	rig_sleep(r, 100 * MS);
	assert_int_equal(rig_obj(r, 0, SD_DATA_OID(vid, 0))->data[8192], 8);
	r->n[2].insync = true;
	rig_kick(&r->n[2]);
	assert_int_equal(tr_wait(r, &t), SD_RES_SUCCESS);
	assert_int_equal(tr_wait(r, &u), SD_RES_SUCCESS);
	tr_end(&t);
	tr_end(&u);
	use(r, vid, 2, 4000);
	assert_ptr_equal(owner_of(r, vid), &r->n[1]);
	rig_compare(r);
	rig_free(r);
}

/* A release that could not be sent: it is served here as before, and handed over later. */
void handover_unsent(void **state)
{
	uint32_t vid;
	struct rig *r = start_objects(&vid);

	use(r, vid, 2, 1000);
	r->n[0].do_fails = 1;
	use(r, vid, 2, 1500);
	assert_int_equal(r->n[0].do_fails, 0);
	assert_ptr_equal(owner_of(r, vid), &r->n[0]);
	use(r, vid, 2, 8000);
	assert_ptr_equal(owner_of(r, vid), &r->n[1]);
	rig_compare(r);
	rig_free(r);
}

/* ---- sessions on the bus ---- */

static uint32_t as(struct rig *r, struct tr *t, uint64_t session, int node, uint64_t oid, int c)
{
	t->g.client = (struct gw_client){.client_id = 7, .session = session, .conn_id = session};
	tr_start(r, t, node, WRITE, oid, 0, pat(c), 4096, 0);
	return tr_wait(r, t);
}

/* The known gap of sessions before the bus knew them: X waits in a paused gateway, the client goes
 * on elsewhere, its owner dies, X comes to the next owner first. */
void session_new_owner(void **state)
{
	uint32_t vid;
	struct rig *r = start_with(4, 3, 1, &vid); /* node 1: the gateway that is paused */
	uint64_t o = SD_DATA_OID(vid, 0);
	struct tr x = {0}, y = {0};

	assert_int_equal(rq(r, 0, CREATE, o, 0, pat(0), 4096, 0), SD_RES_SUCCESS);
	x.g.client = (struct gw_client){.client_id = 7, .session = 1, .conn_id = 1};
	r->blocked[1][0] = r->n[1].torn_view = true;
	tr_start(r, &x, 1, WRITE, o, 0, pat(1), 4096, 0);
	rig_sleep(r, 10 * MS);
	assert_int_equal(as(r, &y, 2, 2, o, 1), SD_RES_SUCCESS);
	tr_end(&y);
	assert_int_equal(r->nr_sessions, 1);
	assert_int_equal(as(r, &y, 2, 2, o, 2), SD_RES_SUCCESS);
	tr_end(&y);
	assert_int_equal(r->nr_sessions, 1); /* once */
	rig_kill(r, 0);
	rig_view(r);
	/* somebody else makes node 3 the owner */
	assert_int_equal(rq_read(r, 3, SD_DATA_OID(vid, 0), 0, got, 4096), SD_RES_SUCCESS);
	assert_ptr_equal(owner_of(r, vid), &r->n[3]);
	rig_apply(&r->n[1]); /* it wakes up, and sends X to the new owner */
	assert_int_equal(tr_wait(r, &x), NOTHING);
	tr_end(&x);
	assert_int_equal(rq_read(r, 3, o, 0, got, 4096), SD_RES_SUCCESS);
	assert_true(all(got, 4096, 2));
	/* the client itself goes on; an older session does not */
	assert_int_equal(as(r, &y, 2, 2, o, 3), SD_RES_SUCCESS);
	tr_end(&y);
	assert_int_equal(as(r, &y, 1, 1, o, 4), NOTHING);
	tr_end(&y);
	rig_free(r);
}

/* X was let in by this owner before it lost the VDI, and is on its way to the next owner, who dies;
 * the client has gone on there.  This node owns the VDI again: X is of an older session now. */
void session_owner_again(void **state)
{
	uint32_t vid;
	struct rig *r = start(3, 3, &vid);
	uint64_t o = SD_DATA_OID(vid, 0);
	struct tr x = {0}, y = {0};

	assert_int_equal(rq(r, 0, CREATE, o, 0, pat(0), 4096, 0), SD_RES_SUCCESS);
	x.g.client = (struct gw_client){.client_id = 7, .session = 1, .conn_id = 1};
	r->blocked[0][1] = r->blocked[0][2] = true;
	tr_start(r, &x, 0, WRITE, o, 0, pat(1), 4096, 0);
	rig_sleep(r, 10 * MS);
	struct vdi *v = rig_vdi(r, vid);
	v->owner = r->n[2].sh.self.inc;
	v->gen = ++r->gen;
	gateway_vdi_changed(&r->n[0].sh, v);
	rig_sleep(r, 10 * MS); /* it is forwarded */
	assert_int_equal(rq_read(r, 2, o, 0, got, 4096), SD_RES_SUCCESS);
	assert_ptr_equal(owner_of(r, vid), &r->n[2]);
	assert_int_equal(as(r, &y, 2, 1, o, 2), SD_RES_SUCCESS);
	tr_end(&y);
	assert_false(x.done);
	rig_kill(r, 2);
	rig_view(r);
	r->blocked[0][2] = false;
	rig_unblock(r, 0, 1);
	assert_int_equal(tr_wait(r, &x), NOTHING);
	tr_end(&x);
	assert_ptr_equal(owner_of(r, vid), &r->n[0]);
	assert_int_equal(rq_read(r, 0, o, 0, got, 4096), SD_RES_SUCCESS);
	assert_true(all(got, 4096, 2));
	rig_free(r);
}

/* Many requests after a reconnect: one command; commands that fail are sent again; a client that
 * has reconnected once more is not waited for. */
void session_said_once(void **state)
{
	uint32_t vid;
	struct rig *r = start_objects(&vid);
	uint64_t o = SD_DATA_OID(vid, 0);
	struct tr t[6] = {0}, u = {0};

	r->n[1].do_fails = 3;
	for (int i = 0; i < 6; i++) {
		t[i].g.client = (struct gw_client){.client_id = 7, .session = 2, .conn_id = 2};
		tr_start(r, &t[i], 1, WRITE, o, 4096 * i, pat(i + 1), 4096, 0);
	}
	for (int i = 0; i < 6; i++) {
		assert_int_equal(tr_wait(r, &t[i]), SD_RES_SUCCESS);
		tr_end(&t[i]);
	}
	assert_int_equal(r->nr_sessions, 1);
	r->n[1].do_fails = 1000;
	u.g.client = (struct gw_client){.client_id = 7, .session = 3, .conn_id = 3};
	tr_start(r, &u, 1, WRITE, o, 0, pat(9), 4096, 0);
	rig_sleep(r, 100 * MS);
	assert_int_equal(as(r, &t[0], 4, 2, o, 8), SD_RES_SUCCESS);
	tr_end(&t[0]);
	r->n[1].do_fails = 0;
	assert_int_equal(tr_wait(r, &u), NOTHING);
	tr_end(&u);
	assert_int_equal(rig_obj(r, 0, o)->data[0], 8);
	assert_int_equal(r->nr_sessions, 2);
	/* the first session of a client needs no word */
	assert_int_equal(as(r, &t[0], 1, 2, o, 8), NOTHING);
	tr_end(&t[0]);
	t[0].g.client = (struct gw_client){.client_id = 8, .session = 1, .conn_id = 9};
	tr_start(r, &t[0], 2, WRITE, o, 0, pat(5), 512, 0);
	assert_int_equal(tr_wait(r, &t[0]), SD_RES_SUCCESS);
	tr_end(&t[0]);
	assert_int_equal(r->nr_sessions, 2);
	rig_free(r);
}

/* ---- cached generations ---- */

void cached(void **state)
{
	uint32_t vid;
	struct rig *r = start_objects(&vid);
	uint64_t o = SD_DATA_OID(vid, 0);
	struct tr t[4] = {0};

	assert_int_equal(rq(r, 0, WRITE, o, 0, pat(1), 4096, 0), SD_RES_SUCCESS);
	assert_int_equal(r->nr_cached, 0);
	r->n[0].do_fails = 2; /* for want of memory: again */
	for (int i = 0; i < 4; i++)
		tr_start(r, &t[i], 0, WRITE, o, 4096 * i, pat(2 + i), 4096, CACHE);
	rig_sleep(r, 10 * MS);
	assert_false(rig_vdi(r, vid)->cached || t[0].done || t[3].done);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(tr_wait(r, &t[i]), SD_RES_SUCCESS);
		tr_end(&t[i]);
	}
	assert_true(rig_vdi(r, vid)->cached);
	assert_int_equal(r->nr_cached, 1); /* once in a generation */
	assert_int_equal(rq(r, 0, WRITE, o, 0, pat(1), 4096, CACHE), SD_RES_SUCCESS);
	assert_int_equal(r->nr_cached, 1);
	/* the next owner finds the mark, and need not make it */
	rig_kill(r, 0);
	rig_view(r);
	assert_int_equal(rq(r, 1, WRITE, o, 0, pat(1), 4096, CACHE), SD_RES_SUCCESS);
	assert_int_equal(r->nr_cached, 1);
	rig_vdi(r, vid)->clean = true; /* the sweep is through */
	gateway_vdi_changed(&r->n[1].sh, rig_vdi(r, vid));
	use(r, vid, 4, 2000); /* released clean: no mark */
	assert_ptr_equal(owner_of(r, vid), &r->n[2]);
	assert_int_equal(r->nr_cached, 2);
	/* deleted while it is said */
	assert_int_equal(rq_create(r, 1, "b", 64ull << 20, &vid), SD_RES_SUCCESS);
	o = SD_DATA_OID(vid, 0);
	assert_int_equal(rq(r, 1, CREATE, o, 0, pat(1), 4096, 0), SD_RES_SUCCESS);
	r->n[1].do_fails = 5;
	tr_start(r, &t[0], 1, WRITE, o, 0, pat(2), 4096, CACHE);
	rig_sleep(r, 50 * MS);
	assert_int_equal(rq_delete(r, 2, "b"), SD_RES_SUCCESS);
	assert_int_equal(tr_wait(r, &t[0]), SD_RES_NO_OBJ);
	tr_end(&t[0]);
	assert_false(rig_vdi(r, vid)->cached);
	rig_free(r);
}

/* Commands that fail for want of memory (or of the bus, for a moment) are sent again; nothing spins
 * meanwhile. */
void commands_fail(void **state)
{
	uint32_t vid;
	struct rig *r = start_objects(&vid);
	uint64_t size = 128ull << 20;
	struct tr t = {0};

	r->n[0].do_fails = 5; /* a header */
	tr_start(r, &t, 0, WRITE, SD_INODE_OID(vid), offsetof(struct sd_inode_header, vdi_size),
		 &size, 8, 0);
	rig_sleep(r, 50 * MS);
	assert_false(t.done);
	assert_int_equal(tr_wait(r, &t), SD_RES_SUCCESS);
	tr_end(&t);
	assert_int_equal(rig_vdi(r, vid)->size, size);
	rig_vdi(r, vid)->cache_lost = true; /* a flush that must say so, once */
	r->n[0].do_fails = 5;
	tr_start(r, &t, 0, FLUSH, SD_INODE_OID(vid), 0, NULL, 0, 0);
	rig_sleep(r, 50 * MS);
	assert_false(t.done);
	assert_int_equal(tr_wait(r, &t), SD_RES_EIO);
	tr_end(&t);
	assert_int_equal(rq(r, 0, FLUSH, SD_INODE_OID(vid), 0, NULL, 0, 0), SD_RES_SUCCESS);
	rig_kill(r, 0);
	rig_view(r);
	r->n[1].do_fails = 5; /* a claim */
	tr_start(r, &t, 1, READ, SD_DATA_OID(vid, 0), 0, NULL, 512, 0);
	rig_sleep(r, 50 * MS);
	assert_false(t.done);
	assert_int_equal(tr_wait(r, &t), SD_RES_SUCCESS);
	tr_end(&t);
	r->n[2].do_fails = 5; /* the table */
	tr_start(r, &t, 2, READ, SD_INODE_OID(vid), 0, NULL, 512, 0);
	rig_sleep(r, 50 * MS);
	assert_false(t.done);
	assert_int_equal(tr_wait(r, &t), SD_RES_SUCCESS);
	tr_end(&t);
	rig_free(r);
}

/* ---- a block that is bad everywhere ---- */

static void rot(struct rig *r, uint64_t o, unsigned nodes)
{
	for (int n = 0; n < 3; n++)
		r->n[n].rotten = nodes >> n & 1 ? o + 1 : 0;
}

/* A write that covers it in part is an error, as of a disk; those behind it are done all the same,
 * under versions of their own; a whole block heals it.  While one replica is good nobody is told.
 */
void bad_blocks(void **state)
{
	uint32_t vid;
	struct rig *r = start_objects(&vid);
	uint64_t o = SD_DATA_OID(vid, 0);
	struct tr t = {0}, u = {0}, w = {0};

	rot(r, o, 7);
	assert_int_equal(rq(r, 0, WRITE, o, 100, pat(1), 10, 0), SD_RES_EIO);
	assert_int_equal(rq(r, 1, WRITE, o, 100, pat(1), 10, CACHE), SD_RES_EIO); /* forwarded */
	assert_int_equal(rq(r, 0, WRITE, o, 8192, pat(2), 4096, 0), SD_RES_SUCCESS);
	rig_compare(r);
	/* In the middle of others: node 2 is slow, so all of them are in flight.  Who waits behind
	 * a write that was refused hears so (replica.c: room_fail). */
	r->blocked[0][2] = true;
	for (int n = 0; n < 3; n++)
		r->n[n].impatient = true;
	tr_start(r, &t, 0, WRITE, o, 12288, pat(3), 4096, 0);
	tr_start(r, &u, 0, WRITE, o, 0, pat(4), 1000, 0);
	tr_start(r, &w, 0, WRITE, o, 16384, pat(5), 4096, 0);
	rig_sleep(r, 100 * MS);
	assert_false(t.done || u.done || w.done);
	uint64_t seq = rig_obj(r, 0, o)->ver.seq;
	rig_unblock(r, 0, 2);
	assert_int_equal(tr_wait(r, &t), SD_RES_SUCCESS);
	assert_int_equal(tr_wait(r, &u), SD_RES_EIO);
	assert_int_equal(tr_wait(r, &w), SD_RES_SUCCESS);
	assert_true(rig_obj(r, 0, o)->ver.seq > seq + 2); /* not the one that it was sent with */
	assert_int_equal(rig_obj(r, 2, o)->data[0], 0);
	assert_int_equal(rig_obj(r, 2, o)->data[16384], 5);
	rig_compare(r);
	tr_end(&t);
	tr_end(&u);
	tr_end(&w);
	/* one is good: it is repaired from there in time */
	rot(r, o, 6);
	tr_start(r, &t, 0, WRITE, o, 0, pat(6), 1000, 0);
	rig_sleep(r, 500 * MS);
	assert_false(t.done);
	assert_int_equal(rig_obj(r, 0, o)->data[0], 6);
	rot(r, o, 0);
	assert_int_equal(tr_wait(r, &t), SD_RES_SUCCESS);
	tr_end(&t);
	rig_compare(r);
	/* all say so, but in an epoch that is over */
	rot(r, o, 7);
	r->blocked[0][1] = r->blocked[0][2] = true;
	tr_start(r, &t, 0, WRITE, o, 0, pat(7), 1000, 0);
	rig_sleep(r, 100 * MS);
	rot(r, o, 0);
	rig_view(r);
	rig_unblock(r, 0, 1);
	rig_unblock(r, 0, 2);
	assert_int_equal(tr_wait(r, &t), SD_RES_SUCCESS);
	tr_end(&t);
	rot(r, o, 7);
	assert_int_equal(rq(r, 0, WRITE, o, 0, pat(8), 4096, 0), SD_RES_SUCCESS);
	assert_int_equal(rq(r, 0, WRITE, o, 100, pat(9), 10, 0), SD_RES_SUCCESS);
	assert_int_equal(rq_read(r, 0, o, 0, got, 4096), SD_RES_SUCCESS);
	assert_true(all(got, 100, 8) && all(got + 100, 10, 9));
	rig_compare(r);
	rig_free(r);
}
