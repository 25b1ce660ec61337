/* co.h - stackful coroutines over an env, and what they wait on.
 *
 * Used by: sheep, lib/client (blocking wrappers do not need it).  A coroutine runs on its
 * scheduler's thread until it waits; a function that can wait is marked co_fn, and its calls are
 * marked "~" in comments where it matters.  Nothing checked before a "~" may be assumed after it.
 * Stacks are pooled, 64 KiB (256 KiB under sanitizers), with a guard page, aligned to their size so
 * that co_self() finds the running coroutine from the stack pointer: no global is needed.
 */
#ifndef LIB_CO_CO_H
#define LIB_CO_CO_H

#include "lib/env/env.h"

#define co_fn /* this function can yield: call it from a coroutine only */

struct co;
struct co_sched;

/* A scheduler for @env with at most @nr_max coroutines alive (a limit: co_start then returns NULL).
 */
struct co_sched *co_sched_new(struct env *env, unsigned nr_max);
/* Asserts that no coroutine is left. */
void co_sched_free(struct co_sched *s);
/* Give back the stacks of all coroutines as they stand, and free: for the simulator, when a process
 * is killed.  What the coroutines held is not released. */
void co_sched_drop(struct co_sched *s);
struct env *co_sched_env(struct co_sched *s);
/* Coroutines alive now (a leak check, and statistics). */
unsigned co_sched_nr(const struct co_sched *s);
/* Print one line for each live coroutine (name, what it waits on) through @print: for debugging. */
void co_sched_dump(struct co_sched *s, void (*print)(void *arg, const char *line), void *arg);

/* Start a coroutine that runs fn(arg); it begins in the next turn of the env (not now).  @name must
 * be a string constant.  NULL when nr_max are alive or memory is short.  From anywhere on the
 * thread. */
struct co *co_start(struct co_sched *s, void (*fn)(void *arg), void *arg, const char *name);
/* As co_start, but runs it at once, until its first wait, when called outside of a coroutine or
 * inside. */
struct co *co_enter(struct co_sched *s, void (*fn)(void *arg), void *arg, const char *name);
/* The running coroutine; undefined outside of one. */
struct co *co_self(void);
struct co_sched *co_self_sched(void);

/* Low level: co_park() waits until somebody calls co_wake(co).  co_wake may come first (it is
 * remembered, once).  co_wake queues the coroutine at the end of the run queue; it never switches.
 */
co_fn void co_park(const char *why);
void co_wake(struct co *co);
/* Let everything that is ready run first. */
co_fn void co_yield (void);
co_fn void co_sleep(uint64_t ns);

/* One I/O through the env; returns io->result.  @io lives on the caller's stack. */
co_fn int64_t co_io(struct co_sched *s, struct env_io *io);

/* ---- event: one bit with waiters ---- */
struct co_event {
	struct cds_list_head waiters;
	bool set;
};
void co_event_init(struct co_event *ev);
/* Sets the bit and wakes all. */
void co_event_set(struct co_event *ev);
void co_event_clear(struct co_event *ev);
co_fn void co_event_wait(struct co_event *ev);
/* 0, or -ETIMEDOUT after monotonic time @until_ns. */
co_fn int co_event_wait_until(struct co_event *ev, uint64_t until_ns);

/* ---- condition: broadcast or signal, no memory ---- */
struct co_cond {
	struct cds_list_head waiters;
};
void co_cond_init(struct co_cond *c);
co_fn void co_cond_wait(struct co_cond *c, const char *why);
co_fn int co_cond_wait_until(struct co_cond *c, uint64_t until_ns, const char *why);
void co_cond_broadcast(struct co_cond *c);
void co_cond_signal(struct co_cond *c);

/* ---- mutex: first come first served ---- */
struct co_mutex {
	struct co *owner;
	struct cds_list_head waiters;
};
void co_mutex_init(struct co_mutex *m);
co_fn void co_mutex_lock(struct co_mutex *m);
bool co_mutex_trylock(struct co_mutex *m);
void co_mutex_unlock(struct co_mutex *m);

/* ---- reader/writer range lock over [off, off+len), first come first served, no starvation ---- */
struct co_ranges {
	struct cds_list_head held, waiters;
};
struct co_range { /* lives on the holder's stack */
	struct cds_list_head node;
	uint64_t off, len;
	bool excl, granted;
	struct co *co;
	struct co_ranges *set;
};
void co_ranges_init(struct co_ranges *r);
bool co_ranges_idle(const struct co_ranges *r);
co_fn void co_range_lock(struct co_ranges *r, struct co_range *h, uint64_t off, uint64_t len,
			 bool excl);
void co_range_unlock(struct co_range *h);

/* ---- group: start children, wait for all (fan-out) ---- */
struct co_group {
	unsigned nr;
	struct co *waiter;
};
void co_group_init(struct co_group *g);
/* co_enter(fn, arg) as a child of @g.  0 or -ENOMEM (then nothing was started). */
int co_group_start(struct co_sched *s, struct co_group *g, void (*fn)(void *arg), void *arg,
		   const char *name);
/* For completions that are no coroutines: count one up / one down. */
void co_group_add(struct co_group *g);
void co_group_done(struct co_group *g);
co_fn void co_group_wait(struct co_group *g);

/* ---- semaphore with a bound, FIFO ---- */
struct co_sem {
	uint64_t avail;
	struct cds_list_head waiters;
};
void co_sem_init(struct co_sem *s, uint64_t avail);
co_fn void co_sem_take(struct co_sem *s, uint64_t n);
void co_sem_give(struct co_sem *s, uint64_t n);

#endif
