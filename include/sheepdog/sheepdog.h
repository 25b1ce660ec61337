/* sheepdog.h - libsheepdog: be a client of a sheepdog cluster.
 *
 * One struct sd_cluster is one client of one cluster, over any of several gateways.  The library
 * has no threads, no globals and no signal handlers: it is one pollable fd plus sd_dispatch(); the
 * blocking calls below run the same machinery inside.  A struct sd_cluster and everything opened
 * from it belong to one thread at a time.
 *
 * Requests survive the loss of a gateway: the library reconnects (to the next address it knows, for
 * ever unless a timeout is set) and sends everything unanswered again under a new session, so that
 * nothing old can overtake it (DESIGN 5.1).  A gateway that is silent for two seconds while it owes
 * answers counts as lost when there is another one.  Results that pass ("ask to try again", a
 * daemon that is stopping) are waited out.
 *
 * Errors are negative: -errno for the transport and for wrong arguments (-ETIMEDOUT, -ECONNREFUSED,
 * -ENOMEM, -EINVAL...) and -(SD_ERR_BASE + code) for a result of the cluster (codes:
 * sheepdog/result.h); sd_strerror() explains both.  After -ETIMEDOUT or -ECANCELED a change may or
 * may not have been carried out; it will not be any more once a later request to the same place was
 * answered.
 *
 * Two clients that have one volume open for writing at once (clusters without locks allow it) see
 * each other's data, but a client may read as zeros what another one wrote into a hole after it
 * opened the volume; open it again to see it.
 */
#ifndef SHEEPDOG_SHEEPDOG_H
#define SHEEPDOG_SHEEPDOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SD_ERR_BASE 0x10000
/* The cluster's result code inside @err, or 0 when @err is an errno or no error. */
#define SD_ERR_RESULT(err) ((err) <= -SD_ERR_BASE ? -(err)-SD_ERR_BASE : 0)

struct sd_cluster;
struct sd_vdi;

/* ---- cluster ---- */

/* Make a client of the cluster behind @gateways: comma separated `HOST[:PORT]`, `[IPV6]:PORT` or
 * `unix:PATH`; NULL is 127.0.0.1:7000.  Names are resolved here (-EHOSTUNREACH when none can be;
 * -EINVAL: not a list of addresses); connects only when first needed.  0 or -errno.  Any thread. */
int sd_cluster_open(const char *gateways, struct sd_cluster **ret);
/* Close; every sd_vdi must be closed before, or by the callbacks of the operations that this ends
 * with -ECANCELED.  Not from a callback.  NULL is fine. */
void sd_cluster_close(struct sd_cluster *c);
/* Milliseconds that a request may take, reconnects included, before it fails with -ETIMEDOUT; 0
 * (the default): for ever.  Affects requests started afterwards. */
void sd_cluster_set_timeout(struct sd_cluster *c, unsigned ms);
/* As above, for requests made before a first connection ever succeeded (default 5000 ms), so that a
 * wrong address is an error and not a hang.  When every address refuses (nobody listens, or it is
 * not a daemon) they fail at once. */
void sd_cluster_set_connect_timeout(struct sd_cluster *c, unsigned ms);
/* Poll this fd for reading and call sd_dispatch() when it is; valid until sd_cluster_close().
 * -errno when there is none (out of descriptors). */
int sd_cluster_fd(struct sd_cluster *c);
/* Handle what is ready; runs completion callbacks; never blocks.  Returns the number of callbacks
 * run.  A callback may call everything here but sd_cluster_close(). */
int sd_dispatch(struct sd_cluster *c);
/* Wait up to @timeout_ms (-1: for ever) for something to do, and dispatch it. */
int sd_wait(struct sd_cluster *c, int timeout_ms);
/* Text for any error of this library: a static string. */
const char *sd_strerror(int err);
/* Text of the last transport failure of @c ("connect to 127.0.0.1:7000: Connection refused": reads
 * well behind "failed to"), or "". */
const char *sd_last_error(struct sd_cluster *c);

/* ---- volumes: blocking ---- */

struct sd_vdi_info {
	uint32_t vid;
	uint32_t snap_id;     /* 0: the working volume */
	uint64_t size;	      /* bytes */
	uint64_t create_time; /* (unix seconds << 32) | ns */
	uint8_t copies, copy_policy, object_shift;
	bool snapshot;
};

struct sd_create_opts {
	uint8_t copies;	      /* 0: the cluster's default, policy too */
	uint8_t copy_policy;  /* 0: replication */
	uint8_t object_shift; /* log2 of the object size, 20..31; 0: the cluster's default */
};

/* Create volume @name (1 to 255 bytes) of @size bytes (rounded up to 512).  @opts and @ret_vid may
 * be NULL.  -EFBIG: more than 2^20 objects. */
int sd_vdi_create(struct sd_cluster *c, const char *name, uint64_t size,
		  const struct sd_create_opts *opts, uint32_t *ret_vid);
/* Delete the working volume @name and give its space back. */
int sd_vdi_delete(struct sd_cluster *c, const char *name);

enum sd_open_flags {
	SD_OPEN_RDONLY = 1,
	SD_OPEN_CACHE = 2, /* writes may be cached by the kernel of the nodes until sd_flush() */
};

/* Open the working volume @name.  If the cluster uses locks this takes the lock, unless read-only:
 * a reader needs none and sees the allocation as it is now. */
int sd_vdi_open(struct sd_cluster *c, const char *name, unsigned flags, struct sd_vdi **ret);
/* Finish what is in flight, flush what may be cached, release the lock (tried for at most 5 s).
 * Frees @v even when it returns an error. */
int sd_vdi_close(struct sd_vdi *v);
void sd_vdi_get_info(struct sd_vdi *v, struct sd_vdi_info *ret);
/* Change write caching from now on (QEMU's cache mode). */
void sd_vdi_set_cache(struct sd_vdi *v, bool cache);
/* Grow to @size bytes (rounded up to 512); shrinking is -EINVAL, more than 2^20 objects -EFBIG. */
int sd_vdi_resize(struct sd_vdi *v, uint64_t size);
/* Bytes allocated (own objects x object size). */
uint64_t sd_vdi_allocated(struct sd_vdi *v);
/* Is the range at @off data or a hole (reads as zeros)?  *ret_len: how far that goes, at most @len.
 */
bool sd_vdi_is_data(struct sd_vdi *v, uint64_t off, uint64_t len, uint64_t *ret_len);

/* Blocking I/O: the whole range or an error; 0 on success.  Offsets and lengths in bytes; any
 * alignment; beyond the end of the volume is -EINVAL; changing one that is open read-only -EROFS.
 * After an error a part of the range may be changed. */
int sd_read(struct sd_vdi *v, void *buf, size_t len, uint64_t off);
int sd_write(struct sd_vdi *v, const void *buf, size_t len, uint64_t off);
int sd_flush(struct sd_vdi *v);
/* Give space back: whole objects inside the range are dropped and read as zeros; the rest is
 * unchanged. */
int sd_discard(struct sd_vdi *v, uint64_t len, uint64_t off);
/* Afterwards the range reads as zeros: whole objects are dropped, the rest is overwritten where
 * allocated. */
int sd_write_zeroes(struct sd_vdi *v, uint64_t len, uint64_t off);

/* ---- volumes: asynchronous ---- */

/* Called once, from sd_dispatch(), sd_wait(), a blocking call or sd_cluster_close(), never from the
 * call that started it. */
typedef void (*sd_done_fn)(void *arg, int err);

/* Start an operation on @v; buffers and iovecs' memory must stay valid until @done; the iovec array
 * itself is copied.  0, or -errno when it could not be started (then @done is not called).
 * Overlapping operations in flight have no order.  A flush covers the writes that were done before
 * it was started; with SD_OPEN_CACHE also those of others (in a cluster without locks). */
int sd_readv_async(struct sd_vdi *v, const struct iovec *iov, int iovcnt, uint64_t off,
		   sd_done_fn done, void *arg);
int sd_writev_async(struct sd_vdi *v, const struct iovec *iov, int iovcnt, uint64_t off,
		    sd_done_fn done, void *arg);
int sd_flush_async(struct sd_vdi *v, sd_done_fn done, void *arg);
int sd_discard_async(struct sd_vdi *v, uint64_t len, uint64_t off, sd_done_fn done, void *arg);
int sd_write_zeroes_async(struct sd_vdi *v, uint64_t len, uint64_t off, sd_done_fn done, void *arg);

/* ---- raw requests: for administration tools ---- */

struct sd_req;
struct sd_rsp;
/* One request of the wire protocol (include/sheepdog/proto.h), answered by the gateway this client
 * is connected to.  @out: payload sent when SD_FLAG_WRITE is set; @in: room for the reply's payload
 * (*in_len: its size, then the bytes received).  Returns 0 when a reply came, whatever rsp->result
 * says.  When the connection is lost meanwhile, requests that do no harm twice are sent again;
 * others fail with -ECONNRESET if they may have been carried out. */
int sd_request(struct sd_cluster *c, const struct sd_req *req, const void *out, void *in,
	       size_t *in_len, struct sd_rsp *rsp);
/* As sd_request, to one node instead of a gateway of the list; a connection of its own; no resend.
 */
int sd_request_to(struct sd_cluster *c, const char *address, const struct sd_req *req,
		  const void *out, void *in, size_t *in_len, struct sd_rsp *rsp);

#ifdef __cplusplus
}
#endif
#endif
