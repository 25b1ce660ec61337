/* sheepdog.c - QEMU block driver: sheepdog volumes through libsheepdog.
 *
 * Built in two ways from this one file: as a shared object that qemu/shim.c loads into the
 * distribution's QEMU 7.2, and inside a QEMU source tree (qemu/README).  Only functions that QEMU
 * exports to its own modules are used, and no field of a structure whose layout depends on how QEMU
 * was configured (struct AioContext above all).
 *
 *  Q1  Each request starts one operation of the library and yields exactly once; the completion
 *      wakes it exactly once, after the library was left and its lock dropped.
 *  Q2  Every call into the library is made under conn->lock (the monitor's thread and an iothread
 *      can both get here); no QEMU coroutine is entered and nothing yields under it.
 *  Q3  A conn outlives the block node while a completion handler still looks at it.
 *  Q4  Cache mode: BDRV_O_NOCACHE makes every write durable when it is answered, so that FUA costs
 *      nothing; otherwise writes are cached by the nodes until a flush.
 *  Q5  Zero writes give space back only when MAY_UNMAP allows it; reads of holes are zeros.
 *
 * "~" marks the calls that yield.
 */
#include "qemu/osdep.h"
#include "block/block_int.h"
#include "qapi/error.h"
#include "qapi/qapi-types-block-core.h"
#include "qapi/qmp/qdict.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/module.h"
#include "qemu/option.h"

#include <pthread.h>
#include <sheepdog/sheepdog.h>
#include <sheepdog/limits.h>
#include <sheepdog/result.h>

#include "sheepdog-name.h"

/* Most zeros written with one operation when space is preallocated or must stay allocated. */
#define FILL_MAX (64u << 20)
#define FILL_BUF (1u << 20)
/* Most bytes of one discard or zero write: bounds the work behind one request. */
#define RANGE_MAX (INT64_C(1) << 36)

struct sheepdog_req {
	Coroutine *co;
	struct sheepdog_conn *conn;
	int ret;
	QSIMPLEQ_ENTRY(sheepdog_req) next;
};

/* The client of the cluster and the open volume. */
struct sheepdog_conn {
	int refs; /* atomic */
	pthread_mutex_t lock;
	AioContext *ctx;
	struct sd_cluster *cluster;
	struct sd_vdi *vdi;
	QSIMPLEQ_HEAD(, sheepdog_req) done; /* completed, to be woken */
};

typedef struct BDRVSheepdogState {
	struct sheepdog_conn *conn;
	struct sheepdog_target target;
} BDRVSheepdogState;

/* ---- errors ---- */

/* The errno that QEMU acts on: ENOSPC pauses a guest with werror=enospc, say. */
static int to_errno(int err)
{
	switch (SD_ERR_RESULT(err)) {
	case SD_RES_SUCCESS: return err <= -SD_ERR_BASE ? -EIO : err;
	case SD_RES_NO_VDI:
	case SD_RES_NO_BASE_VDI:
	case SD_RES_NO_TAG: return -ENOENT;
	case SD_RES_VDI_EXIST: return -EEXIST;
	case SD_RES_VDI_LOCKED: return -EBUSY;
	case SD_RES_INVALID_PARMS: return -EINVAL;
	case SD_RES_NO_MEM: return -ENOMEM;
	case SD_RES_NO_SPACE:
	case SD_RES_FULL_VDI: return -ENOSPC;
	case SD_RES_READONLY: return -EROFS;
	case SD_RES_NO_SUPPORT: return -ENOTSUP;
	default: return -EIO;
	}
}

/* Put the library's text for @err behind "@what 'name': "; returns the errno. */
static int set_error(Error **errp, struct sd_cluster *c, const char *what, const char *name,
		     int err)
{
	const char *last = c && !SD_ERR_RESULT(err) ? sd_last_error(c) : "";

	error_setg(errp, "%s '%s': %s%s%s%s", what, name, sd_strerror(err), *last ? " (" : "", last,
		   *last ? ")" : "");
	return to_errno(err);
}

/* ---- the library in QEMU's event loop ---- */

static void conn_unref(struct sheepdog_conn *conn)
{
	if (qatomic_fetch_dec(&conn->refs) > 1)
		return;
	assert(!conn->cluster && QSIMPLEQ_EMPTY(&conn->done));
	pthread_mutex_destroy(&conn->lock);
	g_free(conn);
}

/* Called by the library, under conn->lock, perhaps on a stack of its own: only take note. */
static void req_done(void *arg, int err)
{
	struct sheepdog_req *req = arg;

	req->ret = err < 0 ? to_errno(err) : 0;
	QSIMPLEQ_INSERT_TAIL(&req->conn->done, req, next);
}

static void conn_lock(struct sheepdog_conn *conn)
{
	pthread_mutex_lock(&conn->lock);
}

/* After calls that complete nothing: all that the library documents as such, and all that start an
 * operation. */
static void conn_unlock(struct sheepdog_conn *conn)
{
	pthread_mutex_unlock(&conn->lock);
}

/* After calls that may have completed requests (they dispatch): drop the lock and wake them.  A
 * request's memory is gone when it runs, and @conn's node may be.  The caller has no request of its
 * own in flight. */
static void conn_unlock_wake(struct sheepdog_conn *conn)
{
	struct sheepdog_req *req;

	qatomic_inc(&conn->refs);
	for (;;) {
		req = QSIMPLEQ_FIRST(&conn->done);
		if (req)
			QSIMPLEQ_REMOVE_HEAD(&conn->done, next);
		pthread_mutex_unlock(&conn->lock);
		if (!req)
			break;
		aio_co_wake(req->co);
		pthread_mutex_lock(&conn->lock);
	}
	conn_unref(conn);
}

static void conn_readable(void *opaque)
{
	struct sheepdog_conn *conn = opaque;

	conn_lock(conn);
	if (conn->cluster)
		sd_dispatch(conn->cluster);
	conn_unlock_wake(conn);
}

static void conn_attach(struct sheepdog_conn *conn, AioContext *ctx)
{
	conn->ctx = ctx;
	aio_set_fd_handler(ctx, sd_cluster_fd(conn->cluster), false, conn_readable, NULL, NULL,
			   NULL, conn);
}

static void conn_detach(struct sheepdog_conn *conn)
{
	aio_set_fd_handler(conn->ctx, sd_cluster_fd(conn->cluster), false, NULL, NULL, NULL, NULL,
			   NULL);
}

/* Open the volume of @t; handled in @ctx from now on. */
static struct sheepdog_conn *conn_new(const struct sheepdog_target *t, unsigned flags,
				      AioContext *ctx, int *ret, Error **errp)
{
	struct sheepdog_conn *conn = g_new0(struct sheepdog_conn, 1);
	int r;

	conn->refs = 1;
	pthread_mutex_init(&conn->lock, NULL);
	QSIMPLEQ_INIT(&conn->done);
	r = sd_cluster_open(t->gateways, &conn->cluster);
	if (r < 0) {
		conn->cluster = NULL;
		*ret = set_error(errp, NULL, "cannot use the gateways", t->gateways, r);
		goto fail;
	}
	r = sd_cluster_fd(conn->cluster);
	if (r >= 0)
		r = sd_vdi_open(conn->cluster, t->vdi, flags, &conn->vdi);
	if (r < 0) {
		*ret = set_error(errp, conn->cluster, "cannot open volume", t->vdi, r);
		goto fail;
	}
	conn_attach(conn, ctx);
	return conn;
fail:
	sd_cluster_close(conn->cluster);
	conn->cluster = NULL;
	conn_unref(conn);
	return NULL;
}

/* No request is in flight.  Returns the error of the last flush, if any. */
static int conn_free(struct sheepdog_conn *conn)
{
	int r;

	conn_detach(conn);
	conn_lock(conn);
	r = sd_vdi_close(conn->vdi);
	sd_cluster_close(conn->cluster);
	conn->vdi = NULL;
	conn->cluster = NULL;
	conn_unlock_wake(conn);
	conn_unref(conn);
	return r < 0 ? to_errno(r) : 0;
}

static void req_init(struct sheepdog_req *req, struct sheepdog_conn *conn)
{
	*req = (struct sheepdog_req){.co = qemu_coroutine_self(), .conn = conn};
}

/* Under conn->lock, which it drops: wait for what was started with the result @r. */
static int coroutine_fn req_wait(struct sheepdog_req *req, int r)
{
	conn_unlock(req->conn);
	if (r < 0)
		return to_errno(r);
	qemu_coroutine_yield(); /* ~ until req_done() */
	return req->ret;
}

static int coroutine_fn conn_write(struct sheepdog_conn *conn, const struct iovec *iov, int iovcnt,
				   uint64_t offset)
{
	struct sheepdog_req req;

	req_init(&req, conn);
	conn_lock(conn);
	return req_wait(&req,
			sd_writev_async(conn->vdi, iov, iovcnt, offset, req_done, &req)); /* ~ */
}

static void get_info(struct sheepdog_conn *conn, struct sd_vdi_info *info)
{
	conn_lock(conn);
	sd_vdi_get_info(conn->vdi, info);
	conn_unlock(conn);
}

/* Write zeros to [offset, end): the objects are allocated afterwards. */
static int coroutine_fn conn_fill(struct sheepdog_conn *conn, uint64_t offset, uint64_t end)
{
	struct iovec iov[FILL_MAX / FILL_BUF];
	struct sd_vdi_info info;
	uint64_t step;
	void *zeros = g_try_malloc0(FILL_BUF);
	int r = 0;

	if (!zeros)
		return -ENOMEM;
	get_info(conn, &info);
	/* A few objects at a time, so that the nodes work in parallel. */
	step = MIN(FILL_MAX, UINT64_C(4) << info.object_shift);
	while (offset < end && !r) {
		uint64_t n = MIN(step - offset % step, end - offset), left = n;
		int nr = 0;
		while (left) {
			iov[nr] = (struct iovec){zeros, MIN(left, FILL_BUF)};
			left -= iov[nr++].iov_len;
		}
		r = conn_write(conn, iov, nr, offset); /* ~ */
		offset += n;
	}
	g_free(zeros);
	return r;
}

/* ---- create ---- */

static QemuOptsList sheepdog_create_opts = {
	.name = "sheepdog-create-opts",
	.head = QTAILQ_HEAD_INITIALIZER(sheepdog_create_opts.head),
	.desc =
		{
			{.name = BLOCK_OPT_SIZE,
			 .type = QEMU_OPT_SIZE,
			 .help = "Virtual disk size"},
			{.name = BLOCK_OPT_BACKING_FILE,
			 .type = QEMU_OPT_STRING,
			 .help = "Name of a base snapshot (not supported yet)"},
			{.name = BLOCK_OPT_BACKING_FMT,
			 .type = QEMU_OPT_STRING,
			 .help = "Must be 'sheepdog' if present"},
			{.name = BLOCK_OPT_PREALLOC,
			 .type = QEMU_OPT_STRING,
			 .help = "Preallocation mode (allowed values: off, full)"},
			{.name = BLOCK_OPT_REDUNDANCY,
			 .type = QEMU_OPT_STRING,
			 .help = "Number of copies (default: the cluster's)"},
			{.name = BLOCK_OPT_OBJECT_SIZE,
			 .type = QEMU_OPT_SIZE,
			 .help = "Object size, a power of two, 1M to 2G (default: the cluster's)"},
			{/* end of list */},
		},
};

static bool parse_redundancy(const char *s, struct sd_create_opts *co, Error **errp)
{
	unsigned n;

	if (strchr(s, ':')) {
		error_setg(errp, "redundancy=%s: erasure coding is not supported yet", s);
		return false;
	}
	if (qemu_strtoui(s, NULL, 10, &n) < 0 || !n || n > SD_COPIES_MAX) {
		error_setg(errp, "redundancy=%s: must be a number of copies, 1 to %u", s,
			   SD_COPIES_MAX);
		return false;
	}
	co->copies = n;
	return true;
}

static bool parse_object_size(uint64_t size, struct sd_create_opts *co, Error **errp)
{
	if (!size)
		return true;
	if (!is_power_of_2(size) || size < UINT64_C(1) << SD_OBJ_SHIFT_MIN ||
	    size > UINT64_C(1) << SD_OBJ_SHIFT_MAX) {
		error_setg(errp, "object_size must be a power of two from 1M to 2G");
		return false;
	}
	co->object_shift = ctz64(size);
	return true;
}

struct create_args {
	uint64_t size;
	bool full;
	struct sd_create_opts co;
};

static bool parse_create_opts(QemuOpts *opts, struct create_args *a, Error **errp)
{
	g_autofree char *backing = qemu_opt_get_del(opts, BLOCK_OPT_BACKING_FILE);
	g_autofree char *fmt = qemu_opt_get_del(opts, BLOCK_OPT_BACKING_FMT);
	g_autofree char *prealloc = qemu_opt_get_del(opts, BLOCK_OPT_PREALLOC);
	g_autofree char *redundancy = qemu_opt_get_del(opts, BLOCK_OPT_REDUNDANCY);

	a->size = qemu_opt_get_size_del(opts, BLOCK_OPT_SIZE, 0);
	if (a->size > INT64_MAX - BDRV_SECTOR_SIZE) {
		error_setg(errp, "the volume is too large");
		return false;
	}
	a->size = ROUND_UP(a->size, BDRV_SECTOR_SIZE);
	if (backing || fmt) {
		error_setg(errp, "backing files (clones of snapshots) are not supported yet");
		return false;
	}
	if (prealloc && strcmp(prealloc, "off") && strcmp(prealloc, "full")) {
		error_setg(errp, "preallocation must be off or full, not '%s'", prealloc);
		return false;
	}
	a->full = prealloc && !strcmp(prealloc, "full");
	if (redundancy && !parse_redundancy(redundancy, &a->co, errp))
		return false;
	return parse_object_size(qemu_opt_get_size_del(opts, BLOCK_OPT_OBJECT_SIZE, 0), &a->co,
				 errp);
}

static int create_volume(const struct sheepdog_target *t, const struct create_args *a, bool undo,
			 Error **errp)
{
	struct sd_cluster *c;
	uint32_t vid;
	int r = sd_cluster_open(t->gateways, &c);

	if (r < 0)
		return set_error(errp, NULL, "cannot use the gateways", t->gateways, r);
	if (undo)
		r = sd_vdi_delete(c, t->vdi);
	else
		r = sd_vdi_create(c, t->vdi, a->size, &a->co, &vid);
	if (r < 0)
		r = set_error(errp, c, undo ? "cannot delete volume" : "cannot create volume",
			      t->vdi, r);
	sd_cluster_close(c);
	return r;
}

static int coroutine_fn sheepdog_co_create_opts(BlockDriver *drv, const char *filename,
						QemuOpts *opts, Error **errp)
{
	struct create_args a = {0};
	struct sheepdog_target t = {0};
	struct sheepdog_conn *conn;
	QDict *options = qdict_new();
	Error *local_err = NULL;
	int r = -EINVAL, r2;

	sheepdog_parse_filename(filename, options, &local_err);
	if (local_err) {
		error_propagate(errp, local_err);
		goto out;
	}
	if (!sheepdog_target_init(&t, options, errp) || !parse_create_opts(opts, &a, errp))
		goto out;
	r = create_volume(&t, &a, false, errp);
	if (r < 0 || !a.full || !a.size)
		goto out;
	conn = conn_new(&t, SD_OPEN_CACHE, qemu_get_current_aio_context(), &r, errp);
	if (conn) {
		r = conn_fill(conn, 0, a.size); /* ~ */
		r2 = conn_free(conn);
		r = r < 0 ? r : r2;
		if (r < 0)
			error_setg_errno(errp, -r, "cannot allocate the space of volume '%s'",
					 t.vdi);
	}
	if (r < 0 && create_volume(&t, &a, true, &local_err) < 0)
		error_free(local_err);
out:
	sheepdog_target_done(&t);
	qobject_unref(options);
	return r;
}

/* ---- open, close, reopen ---- */

static unsigned open_flags(int flags)
{
	return (flags & BDRV_O_RDWR && !(flags & BDRV_O_INACTIVE) ? 0 : SD_OPEN_RDONLY) |
	       (flags & BDRV_O_NOCACHE ? 0 : SD_OPEN_CACHE);
}

static void set_request_flags(BlockDriverState *bs, int flags)
{
	BdrvRequestFlags fua = flags & BDRV_O_NOCACHE ? BDRV_REQ_FUA : 0;

	bs->supported_write_flags = BDRV_REQ_WRITE_UNCHANGED | fua;
	bs->supported_zero_flags =
		BDRV_REQ_WRITE_UNCHANGED | BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK | fua;
	bs->supported_truncate_flags = BDRV_REQ_ZERO_WRITE;
}

static int sheepdog_open(BlockDriverState *bs, QDict *options, int flags, Error **errp)
{
	BDRVSheepdogState *s = bs->opaque;
	struct sd_vdi_info info;
	int r = -EINVAL;

	/* Built for this QEMU?  These two come from it by function and by field. */
	if (!bs->drv || strcmp(bdrv_get_format_name(bs) ?: "", bs->drv->format_name)) {
		error_setg(errp, "this QEMU's block layer is not the one the driver was built for");
		return -ENOTSUP;
	}
	if (!sheepdog_target_init(&s->target, options, errp))
		return -EINVAL;
	s->conn = conn_new(&s->target, open_flags(flags), bdrv_get_aio_context(bs), &r, errp);
	if (!s->conn) {
		sheepdog_target_done(&s->target);
		return r;
	}
	get_info(s->conn, &info);
	bs->total_sectors = DIV_ROUND_UP(info.size, BDRV_SECTOR_SIZE);
	set_request_flags(bs, flags);
	return 0;
}

static void sheepdog_close(BlockDriverState *bs)
{
	BDRVSheepdogState *s = bs->opaque;
	int r = conn_free(s->conn);

	if (r < 0)
		error_report("sheepdog: closing volume '%s': %s", s->target.vdi, strerror(-r));
	s->conn = NULL;
	sheepdog_target_done(&s->target);
}

/* A second handle of the volume, read anew from the cluster. */
static int open_again(BDRVSheepdogState *s, int flags, struct sd_vdi **ret, Error **errp)
{
	struct sheepdog_conn *conn = s->conn;
	int r;

	conn_lock(conn);
	r = sd_vdi_open(conn->cluster, s->target.vdi, open_flags(flags), ret);
	if (r < 0)
		r = set_error(errp, conn->cluster, "cannot open volume", s->target.vdi, r);
	conn_unlock_wake(conn);
	return r;
}

/* Use @vdi from now on; no request is in flight. */
static int switch_to(BDRVSheepdogState *s, struct sd_vdi *vdi)
{
	int r;

	conn_lock(s->conn);
	r = sd_vdi_close(s->conn->vdi);
	s->conn->vdi = vdi;
	conn_unlock_wake(s->conn);
	return r < 0 ? to_errno(r) : 0;
}

/* A changed access mode needs a new handle, a changed cache mode does not. */
static int sheepdog_reopen_prepare(BDRVReopenState *state, BlockReopenQueue *queue, Error **errp)
{
	BDRVSheepdogState *s = state->bs->opaque;
	struct sd_vdi *vdi = NULL;
	int r = 0;

	if ((state->flags ^ state->bs->open_flags) & BDRV_O_RDWR)
		r = open_again(s, state->flags, &vdi, errp);
	state->opaque = vdi;
	return r;
}

static void sheepdog_reopen_commit(BDRVReopenState *state)
{
	BDRVSheepdogState *s = state->bs->opaque;
	int r = state->opaque ? switch_to(s, state->opaque) : 0;

	state->opaque = NULL;
	if (r < 0)
		error_report("sheepdog: closing volume '%s': %s", s->target.vdi, strerror(-r));
	conn_lock(s->conn);
	sd_vdi_set_cache(s->conn->vdi, !(state->flags & BDRV_O_NOCACHE));
	conn_unlock_wake(s->conn);
	set_request_flags(state->bs, state->flags);
}

static void sheepdog_reopen_abort(BDRVReopenState *state)
{
	BDRVSheepdogState *s = state->bs->opaque;

	if (!state->opaque)
		return;
	conn_lock(s->conn);
	sd_vdi_close(state->opaque);
	conn_unlock_wake(s->conn);
	state->opaque = NULL;
}

/* Migration: the source lets go of the volume, the destination reads its metadata anew. */
static int sheepdog_inactivate(BlockDriverState *bs)
{
	struct sd_vdi *vdi;
	int r = open_again(bs->opaque, BDRV_O_INACTIVE | (bs->open_flags & BDRV_O_NOCACHE), &vdi,
			   NULL);

	return r < 0 ? r : switch_to(bs->opaque, vdi);
}

static void coroutine_fn sheepdog_co_invalidate_cache(BlockDriverState *bs, Error **errp)
{
	struct sd_vdi *vdi;

	if (open_again(bs->opaque, bs->open_flags & ~BDRV_O_INACTIVE, &vdi, errp) == 0)
		switch_to(bs->opaque, vdi);
}

static void sheepdog_attach_aio_context(BlockDriverState *bs, AioContext *ctx)
{
	BDRVSheepdogState *s = bs->opaque;

	conn_attach(s->conn, ctx);
}

static void sheepdog_detach_aio_context(BlockDriverState *bs)
{
	BDRVSheepdogState *s = bs->opaque;

	conn_detach(s->conn);
}

/* ---- I/O ---- */

static int coroutine_fn conn_read(struct sheepdog_conn *conn, QEMUIOVector *qiov, uint64_t offset)
{
	struct sheepdog_req req;

	req_init(&req, conn);
	conn_lock(conn);
	return req_wait(&req, sd_readv_async(conn->vdi, qiov->iov, qiov->niov, offset, req_done,
					     &req)); /* ~ */
}

static int coroutine_fn sheepdog_co_preadv(BlockDriverState *bs, int64_t offset, int64_t bytes,
					   QEMUIOVector *qiov, BdrvRequestFlags flags)
{
	BDRVSheepdogState *s = bs->opaque;
	struct sd_vdi_info info;
	QEMUIOVector head;
	int64_t n;
	int r = 0;

	get_info(s->conn, &info);
	if (offset + bytes <= (int64_t)info.size)
		return conn_read(s->conn, qiov, offset); /* ~ */
	/* The last sector is cut short by the volume's end: zeros from there. */
	n = MAX((int64_t)info.size - offset, 0);
	qemu_iovec_init(&head, qiov->niov);
	qemu_iovec_concat(&head, qiov, 0, n);
	if (n)
		r = conn_read(s->conn, &head, offset); /* ~ */
	qemu_iovec_destroy(&head);
	if (!r)
		qemu_iovec_memset(qiov, n, 0, bytes - n);
	return r;
}

/* Formats that grow (qcow2, say) write behind the end. */
static int grow(struct sheepdog_conn *conn, uint64_t end)
{
	struct sd_vdi_info info;
	int r = 0;

	conn_lock(conn);
	sd_vdi_get_info(conn->vdi, &info);
	if (end > info.size)
		r = sd_vdi_resize(conn->vdi, ROUND_UP(end, BDRV_SECTOR_SIZE));
	conn_unlock_wake(conn);
	return r < 0 ? to_errno(r) : 0;
}

static int coroutine_fn sheepdog_co_pwritev(BlockDriverState *bs, int64_t offset, int64_t bytes,
					    QEMUIOVector *qiov, BdrvRequestFlags flags)
{
	BDRVSheepdogState *s = bs->opaque;
	int r = grow(s->conn, offset + bytes);

	if (r < 0)
		return r;
	return conn_write(s->conn, qiov->iov, qiov->niov, offset); /* ~ */
}

/* Zeros without giving space back: holes read as zeros already, data is overwritten. */
static int coroutine_fn zero_data(struct sheepdog_conn *conn, uint64_t offset, uint64_t end)
{
	int r = 0;

	while (offset < end && !r) {
		uint64_t n = 0;
		bool data;
		conn_lock(conn);
		data = sd_vdi_is_data(conn->vdi, offset, end - offset, &n);
		conn_unlock(conn);
		assert(n && n <= end - offset);
		if (data)
			r = conn_fill(conn, offset, offset + n); /* ~ */
		offset += n;
	}
	return r;
}

static int coroutine_fn sheepdog_co_pwrite_zeroes(BlockDriverState *bs, int64_t offset,
						  int64_t bytes, BdrvRequestFlags flags)
{
	BDRVSheepdogState *s = bs->opaque;
	struct sheepdog_req req;
	int r;

	if (!(flags & BDRV_REQ_MAY_UNMAP) && flags & BDRV_REQ_NO_FALLBACK)
		return -ENOTSUP;
	r = grow(s->conn, offset + bytes);
	if (r < 0)
		return r;
	if (!(flags & BDRV_REQ_MAY_UNMAP))
		return zero_data(s->conn, offset, offset + bytes); /* ~ */
	req_init(&req, s->conn);
	conn_lock(s->conn);
	return req_wait(&req,
			sd_write_zeroes_async(s->conn->vdi, bytes, offset, req_done, &req)); /* ~ */
}

static int coroutine_fn sheepdog_co_pdiscard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
	BDRVSheepdogState *s = bs->opaque;
	struct sheepdog_req req;

	req_init(&req, s->conn);
	conn_lock(s->conn);
	return req_wait(&req,
			sd_discard_async(s->conn->vdi, bytes, offset, req_done, &req)); /* ~ */
}

static int coroutine_fn sheepdog_co_flush(BlockDriverState *bs)
{
	BDRVSheepdogState *s = bs->opaque;
	struct sheepdog_req req;

	req_init(&req, s->conn);
	conn_lock(s->conn);
	return req_wait(&req, sd_flush_async(s->conn->vdi, req_done, &req)); /* ~ */
}

static int coroutine_fn sheepdog_co_block_status(BlockDriverState *bs, bool want_zero,
						 int64_t offset, int64_t bytes, int64_t *pnum,
						 int64_t *map, BlockDriverState **file)
{
	BDRVSheepdogState *s = bs->opaque;
	struct sd_vdi_info info;
	uint64_t n = 0;
	bool data = false;

	*map = offset;
	*file = bs;
	conn_lock(s->conn);
	sd_vdi_get_info(s->conn->vdi, &info);
	if ((uint64_t)offset < info.size)
		data = sd_vdi_is_data(s->conn->vdi, offset, MIN(bytes, (int64_t)info.size - offset),
				      &n);
	conn_unlock(s->conn);
	if (offset + n >= info.size)
		n = bytes; /* what the last sector has behind the end is zeros, or goes with the
			      data */
	*pnum = n;
	return (data ? BDRV_BLOCK_DATA : BDRV_BLOCK_ZERO) | BDRV_BLOCK_OFFSET_VALID;
}

static int coroutine_fn sheepdog_co_truncate(BlockDriverState *bs, int64_t offset, bool exact,
					     PreallocMode prealloc, BdrvRequestFlags flags,
					     Error **errp)
{
	BDRVSheepdogState *s = bs->opaque;
	struct sd_vdi_info info;
	int r;

	get_info(s->conn, &info);
	if (prealloc != PREALLOC_MODE_OFF && prealloc != PREALLOC_MODE_FULL) {
		error_setg(errp, "Unsupported preallocation mode '%s' (off and full are)",
			   PreallocMode_str(prealloc));
		return -ENOTSUP;
	}
	if ((uint64_t)offset < info.size) {
		if (!exact)
			return 0;
		error_setg(errp, "sheepdog volumes cannot shrink");
		return -ENOTSUP;
	}
	conn_lock(s->conn);
	r = sd_vdi_resize(s->conn->vdi, ROUND_UP(offset, BDRV_SECTOR_SIZE));
	if (r < 0)
		r = set_error(errp, s->conn->cluster, "cannot resize volume", s->target.vdi, r);
	conn_unlock_wake(s->conn);
	if (r < 0 || prealloc != PREALLOC_MODE_FULL)
		return r;
	r = conn_fill(s->conn, info.size, offset); /* ~ */
	if (r < 0)
		error_setg_errno(errp, -r, "cannot allocate the new space");
	return r;
}

/* ---- what the block layer asks about a volume ---- */

static int64_t sheepdog_getlength(BlockDriverState *bs)
{
	BDRVSheepdogState *s = bs->opaque;
	struct sd_vdi_info info;

	get_info(s->conn, &info);
	return info.size;
}

static int64_t sheepdog_get_allocated_file_size(BlockDriverState *bs)
{
	BDRVSheepdogState *s = bs->opaque;
	uint64_t n;

	conn_lock(s->conn);
	n = sd_vdi_allocated(s->conn->vdi);
	conn_unlock(s->conn);
	return n;
}

static int sheepdog_get_info(BlockDriverState *bs, BlockDriverInfo *bdi)
{
	BDRVSheepdogState *s = bs->opaque;
	struct sd_vdi_info info;

	get_info(s->conn, &info);
	bdi->cluster_size = 1 << MIN(info.object_shift, 30);
	return 0;
}

static void sheepdog_refresh_limits(BlockDriverState *bs, Error **errp)
{
	BDRVSheepdogState *s = bs->opaque;
	struct sd_vdi_info info;

	get_info(s->conn, &info);
	bs->bl.pdiscard_alignment = UINT32_C(1) << info.object_shift;
	bs->bl.pwrite_zeroes_alignment = bs->bl.pdiscard_alignment;
	bs->bl.max_pdiscard = RANGE_MAX;
	bs->bl.max_pwrite_zeroes = RANGE_MAX;
}

static int sheepdog_has_zero_init(BlockDriverState *bs)
{
	return 1;
}

/* A name when there is one that means the same; else the block layer makes a json:{} one. */
static void sheepdog_refresh_filename(BlockDriverState *bs)
{
	static const char safe[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
				   "-._/";
	BDRVSheepdogState *s = bs->opaque;
	const struct sheepdog_target *t = &s->target;
	size_t size = sizeof(bs->exact_filename);
	char *name = bs->exact_filename;
	int n;

	*name = 0;
	if (t->extra || t->vdi[0] == '/' || t->vdi[strspn(t->vdi, safe)] ||
	    (t->path && t->path[strspn(t->path, safe)]))
		return;
	if (t->path)
		n = snprintf(name, size, "sheepdog+unix:///%s?socket=%s", t->vdi, t->path);
	else if (t->host)
		n = snprintf(name, size,
			     strchr(t->host, ':') ? "sheepdog:[%s]:%s:%s" : "sheepdog:%s:%s:%s",
			     t->host, t->port, t->vdi);
	else
		n = snprintf(name, size, "sheepdog:%s", t->vdi);
	if (n >= (int)size)
		*name = 0;
}

static const char *const sheepdog_strong_runtime_opts[] = {"vdi",     "snap-id",  "tag",
							   "server.", "gateways", NULL};

/* What the three protocols have in common (QEMU's module scanner reads the names below). */
/* clang-format off */
#define SHEEPDOG_DRIVER \
	.instance_size = sizeof(BDRVSheepdogState), \
	.bdrv_parse_filename = sheepdog_parse_filename, \
	.bdrv_file_open = sheepdog_open, \
	.bdrv_close = sheepdog_close, \
	.bdrv_reopen_prepare = sheepdog_reopen_prepare, \
	.bdrv_reopen_commit = sheepdog_reopen_commit, \
	.bdrv_reopen_abort = sheepdog_reopen_abort, \
	.bdrv_inactivate = sheepdog_inactivate, \
	.bdrv_co_invalidate_cache = sheepdog_co_invalidate_cache, \
	.bdrv_co_create_opts = sheepdog_co_create_opts, \
	.create_opts = &sheepdog_create_opts, \
	.bdrv_co_preadv = sheepdog_co_preadv, \
	.bdrv_co_pwritev = sheepdog_co_pwritev, \
	.bdrv_co_pwrite_zeroes = sheepdog_co_pwrite_zeroes, \
	.bdrv_co_pdiscard = sheepdog_co_pdiscard, \
	.bdrv_co_flush_to_disk = sheepdog_co_flush, \
	.bdrv_co_truncate = sheepdog_co_truncate, \
	.bdrv_co_block_status = sheepdog_co_block_status, \
	.bdrv_getlength = sheepdog_getlength, \
	.bdrv_get_allocated_file_size = sheepdog_get_allocated_file_size, \
	.bdrv_get_info = sheepdog_get_info, \
	.bdrv_has_zero_init = sheepdog_has_zero_init, \
	.bdrv_refresh_limits = sheepdog_refresh_limits, \
	.bdrv_refresh_filename = sheepdog_refresh_filename, \
	.bdrv_attach_aio_context = sheepdog_attach_aio_context, \
	.bdrv_detach_aio_context = sheepdog_detach_aio_context, \
	.strong_runtime_opts = sheepdog_strong_runtime_opts
/* clang-format on */

static BlockDriver bdrv_sheepdog = {
	.format_name = "sheepdog",
	.protocol_name = "sheepdog",
	SHEEPDOG_DRIVER,
};

static BlockDriver bdrv_sheepdog_tcp = {
	.format_name = "sheepdog",
	.protocol_name = "sheepdog+tcp",
	SHEEPDOG_DRIVER,
};

static BlockDriver bdrv_sheepdog_unix = {
	.format_name = "sheepdog",
	.protocol_name = "sheepdog+unix",
	SHEEPDOG_DRIVER,
};

static void bdrv_sheepdog_init(void)
{
	bdrv_register(&bdrv_sheepdog);
	bdrv_register(&bdrv_sheepdog_tcp);
	bdrv_register(&bdrv_sheepdog_unix);
}

block_init(bdrv_sheepdog_init);
