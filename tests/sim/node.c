/* node.c - a machine of the simulated cluster and the daemon on it: start, kill, power cut, stop.
 */
#include "config.h"

#include "lib/base/util.h"
#include "tests/sim/sim.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define SIM_PORT    7000u
#define COROUTINES  4000u
#define SIM_JOURNAL STORE_JOURNAL_SIZE_MIN
#define UPTIME_MAX  (10000000ull * SEC)

/* Monotonic clocks of different machines have nothing to do with each other. */
static void boot(struct node *n)
{
	for (unsigned i = 0; i < 16; i++)
		n->boot_id[i] = (uint8_t)prng_next(&n->w->rnd_ids);
	n->clock.base = n->w->now;
	n->clock.local = prng_in(&n->w->rnd_ids, SEC, UPTIME_MAX);
}

void node_init(struct node *n, struct world *w, unsigned idx, uint64_t disk_size)
{
	memset(n, 0, sizeof(*n));
	n->w = w;
	n->idx = idx;
	n->ip = 1 + idx;
	snprintf(n->name, sizeof(n->name), "%c", 'A' + (int)idx);
	n->disk = disk_new(w, n->name, disk_size);
	boot(n);
}

void node_done(struct node *n)
{
	if (n->p)
		node_kill(n);
	event_del(n->w, &n->again);
	disk_free(n->disk);
}

/* ---- the daemon's own code ---- */

/* What a service manager does with a daemon that ended although nobody had told it to: one that is
 * out of the cluster comes back as a new incarnation. */
static void supervisor(struct event *ev)
{
	struct node *n = caa_container_of(ev, struct node, again);

	if (!n->p && !n->away)
		node_start(n);
}

/* Outside of its coroutines: everything of it must be gone. */
static void daemon_ended(struct event *ev)
{
	struct node *n = caa_container_of(ev, struct node, end);
	struct world *w = n->w;
	struct sheep *sh = n->sh;

	if (n->p->paused || co_sched_nr(sh->sched)) { /* its last coroutine is about to end */
		event_set(w, ev, w->now + MS);
		return;
	}
	story(w, "%s > stopped (%d)", n->name, sh->exit_status);
	w->running = n->p;
	co_sched_free(sh->sched);
	log_close(sh->log);
	n->p->sheep = NULL;
	free(sh);
	w->running = NULL;
	n->sh = NULL;
	proc_exit(n->p);
	n->p = NULL;
	if (!n->stopping) {
		n->again.fn = supervisor;
		n->again.what = "again";
		event_set(w, &n->again, w->now + prng_in(&w->rnd_ids, 20 * MS, 500 * MS));
	}
	n->started = n->stopping = n->starting = false;
}

static void on_stopped(struct sheep *sh)
{
	struct node *n = sh->arg;

	event_set(n->w, &n->end, n->w->now + US);
}

static void start_co(void *arg)
{
	struct node *n = arg;
	char *msg = NULL;

	n->start_result = sheep_start(n->sh, &msg);
	n->starting = false;
	n->started = n->start_result == 0;
	story(n->w, "%s > %s%s%s", n->name, n->started ? "started" : "does not start",
	      msg ? ": " : "", msg ? msg : "");
	free(msg);
	if (!n->started)
		event_set(n->w, &n->end, n->w->now + US);
}

static void daemon_main(void *arg)
{
	struct node *n = arg;
	struct sheep *sh = calloc(1, sizeof(*sh));

	assert(sh);
	n->sh = n->p->sheep = sh;
	sh->conf = &n->conf;
	sh->env = &n->p->env;
	sh->sched = co_sched_new(sh->env, COROUTINES);
	sh->stopped = on_stopped;
	sh->arg = n;
	sh->log = sim_log_new(n->w, n->name);
	assert(sh->sched && co_start(sh->sched, start_co, n, "start"));
}

void node_start(struct node *n)
{
	struct world *w = n->w;

	assert(!n->p);
	n->installed = true;
	event_del(w, &n->again);
	n->conf = (struct sheep_conf){
		.store = {.dir = "/store", .journal_size = SIM_JOURNAL},
		.driver = &bus_sim,
		.bind = {.family = AF_INET, .ip = {[12] = 10, [15] = (uint8_t)n->ip}},
		.zone_set = true,
		.zone = n->idx,
		.port = SIM_PORT,
		.gateway = n->gateway,
	};
	n->conf.store.gateway = n->gateway;
	n->p = proc_new(w, n->name, n->ip, n->disk);
	n->p->clock = &n->clock;
	memcpy(n->p->boot_id, n->boot_id, sizeof(n->boot_id));
	n->end.fn = daemon_ended;
	n->end.what = "end";
	n->starting = true;
	n->nr_starts++;
	story(w, "%s > starts", n->name);
	proc_call(n->p, daemon_main, n);
}

/* ---- ends ---- */

static void drop(struct node *n)
{
	struct world *w = n->w;

	event_del(w, &n->end);
	event_del(w, &n->again);
	if (n->sh)
		co_sched_drop(n->sh->sched);
	bus_proc_died(w->bus, n->p);
	proc_kill(n->p);
	n->p = NULL;
	n->sh = NULL;
	n->started = n->starting = n->stopping = false;
}

void node_kill(struct node *n)
{
	story(n->w, "%s > killed", n->name);
	drop(n);
}

void node_power_cut(struct node *n)
{
	story(n->w, "%s > power cut", n->name);
	if (n->p) {
		n->p->power_lost = true;
		drop(n);
	}
	disk_power_cut(n->disk);
	boot(n);
}

static void stop_main(void *arg)
{
	sheep_exit(arg, 0, "SIGTERM");
}

void node_stop(struct node *n)
{
	if (!n->p || !n->started || n->stopping || n->p->paused)
		return;
	story(n->w, "%s > told to stop", n->name);
	n->stopping = true;
	proc_call(n->p, stop_main, n->sh);
}

void node_pause(struct node *n)
{
	if (n->p && !n->p->paused)
		proc_pause(n->p);
}

void node_resume(struct node *n)
{
	if (!n->p || !n->p->paused)
		return;
	story(n->w, "%s > goes on", n->name);
	proc_resume(n->p);
}

void node_clock_drift(struct node *n, int64_t ppm)
{
	clock_drift(&n->clock, n->w->now, ppm);
	if (n->p)
		proc_arm(n->p);
}

void node_wall_jump(struct node *n, int64_t ns)
{
	n->clock.wall_off += ns;
}
