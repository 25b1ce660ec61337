/* co.c - the coroutines themselves: stacks, switching, the run queue.
 *
 *  C1 A coroutine is resumed by the scheduler's defer or by co_enter(), and switches back to
 *     whoever resumed it.
 *  C2 co_wake() never switches; a wake of an active coroutine is remembered once, a wake of a
 * queued one changes nothing. C3 A stack goes back to the pool on another stack than itself. A
 * switch saves the callee-saved registers only; no system call.
 */
#include "config.h"

#include "lib/co/co_int.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__has_include)
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#endif
#endif
#ifndef VALGRIND_STACK_REGISTER
#define VALGRIND_STACK_REGISTER(lo, hi) 0
#define VALGRIND_STACK_DEREGISTER(id)	((void)(id))
#endif

#define CO_MAGIC     0x636f726f7574696eull
#define RUN_ROUNDS   8u /* rounds of the run queue before the env's other events get a turn */
#define CO_PLACE_OFF ((CO_STACK_SIZE - sizeof(struct co)) & ~63ul)

struct co_sched {
	struct env *env;
	struct env_defer run;
	struct cds_list_head queue; /* ready */
	struct cds_list_head all;
	struct cds_list_head spare; /* dead, for reuse */
	unsigned nr, nr_max, nr_spare;
	struct co *current; /* the innermost active one */
	void *main_sp;	    /* where the scheduler's own stack stopped */
	void *main_fake;
	const void *main_bottom; /* for AddressSanitizer */
	size_t main_size;
};

/* ---- switching ---- */

#if defined(__x86_64__)

/* Save the callee-saved registers on the present stack and its pointer in *@save; go on at @load.
 */
void co_switch_stack(void **save, void *load);
__asm__(".text\n"
	".p2align 4\n"
	".hidden co_switch_stack\n"
	".globl co_switch_stack\n"
	".type co_switch_stack, @function\n"
	"co_switch_stack:\n"
	"	pushq %rbp\n"
	"	pushq %rbx\n"
	"	pushq %r12\n"
	"	pushq %r13\n"
	"	pushq %r14\n"
	"	pushq %r15\n"
	"	movq %rsp, (%rdi)\n"
	"	movq %rsi, %rsp\n"
	"	popq %r15\n"
	"	popq %r14\n"
	"	popq %r13\n"
	"	popq %r12\n"
	"	popq %rbx\n"
	"	popq %rbp\n"
	"	ret\n"
	".size co_switch_stack, . - co_switch_stack\n");

/* A stack that looks as if it had been switched away from at the first instruction of @entry. */
static void *co_first_frame(void *top, void (*entry)(void))
{
	void **sp = (void **)((uintptr_t)top & ~15ul);

	*--sp = NULL; /* the return address of @entry, which never returns */
	*--sp = (void *)entry;
	for (int i = 0; i < 6; i++)
		*--sp = NULL;
	return sp;
}

#elif defined(__aarch64__)

void co_switch_stack(void **save, void *load);
__asm__(".text\n"
	".p2align 4\n"
	".hidden co_switch_stack\n"
	".globl co_switch_stack\n"
	".type co_switch_stack, %function\n"
	"co_switch_stack:\n"
	"	sub sp, sp, #160\n"
	"	stp x19, x20, [sp, #0]\n"
	"	stp x21, x22, [sp, #16]\n"
	"	stp x23, x24, [sp, #32]\n"
	"	stp x25, x26, [sp, #48]\n"
	"	stp x27, x28, [sp, #64]\n"
	"	stp x29, x30, [sp, #80]\n"
	"	stp d8, d9, [sp, #96]\n"
	"	stp d10, d11, [sp, #112]\n"
	"	stp d12, d13, [sp, #128]\n"
	"	stp d14, d15, [sp, #144]\n"
	"	mov x9, sp\n"
	"	str x9, [x0]\n"
	"	mov sp, x1\n"
	"	ldp x19, x20, [sp, #0]\n"
	"	ldp x21, x22, [sp, #16]\n"
	"	ldp x23, x24, [sp, #32]\n"
	"	ldp x25, x26, [sp, #48]\n"
	"	ldp x27, x28, [sp, #64]\n"
	"	ldp x29, x30, [sp, #80]\n"
	"	ldp d8, d9, [sp, #96]\n"
	"	ldp d10, d11, [sp, #112]\n"
	"	ldp d12, d13, [sp, #128]\n"
	"	ldp d14, d15, [sp, #144]\n"
	"	add sp, sp, #160\n"
	"	ret\n"
	".size co_switch_stack, . - co_switch_stack\n");

static void *co_first_frame(void *top, void (*entry)(void))
{
	uint64_t *sp = (uint64_t *)((uintptr_t)top & ~15ul) - 20;

	memset(sp, 0, 160);
	sp[11] = (uint64_t)entry; /* x30 */
	return sp;
}

#else
#error "coroutines: write co_switch_stack() for this processor"
#endif

static uint8_t *co_base(struct co *co)
{
	return (uint8_t *)co - CO_PLACE_OFF;
}

struct co *co_self(void)
{
	uintptr_t base = (uintptr_t)__builtin_frame_address(0) & ~(uintptr_t)(CO_STACK_SIZE - 1);
	struct co *co = (struct co *)(base + CO_PLACE_OFF);

	assert(co->magic == CO_MAGIC && co->state == CO_ACTIVE);
	return co;
}

struct co_sched *co_self_sched(void)
{
	return co_self()->sched;
}

static inline void before_switch(void **fake, const void *bottom, size_t size)
{
#if defined(__SANITIZE_ADDRESS__)
	__sanitizer_start_switch_fiber(fake, bottom, size);
#else
	(void)fake, (void)bottom, (void)size;
#endif
}

/* On the stack that was switched to; @from_main: the scheduler's bounds are learned. */
static inline void after_switch(void *fake, struct co_sched *from_main)
{
#if defined(__SANITIZE_ADDRESS__)
	const void *bottom;
	size_t size;
	__sanitizer_finish_switch_fiber(fake, &bottom, &size);
	if (from_main) {
		from_main->main_bottom = bottom;
		from_main->main_size = size;
	}
#else
	(void)fake, (void)from_main;
#endif
}

static void co_release(struct co *co)
{
	struct co_sched *s = co->sched;

#if defined(__SANITIZE_ADDRESS__)
	/* Its last frames never returned: their red zones are still marked. */
	__asan_unpoison_memory_region(co_base(co), CO_STACK_SIZE);
#endif
	cds_list_del(&co->all);
	s->nr--;
	if (s->nr_spare < CO_POOL_MAX) {
		cds_list_add(&co->node, &s->spare);
		s->nr_spare++;
		return;
	}
	VALGRIND_STACK_DEREGISTER(co->valgrind_id);
	munmap(co_base(co), CO_STACK_SIZE);
}

/* Switch to @co and come back when it parks or ends (C1). */
static void co_resume(struct co *co, struct co *from)
{
	struct co_sched *s = co->sched;

	assert(co->state == CO_QUEUED);
	co->state = CO_ACTIVE;
	co->resumer = from;
	s->current = co;
	before_switch(from ? &from->fake_stack : &s->main_fake, co_base(co), CO_STACK_SIZE);
	co_switch_stack(from ? &from->sp : &s->main_sp, co->sp);
	after_switch(from ? from->fake_stack : s->main_fake, NULL);
	s->current = from;
	if (co->state == CO_DEAD)
		co_release(co); /* C3 */
}

static void co_leave(struct co *co)
{
	struct co_sched *s = co->sched;
	struct co *to = co->resumer;
	bool dead = co->state == CO_DEAD;

	if (to)
		before_switch(dead ? NULL : &co->fake_stack, co_base(to), CO_STACK_SIZE);
	else
		before_switch(dead ? NULL : &co->fake_stack, s->main_bottom, s->main_size);
	co_switch_stack(&co->sp, to ? to->sp : s->main_sp);
	/* resumed: the resumer may be another one now */
	after_switch(co->fake_stack, co->resumer ? NULL : s);
}

static void co_entry(void)
{
	struct co *co = co_self();

	after_switch(NULL, co->resumer ? NULL : co->sched);
	co->fn(co->arg);
	co->state = CO_DEAD;
	co_leave(co);
	abort(); /* a dead coroutine is never resumed */
}

/* ---- making ---- */

static struct co *co_map(void)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint8_t *p = mmap(NULL, 2 * CO_STACK_SIZE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	size_t head = -(uintptr_t)p & (CO_STACK_SIZE - 1);
	if (head)
		munmap(p, head);
	munmap(p + head + CO_STACK_SIZE, CO_STACK_SIZE - head);
	p += head;
	if (mprotect(p, page, PROT_NONE) < 0) {
		munmap(p, CO_STACK_SIZE);
		return NULL;
	}
	struct co *co = (struct co *)(p + CO_PLACE_OFF);
	co->valgrind_id = VALGRIND_STACK_REGISTER(p + page, p + CO_PLACE_OFF);
	return co;
}

static struct co *co_new(struct co_sched *s, void (*fn)(void *arg), void *arg, const char *name)
{
	struct co *co;

	if (s->nr >= s->nr_max)
		return NULL;
	if (s->nr_spare) {
		co = cds_list_first_entry(&s->spare, struct co, node);
		cds_list_del(&co->node);
		s->nr_spare--;
	} else {
		co = co_map();
		if (!co)
			return NULL;
	}
	co->sched = s;
	co->fn = fn;
	co->arg = arg;
	co->name = name;
	co->why = "";
	co->woken = false;
	co->resumer = NULL;
	co->fake_stack = NULL;
	co->magic = CO_MAGIC;
	co->state = CO_QUEUED;
	co->sp = co_first_frame(co, co_entry);
	cds_list_add_tail(&co->all, &s->all);
	s->nr++;
	return co;
}

struct co *co_start(struct co_sched *s, void (*fn)(void *arg), void *arg, const char *name)
{
	struct co *co = co_new(s, fn, arg, name);

	if (!co)
		return NULL;
	cds_list_add_tail(&co->node, &s->queue);
	env_defer(s->env, &s->run);
	return co;
}

struct co *co_enter(struct co_sched *s, void (*fn)(void *arg), void *arg, const char *name)
{
	struct co *co = co_new(s, fn, arg, name);

	if (!co)
		return NULL;
	co_resume(co, s->current);
	return co;
}

/* ---- the run queue ---- */

static void sched_run(struct env_defer *d)
{
	struct co_sched *s = caa_container_of(d, struct co_sched, run);
	struct cds_list_head list;

	for (unsigned round = 0; round < RUN_ROUNDS && !cds_list_empty(&s->queue); round++) {
		CDS_INIT_LIST_HEAD(&list);
		cds_list_splice(&s->queue, &list);
		CDS_INIT_LIST_HEAD(&s->queue);
		while (!cds_list_empty(&list)) {
			struct co *co = cds_list_first_entry(&list, struct co, node);
			cds_list_del(&co->node);
			co_resume(co, NULL);
		}
	}
	if (!cds_list_empty(&s->queue))
		env_defer(s->env, &s->run);
}

void co_park(const char *why)
{
	struct co *co = co_self();

	if (co->woken) {
		co->woken = false;
		return;
	}
	co->why = why;
	co->state = CO_PARKED;
	co_leave(co);
	co->why = "";
}

void co_wake(struct co *co)
{
	struct co_sched *s = co->sched;

	assert(co->magic == CO_MAGIC && co->state != CO_DEAD);
	if (co->state == CO_ACTIVE) {
		co->woken = true;
	} else if (co->state == CO_PARKED) {
		co->state = CO_QUEUED;
		cds_list_add_tail(&co->node, &s->queue);
		env_defer(s->env, &s->run);
	}
}

void co_yield (void)
{
	struct co *co = co_self();

	co->why = "yield";
	co->state = CO_PARKED;
	co_wake(co);
	co_leave(co);
	co->why = "";
}

/* ---- the scheduler ---- */

struct co_sched *co_sched_new(struct env *env, unsigned nr_max)
{
	struct co_sched *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->env = env;
	s->nr_max = nr_max;
	s->run.fn = sched_run;
	CDS_INIT_LIST_HEAD(&s->queue);
	CDS_INIT_LIST_HEAD(&s->all);
	CDS_INIT_LIST_HEAD(&s->spare);
	return s;
}

void co_sched_free(struct co_sched *s)
{
	struct co *co, *next;

	if (!s)
		return;
	assert(!s->nr);
	env_defer_del(s->env, &s->run);
	cds_list_for_each_entry_safe (co, next, &s->spare, node) {
		VALGRIND_STACK_DEREGISTER(co->valgrind_id);
		munmap(co_base(co), CO_STACK_SIZE);
	}
	free(s);
}

void co_sched_drop(struct co_sched *s)
{
	while (!cds_list_empty(&s->all))
		co_release(cds_list_first_entry(&s->all, struct co, all));
	env_defer_del(s->env, &s->run);
	co_sched_free(s);
}

struct env *co_sched_env(struct co_sched *s)
{
	return s->env;
}

unsigned co_sched_nr(const struct co_sched *s)
{
	return s->nr;
}

void co_sched_dump(struct co_sched *s, void (*print)(void *arg, const char *line), void *arg)
{
	static const char *const state[] = {"ready", "running", "waits", "dead"};
	char line[256];
	struct co *co;

	cds_list_for_each_entry (co, &s->all, all) {
		snprintf(line, sizeof(line), "%s: %s %s", co->name, state[co->state], co->why);
		print(arg, line);
	}
}
