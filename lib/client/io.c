/* io.c - reads, writes, flushes, discards: operations, their parts, the index.
 *
 * An operation is cut into parts, each within one object.  What a part does is decided by its index
 * entry when it starts:
 *
 *   read    0: zeros, no request.  v: READ of (v, i).
 *   write   own: WRITE.  0: CREATE, then the entry.  v: CREATE as a copy of (v, i), then the entry.
 *   zero    0: nothing.  Else as a write.
 *   drop    0: nothing.  Else the entry is set to 0; the cluster removes the object.
 *
 * Entries that neighbours change in one turn are written by one request.  A result that says that
 * our index is not true any more (READONLY, NO_OBJ) has the volume loaded anew, and the part starts
 * again.
 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/util.h"
#include "lib/client/client.h"

#define of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

enum op_kind { OP_READ, OP_WRITE, OP_ZERO, OP_DISCARD, OP_FLUSH };
enum part_state { PART_NEW, PART_WAITING, PART_HELD, PART_SENT, PART_DIRTY, PART_BATCH };

struct op;
struct batch;

struct part {
	struct rq rq;
	struct cds_list_head node;    /* PART_WAITING, _HELD, _DIRTY, _BATCH */
	struct cds_list_head op_node; /* op->parts */
	struct op *op;
	struct seg data;
	uint32_t idx, off, len;
	uint32_t vid, entry; /* when it was sent */
	enum part_state state;
	struct batch *batch; /* PART_BATCH */
	bool drop;	     /* of OP_ZERO and OP_DISCARD */
	bool owner;	     /* the object is busy with this part */
	bool used;	     /* op->first */
	uint8_t reloads;
};

struct op {
	struct cds_list_head node; /* finished, idle */
	struct job job;
	struct sd_vdi *v;
	enum op_kind kind;
	sd_done_fn done;
	void *arg;
	int err;
	struct cds_list_head parts;
	unsigned active;
	bool issuing;
	uint64_t next, end; /* bytes of the volume not yet in a part */
	struct seg rest;    /* their memory */
	uint64_t mark;	    /* OP_FLUSH: v->writes when it started */
	struct iovec iov[INLINE_IOV], *big;
	struct part first;
};

/* One index write: entries first..first+n-1 become value[]. */
struct batch {
	struct rq rq;
	struct cds_list_head node, parts;
	struct sd_vdi *v;
	uint32_t vid, first, n;
	struct iovec iov;
	uint32_t value[BATCH_ENTRIES];
};

static void part_start(struct part *p);
static void op_issue(struct op *op);

/* ---- the index ---- */

void io_set_entry(struct sd_vdi *v, uint32_t idx, uint32_t vid)
{
	v->nr_own -= v->index[idx] && v->index[idx] == v->vid;
	v->index[idx] = vid;
	v->nr_own += vid && vid == v->vid;
}

static bool is_busy(const struct sd_vdi *v, uint32_t idx)
{
	return v->busy[idx / 64] >> idx % 64 & 1;
}

static void set_busy(struct sd_vdi *v, uint32_t idx)
{
	assert(!is_busy(v, idx));
	v->busy[idx / 64] |= 1ull << idx % 64;
}

/* Let those that waited for the object look again, in their order. */
static void unbusy(struct sd_vdi *v, uint32_t idx)
{
	struct cds_list_head *bucket = &v->waiting[idx % WAIT_BUCKETS];
	struct part *p, *next;
	CDS_LIST_HEAD(ready);

	assert(is_busy(v, idx));
	v->busy[idx / 64] &= ~(1ull << idx % 64);
	cds_list_for_each_entry_safe (p, next, bucket, node) {
		if (p->idx != idx)
			continue;
		cds_list_del(&p->node);
		cds_list_add_tail(&p->node, &ready);
	}
	while (!cds_list_empty(&ready)) {
		p = cds_list_first_entry(&ready, struct part, node);
		cds_list_del(&p->node);
		p->state = PART_NEW;
		part_start(p);
	}
}

static void part_disown(struct part *p)
{
	if (!p->owner)
		return;
	p->owner = false;
	unbusy(p->op->v, p->idx);
}

/* ---- operations ---- */

static struct op *op_new(struct sd_vdi *v, enum op_kind kind, sd_done_fn done, void *arg)
{
	struct sd_cluster *c = v->c;
	struct op *op;

	if (c->nr_ops >= OPS_MAX)
		return NULL;
	if (c->nr_idle_ops) {
		op = cds_list_first_entry(&c->idle_ops, struct op, node);
		cds_list_del(&op->node);
		c->nr_idle_ops--;
	} else {
		op = malloc(sizeof(*op));
		if (!op)
			return NULL;
	}
	c->nr_ops++;
	v->nr_ops++;
	op->v = v;
	op->kind = kind;
	op->done = done;
	op->arg = arg;
	op->err = 0;
	op->active = 0;
	op->issuing = false;
	op->next = op->end = 0;
	op->rest = (struct seg){0};
	op->big = NULL;
	op->first.used = false;
	CDS_INIT_LIST_HEAD(&op->parts);
	return op;
}

void io_run_callback(struct sd_cluster *c, struct cds_list_head *node)
{
	struct op *op = of(node, struct op, node);
	sd_done_fn done = op->done;
	void *arg = op->arg;
	int err = op->err;

	c->nr_ops--;
	if (c->nr_idle_ops < CALLBACKS_IDLE_MAX) {
		cds_list_add(&op->node, &c->idle_ops);
		c->nr_idle_ops++;
	} else {
		free(op);
	}
	done(arg, err);
}

void io_pools_free(struct sd_cluster *c)
{
	while (!cds_list_empty(&c->idle_ops)) {
		struct op *op = cds_list_first_entry(&c->idle_ops, struct op, node);
		cds_list_del(&op->node);
		free(op);
	}
	assert(!c->nr_parts);
}

static void op_over(struct op *op)
{
	free(TAKE(op->big, NULL));
	op->v->nr_ops--;
	cluster_finished(op->v->c, &op->node);
}

/* After a part has ended, or none was needed. */
static void op_check(struct op *op)
{
	if (op->issuing)
		return;
	if (op->next < op->end)
		op_issue(op);
	else if (!op->active) {
		job_end(&op->job);
		op_over(op);
	}
}

/* ---- parts ---- */

static struct part *part_new(struct op *op)
{
	struct sd_cluster *c = op->v->c;
	struct part *p = &op->first;

	if (p->used) {
		if (op->active >= OP_PARTS || c->nr_parts >= PARTS_MAX)
			return NULL;
		p = malloc(sizeof(*p));
		if (!p)
			return NULL; /* the built-in one goes on */
		c->nr_parts++;
	}
	p->used = true;
	p->op = op;
	p->state = PART_NEW;
	p->owner = p->drop = false;
	p->reloads = 0;
	p->rq.place = RQ_IDLE;
	cds_list_add_tail(&p->op_node, &op->parts);
	op->active++;
	return p;
}

static void part_end(struct part *p, int err)
{
	struct op *op = p->op;

	part_disown(p);
	cds_list_del(&p->op_node);
	op->active--;
	if (err && !op->err) {
		op->err = err;
		op->next = op->end; /* no more of it */
	}
	if (p == &op->first) {
		p->used = false;
	} else {
		op->v->c->nr_parts--;
		free(p);
	}
	op_check(op);
}

/* Our picture of the volume was wrong, or still is: look, then start again. */
static void part_again(struct part *p, uint32_t result)
{
	struct sd_vdi *v = p->op->v;

	if (p->reloads++ >= RELOADS) {
		part_end(p, result_err(result));
		return;
	}
	p->state = PART_NEW;
	if (p->vid == v->vid && (p->owner || (!is_busy(v, p->idx) && v->index[p->idx] == p->entry)))
		vdi_load(v); /* part_start() holds it until then */
	part_disown(p);
	part_start(p);
}

static bool result_is_stale(uint32_t result)
{
	return result == SD_RES_READONLY || result == SD_RES_NO_OBJ;
}

static void on_part(struct rq *rq, int err)
{
	struct part *p = of(rq, struct part, rq);
	struct sd_vdi *v = p->op->v;
	uint32_t result = rq->rsp.result;

	if (!err && !result) {
		if (!p->owner) {
			part_end(p, 0);
			return;
		}
		p->state = PART_DIRTY; /* created: now the entry */
		cds_list_add_tail(&p->node, &v->dirty);
		env_defer(v->c->env, &v->index_defer);
		return;
	}
	if (!err && cluster_retry_io(v->c, rq))
		return;
	if (!err && result_is_stale(result))
		part_again(p, result);
	else
		part_end(p, err ? err : result_err(result));
}

static void part_send(struct part *p, uint8_t opcode, uint16_t flags, uint64_t oid)
{
	struct rq *rq = &p->rq;

	p->state = PART_SENT;
	p->entry = p->op->v->index[p->idx];
	p->vid = p->op->v->vid;
	*rq = (struct rq){
		.req = {.opcode = opcode, .flags = flags, .data_length = p->len},
		.exact = true,
		.done = on_part,
	};
	rq->req.obj.oid = oid;
	rq->req.obj.offset = p->off;
	rq->req.obj.copies = p->op->v->h.nr_copies;
	if (flags & SD_FLAG_WRITE)
		rq->out = p->data;
	else
		rq->in = p->data;
	if (flags & SD_FLAG_COW)
		rq->req.obj.cow_oid = SD_DATA_OID(p->entry, p->idx);
	cluster_submit(p->op->v->c, rq);
}

static uint16_t write_flags(struct sd_vdi *v)
{
	if (!v->cache)
		return SD_FLAG_WRITE | SD_FLAG_DIRECT;
	v->writes++;
	return SD_FLAG_WRITE | SD_FLAG_CACHE;
}

static void part_write(struct part *p)
{
	struct sd_vdi *v = p->op->v;
	uint32_t entry = v->index[p->idx];
	uint64_t oid = SD_DATA_OID(v->vid, p->idx);
	uint16_t flags = write_flags(v);

	if (entry == v->vid) {
		part_send(p, SD_OP_WRITE_OBJ, flags, oid);
		return;
	}
	set_busy(v, p->idx);
	p->owner = true;
	part_send(p, SD_OP_CREATE_AND_WRITE_OBJ, (uint16_t)(flags | (entry ? SD_FLAG_COW : 0)),
		  oid);
}

static void part_drop(struct part *p)
{
	struct sd_vdi *v = p->op->v;

	set_busy(v, p->idx);
	p->owner = true;
	p->vid = v->vid;
	p->entry = v->index[p->idx];
	p->state = PART_DIRTY;
	cds_list_add_tail(&p->node, &v->dirty);
	env_defer(v->c->env, &v->index_defer);
}

static void part_start(struct part *p)
{
	struct sd_vdi *v = p->op->v;
	uint32_t entry = v->index[p->idx];

	if (v->load != LOAD_NO) {
		p->state = PART_HELD;
		cds_list_add_tail(&p->node, &v->held);
		return;
	}
	if (is_busy(v, p->idx)) {
		p->state = PART_WAITING;
		cds_list_add_tail(&p->node, &v->waiting[p->idx % WAIT_BUCKETS]);
		return;
	}
	switch (p->op->kind) {
	case OP_READ:
		if (entry) {
			part_send(p, SD_OP_READ_OBJ, 0, SD_DATA_OID(entry, p->idx));
			return;
		}
		seg_zero(&p->data);
		break;
	case OP_WRITE: part_write(p); return;
	default:
		if (!entry)
			break;
		if (p->drop)
			part_drop(p);
		else
			part_write(p);
		return;
	}
	part_end(p, 0);
}

/* The next bytes of @op that belong together: within an object, PART_BYTES at most, or a whole
 * object to be dropped.  False: they need no part. */
static bool op_cut(struct op *op, uint32_t *idx, uint32_t *off, uint32_t *len, bool *drop)
{
	struct sd_vdi *v = op->v;
	unsigned shift = v->h.block_size_shift;
	uint64_t size = 1ull << shift, left = op->end - op->next;

	*idx = (uint32_t)(op->next >> shift);
	*off = (uint32_t)(op->next & (size - 1));
	uint64_t n = size - *off;
	bool whole = !*off && (left >= size || op->end == v->h.vdi_size);
	if (n > left)
		n = left;
	*drop = whole && (op->kind == OP_ZERO || op->kind == OP_DISCARD);
	if (op->kind == OP_DISCARD && !*drop) {
		*len = (uint32_t)n;
		return false;
	}
	if (!*drop && n > PART_BYTES)
		n = PART_BYTES;
	*len = (uint32_t)n;
	if (v->load != LOAD_NO || v->index[*idx] || is_busy(v, *idx))
		return true;
	return op->kind == OP_WRITE; /* a hole */
}

/* Make parts as long as there is room for them. */
static void op_issue(struct op *op)
{
	struct part *p = NULL;
	uint32_t idx, off, len;
	bool drop;

	op->issuing = true;
	while (op->next < op->end) {
		bool needed = op_cut(op, &idx, &off, &len, &drop);
		if (needed) {
			p = part_new(op);
			if (!p)
				break;
		}
		struct seg data = op->rest;
		data.len = len;
		op->next += len;
		if (op->kind == OP_READ || op->kind == OP_WRITE)
			seg_advance(&op->rest, len);
		if (!needed) {
			if (op->kind == OP_READ)
				seg_zero(&data);
			continue;
		}
		p->data = data;
		p->idx = idx;
		p->off = off;
		p->len = len;
		p->drop = drop;
		part_start(p);
	}
	op->issuing = false;
	if (op->next == op->end && !op->active)
		op_check(op);
}

/* ---- flush ---- */

static void on_flush(struct rq *rq, int err)
{
	struct part *p = of(rq, struct part, rq);
	struct op *op = p->op;
	struct sd_vdi *v = op->v;

	if (!err && cluster_retry_io(v->c, rq))
		return;
	if (!err)
		err = result_err(rq->rsp.result);
	if (SD_ERR_RESULT(err) == SD_RES_INVALID_PARMS) {
		err = 0; /* "no write-back here": everything answered is durable (T12) */
		v->no_flush = true;
		v->cache = false;
	}
	if (!err && v->flushed < op->mark)
		v->flushed = op->mark;
	part_end(p, err);
}

/* Is there nothing to flush?  What we wrote is all only if nobody else writes, and that LOCK_VDI
 * succeeded does not say so (a cluster without locks). */
static bool flush_idle(const struct op *op)
{
	const struct sd_vdi *v = op->v;

	return v->no_flush || (v->flushed >= op->mark && (!v->cache || v->rdonly));
}

static void flush_send(struct op *op)
{
	struct sd_vdi *v = op->v;
	struct part *p;

	op->mark = v->writes;
	if (flush_idle(op)) {
		op_check(op);
		return;
	}
	p = part_new(op);
	p->state = PART_SENT;
	p->rq = (struct rq){.req = {.opcode = SD_OP_FLUSH_VDI}, .exact = true, .done = on_flush};
	p->rq.req.obj.oid = SD_INODE_OID(v->vid);
	cluster_submit(v->c, &p->rq);
}

/* ---- index writes ---- */

/* The batch is over; its objects are free again and its parts go on. */
static void batch_end(struct batch *b, int err, uint32_t result)
{
	struct sd_vdi *v = b->v;
	bool stale = !err && result_is_stale(result);

	cds_list_del(&b->node);
	if (!err && !result && b->vid == v->vid)
		for (uint32_t i = 0; i < b->n; i++)
			io_set_entry(v, b->first + i, b->value[i]);
	if (stale)
		vdi_load(v); /* before the parts look again */
	for (uint32_t i = 0; i < b->n; i++)
		unbusy(v, b->first + i);
	while (!cds_list_empty(&b->parts)) {
		struct part *p = cds_list_first_entry(&b->parts, struct part, node);
		cds_list_del(&p->node);
		p->owner = false;
		p->state = PART_NEW;
		if (stale)
			part_again(p, result);
		else
			part_end(p, err ? err : result_err(result));
	}
	free(b);
	vdi_load_next(v);
}

static void on_batch(struct rq *rq, int err)
{
	struct batch *b = of(rq, struct batch, rq);

	if (!err && cluster_retry_io(b->v->c, rq))
		return;
	batch_end(b, err, err ? 0 : rq->rsp.result);
}

static void batch_send(struct batch *b)
{
	struct sd_vdi *v = b->v;
	size_t len = b->n * sizeof(uint32_t);

	b->iov = (struct iovec){b->value, len};
	b->rq = (struct rq){
		.req = {.opcode = SD_OP_WRITE_OBJ,
			.flags = write_flags(v),
			.data_length = (uint32_t)len},
		.out = {&b->iov, 0, len},
		.exact = true,
		.done = on_batch,
	};
	b->rq.req.obj.oid = SD_INODE_OID(b->vid);
	b->rq.req.obj.offset = SD_INODE_HEADER_SIZE + b->first * (uint32_t)sizeof(uint32_t);
	b->rq.req.obj.copies = v->h.nr_copies;
	cluster_submit(v->c, &b->rq);
}

static int by_idx(const void *a, const void *b)
{
	uint32_t x = (*(struct part *const *)a)->idx, y = (*(struct part *const *)b)->idx;

	return x < y ? -1 : x > y;
}

/* The parts of one batch, @n neighbours. */
static void batch_make(struct sd_vdi *v, struct part **p, uint32_t n)
{
	struct batch *b = malloc(sizeof(*b));

	if (!b) {
		for (uint32_t i = 0; i < n; i++)
			part_end(p[i], -ENOMEM);
		return;
	}
	b->v = v;
	b->vid = v->vid;
	b->first = p[0]->idx;
	b->n = n;
	CDS_INIT_LIST_HEAD(&b->parts);
	cds_list_add_tail(&b->node, &v->batches);
	for (uint32_t i = 0; i < n; i++) {
		b->value[i] = p[i]->drop ? 0 : v->vid;
		p[i]->state = PART_BATCH;
		p[i]->batch = b;
		cds_list_add_tail(&p[i]->node, &b->parts);
	}
	batch_send(b);
}

static void on_index(struct env_defer *d)
{
	struct sd_vdi *v = of(d, struct sd_vdi, index_defer);
	struct part *p[BATCH_ENTRIES];
	uint32_t n, from, to;

	while (v->load == LOAD_NO && !cds_list_empty(&v->dirty)) {
		for (n = 0; n < BATCH_ENTRIES && !cds_list_empty(&v->dirty); n++) {
			p[n] = cds_list_first_entry(&v->dirty, struct part, node);
			cds_list_del(&p[n]->node);
		}
		qsort(p, n, sizeof(p[0]), by_idx);
		for (from = 0; from < n; from = to) {
			to = from + 1;
			while (to < n && p[to]->idx == p[to - 1]->idx + 1)
				to++;
			batch_make(v, p + from, to - from);
		}
	}
}

/* ---- reload ---- */

void io_loaded(struct sd_vdi *v, int err)
{
	struct part *p, *next;
	CDS_LIST_HEAD(held);

	/* what was created for another vid, or is to be dropped from it, starts anew */
	cds_list_for_each_entry_safe (p, next, &v->dirty, node) {
		if (!err && p->vid == v->vid)
			continue;
		cds_list_del(&p->node);
		cds_list_add_tail(&p->node, &held);
	}
	cds_list_splice(&v->held, held.prev);
	CDS_INIT_LIST_HEAD(&v->held);
	cds_list_for_each_entry (p, &held, node)
		p->state = PART_HELD;
	while (!cds_list_empty(&held)) {
		p = cds_list_first_entry(&held, struct part, node);
		cds_list_del(&p->node);
		p->state = PART_NEW;
		if (err) {
			part_end(p, err);
			continue;
		}
		part_disown(p);
		part_start(p);
	}
	if (!cds_list_empty(&v->dirty))
		env_defer(v->c->env, &v->index_defer);
}

/* ---- stop ---- */

/* Nobody wants this index write any more.  What the cluster has made of it must be seen anew. */
static void batch_cancel(struct batch *b)
{
	struct sd_vdi *v = b->v;

	cluster_cancel(v->c, &b->rq);
	cds_list_del(&b->node);
	vdi_load(v);
	for (uint32_t i = 0; i < b->n; i++)
		unbusy(v, b->first + i);
	free(b);
}

static void part_stop(struct part *p, int err)
{
	struct batch *b = p->batch;

	if (p->state == PART_SENT)
		cluster_cancel(p->op->v->c, &p->rq);
	else if (p->state != PART_NEW)
		cds_list_del(&p->node);
	if (p->state == PART_BATCH) {
		p->owner = false; /* the objects are the batch's, which goes on for others */
		if (cds_list_empty(&b->parts))
			batch_cancel(b);
	}
	p->state = PART_NEW;
	part_end(p, err);
}

static void op_stop(struct job *j, int err)
{
	struct op *op = of(j, struct op, job);

	op->issuing = true; /* ends here, not with its last part */
	op->next = op->end;
	op->err = err;
	while (!cds_list_empty(&op->parts))
		part_stop(cds_list_first_entry(&op->parts, struct part, op_node), err);
	op_over(op);
}

void io_vdi_init(struct sd_vdi *v)
{
	for (unsigned i = 0; i < WAIT_BUCKETS; i++)
		CDS_INIT_LIST_HEAD(&v->waiting[i]);
	CDS_INIT_LIST_HEAD(&v->dirty);
	CDS_INIT_LIST_HEAD(&v->batches);
	CDS_INIT_LIST_HEAD(&v->held);
	v->index_defer.fn = on_index;
}

/* ---- the API ---- */

static int op_begin(struct op *op)
{
	struct sd_vdi *v = op->v;
	bool was = cluster_cork(v->c);

	op->job.stop = op_stop;
	op->job.direct = false;
	job_start(v->c, &op->job);
	if (op->kind == OP_FLUSH)
		flush_send(op);
	else
		op_issue(op);
	v->c->corked = was;
	if (was)
		return 0;
	/* outside of a dispatch: many calls, one send, from the env */
	if (!cds_list_empty(&v->c->conn.queue))
		conn_kick(&v->c->conn);
	if (!cds_list_empty(&v->c->finished))
		env_defer(v->c->env, &v->c->finished_defer);
	return 0;
}

static int range_check(const struct sd_vdi *v, uint64_t len, uint64_t off, bool write)
{
	if (v->c->closing)
		return -ECANCELED;
	if (write && v->rdonly)
		return -EROFS;
	if (off > v->h.vdi_size || len > v->h.vdi_size - off)
		return -EINVAL;
	return 0;
}

static int iov_length(const struct iovec *iov, int cnt, uint64_t *ret)
{
	uint64_t len = 0;

	if (cnt < 0 || cnt > IOV_CNT_MAX)
		return -EINVAL;
	for (int i = 0; i < cnt; i++) {
		if (iov[i].iov_len > INT64_MAX - len)
			return -EINVAL;
		len += iov[i].iov_len;
	}
	*ret = len;
	return 0;
}

static int rw_async(struct sd_vdi *v, enum op_kind kind, const struct iovec *iov, int cnt,
		    uint64_t off, sd_done_fn done, void *arg)
{
	uint64_t len = 0;
	int r = iov_length(iov, cnt, &len);

	if (!r)
		r = range_check(v, len, off, kind == OP_WRITE);
	if (r)
		return r;
	struct op *op = op_new(v, kind, done, arg);
	if (!op)
		return -ENOMEM;
	struct iovec *copy = op->iov;
	if (cnt > INLINE_IOV) {
		copy = op->big = malloc((size_t)cnt * sizeof(*iov));
		if (!copy) {
			v->nr_ops--;
			v->c->nr_ops--;
			free(op);
			return -ENOMEM;
		}
	}
	if (cnt)
		memcpy(copy, iov, (size_t)cnt * sizeof(*iov));
	op->rest = (struct seg){copy, 0, len};
	op->next = off;
	op->end = off + len;
	return op_begin(op);
}

int sd_readv_async(struct sd_vdi *v, const struct iovec *iov, int iovcnt, uint64_t off,
		   sd_done_fn done, void *arg)
{
	return rw_async(v, OP_READ, iov, iovcnt, off, done, arg);
}

int sd_writev_async(struct sd_vdi *v, const struct iovec *iov, int iovcnt, uint64_t off,
		    sd_done_fn done, void *arg)
{
	return rw_async(v, OP_WRITE, iov, iovcnt, off, done, arg);
}

static int range_async(struct sd_vdi *v, enum op_kind kind, uint64_t len, uint64_t off,
		       sd_done_fn done, void *arg)
{
	int r = range_check(v, len, off, kind != OP_FLUSH);

	if (r)
		return r;
	struct op *op = op_new(v, kind, done, arg);
	if (!op)
		return -ENOMEM;
	op->next = off;
	op->end = off + len;
	return op_begin(op);
}

int sd_flush_async(struct sd_vdi *v, sd_done_fn done, void *arg)
{
	return range_async(v, OP_FLUSH, 0, 0, done, arg);
}

int sd_discard_async(struct sd_vdi *v, uint64_t len, uint64_t off, sd_done_fn done, void *arg)
{
	return range_async(v, OP_DISCARD, len, off, done, arg);
}

int sd_write_zeroes_async(struct sd_vdi *v, uint64_t len, uint64_t off, sd_done_fn done, void *arg)
{
	return range_async(v, OP_ZERO, len, off, done, arg);
}

/* ---- blocking ---- */

struct block {
	bool over;
	int err;
};

static void on_block(void *arg, int err)
{
	struct block *b = arg;

	b->over = true;
	b->err = err;
}

static int block_wait(struct sd_vdi *v, struct block *b, int r, bool was)
{
	while (!r && !b->over)
		cluster_pump(v->c);
	cluster_uncork(v->c, was);
	return r ? r : b->err;
}

int sd_read(struct sd_vdi *v, void *buf, size_t len, uint64_t off)
{
	struct iovec iov = {buf, len};
	struct block b = {0};
	bool was = cluster_cork(v->c);

	return block_wait(v, &b, sd_readv_async(v, &iov, 1, off, on_block, &b), was);
}

int sd_write(struct sd_vdi *v, const void *buf, size_t len, uint64_t off)
{
	struct iovec iov = {(void *)(uintptr_t)buf, len};
	struct block b = {0};
	bool was = cluster_cork(v->c);

	return block_wait(v, &b, sd_writev_async(v, &iov, 1, off, on_block, &b), was);
}

int sd_flush(struct sd_vdi *v)
{
	struct block b = {0};
	bool was = cluster_cork(v->c);

	return block_wait(v, &b, sd_flush_async(v, on_block, &b), was);
}

int sd_discard(struct sd_vdi *v, uint64_t len, uint64_t off)
{
	struct block b = {0};
	bool was = cluster_cork(v->c);

	return block_wait(v, &b, sd_discard_async(v, len, off, on_block, &b), was);
}

int sd_write_zeroes(struct sd_vdi *v, uint64_t len, uint64_t off)
{
	struct block b = {0};
	bool was = cluster_cork(v->c);

	return block_wait(v, &b, sd_write_zeroes_async(v, len, off, on_block, &b), was);
}
