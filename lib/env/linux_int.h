/* linux_int.h - what the files of the Linux env share; nobody else includes it. */
#ifndef LIB_ENV_LINUX_INT_H
#define LIB_ENV_LINUX_INT_H

#include <libaio.h>
#include <pthread.h>

#include "lib/env/linux.h"

/* One registered fd.  Invariants:
 *  1. epoll knows exactly the sources that are not dead;
 *  2. a dead source's memory stays until the end of the turn, so that an event of it that is still
 *     in the batch finds the mark and is dropped. */
struct ev_src {
	void (*fn)(struct ev_src *src, uint32_t events);
	void *owner; /* what free() gets */
	int fd;
	bool dead;
	struct cds_list_head grave;
};

/* A libaio request: env_io has no room for an iocb, so these come from a pool of aio_depth. */
struct aio_req {
	struct iocb cb; /* first: the kernel hands back its address */
	struct env_io *io;
	struct aio_req *next_free;
};

struct aio {
	io_context_t ctx;
	bool on;
	unsigned depth, inflight;
	struct aio_req *reqs, *free;
	struct cds_list_head wait; /* env_io not yet given to the kernel */
	bool fresh;		   /* @wait grew since the last flush */
	struct ev_src src;	   /* eventfd, edge-triggered and never read */
};

/* Worker threads.  Invariants: everything below @lock is touched with it held; an env_io is on
 * exactly one list; an eventfd write follows each change of @done from empty to not empty. */
struct work_pool {
	struct cds_list_head fresh; /* reactor only: handed over once per turn */
	unsigned nr_fresh, max, nr;
	pthread_t *threads;
	struct ev_src src; /* eventfd, edge-triggered and never read */
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct cds_list_head queue, done;
	unsigned idle;
	bool quit;
};

struct env_linux {
	struct env base;
	int epfd;
	bool stop, in_turn, no_pwait2;
	/* timers: a binary heap by (at_ns, seq) */
	struct env_timer **heap;
	size_t nr_timers, heap_cap;
	uint64_t timer_seq;
	struct cds_list_head defers;
	/* only when nested into another loop */
	bool nested, kicked;
	struct ev_src kick, tick; /* eventfd, timerfd */
	uint64_t tick_at;	  /* what the timerfd is set to; UINT64_MAX: nothing */
	struct cds_list_head graves;
	struct cds_list_head io_done; /* finished, done() not yet called */
	size_t nr_io, nr_files, nr_socks, nr_watches;
	struct aio aio;
	struct work_pool work;
	uint8_t boot_id[16];
};

struct env_file {
	struct env *env;
	int fd;
	bool direct; /* O_DIRECT is set */
	bool mem;    /* on a file system that lives in memory: never waits for a disk */
	bool no_nowait;
};

static inline struct env_linux *env_l(struct env *e)
{
	return (struct env_linux *)e;
}

/* ---- linux.c ---- */
int src_add(struct env_linux *l, struct ev_src *src, uint32_t events);
void src_del(struct env_linux *l, struct ev_src *src); /* the owner is freed, now or later */
/* An eventfd, edge-triggered: it is written, never read. */
int src_add_eventfd(struct env_linux *l, struct ev_src *src,
		    void (*fn)(struct ev_src *src, uint32_t events), void *owner);
void src_signal(struct ev_src *src);
/* Something was queued: make the next turn (or the outer loop) see it. */
void env_linux_wake(struct env_linux *l);
void env_linux_timer_set(struct env *e, struct env_timer *t, uint64_t at_ns);
void env_linux_timer_del(struct env *e, struct env_timer *t);
uint64_t env_linux_now(struct env *e);

/* ---- linux_io.c ---- */
int io_start(struct env_linux *l, unsigned aio_depth);
void io_end(struct env_linux *l);
void env_linux_io_submit(struct env *e, struct env_io *io);
bool io_pending(struct env_linux *l); /* flush or run_done has something to do */
void io_flush(struct env_linux *l);
void io_run_done(struct env_linux *l);
/* The rest of a read or write from io->result on, blocking; sets io->result. */
void io_rw(struct env_io *io);

/* ---- linux_work.c ---- */
int work_start(struct env_linux *l, unsigned nr_workers);
void work_end(struct env_linux *l);
void work_add(struct env_linux *l, struct env_io *io);
void work_flush(struct env_linux *l);

/* ---- linux_fs.c: one blocking call, on a worker ---- */
void io_blocking(struct env_io *io);

/* ---- linux_sock.c ---- */
int sock_listen(struct env *e, const struct net_addr *a, env_sock_fn fn, void *arg,
		struct env_sock **ret);
int sock_accept(struct env_sock *lst, env_sock_fn fn, void *arg, struct env_sock **ret,
		struct net_addr *peer);
int sock_connect(struct env *e, const struct net_addr *a, env_sock_fn fn, void *arg,
		 struct env_sock **ret);
ssize_t sock_recv(struct env_sock *s, const struct iovec *iov, int n);
ssize_t sock_send(struct env_sock *s, const struct iovec *iov, int n);
void sock_handler(struct env_sock *s, env_sock_fn fn, void *arg);
int sock_error(struct env_sock *s);
int sock_name(struct env_sock *s, struct net_addr *ret);
void sock_close(struct env_sock *s, bool reset);

#endif
