/* linux.c - the Linux env: the loop, timers, deferred calls, watches.  See linux.h.
 *
 * A turn: one epoll_wait (its timeout is the earliest timer), the callbacks of what is ready, the
 * timers that are due, then deferred calls and finished I/Os until there are none (at most
 * DRAIN_ROUNDS, so that sockets are looked at again); each round ends with one io_submit and one
 * wake-up of the workers for all that it queued.  Callbacks that took SLICE_NS together are
 * followed by the timers and one such round before the next one, so that much to do for some (64
 * clients that each want 4 MiB) delays neither the heartbeats nor the others for a whole turn.
 *
 * Invariants:
 *  1. A callback runs only inside a turn, and turns do not nest.
 *  2. Timers run in the order of (at_ns, seq), seq being the order of env_timer_set.
 *  3. While work is queued the turn does not sleep; when nested, the epoll fd is then readable.
 *  4. Eventfds are edge-triggered and never read: a write is an edge, whatever the counter says.
 */
#include "config.h"

#include "lib/env/linux_int.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { EPOLL_BATCH = 128, DRAIN_ROUNDS = 8, HEAP_MIN = 64 };

#define NSEC 1000000000ull
#define MSEC 1000000ull
/* Two ticks of the coarse clock at 250 Hz; a client that waits notices 10 ms, hardly less. */
#define SLICE_NS (8 * MSEC)

/* ---- sources ---- */

int src_add(struct env_linux *l, struct ev_src *src, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = src};
	return epoll_ctl(l->epfd, EPOLL_CTL_ADD, src->fd, &ev) < 0 ? -errno : 0;
}

void src_del(struct env_linux *l, struct ev_src *src)
{
	assert(!src->dead);
	src->dead = true;
	/* not left to close(): a forked child may still hold the description */
	epoll_ctl(l->epfd, EPOLL_CTL_DEL, src->fd, NULL);
	if (l->in_turn)
		cds_list_add_tail(&src->grave, &l->graves);
	else
		free(src->owner);
}

int src_add_eventfd(struct env_linux *l, struct ev_src *src,
		    void (*fn)(struct ev_src *src, uint32_t events), void *owner)
{
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	*src = (struct ev_src){.fn = fn, .owner = owner, .fd = fd};
	int r = src_add(l, src, EPOLLIN | EPOLLET);
	if (r < 0) {
		close(fd);
		src->fd = -1;
	}
	return r;
}

void src_signal(struct ev_src *src)
{
	uint64_t one = 1;
	while (write(src->fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

static void bury(struct env_linux *l)
{
	struct ev_src *src, *n;
	cds_list_for_each_entry_safe (src, n, &l->graves, grave) {
		cds_list_del(&src->grave);
		free(src->owner);
	}
}

/* ---- clocks, randomness ---- */

static uint64_t clock_ns(clockid_t id)
{
	struct timespec ts;
	int r = clock_gettime(id, &ts);
	assert(r == 0);
	return (uint64_t)ts.tv_sec * NSEC + (uint64_t)ts.tv_nsec;
}

/* It goes on while the machine is suspended: a lease must not outlive that (DESIGN 4.4). */
uint64_t env_linux_now(struct env *e)
{
	return clock_ns(CLOCK_BOOTTIME);
}

static uint64_t env_linux_wall(struct env *e)
{
	return clock_ns(CLOCK_REALTIME);
}

static void env_linux_random(struct env *e, void *buf, size_t len)
{
	for (uint8_t *p = buf; len;) {
		ssize_t n = getrandom(p, len, 0);
		if (n < 0) {
			assert(errno == EINTR);
			continue;
		}
		p += n;
		len -= (size_t)n;
	}
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A machine that does not say gets random bytes: as if it had just booted, which is the safe side.
 */
static void read_boot_id(struct env_linux *l)
{
	char text[64] = "";
	int nr = 0, fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (fd >= 0)
		close(fd);
	for (ssize_t i = 0; i < n && nr < 32; i++) {
		int d = hex_digit(text[i]);
		if (d < 0)
			continue;
		l->boot_id[nr / 2] = (uint8_t)(l->boot_id[nr / 2] << 4 | d);
		nr++;
	}
	if (nr < 32)
		env_linux_random(&l->base, l->boot_id, sizeof(l->boot_id));
}

static void env_linux_boot_id(struct env *e, uint8_t id[16])
{
	memcpy(id, env_l(e)->boot_id, sizeof(env_l(e)->boot_id));
}

/* ---- timers ---- */

static bool timer_before(const struct env_timer *a, const struct env_timer *b)
{
	return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->seq < b->seq;
}

static void heap_put(struct env_linux *l, size_t i, struct env_timer *t)
{
	l->heap[i] = t;
	t->heap_idx = i + 1;
}

static void heap_up(struct env_linux *l, size_t i, struct env_timer *t)
{
	while (i > 0 && timer_before(t, l->heap[(i - 1) / 2])) {
		heap_put(l, i, l->heap[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	heap_put(l, i, t);
}

static void heap_down(struct env_linux *l, size_t i, struct env_timer *t)
{
	for (;;) {
		size_t c = 2 * i + 1;
		if (c >= l->nr_timers)
			break;
		if (c + 1 < l->nr_timers && timer_before(l->heap[c + 1], l->heap[c]))
			c++;
		if (!timer_before(l->heap[c], t))
			break;
		heap_put(l, i, l->heap[c]);
		i = c;
	}
	heap_put(l, i, t);
}

/* Put @t where it belongs, given that position @i is free for it. */
static void heap_place(struct env_linux *l, size_t i, struct env_timer *t)
{
	if (i > 0 && timer_before(t, l->heap[(i - 1) / 2]))
		heap_up(l, i, t);
	else
		heap_down(l, i, t);
}

static uint64_t first_timer(const struct env_linux *l)
{
	return l->nr_timers ? l->heap[0]->at_ns : UINT64_MAX;
}

/* Nested: let the outer loop wake up for the earliest timer.  The timerfd is only ever moved
 * earlier; one that fires for a timer that moved later costs an empty turn. */
static void tick_update(struct env_linux *l)
{
	uint64_t at = first_timer(l);
	if (!l->nested || l->in_turn || at >= l->tick_at)
		return;
	uint64_t t = at ? at : 1; /* 0 would disarm it */
	struct itimerspec its = {
		.it_value = {.tv_sec = (time_t)(t / NSEC), .tv_nsec = (long)(t % NSEC)}};
	int r = timerfd_settime(l->tick.fd, TFD_TIMER_ABSTIME, &its, NULL);
	assert(r == 0);
	l->tick_at = at;
}

void env_linux_timer_set(struct env *e, struct env_timer *t, uint64_t at_ns)
{
	struct env_linux *l = env_l(e);
	size_t i = t->heap_idx;
	t->at_ns = at_ns;
	t->seq = ++l->timer_seq;
	if (i) {
		assert(i <= l->nr_timers && l->heap[i - 1] == t);
		heap_place(l, i - 1, t);
	} else {
		if (l->nr_timers == l->heap_cap) {
			size_t cap = l->heap_cap ? l->heap_cap * 2 : HEAP_MIN;
			void *h = realloc(l->heap, cap * sizeof(*l->heap));
			if (!h)
				abort(); /* a timer that never fires would be worse */
			l->heap = h;
			l->heap_cap = cap;
		}
		heap_up(l, l->nr_timers++, t);
	}
	tick_update(l);
}

void env_linux_timer_del(struct env *e, struct env_timer *t)
{
	struct env_linux *l = env_l(e);
	size_t i = t->heap_idx;
	if (!i)
		return;
	assert(i <= l->nr_timers && l->heap[i - 1] == t);
	t->heap_idx = 0;
	struct env_timer *last = l->heap[--l->nr_timers];
	if (last != t)
		heap_place(l, i - 1, last);
}

/* At most as many as there were: one that re-arms itself for the past waits for the next turn. */
static void run_timers(struct env_linux *l)
{
	if (!l->nr_timers)
		return;
	uint64_t now = env_linux_now(&l->base);
	for (size_t n = l->nr_timers; n && first_timer(l) <= now; n--) {
		struct env_timer *t = l->heap[0];
		env_linux_timer_del(&l->base, t);
		t->fn(t);
	}
}

/* ---- deferred calls ---- */

void env_linux_wake(struct env_linux *l)
{
	if (!l->nested || l->in_turn || l->kicked)
		return;
	l->kicked = true;
	src_signal(&l->kick);
}

static void env_linux_defer(struct env *e, struct env_defer *d)
{
	struct env_linux *l = env_l(e);
	if (d->queued)
		return;
	d->queued = true;
	cds_list_add_tail(&d->node, &l->defers);
	env_linux_wake(l);
}

static void env_linux_defer_del(struct env *e, struct env_defer *d)
{
	if (!d->queued)
		return;
	d->queued = false;
	cds_list_del(&d->node);
}

/* For differences within a turn.  Off by up to a tick (4 ms), for a quarter of the price. */
static uint64_t now_coarse(void)
{
	return clock_ns(CLOCK_MONOTONIC_COARSE);
}

/* Those that are queued now: a marker ends the round, since a call may delete any other. */
static void run_defers(struct env_linux *l)
{
	uint64_t checked = now_coarse(), now;

	if (cds_list_empty(&l->defers))
		return;
	struct cds_list_head mark;
	cds_list_add_tail(&mark, &l->defers);
	while (l->defers.next != &mark) {
		struct env_defer *d = cds_list_entry(l->defers.next, struct env_defer, node);
		env_linux_defer_del(&l->base, d);
		d->fn(d);
		now = now_coarse();
		if (now - checked < SLICE_NS)
			continue;
		run_timers(l);
		checked = now;
	}
	cds_list_del(&mark);
}

/* ---- the loop ---- */

static bool has_work(struct env_linux *l)
{
	return !cds_list_empty(&l->defers) || io_pending(l);
}

static int wait_ms(struct env_linux *l, struct epoll_event *ev, uint64_t ns)
{
	int ms = -1;
	if (ns != UINT64_MAX)
		ms = ns > 1000000 * MSEC ? 1000000 : (int)((ns + MSEC - 1) / MSEC);
	int n = epoll_wait(l->epfd, ev, EPOLL_BATCH, ms);
	return n < 0 ? -errno : n;
}

/* Wait at most @ns (UINT64_MAX: for ever). */
static int wait_ns(struct env_linux *l, struct epoll_event *ev, uint64_t ns)
{
	/* only a wait that ends at a timer needs the finer clock */
	if (ns != 0 && ns != UINT64_MAX && !l->no_pwait2) {
		struct timespec ts = {.tv_sec = (time_t)(ns / NSEC), .tv_nsec = (long)(ns % NSEC)};
		int n = epoll_pwait2(l->epfd, ev, EPOLL_BATCH, &ts, NULL);
		if (n >= 0)
			return n;
		if (errno != ENOSYS && errno != EPERM)
			return -errno;
		l->no_pwait2 = true; /* before Linux 5.11 */
	}
	return wait_ms(l, ev, ns);
}

static uint64_t wait_time(struct env_linux *l, int timeout_ms)
{
	if (timeout_ms == 0 || has_work(l))
		return 0;
	uint64_t ns = timeout_ms < 0 ? UINT64_MAX : (uint64_t)timeout_ms * MSEC;
	uint64_t at = first_timer(l);
	if (at == UINT64_MAX)
		return ns;
	uint64_t now = env_linux_now(&l->base);
	uint64_t left = at > now ? at - now : 0;
	return left < ns ? left : ns;
}

static void run_round(struct env_linux *l)
{
	run_defers(l);
	io_run_done(l);
	io_flush(l);
}

static void run_ready(struct env_linux *l, struct epoll_event *ev, int n)
{
	uint64_t began = now_coarse(), now;

	for (int i = 0; i < n; i++) {
		struct ev_src *src = ev[i].data.ptr;
		if (!src->dead)
			src->fn(src, ev[i].events);
		now = now_coarse();
		if (now - began < SLICE_NS || i == n - 1)
			continue;
		run_timers(l);
		run_round(l);
		began = now;
	}
}

void env_linux_turn(struct env *e, int timeout_ms)
{
	struct env_linux *l = env_l(e);
	struct epoll_event ev[EPOLL_BATCH];
	assert(!l->in_turn);
	l->in_turn = true;
	int n = wait_ns(l, ev, wait_time(l, timeout_ms));
	assert(n >= 0 || n == -EINTR);
	run_ready(l, ev, n);
	run_timers(l);
	for (int i = 0; i < DRAIN_ROUNDS && has_work(l); i++)
		run_round(l);
	bury(l);
	l->in_turn = false;
	if (l->nested) {
		tick_update(l);
		if (has_work(l))
			env_linux_wake(l);
	}
}

void env_linux_run(struct env *e)
{
	struct env_linux *l = env_l(e);
	while (!l->stop)
		env_linux_turn(e, -1);
	l->stop = false;
}

void env_linux_stop(struct env *e)
{
	env_l(e)->stop = true;
}

/* ---- nesting ---- */

static void on_kick(struct ev_src *src, uint32_t events)
{
	((struct env_linux *)src->owner)->kicked = false;
}

static void on_tick(struct ev_src *src, uint32_t events)
{
	((struct env_linux *)src->owner)->tick_at = UINT64_MAX;
}

static int nest_start(struct env_linux *l)
{
	int r = src_add_eventfd(l, &l->kick, on_kick, l);
	if (r < 0)
		return r;
	int fd = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC);
	r = fd < 0 ? -errno : 0;
	if (r == 0) {
		l->tick = (struct ev_src){.fn = on_tick, .owner = l, .fd = fd};
		r = src_add(l, &l->tick, EPOLLIN | EPOLLET);
	}
	if (r < 0) {
		if (fd >= 0)
			close(fd);
		l->tick.fd = -1;
		close(l->kick.fd);
		l->kick.fd = -1;
		return r;
	}
	l->nested = true;
	l->tick_at = UINT64_MAX;
	return 0;
}

int env_linux_fd(struct env *e)
{
	struct env_linux *l = env_l(e);
	if (!l->nested) {
		int r = nest_start(l);
		if (r < 0)
			return r;
		tick_update(l);
		if (has_work(l))
			env_linux_wake(l);
	}
	return l->epfd;
}

/* ---- foreign fds ---- */

struct env_watch {
	struct ev_src src;
	struct env_linux *l;
	void (*fn)(int fd, void *arg);
	void *arg;
};

static void on_watch(struct ev_src *src, uint32_t events)
{
	struct env_watch *w = src->owner;
	w->fn(src->fd, w->arg);
}

struct env_watch *env_linux_watch(struct env *e, int fd, void (*fn)(int fd, void *arg), void *arg)
{
	struct env_linux *l = env_l(e);
	struct env_watch *w = calloc(1, sizeof(*w));
	if (!w)
		return NULL;
	w->src = (struct ev_src){.fn = on_watch, .owner = w, .fd = fd};
	w->l = l;
	w->fn = fn;
	w->arg = arg;
	int r = src_add(l, &w->src, EPOLLIN);
	if (r < 0) {
		free(w);
		errno = -r;
		return NULL;
	}
	l->nr_watches++;
	return w;
}

void env_linux_unwatch(struct env_watch *w)
{
	if (!w)
		return;
	w->l->nr_watches--;
	src_del(w->l, &w->src);
}

/* ---- life ---- */

static const struct env_ops linux_ops = {
	.now = env_linux_now,
	.wall = env_linux_wall,
	.random = env_linux_random,
	.timer_set = env_linux_timer_set,
	.timer_del = env_linux_timer_del,
	.defer = env_linux_defer,
	.defer_del = env_linux_defer_del,
	.io_submit = env_linux_io_submit,
	.listen = sock_listen,
	.accept = sock_accept,
	.connect = sock_connect,
	.recv = sock_recv,
	.send = sock_send,
	.sock_handler = sock_handler,
	.sock_error = sock_error,
	.sock_name = sock_name,
	.sock_close = sock_close,
	.boot_id = env_linux_boot_id,
};

static void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

static void env_linux_destroy(struct env_linux *l)
{
	work_end(l);
	io_end(l);
	close_fd(l->kick.fd);
	close_fd(l->tick.fd);
	close_fd(l->epfd);
	free(l->heap);
	free(l);
}

int env_linux_new(const struct env_linux_conf *conf, struct env **ret)
{
	struct env_linux *l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	l->base.ops = &linux_ops;
	l->kick.fd = l->tick.fd = l->aio.src.fd = l->work.src.fd = -1;
	l->tick_at = UINT64_MAX;
	CDS_INIT_LIST_HEAD(&l->defers);
	CDS_INIT_LIST_HEAD(&l->graves);
	CDS_INIT_LIST_HEAD(&l->io_done);
	CDS_INIT_LIST_HEAD(&l->aio.wait);
	CDS_INIT_LIST_HEAD(&l->work.fresh);
	CDS_INIT_LIST_HEAD(&l->work.queue);
	CDS_INIT_LIST_HEAD(&l->work.done);
	pthread_mutex_init(&l->work.lock, NULL);
	pthread_cond_init(&l->work.cond, NULL);
	read_boot_id(l);
	l->epfd = epoll_create1(EPOLL_CLOEXEC);
	int r = l->epfd < 0 ? -errno : 0;
	if (r == 0)
		r = io_start(l, conf->aio_depth);
	if (r == 0)
		r = work_start(l, conf->nr_workers);
	if (r < 0) {
		env_linux_destroy(l);
		return r;
	}
	*ret = &l->base;
	return 0;
}

void env_linux_free(struct env *e)
{
	if (!e)
		return;
	struct env_linux *l = env_l(e);
	assert(!l->in_turn);
	assert(l->nr_io == 0);
	assert(l->nr_socks == 0);
	assert(l->nr_files == 0);
	assert(l->nr_watches == 0);
	assert(l->nr_timers == 0);
	assert(cds_list_empty(&l->defers));
	env_linux_destroy(l);
}
