/* world.h - the simulated world: one thread, virtual time, every fault from one seed.
 *
 * A world has nodes (machines).  A node has a disk, an address and at most one process: a real
 * daemon, its code unchanged, on the simulated side of lib/env/env.h.  Everything that happens is
 * an event in one heap, ordered by (time, number); each event folds into the trace hash.  Nothing
 * depends on addresses, on the clock of this machine or on memory that was not written.
 */
#ifndef TESTS_SIM_WORLD_H
#define TESTS_SIM_WORLD_H

#include "lib/env/env.h"

#include <stdio.h>

#define NODES_MAX 8u
#define US	  1000ull
#define MS	  1000000ull
#define SEC	  1000000000ull

/* ---- randomness: one stream for each consumer, so that a new draw in one does not shift another
 * ---- */

struct prng {
	uint64_t s[2];
};
void prng_init(struct prng *p, uint64_t seed, uint64_t stream);
uint64_t prng_next(struct prng *p);
/* In [lo, hi]. */
uint64_t prng_in(struct prng *p, uint64_t lo, uint64_t hi);
/* True with @n chances in @of. */
bool prng_chance(struct prng *p, unsigned n, unsigned of);

/* ---- events ---- */

struct world;
struct proc;

struct event {
	uint64_t at, nr;
	void (*fn)(struct event *ev);
	size_t idx; /* place in the heap + 1; 0: not in it */
	const char *what;
};

/* Arm @ev (whose fn and what are set) for time @at; re-arming moves it. */
void event_set(struct world *w, struct event *ev, uint64_t at);
void event_del(struct world *w, struct event *ev);

/* ---- the pieces ---- */

struct sim_disk;
struct sim_net;
struct sim_bus;

enum fault { /* counted, and named in the story */
	     FAULT_KILL,
	     FAULT_POWER,
	     FAULT_PAUSE,
	     FAULT_CUT,
	     FAULT_CUT_ONE_WAY,
	     FAULT_RESET,
	     FAULT_SLOW_LINK,
	     FAULT_BIT_ROT,
	     FAULT_IO_ERROR,
	     FAULT_LOST_WRITE,
	     FAULT_STALL,
	     FAULT_DISK_FULL,
	     FAULT_NEW_DISK,
	     FAULT_TORN,
	     FAULT_LATE_VIEW,
	     FAULT_CLOCK,
	     FAULT_CLIENT,
	     FAULT_PAUSE_LONG,
	     FAULT_SUSPEND,
	     FAULT_OWNER,
	     FAULT_STOP,
	     FAULT_SHUTDOWN,
	     FAULT_RESTARTS,
	     FAULT_AWAY,
	     FAULT_ADDED,
	     FAULT_JOINER,
	     FAULT_BATCH,
	     FAULT_SPLIT,
	     FAULT_SILENT,
	     FAULT_QUORUM,
	     FAULT_HALF_OPEN,
	     FAULT_SLOW_READER,
	     FAULT_WALL,
	     FAULT_ROT_START,
	     FAULT_NR
};
extern const char *const fault_names[FAULT_NR];

struct world {
	uint64_t seed, now, next_nr, nr_events;
	uint64_t hash; /* of the trace */
	struct event **heap;
	size_t nr_heap, cap_heap;
	struct prng rnd_net, rnd_disk, rnd_bus, rnd_fault, rnd_work, rnd_ids;
	struct sim_net *net;
	struct sim_bus *bus;
	struct proc *procs;   /* alive, oldest first */
	struct proc *running; /* whose code runs now; NULL: the world's own */
	uint64_t next_pid, next_value;
	uint64_t faults[FAULT_NR];
	uint64_t nr_breaks; /* connections that a node or a fault has ended */
	FILE *story;	    /* --log */
	struct order
		*order; /* order.c: what the state was at each place of the log; NULL at first */
	bool failed;
	char why[512];
};

void world_init(struct world *w, uint64_t seed);
void world_done(struct world *w);
/* Run the next event; false: there is none. */
bool world_step(struct world *w);
/* One line of the story; folds into the trace hash whether it is printed or not. */
void story(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void fold(struct world *w, const void *p, size_t len);
/* The run has failed: the first reason is kept. */
void world_fail(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void world_fault(struct world *w, enum fault f);
void order_free(struct order *o); /* NULL is fine */

/* ---- processes ---- */

#define PROC_TIMERS_MAX 16384u

/* An event that is code of a process: like struct event, but held back while @p is paused and
 * dropped when it dies. */
struct pevent {
	struct event ev;
	struct proc *p;
	void (*fn)(struct pevent *pe);
	void (*drop)(struct pevent *pe); /* the process died first; may be NULL */
	struct cds_list_head held, all;
};

/* A machine's clock: it goes on whatever becomes of processes, and begins anew at a power cut. */
struct sim_clock {
	uint64_t base, local; /* monotonic time @local at world time @base */
	int64_t drift_ppm;    /* faster by that much */
	int64_t wall_off;     /* ns */
};
uint64_t clock_at(const struct sim_clock *c, uint64_t world_ns);
/* From now on it drifts that much; no jump. */
void clock_drift(struct sim_clock *c, uint64_t world_ns, int64_t ppm);

/* The env of one process.  Everything of it ends with proc_kill(): sockets, files, timers, memory.
 */
struct proc {
	struct env env; /* first: struct env * and struct proc * are one */
	struct world *w;
	struct proc *next;
	uint64_t pid;
	char name[24];
	uint32_t ip;	       /* 10.0.0.x */
	struct sim_disk *disk; /* NULL: a client */
	struct sheep *sheep;   /* a daemon's, once it runs */
	uint8_t boot_id[16];
	bool paused, dead, power_lost;
	bool ordered;		      /* its live state was compared: order.c */
	struct sim_clock *clock, own; /* its machine's; a client has its own */
	struct pevent turn;	      /* its deferred calls run */
	struct cds_list_head defers;
	struct cds_list_head held;    /* events that came while it was paused */
	struct cds_list_head pevents; /* all of its events that are armed or held */
	struct cds_list_head memory;
	uint64_t nr_blocks, timer_seq;
	unsigned nr_files, nr_ios, nr_timers;
	struct env_timer *timers[PROC_TIMERS_MAX];
	struct pevent timer;
	bool turn_set, timer_set;
};

struct proc *proc_new(struct world *w, const char *name, uint32_t ip, struct sim_disk *disk);
/* The end, at once: nothing of its code runs any more, its memory is given back. */
void proc_kill(struct proc *p);
/* An orderly end: false when a timer, file or block of memory is left (world_fail() said which). */
bool proc_exit(struct proc *p);
/* Its clock was changed, or its first timer: when does the next one fire? */
void proc_arm(struct proc *p);
void proc_pause(struct proc *p);
void proc_resume(struct proc *p);
/* Run @fn(@arg) as code of @p (memory counts for it). */
void proc_call(struct proc *p, void (*fn)(void *arg), void *arg);
void pevent_set(struct proc *p, struct pevent *pe, uint64_t at, const char *what);
void pevent_del(struct pevent *pe);

/* ---- disks (disk.c) ---- */

struct sim_disk *disk_new(struct world *w, const char *name, uint64_t size);
void disk_free(struct sim_disk *d);
/* The power goes: each unsynced write and name is kept, dropped or torn. */
void disk_power_cut(struct sim_disk *d);
/* All handles are gone with their process. */
void disk_proc_died(struct sim_disk *d, struct proc *p);
void disk_submit(struct proc *p, struct env_io *io);
/* Faults for a while or once. */
void disk_set_stall(struct sim_disk *d, uint64_t until);
void disk_set_errors(struct sim_disk *d, unsigned reads_per_million, unsigned writes_per_million);
void disk_set_full(struct sim_disk *d, bool full);
/* Flips one synced bit of an object (of its header); false: nothing to rot, or one is rotten
 * already.  disk_unrot() ends it. */
bool disk_rot(struct sim_disk *d, struct prng *r, bool header);
/* A bit of the first page of the object with this file name. */
bool disk_rot_object(struct sim_disk *d, const char *name);
/* It is another, empty one now.  Nobody uses it. */
void disk_wipe(struct sim_disk *d);
void disk_unrot(struct sim_disk *d);
/* Are all files of that name durable, with all that was written to them?  (invariants.c) */
bool disk_durable(const struct sim_disk *d, const char *name);

/* ---- network (net.c) ---- */

struct sim_net *net_new(struct world *w);
void net_free(struct sim_net *n);
void net_proc_died(struct sim_net *n, struct proc *p);
/* Packets from ip @a to ip @b are held (a cut) or flow. */
void net_cut(struct sim_net *n, uint32_t a, uint32_t b, bool cut);
/* What @a has sent or will send to @b over the connections that are open now is held, or flows. */
void net_hold_open(struct sim_net *n, uint32_t a, uint32_t b, bool held);
/* What @a has sent to @b until now arrives, also over a cut. */
void net_let(struct sim_net *n, uint32_t a, uint32_t b);
/* @a's ends of its connections to @b break; @b hears of it behind what is on its way. */
void net_lose(struct sim_net *n, uint32_t a, uint32_t b);
void net_heal(struct sim_net *n);
/* Every packet between @ip and the others, or from @a to @b, takes so much longer. */
void net_slow(struct sim_net *n, uint32_t ip, uint64_t extra_ns);
void net_slow_link(struct sim_net *n, uint32_t a, uint32_t b, uint64_t extra_ns);
/* @ip takes in @window unread bytes of a connection (0: the usual), each byte takes @byte_ns. */
void net_slow_reader(struct sim_net *n, uint32_t ip, uint32_t window, uint32_t byte_ns);
/* @ip's end of some connection has seen a reset; the other end hears of it after @ns, until then
 * what it sends goes nowhere.  False: there is none. */
bool net_half_open(struct sim_net *n, uint32_t ip, struct prng *r, uint64_t ns);
/* Reset some connection of @ip in the middle of what it carries; false: there is none. */
bool net_reset_one(struct sim_net *n, uint32_t ip, struct prng *r);
/* Arm @ev when nodes have sent data to each other @nr times more (NULL: never mind); who sent last?
 */
void net_on_send(struct sim_net *n, struct event *ev, unsigned nr);
uint32_t net_doomed(const struct sim_net *n);
bool net_is_cut(struct sim_net *n, uint32_t a, uint32_t b);
extern const struct env_ops sim_ops;
int sim_listen(struct env *e, const struct net_addr *a, env_sock_fn fn, void *arg,
	       struct env_sock **ret);
int sim_accept(struct env_sock *l, env_sock_fn fn, void *arg, struct env_sock **ret,
	       struct net_addr *peer);
int sim_connect(struct env *e, const struct net_addr *a, env_sock_fn fn, void *arg,
		struct env_sock **ret);
ssize_t sim_recv(struct env_sock *s, const struct iovec *iov, int n);
ssize_t sim_send(struct env_sock *s, const struct iovec *iov, int n);
void sim_sock_handler(struct env_sock *s, env_sock_fn fn, void *arg);
int sim_sock_error(struct env_sock *s);
int sim_sock_name(struct env_sock *s, struct net_addr *ret);
void sim_sock_close(struct env_sock *s, bool reset);

/* ---- memory (memory.c): what a process allocates is known, so that its death gives it back ----
 */

void memory_world_only(struct world *w); /* whose `running` says who allocates */
/* Whose code runs now; NULL: the world's. */
struct proc *sim_running(void);
void memory_drop(struct proc *p);

#endif
