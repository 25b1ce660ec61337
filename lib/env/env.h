/* env.h - the only door to the world: clock, timers, randomness, disk, network, process.
 *
 * Used by: lib/co, lib/client, sheep.  lib/env/linux.c fills it in for production; tests/sim will
 * for the simulator.  (The cluster bus is the seventh door: see sheep/cluster/driver.h.)
 *
 * Rules:
 *  - Every call is made on the thread that runs the env (env_run); every callback comes on it.
 *  - A callback is never called from inside the call that caused it, always from env_run().
 *  - Nothing blocks.  Errors are -errno.
 *  - Whoever embeds a struct env_timer, env_defer or env_io owns its memory until the callback ran
 *    or the cancel returned.
 */
#ifndef LIB_ENV_ENV_H
#define LIB_ENV_ENV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <urcu/list.h>

struct env;
struct env_sock;
struct env_file;

/* A network address: IPv4 is stored in bytes 12..15 of @ip (rest 0), IPv6 in all 16; a unix socket
 * has family AF_UNIX and a path. */
struct net_addr {
	int family; /* AF_INET, AF_INET6, AF_UNIX */
	uint8_t ip[16];
	uint16_t port; /* host order */
	char path[108];
};

/* ---- timers and deferred calls ---- */

struct env_timer {
	void (*fn)(struct env_timer *t);
	uint64_t at_ns;
	uint64_t seq;
	size_t heap_idx; /* 0: not armed; else position + 1; owned by the env */
};

struct env_defer {
	void (*fn)(struct env_defer *d);
	struct cds_list_head node;
	bool queued;
};

/* ---- disk ---- */

enum env_io_op {
	ENV_IO_READ,	 /* preadv: iov, off.  Result: bytes read (short only at end of file) */
	ENV_IO_WRITE,	 /* pwritev: iov, off.  Result: bytes written (all of them, or an error) */
	ENV_IO_SYNC,	 /* fdatasync(file) */
	ENV_IO_FSYNC,	 /* fsync(file), also for a directory handle */
	ENV_IO_SYNCFS,	 /* syncfs of the file system that holds @file */
	ENV_IO_OPEN,	 /* openat(file = directory or NULL, name, flags, mode); result_file */
	ENV_IO_CLOSE,	 /* closes @file; the handle is gone when done is called, also on error */
	ENV_IO_UNLINK,	 /* unlinkat(file, name) */
	ENV_IO_RENAME,	 /* renameat2(file, name, file2 ? file2 : file, name2) */
	ENV_IO_MKDIR,	 /* mkdirat(file, name, mode) */
	ENV_IO_LIST,	 /* names of a directory handle, sorted bytewise, without . and .. */
	ENV_IO_TRUNCATE, /* ftruncate(file, off) */
	ENV_IO_PUNCH,	 /* fallocate punch hole, keep size: off, len */
	ENV_IO_ALLOC,	 /* fallocate: off, len (extends the file) */
	ENV_IO_STAT,	 /* fstat(file), or fstatat(file, name) when name is set: stat_* below */
	ENV_IO_STATFS,	 /* fstatfs(file): fs_total, fs_free (bytes, f_bavail) */
	ENV_IO_LOCK,	 /* exclusive lock of @file for as long as the handle is open, also against
			    other handles of this process; -EBUSY when somebody has it */
	ENV_IO_JOB,	 /* job(io) on a worker thread, inline in the simulator */
};

/* How a READ or WRITE should be carried out; a hint to the Linux side. */
enum env_io_flag {
	ENV_IO_DIRECT = 1, /* file was opened O_DIRECT: use libaio (buffers, offset, length 4 KiB
			      aligned) */
	ENV_IO_NOWAIT = 2, /* READ: try preadv2(RWF_NOWAIT) first, a worker on a miss */
	ENV_IO_DSYNC = 4,  /* WRITE: durable when done (RWF_DSYNC, or write and fdatasync) */
};

struct env_io {
	enum env_io_op op;
	unsigned flags; /* env_io_flag for READ/WRITE; open(2) flags for OPEN */
	struct env_file *file, *file2;
	const char *name, *name2; /* must stay valid until done */
	const struct iovec *iov;
	int iovcnt;
	mode_t mode;
	uint64_t off, len;
	void (*done)(struct env_io *io); /* on the env's thread */
	void *arg;			 /* the caller's */
	int (*job)(struct env_io *io);	 /* ENV_IO_JOB; its return value is the result */
	/* filled in by the env */
	int64_t result; /* >= 0, or -errno */
	struct env_file *result_file;
	char **names; /* LIST: malloc'ed array of malloc'ed strings, NULL terminated; the caller
			 frees */
	uint64_t stat_size, stat_blocks, stat_mtime_ns;
	bool stat_isdir;
	uint64_t fs_total, fs_free;
	struct cds_list_head node; /* the env's queue */
};

/* ---- network ---- */

enum env_sock_event { ENV_SOCK_IN = 1, ENV_SOCK_OUT = 2, ENV_SOCK_HUP = 4 };

/* Called when the socket may have become readable or writable (edge-triggered: act until -EAGAIN or
 * a short count). */
typedef void (*env_sock_fn)(struct env_sock *s, unsigned events, void *arg);

struct env_ops {
	uint64_t (*now)(struct env *);	/* monotonic ns */
	uint64_t (*wall)(struct env *); /* ns since 1970 */
	void (*random)(struct env *, void *buf, size_t len);
	void (*timer_set)(struct env *, struct env_timer *, uint64_t at_ns);
	void (*timer_del)(struct env *, struct env_timer *);
	void (*defer)(struct env *, struct env_defer *);
	void (*defer_del)(struct env *, struct env_defer *);
	void (*io_submit)(struct env *, struct env_io *);
	int (*listen)(struct env *, const struct net_addr *, env_sock_fn, void *arg,
		      struct env_sock **ret);
	int (*accept)(struct env_sock *lst, env_sock_fn, void *arg, struct env_sock **ret,
		      struct net_addr *peer);
	int (*connect)(struct env *, const struct net_addr *, env_sock_fn, void *arg,
		       struct env_sock **ret);
	ssize_t (*recv)(struct env_sock *, const struct iovec *, int n);
	ssize_t (*send)(struct env_sock *, const struct iovec *, int n);
	void (*sock_handler)(struct env_sock *, env_sock_fn, void *arg);
	int (*sock_error)(struct env_sock *);
	int (*sock_name)(struct env_sock *, struct net_addr *ret);
	void (*sock_close)(struct env_sock *, bool reset);
	void (*boot_id)(struct env *, uint8_t id[16]);
};

struct env {
	const struct env_ops *ops;
};

/* ---- inline fronts: what every caller uses ---- */

/* Monotonic time in nanoseconds; never goes back, goes on while the machine is suspended. */
static inline uint64_t env_now(struct env *e)
{
	return e->ops->now(e);
}

/* Wall clock in nanoseconds since 1970; may jump.  Never for decisions, only for times shown to
 * people. */
static inline uint64_t env_wall(struct env *e)
{
	return e->ops->wall(e);
}

static inline void env_random(struct env *e, void *buf, size_t len)
{
	e->ops->random(e, buf, len);
}

static inline uint64_t env_random64(struct env *e)
{
	uint64_t v;
	e->ops->random(e, &v, sizeof(v));
	return v;
}

/* Arm (or re-arm) @t, whose fn must be set, for monotonic time @at_ns.  One shot. */
static inline void env_timer_set(struct env *e, struct env_timer *t, uint64_t at_ns)
{
	e->ops->timer_set(e, t, at_ns);
}

/* Disarm; harmless when not armed. */
static inline void env_timer_del(struct env *e, struct env_timer *t)
{
	e->ops->timer_del(e, t);
}

/* Call d->fn(d) from env_run, after what is already queued.  Queuing twice before it ran is one
 * call. */
static inline void env_defer(struct env *e, struct env_defer *d)
{
	e->ops->defer(e, d);
}

static inline void env_defer_del(struct env *e, struct env_defer *d)
{
	e->ops->defer_del(e, d);
}

/* Start @io; io->done(io) is called later, exactly once, also on error.  I/Os may complete in any
 * order. An I/O cannot be cancelled. */
static inline void env_io_submit(struct env *e, struct env_io *io)
{
	e->ops->io_submit(e, io);
}

/* Listen.  @fn is called with ENV_SOCK_IN when a connection may be accepted.  Port 0 picks one (see
 * env_sock_name).  A unix path is unlinked first.  IPv6 sockets are v6-only. */
static inline int env_listen(struct env *e, const struct net_addr *a, env_sock_fn fn, void *arg,
			     struct env_sock **ret)
{
	return e->ops->listen(e, a, fn, arg, ret);
}

/* -EAGAIN: nothing waiting.  TCP sockets come with TCP_NODELAY and keepalive set. */
static inline int env_accept(struct env_sock *l, env_sock_fn fn, void *arg, struct env_sock **ret,
			     struct net_addr *peer)
{
	return (*(struct env **)l)->ops->accept(l, fn, arg, ret, peer);
}

/* Start to connect.  ENV_SOCK_OUT: connected; ENV_SOCK_HUP: failed, see env_sock_error(). */
static inline int env_connect(struct env *e, const struct net_addr *a, env_sock_fn fn, void *arg,
			      struct env_sock **ret)
{
	return e->ops->connect(e, a, fn, arg, ret);
}

/* Every implementation's struct env_sock and struct env_file begin with a struct env pointer. */
static inline struct env *env_sock_env(struct env_sock *s)
{
	return *(struct env **)s;
}

/* Bytes received, 0 at end of stream, -EAGAIN (the callback comes), or -errno.  At most IOV_MAX
 * buffers.  Fewer bytes than there was room for: that was all, the callback comes for more, the end
 * of the stream included; no need to ask until -EAGAIN. */
static inline ssize_t env_recv(struct env_sock *s, const struct iovec *iov, int n)
{
	return env_sock_env(s)->ops->recv(s, iov, n);
}

/* Bytes taken by the kernel, -EAGAIN (the callback comes), or -errno.  Never raises SIGPIPE. */
static inline ssize_t env_send(struct env_sock *s, const struct iovec *iov, int n)
{
	return env_sock_env(s)->ops->send(s, iov, n);
}

/* Hand the socket over to another callback.  If events may have been missed meanwhile the new one
 * should try env_recv() once. */
static inline void env_sock_handler(struct env_sock *s, env_sock_fn fn, void *arg)
{
	env_sock_env(s)->ops->sock_handler(s, fn, arg);
}

static inline int env_sock_error(struct env_sock *s)
{
	return env_sock_env(s)->ops->sock_error(s);
}

/* Local address of the socket. */
static inline int env_sock_name(struct env_sock *s, struct net_addr *ret)
{
	return env_sock_env(s)->ops->sock_name(s, ret);
}

/* Close; no callback comes afterwards.  @reset: discard what is queued (RST).  NULL is fine. */
static inline void env_sock_close(struct env_sock *s, bool reset)
{
	if (s)
		env_sock_env(s)->ops->sock_close(s, reset);
}

/* The machine's boot id: differs after a power cut, not after the death of a process. */
static inline void env_boot_id(struct env *e, uint8_t id[16])
{
	e->ops->boot_id(e, id);
}

#endif
