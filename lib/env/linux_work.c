/* linux_work.c - worker threads for calls that may block.
 *
 * The reactor collects what it hands over (work_add) and gives it to the workers once per round
 * (work_flush): one lock, and as many wake-ups as there are idle workers for it.  Results come back
 * the same way: one eventfd write for all that finishes before the reactor looks.
 */
#include "config.h"

#include "lib/env/linux_int.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { WORKERS_DEFAULT = 2, WORKER_STACK = 1 << 20 };

/* NULL: the pool ends.  Called and left with the lock held. */
static struct env_io *worker_next(struct work_pool *w)
{
	while (cds_list_empty(&w->queue)) {
		if (w->quit)
			return NULL;
		w->idle++;
		pthread_cond_wait(&w->cond, &w->lock);
		w->idle--;
	}
	struct env_io *io = cds_list_first_entry(&w->queue, struct env_io, node);
	cds_list_del(&io->node);
	return io;
}

static void *worker(void *arg)
{
	struct work_pool *w = arg;
	struct env_io *io;
	pthread_setname_np(pthread_self(), "io"); /* shown in the log */
	pthread_mutex_lock(&w->lock);
	while ((io = worker_next(w))) {
		pthread_mutex_unlock(&w->lock);
		io_blocking(io);
		pthread_mutex_lock(&w->lock);
		bool first = cds_list_empty(&w->done);
		cds_list_add_tail(&io->node, &w->done);
		if (first) {
			pthread_mutex_unlock(&w->lock);
			src_signal(&w->src);
			pthread_mutex_lock(&w->lock);
		}
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

/* Signals are the main thread's. */
static int worker_spawn(struct work_pool *w)
{
	pthread_attr_t attr;
	sigset_t all, old;
	sigfillset(&all);
	int r = pthread_attr_init(&attr);
	if (r)
		return -r;
	pthread_attr_setstacksize(&attr, WORKER_STACK);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&w->threads[w->nr], &attr, worker, w);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	if (r)
		return -r;
	w->nr++;
	return 0;
}

static void on_work_done(struct ev_src *src, uint32_t events)
{
	struct env_linux *l = src->owner;
	struct work_pool *w = &l->work;
	pthread_mutex_lock(&w->lock);
	cds_list_splice(&w->done, l->io_done.prev);
	CDS_INIT_LIST_HEAD(&w->done);
	pthread_mutex_unlock(&w->lock);
}

/* As many as the pool may have; one is enough to go on with. */
static int work_spawn(struct work_pool *w)
{
	int r = 0;
	while (r == 0 && w->nr < w->max)
		r = worker_spawn(w);
	return w->nr ? 0 : r;
}

int work_start(struct env_linux *l, unsigned nr_workers)
{
	struct work_pool *w = &l->work;
	w->max = nr_workers ? nr_workers : WORKERS_DEFAULT;
	w->threads = calloc(w->max, sizeof(*w->threads));
	if (!w->threads)
		return -ENOMEM;
	int r = src_add_eventfd(l, &w->src, on_work_done, l);
	return r < 0 || !nr_workers ? r : work_spawn(w);
}

void work_end(struct env_linux *l)
{
	struct work_pool *w = &l->work;
	pthread_mutex_lock(&w->lock);
	w->quit = true;
	pthread_cond_broadcast(&w->cond);
	pthread_mutex_unlock(&w->lock);
	for (unsigned i = 0; i < w->nr; i++)
		pthread_join(w->threads[i], NULL);
	free(w->threads);
	if (w->src.fd >= 0)
		close(w->src.fd);
	pthread_cond_destroy(&w->cond);
	pthread_mutex_destroy(&w->lock);
}

void work_add(struct env_linux *l, struct env_io *io)
{
	cds_list_add_tail(&io->node, &l->work.fresh);
	l->work.nr_fresh++;
}

static void work_fail(struct env_linux *l, int err)
{
	struct env_io *io, *n;
	cds_list_for_each_entry_safe (io, n, &l->work.fresh, node) {
		cds_list_del(&io->node);
		io->result = err;
		cds_list_add_tail(&io->node, &l->io_done);
	}
	l->work.nr_fresh = 0;
}

void work_flush(struct env_linux *l)
{
	struct work_pool *w = &l->work;
	if (!w->nr_fresh)
		return;
	int r = w->nr ? 0 : work_spawn(w);
	if (r < 0) {
		work_fail(l, r);
		return;
	}
	pthread_mutex_lock(&w->lock);
	cds_list_splice(&w->fresh, w->queue.prev);
	unsigned wake = w->nr_fresh < w->idle ? w->nr_fresh : w->idle;
	pthread_mutex_unlock(&w->lock);
	CDS_INIT_LIST_HEAD(&w->fresh);
	w->nr_fresh = 0;
	while (wake--)
		pthread_cond_signal(&w->cond);
}
