/* co_int.h - shared by co.c (coroutines) and wait.c (what they wait on) only. */
#ifndef LIB_CO_CO_INT_H
#define LIB_CO_CO_INT_H

#include "lib/co/co.h"

#if defined(__SANITIZE_ADDRESS__)
#define CO_STACK_SIZE (256u << 10)
#else
#define CO_STACK_SIZE (64u << 10)
#endif
#define CO_POOL_MAX 512u /* free stacks kept for reuse */

enum co_state {
	CO_QUEUED, /* in the run queue */
	CO_ACTIVE, /* running, or waiting for a coroutine that it has entered */
	CO_PARKED,
	CO_DEAD,
};

/* Lives at the upper end of its own stack; the lowest page of the stack is the guard. */
struct co {
	struct cds_list_head node; /* run queue; free list */
	struct cds_list_head all;
	struct co_sched *sched;
	void *sp;	    /* where it stopped */
	struct co *resumer; /* who is switched back to; NULL: the scheduler's own stack */
	enum co_state state;
	bool woken; /* co_wake() came while it was active */
	void (*fn)(void *arg);
	void *arg;
	const char *name, *why;
	void *fake_stack; /* AddressSanitizer's */
	unsigned valgrind_id;
	uint64_t magic;
};

#endif
