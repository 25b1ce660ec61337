/* vdi.c - volumes: open, load and reload, close, create, delete, resize, what is allocated.
 *
 * Loading is a chain of three requests (name to vid, header, index), used to open a volume and to
 * look at it anew when the cluster says that what we know is not so: READONLY after a snapshot
 * (protocol.md 3.1), NO_OBJ after somebody else's discard.  No index write is in flight meanwhile,
 * so the index that is read is newer than all of ours.
 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/util.h"
#include "lib/client/client.h"

#define RELEASE_MS 5000u /* closing does not hang on a lock that nobody can take back */

#define of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

static void on_load(struct rq *rq, int err);

static bool name_ok(const char *name)
{
	return name && *name && strnlen(name, SD_NAME_LEN) < SD_NAME_LEN;
}

static uint32_t nr_entries(uint64_t size, unsigned shift)
{
	return (uint32_t)DIV_ROUND_UP(size, 1ull << shift);
}

/* ---- load ---- */

static void load_end(struct sd_vdi *v, int err)
{
	free(TAKE(v->load_index, NULL));
	v->load = LOAD_NO;
	v->load_done(v, err);
}

static void load_read(struct sd_vdi *v, void *buf, size_t len, uint32_t off)
{
	v->load_iov = (struct iovec){buf, len};
	v->load_rq = (struct rq){
		.req = {.opcode = SD_OP_READ_OBJ,
			.proto_ver = SD_PROTO_VER,
			.data_length = (uint32_t)len},
		.in = {&v->load_iov, 0, len},
		.exact = true,
		.done = on_load,
	};
	v->load_rq.req.obj.oid = SD_INODE_OID(v->load_vid);
	v->load_rq.req.obj.offset = off;
	cluster_submit(v->c, &v->load_rq);
}

static void load_start(struct sd_vdi *v)
{
	v->load = LOAD_LOOKUP;
	memset(v->load_name, 0, sizeof(v->load_name));
	memcpy(v->load_name, v->name, sizeof(v->name));
	v->load_iov = (struct iovec){v->load_name, sizeof(v->load_name)};
	v->load_rq = (struct rq){
		.req = {.opcode = v->load_lock ? SD_OP_LOCK_VDI : SD_OP_GET_VDI_INFO,
			.proto_ver = SD_PROTO_VER,
			.flags = SD_FLAG_WRITE,
			.data_length = sizeof(v->load_name)},
		.out = {&v->load_iov, 0, sizeof(v->load_name)},
		.exact = true,
		.done = on_load,
	};
	cluster_submit(v->c, &v->load_rq);
}

void vdi_load_next(struct sd_vdi *v)
{
	if (v->load == LOAD_WANTED && cds_list_empty(&v->batches))
		load_start(v);
}

void vdi_load(struct sd_vdi *v)
{
	if (v->load != LOAD_NO || v->c->closing)
		return;
	v->load = LOAD_WANTED;
	vdi_load_next(v);
}

/* The header is from the cluster: nothing in it is believed without a look. */
static int header_check(const struct sd_vdi *v)
{
	const struct sd_inode_header *h = &v->load_h;

	if (!h->name[0])
		return result_err(SD_RES_NO_VDI); /* deleted meanwhile */
	if (h->store_policy)
		return -ENOTSUP; /* hypervolume */
	if (h->vdi_id != v->load_vid || !h->vdi_id || h->vdi_id >= SD_NR_VDIS ||
	    h->block_size_shift < SD_OBJ_SHIFT_MIN || h->block_size_shift > SD_OBJ_SHIFT_MAX ||
	    h->vdi_size > (uint64_t)SD_NR_OBJS_MAX << h->block_size_shift)
		return -EPROTO;
	return v->index && h->block_size_shift != v->h.block_size_shift ? -EPROTO : 0;
}

/* Make room for @nr entries; new ones are 0. */
static int index_grow(struct sd_vdi *v, uint32_t nr)
{
	size_t words = nr / 64 + 1, old = v->index ? v->nr / 64 + 1 : 0;

	if (v->index && nr <= v->nr)
		return 0;
	uint64_t *busy = realloc(v->busy, words * sizeof(*busy));
	if (!busy)
		return -ENOMEM;
	v->busy = busy;
	memset(busy + old, 0, (words - old) * sizeof(*busy));
	uint32_t *index = realloc(v->index, (nr + 1ull) * sizeof(*index));
	if (!index)
		return -ENOMEM;
	memset(index + v->nr, 0, (nr + 1ull - v->nr) * sizeof(*index));
	v->index = index;
	v->nr = nr;
	return 0;
}

static int load_apply(struct sd_vdi *v)
{
	int r = index_grow(v, v->load_nr);

	if (r < 0)
		return r;
	v->vid = v->load_vid;
	v->h = v->load_h;
	v->nr_own = 0;
	memset(v->index, 0, v->nr * sizeof(*v->index));
	for (uint32_t i = 0; i < v->load_nr; i++)
		io_set_entry(v, i, v->load_index[i] & (SD_NR_VDIS - 1));
	return 0;
}

static int load_step(struct sd_vdi *v)
{
	int r;

	switch (v->load) {
	case LOAD_LOOKUP:
		v->load_vid = v->load_rq.rsp.vdi.vdi_id;
		if (v->load_lock)
			v->locked = true;
		v->load = LOAD_HEADER;
		load_read(v, &v->load_h, sizeof(v->load_h), 0);
		return 0;
	case LOAD_HEADER:
		r = header_check(v);
		if (r < 0)
			return r;
		v->load_nr = nr_entries(v->load_h.vdi_size, v->load_h.block_size_shift);
		v->load_index = malloc((v->load_nr + 1ull) * sizeof(uint32_t));
		if (!v->load_index)
			return -ENOMEM;
		if (v->load_nr) {
			v->load = LOAD_INDEX;
			load_read(v, v->load_index, v->load_nr * sizeof(uint32_t),
				  SD_INODE_HEADER_SIZE);
			return 0;
		}
		break;
	default: assert(v->load == LOAD_INDEX);
	}
	r = load_apply(v);
	if (r == 0)
		load_end(v, 0);
	return r;
}

static void on_load(struct rq *rq, int err)
{
	struct sd_vdi *v = of(rq, struct sd_vdi, load_rq);

	if (!err && cluster_retry(v->c, rq))
		return;
	if (!err)
		err = result_err(rq->rsp.result);
	if (!err)
		err = load_step(v);
	if (err)
		load_end(v, err);
}

/* ---- open, close ---- */

static void open_end(struct sd_vdi *v, int err)
{
	v->open_err = err;
	v->open_over = true;
	v->load_lock = false;
	v->load_done = io_loaded; /* from now on */
}

static void on_opened(struct sd_vdi *v, int err)
{
	job_end(&v->open_job);
	open_end(v, err);
}

static void open_stop(struct job *j, int err)
{
	struct sd_vdi *v = of(j, struct sd_vdi, open_job);

	cluster_cancel(v->c, &v->load_rq);
	free(TAKE(v->load_index, NULL));
	v->load = LOAD_NO;
	open_end(v, err);
}

static int vdi_release(struct sd_vdi *v)
{
	struct call call = {.limit_ms = RELEASE_MS};

	if (!v->locked)
		return 0;
	call.rq = (struct rq){
		.req = {.opcode = SD_OP_RELEASE_VDI, .proto_ver = SD_PROTO_VER},
		.exact = true,
	};
	call.rq.req.vdi.base_vdi_id = v->vid ? v->vid : v->load_vid;
	int r = cluster_call(v->c, &call);
	v->locked = false;
	return r ? r : result_err(call.rq.rsp.result);
}

static void vdi_free(struct sd_vdi *v)
{
	assert(!v->nr_ops && cds_list_empty(&v->batches) && cds_list_empty(&v->held));
	cds_list_del(&v->node);
	env_defer_del(v->c->env, &v->index_defer);
	free(v->index);
	free(v->busy);
	free(v);
}

int sd_vdi_open(struct sd_cluster *c, const char *name, unsigned flags, struct sd_vdi **ret)
{
	if (!name_ok(name) || flags & ~(unsigned)(SD_OPEN_RDONLY | SD_OPEN_CACHE))
		return -EINVAL;
	if (c->closing)
		return -ECANCELED;
	struct sd_vdi *v = calloc(1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	v->c = c;
	memcpy(v->name, name, strlen(name));
	v->rdonly = flags & SD_OPEN_RDONLY;
	v->cache = flags & SD_OPEN_CACHE;
	v->load_lock = !v->rdonly; /* RELEASE takes the lock of anybody: readers leave it alone */
	v->load_done = on_opened;
	v->open_job.stop = open_stop;
	io_vdi_init(v);
	cds_list_add_tail(&v->node, &c->vdis);
	bool was = cluster_cork(c);
	job_start(c, &v->open_job);
	vdi_load(v);
	while (!v->open_over)
		cluster_pump(c);
	if (v->open_err)
		vdi_release(v);
	cluster_uncork(c, was);
	int r = v->open_err;
	if (r)
		vdi_free(v);
	else
		*ret = v;
	return r;
}

int sd_vdi_close(struct sd_vdi *v)
{
	struct sd_cluster *c = v->c;
	int r;

	bool was = cluster_cork(c);
	while (v->nr_ops)
		cluster_pump(c);
	r = v->flushed < v->writes ? sd_flush(v) : 0;
	if (v->load != LOAD_NO) {
		cluster_cancel(c, &v->load_rq);
		free(v->load_index);
	}
	int r2 = vdi_release(v);
	cluster_uncork(c, was);
	vdi_free(v);
	return r ? r : r2;
}

/* ---- what is known ---- */

void sd_vdi_get_info(struct sd_vdi *v, struct sd_vdi_info *ret)
{
	const struct sd_inode_header *h = &v->h;

	*ret = (struct sd_vdi_info){
		.vid = v->vid,
		.snap_id = h->snap_ctime ? h->snap_id : 0,
		.size = h->vdi_size,
		.create_time = h->create_time,
		.copies = h->nr_copies,
		.copy_policy = h->copy_policy,
		.object_shift = h->block_size_shift,
		.snapshot = h->snap_ctime != 0,
	};
}

void sd_vdi_set_cache(struct sd_vdi *v, bool cache)
{
	v->cache = cache && !v->no_flush;
}

uint64_t sd_vdi_allocated(struct sd_vdi *v)
{
	return (uint64_t)v->nr_own << v->h.block_size_shift;
}

bool sd_vdi_is_data(struct sd_vdi *v, uint64_t off, uint64_t len, uint64_t *ret_len)
{
	unsigned shift = v->h.block_size_shift;
	uint64_t size = v->h.vdi_size, end;

	if (off >= size) {
		*ret_len = len;
		return false;
	}
	end = len < size - off ? off + len : size;
	uint32_t i = (uint32_t)(off >> shift), last = nr_entries(end, shift);
	bool data = v->index[i] != 0;
	while (i < last && (v->index[i] != 0) == data)
		i++;
	uint64_t to = (uint64_t)i << shift;
	if (to > end)
		to = end;
	*ret_len = to > off ? to - off : 0;
	return data;
}

/* ---- create, delete, resize ---- */

static void call_named(struct call *call, struct iovec *iov, char *buf, uint8_t op,
		       const char *name, size_t len)
{
	*call = (struct call){.rq = {.req = {.opcode = op,
					     .proto_ver = SD_PROTO_VER,
					     .flags = SD_FLAG_WRITE,
					     .data_length = (uint32_t)len},
				     .exact = true}};
	memset(buf, 0, len);
	memcpy(buf, name, strlen(name));
	*iov = (struct iovec){buf, len};
	call->rq.out = (struct seg){iov, 0, len};
}

/* Blocking read of an inode's header. */
static int read_header(struct sd_cluster *c, uint32_t vid, struct sd_inode_header *h)
{
	struct iovec iov = {h, sizeof(*h)};
	struct call call = {.rq = {.req = {.opcode = SD_OP_READ_OBJ,
					   .proto_ver = SD_PROTO_VER,
					   .data_length = sizeof(*h)},
				   .in = {&iov, 0, sizeof(*h)},
				   .exact = true}};

	call.rq.req.obj.oid = SD_INODE_OID(vid);
	int r = cluster_call(c, &call);
	return r ? r : result_err(call.rq.rsp.result);
}

static int lookup(struct sd_cluster *c, const char *name, uint32_t *vid)
{
	char buf[2 * SD_NAME_LEN];
	struct iovec iov;
	struct call call;

	call_named(&call, &iov, buf, SD_OP_GET_VDI_INFO, name, sizeof(buf));
	int r = cluster_call(c, &call);
	if (!r)
		r = result_err(call.rq.rsp.result);
	if (!r)
		*vid = call.rq.rsp.vdi.vdi_id;
	return r;
}

/* A create whose answer was lost was sent again and found the name taken, which it was not before:
 * it is ours if it looks like it. */
static int created_before(struct sd_cluster *c, const char *name, uint64_t size, uint32_t *vid)
{
	struct sd_inode_header h;
	int r = lookup(c, name, vid);

	if (!r)
		r = read_header(c, *vid, &h);
	if (!r && (h.vdi_size != size || h.parent_vdi_id))
		r = result_err(SD_RES_VDI_EXIST);
	return r;
}

/* Is the size possible?  The cluster's object size is asked for only when it matters. */
static int size_check(struct sd_cluster *c, uint64_t size, unsigned shift)
{
	struct call call = {.rq = {.req = {.opcode = SD_OP_GET_CLUSTER_DEFAULT, .proto_ver = 1},
				   .exact = true}};

	if (shift && (shift < SD_OBJ_SHIFT_MIN || shift > SD_OBJ_SHIFT_MAX))
		return -EINVAL;
	if (!shift && size > (uint64_t)SD_NR_OBJS_MAX << SD_OBJ_SHIFT_MIN) {
		int r = cluster_call(c, &call);
		if (!r)
			r = result_err(call.rq.rsp.result);
		if (r)
			return r;
		shift = call.rq.rsp.cluster_default.block_size_shift;
	}
	if (!shift)
		return 0;
	if (shift < SD_OBJ_SHIFT_MIN || shift > SD_OBJ_SHIFT_MAX)
		return -EPROTO;
	return size > (uint64_t)SD_NR_OBJS_MAX << shift ? -EFBIG : 0;
}

int sd_vdi_create(struct sd_cluster *c, const char *name, uint64_t size,
		  const struct sd_create_opts *opts, uint32_t *ret_vid)
{
	const struct sd_create_opts none = {0}, *o = opts ? opts : &none;
	char buf[SD_NAME_LEN];
	struct iovec iov;
	struct call call;
	uint32_t vid;

	if (!name_ok(name))
		return -EINVAL;
	if (size > UINT64_MAX - 511)
		return -EFBIG;
	size = ROUND_UP(size, 512);
	int r = size_check(c, size, o->object_shift);
	if (r)
		return r;
	r = lookup(c, name, &vid);
	if (!r)
		return result_err(SD_RES_VDI_EXIST);
	if (SD_ERR_RESULT(r) != SD_RES_NO_VDI)
		return r;
	call_named(&call, &iov, buf, SD_OP_NEW_VDI, name, sizeof(buf));
	call.rq.req.vdi.vdi_size = size;
	call.rq.req.vdi.copies = o->copies;
	call.rq.req.vdi.copy_policy = o->copy_policy;
	call.rq.req.vdi.block_size_shift = o->object_shift;
	r = cluster_call(c, &call);
	if (r)
		return r;
	r = result_err(call.rq.rsp.result);
	vid = call.rq.rsp.vdi.vdi_id;
	if (SD_ERR_RESULT(r) == SD_RES_VDI_EXIST && call.rq.resent)
		r = created_before(c, name, size, &vid);
	if (!r && ret_vid)
		*ret_vid = vid;
	return r;
}

int sd_vdi_delete(struct sd_cluster *c, const char *name)
{
	char buf[2 * SD_NAME_LEN];
	struct iovec iov;
	struct call call;

	if (!name_ok(name))
		return -EINVAL;
	call_named(&call, &iov, buf, SD_OP_DEL_VDI, name, sizeof(buf));
	int r = cluster_call(c, &call);
	if (r)
		return r;
	if (call.rq.rsp.result == SD_RES_NO_VDI && call.rq.resent)
		return 0; /* the first time it worked */
	return result_err(call.rq.rsp.result);
}

/* Once: write the header of the present vid with the new size. */
static int resize_try(struct sd_vdi *v, uint64_t size)
{
	struct sd_inode_header h;
	struct iovec iov = {&h, sizeof(h)};
	struct call call = {.rq = {.req = {.opcode = SD_OP_WRITE_OBJ,
					   .proto_ver = SD_PROTO_VER,
					   .flags = SD_FLAG_WRITE | SD_FLAG_DIRECT,
					   .data_length = sizeof(h)},
				   .out = {&iov, 0, sizeof(h)},
				   .exact = true}};
	uint32_t vid = v->vid;
	int r = read_header(v->c, vid, &h);

	if (r)
		return r;
	if (h.vdi_size < size) {
		h.vdi_size = size;
		call.rq.req.obj.oid = SD_INODE_OID(vid);
		r = cluster_call(v->c, &call);
		if (!r)
			r = result_err(call.rq.rsp.result);
	}
	if (r)
		return r;
	r = index_grow(v, nr_entries(h.vdi_size, v->h.block_size_shift));
	if (!r)
		v->h.vdi_size = h.vdi_size;
	return r;
}

int sd_vdi_resize(struct sd_vdi *v, uint64_t size)
{
	struct sd_cluster *c = v->c;
	int r = 0;

	if (v->rdonly)
		return -EROFS;
	if (size > (uint64_t)SD_NR_OBJS_MAX << v->h.block_size_shift)
		return -EFBIG;
	size = ROUND_UP(size, 512);
	if (size < v->h.vdi_size)
		return -EINVAL;
	bool was = cluster_cork(c);
	for (unsigned i = 0; size > v->h.vdi_size && i < RELOADS; i++) {
		while (v->load != LOAD_NO && !c->closing)
			cluster_pump(c);
		r = resize_try(v, size);
		if (SD_ERR_RESULT(r) != SD_RES_READONLY)
			break;
		vdi_load(v); /* a snapshot was taken */
	}
	cluster_uncork(c, was);
	return r;
}
