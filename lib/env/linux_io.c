/* linux_io.c - the disk door: which way an I/O goes, and libaio.
 *
 *  - on a file system that lives in memory (tmpfs) small reads, writes and syncs are done at once:
 *    they cannot wait for a disk;
 *  - ENV_IO_NOWAIT reads are tried with RWF_NOWAIT;
 *  - ENV_IO_DIRECT reads and writes, and syncs, go to libaio, one io_submit for all of a round;
 *    what the kernel finished within io_submit is picked up in the same round;
 *  - the rest goes to the workers, and so does what libaio could not take or left short.
 *
 * Invariant: an env_io between submit and done() is on exactly one of aio.wait, the kernel's,
 * the workers' lists, io_done.
 */
#include "config.h"

#include "lib/env/linux_int.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

enum {
	INLINE_MAX = 256 << 10, /* bytes copied on the reactor's thread */
	AIO_BATCH = 64,
	SECTOR = 512,
};

static uint64_t iov_total(const struct iovec *iov, int n)
{
	uint64_t sum = 0;
	for (int i = 0; i < n; i++)
		sum += iov[i].iov_len;
	return sum;
}

/* ---- plain calls ---- */

static ssize_t rw_once(const struct env_io *io, bool dsync, const struct iovec *iov, int n,
		       uint64_t off)
{
	if (n > IOV_MAX)
		n = IOV_MAX;
	int fd = io->file->fd;
	ssize_t r;
	do {
		if (io->op == ENV_IO_READ)
			r = preadv(fd, iov, n, (off_t)off);
		else if (dsync)
			r = pwritev2(fd, iov, n, (off_t)off, RWF_DSYNC);
		else
			r = pwritev(fd, iov, n, (off_t)off);
	} while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r;
}

/* One step from byte @done on: the rest of a half finished buffer, or all whole ones after it. */
static ssize_t rw_step(const struct env_io *io, bool dsync, uint64_t done)
{
	int i = 0;
	uint64_t skip = done;
	while (skip >= io->iov[i].iov_len)
		skip -= io->iov[i++].iov_len;
	if (!skip)
		return rw_once(io, dsync, io->iov + i, io->iovcnt - i, io->off + done);
	struct iovec part = {.iov_base = (char *)io->iov[i].iov_base + skip,
			     .iov_len = io->iov[i].iov_len - skip};
	return rw_once(io, dsync, &part, 1, io->off + done);
}

/* A direct read that ended inside a sector was at the end of the file. */
static bool read_ended(const struct env_io *io, uint64_t done)
{
	return io->op == ENV_IO_READ && io->file->direct && done % SECTOR;
}

void io_rw(struct env_io *io)
{
	uint64_t total = iov_total(io->iov, io->iovcnt), done = (uint64_t)io->result;
	bool dsync = io->op == ENV_IO_WRITE && (io->flags & ENV_IO_DSYNC);
	bool sync_after = false; /* a file system without RWF_DSYNC */
	while (done < total && !read_ended(io, done)) {
		ssize_t r = rw_step(io, dsync, done);
		if (r == -EOPNOTSUPP && dsync) {
			dsync = false;
			sync_after = true;
			continue;
		}
		if (r == 0 && io->op == ENV_IO_WRITE)
			r = -EIO;
		if (r < 0) {
			io->result = r;
			return;
		}
		if (r == 0)
			break;
		done += (uint64_t)r;
	}
	if (sync_after && fdatasync(io->file->fd) < 0)
		io->result = -errno;
	else
		io->result = (int64_t)done;
}

/* ---- at once ---- */

static bool try_nowait(struct env_io *io, uint64_t total)
{
	if (io->iovcnt > IOV_MAX || io->file->no_nowait)
		return false;
	ssize_t r = preadv2(io->file->fd, io->iov, io->iovcnt, (off_t)io->off, RWF_NOWAIT);
	if (r < 0) {
		if (errno == EOPNOTSUPP)
			io->file->no_nowait = true;
		return false; /* a worker finds out what it is */
	}
	io->result = r; /* a worker goes on from there */
	return r == 0 || (uint64_t)r == total;
}

/* True: done. */
static bool try_inline(struct env_io *io)
{
	if (io->op == ENV_IO_SYNC || io->op == ENV_IO_FSYNC) {
		if (!io->file->mem)
			return false;
		io->result = fdatasync(io->file->fd) < 0 ? -errno : 0;
		return true;
	}
	uint64_t total = iov_total(io->iov, io->iovcnt);
	if (total > INLINE_MAX)
		return false;
	if (io->file->mem) {
		io_rw(io);
		return true;
	}
	return io->op == ENV_IO_READ && (io->flags & ENV_IO_NOWAIT) && try_nowait(io, total);
}

/* ---- libaio ---- */

static bool aio_can(const struct env_linux *l, const struct env_io *io)
{
	if (!l->aio.on)
		return false;
	if (io->op == ENV_IO_SYNC || io->op == ENV_IO_FSYNC)
		return true;
	return (io->flags & ENV_IO_DIRECT) && io->file->direct && io->result == 0 &&
	       io->iovcnt > 0 && io->iovcnt <= IOV_MAX;
}

static void aio_prep(struct env_linux *l, struct aio_req *req, struct env_io *io)
{
	int fd = io->file->fd;
	switch (io->op) {
	case ENV_IO_READ: io_prep_preadv(&req->cb, fd, io->iov, io->iovcnt, (off_t)io->off); break;
	case ENV_IO_WRITE:
		io_prep_pwritev(&req->cb, fd, io->iov, io->iovcnt, (off_t)io->off);
		if (io->flags & ENV_IO_DSYNC)
			req->cb.aio_rw_flags = RWF_DSYNC;
		break;
	case ENV_IO_SYNC: io_prep_fdsync(&req->cb, fd); break;
	default: io_prep_fsync(&req->cb, fd); break;
	}
	io_set_eventfd(&req->cb, l->aio.src.fd);
	req->io = io;
}

static struct aio_req *req_get(struct aio *a)
{
	struct aio_req *req = a->free;
	if (req)
		a->free = req->next_free;
	return req;
}

static struct env_io *req_put(struct aio *a, struct aio_req *req)
{
	struct env_io *io = req->io;
	req->io = NULL;
	req->next_free = a->free;
	a->free = req;
	return io;
}

/* What io_submit did not take goes back to the head of the queue, in order.  When it took nothing,
 * the first one is the reason: a worker makes the plain call and gets the real error.  (No room in
 * the kernel: wait for a completion.)  False: stop for now. */
static bool aio_rejected(struct env_linux *l, struct iocb **cbs, int n, int taken)
{
	struct aio *a = &l->aio;
	int first = taken > 0 ? taken : 0;
	bool full = taken == -EAGAIN && a->inflight > 0;
	for (int i = n - 1; i >= first; i--) {
		struct env_io *io = req_put(a, (struct aio_req *)cbs[i]);
		if (i == 0 && !full)
			work_add(l, io);
		else
			cds_list_add(&io->node, &a->wait);
	}
	return !full;
}

static void aio_submit(struct env_linux *l)
{
	struct aio *a = &l->aio;
	bool go = true;
	a->fresh = false;
	while (go && a->free && !cds_list_empty(&a->wait)) {
		struct iocb *cbs[AIO_BATCH];
		int n = 0;
		while (n < AIO_BATCH && a->free && !cds_list_empty(&a->wait)) {
			struct env_io *io = cds_list_first_entry(&a->wait, struct env_io, node);
			struct aio_req *req = req_get(a);
			cds_list_del(&io->node);
			aio_prep(l, req, io);
			cbs[n++] = &req->cb;
		}
		int taken = io_submit(a->ctx, n, cbs);
		if (taken > 0)
			a->inflight += (unsigned)taken;
		if (taken < n)
			go = aio_rejected(l, cbs, n, taken);
	}
}

static void aio_finish(struct env_linux *l, struct env_io *io, int64_t res)
{
	bool rw = io->op == ENV_IO_READ || io->op == ENV_IO_WRITE;
	io->result = res;
	if (rw && res >= 0 && (uint64_t)res < iov_total(io->iov, io->iovcnt)) {
		bool end = io->op == ENV_IO_READ && (res == 0 || read_ended(io, (uint64_t)res));
		if (!end) {
			work_add(l, io);
			return;
		}
	}
	cds_list_add_tail(&io->node, &l->io_done);
}

static void aio_reap(struct env_linux *l)
{
	struct aio *a = &l->aio;
	struct io_event ev[AIO_BATCH];
	int n = AIO_BATCH;
	while (a->inflight && n == AIO_BATCH) {
		struct timespec none = {0};
		n = io_getevents(a->ctx, 0, AIO_BATCH, ev, &none);
		for (int i = 0; i < n; i++) {
			struct env_io *io = req_put(a, (struct aio_req *)ev[i].obj);
			a->inflight--;
			aio_finish(l, io, (int64_t)ev[i].res);
		}
	}
	if (a->free && !cds_list_empty(&a->wait))
		a->fresh = true;
}

static void on_aio(struct ev_src *src, uint32_t events)
{
	aio_reap(src->owner);
}

int io_start(struct env_linux *l, unsigned aio_depth)
{
	struct aio *a = &l->aio;
	/* a machine that has used up aio-max-nr: everything goes to the workers */
	if (!aio_depth || io_setup((int)aio_depth, &a->ctx) < 0)
		return 0;
	a->on = true;
	a->depth = aio_depth;
	a->reqs = calloc(aio_depth, sizeof(*a->reqs));
	if (!a->reqs)
		return -ENOMEM;
	for (unsigned i = 0; i < aio_depth; i++)
		req_put(a, &a->reqs[i]);
	return src_add_eventfd(l, &a->src, on_aio, l);
}

void io_end(struct env_linux *l)
{
	struct aio *a = &l->aio;
	if (a->on)
		io_destroy(a->ctx);
	if (a->src.fd >= 0)
		close(a->src.fd);
	free(a->reqs);
}

/* ---- all of them ---- */

void env_linux_io_submit(struct env *e, struct env_io *io)
{
	struct env_linux *l = env_l(e);
	bool can_inline = io->op == ENV_IO_READ || io->op == ENV_IO_WRITE ||
			  io->op == ENV_IO_SYNC || io->op == ENV_IO_FSYNC;
	io->result = 0;
	io->result_file = NULL;
	io->names = NULL;
	l->nr_io++;
	if (can_inline && try_inline(io)) {
		cds_list_add_tail(&io->node, &l->io_done);
	} else if (can_inline && aio_can(l, io)) {
		cds_list_add_tail(&io->node, &l->aio.wait);
		l->aio.fresh = true;
	} else {
		work_add(l, io);
	}
	env_linux_wake(l);
}

bool io_pending(struct env_linux *l)
{
	return !cds_list_empty(&l->io_done) || l->aio.fresh || l->work.nr_fresh;
}

void io_flush(struct env_linux *l)
{
	if (l->aio.fresh) {
		aio_submit(l);
		aio_reap(l);
	}
	work_flush(l);
}

static void count_files(struct env_linux *l, struct env_io *io)
{
	if (io->op == ENV_IO_OPEN && io->result_file) {
		io->result_file->env = &l->base;
		l->nr_files++;
	} else if (io->op == ENV_IO_CLOSE) {
		l->nr_files--;
	}
}

/* Those that are finished now; what they start counts for the next round. */
void io_run_done(struct env_linux *l)
{
	struct cds_list_head now;
	if (cds_list_empty(&l->io_done))
		return;
	CDS_INIT_LIST_HEAD(&now);
	cds_list_splice(&l->io_done, &now);
	CDS_INIT_LIST_HEAD(&l->io_done);
	while (!cds_list_empty(&now)) {
		struct env_io *io = cds_list_first_entry(&now, struct env_io, node);
		cds_list_del(&io->node);
		count_files(l, io);
		l->nr_io--;
		io->done(io);
	}
}
