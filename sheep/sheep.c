/* sheep.c - the life of one daemon: start, the cluster's hooks, the orders of stopping. */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/util.h"
#include "sheep/gateway.h"
#include "sheep/peer.h"
#include "sheep/server.h"

#define POOL_KEEP	 (32u << 20)
#define TICK_NS		 1000000000ull
#define DRAIN_MS	 5000u		/* an orderly stop waits that long for what is in flight */
#define FORMAT_WAIT_NS	 10000000000ull /* for objects to be let go of */
#define FORMAT_AGAIN_NS	 10000000ull
#define SHUTDOWN_WAIT_NS 10000000000ull /* and a cluster shutdown for the other gateways */

/* ---- hooks of the cluster ---- */

static void sheep_view(void *arg, struct view *old, struct view *new_view, bool clean)
{
	struct sheep *sh = arg;

	if (sh->closing)
		return;
	server_ready(sh);
	sh->joined = true;
	sh->clean_epoch = 0; /* from now on something may be written */
	log_notice(sh->log, "epoch %u with %u nodes%s", new_view->epoch, new_view->nr,
		   clean ? ", after a clean shutdown" : "");
	peer_view_changed(sh, new_view);
	int r = sync_view(sh, old, new_view, clean); /* ~ */
	if (r < 0 && !sh->closing) {
		log_err(sh->log, "cannot record epoch %u: %s", new_view->epoch, strerror(-r));
		sheep_exit(sh, 1, "the store cannot be written");
		return;
	}
	if (!sh->closing)
		gateway_view(sh, old, new_view); /* ~ */
}

static void sheep_vdi(void *arg, const struct vdi *v)
{
	struct sheep *sh = arg;

	if (!sh->closing)
		gateway_vdi_changed(sh, v);
}

/* Requests that are being worked on hold objects: they end soon, since the peers' connections are
 * void (those of now are of the new cluster: hello.cluster_ctime) and nothing is served. */
static int format_store(struct sheep *sh)
{
	const uint64_t until = env_now(sh->env) + FORMAT_WAIT_NS;
	struct view nobody = {0};
	int r;

	peer_view_changed(sh, &nobody);
	sync_pause(sh);
	while ((r = store_format(sh->store)) == -EBUSY && !sh->closing && /* ~ */
	       env_now(sh->env) < until)
		co_sleep(FORMAT_AGAIN_NS); /* ~ */
	return r;
}

static int sheep_format(void *arg)
{
	struct sheep *sh = arg;

	if (sh->closing)
		return -ECANCELED;
	sh->clean_epoch = 0;
	log_notice(sh->log, "formatting: all objects of this node are removed");
	gateway_format(sh);	  /* ~ */
	int r = format_store(sh); /* ~ */
	if (r == 0 && !sh->closing)
		r = sync_format(sh); /* ~ */
	if (r < 0 && !sh->closing) {
		log_err(sh->log, "cannot format: %s", strerror(-r));
		sheep_exit(sh, 1, "the store cannot be formatted");
	} else if (sh->closing) {
		r = r < 0 ? r : -ECANCELED;
	}
	return r;
}

static void sheep_shutdown(void *arg)
{
	struct sheep *sh = arg;

	sh->shutdown = true;
	sheep_exit(sh, 0, "the cluster is shut down");
}

static void sheep_out(void *arg, const char *reason)
{
	struct sheep *sh = arg;

	sh->out = true;
	sh->again = !sh->cluster || !cluster_refused(sh->cluster);
	log_err(sh->log, "lost the cluster: %s", reason);
	if (sh->server)
		server_hangup(sh);
	sheep_exit(sh, 1,
		   sh->again ? "this node is out of the cluster" : "the cluster refuses this node");
}

static void sheep_warn(void *arg, const char *text)
{
	struct sheep *sh = arg;

	log_warn(sh->log, "%s", text);
}

/* ---- start ---- */

/* A node whose store has failed cannot keep what it promised: it leaves (DESIGN 5.2). */
static void sheep_tick(struct env_timer *t)
{
	struct sheep *sh = caa_container_of(t, struct sheep, tick);

	if (store_failed(sh->store))
		sheep_exit(sh, 1, "the store has failed");
	else
		env_timer_set(sh->env, t, env_now(sh->env) + TICK_NS);
}

static void sheep_make_self(struct sheep *sh)
{
	const struct sheep_conf *conf = sh->conf;
	const struct store_ident *id = store_ident(sh->store);
	struct member *m = &sh->self;

	memset(m, 0, sizeof(*m));
	memcpy(m->inc.uuid, id->uuid, sizeof(m->inc.uuid));
	m->inc.start = id->start;
	m->addr = conf->myaddr.family ? conf->myaddr : conf->bind;
	m->addr.port = server_port(sh->server);
	m->zone = conf->zone;
	m->gateway = conf->gateway;
	m->fixed_vnodes = conf->fixed_vnodes;
	m->space = conf->gateway ? 0 : id->space;
	memcpy(m->boot_id, id->boot_id, sizeof(m->boot_id));
	if (m->addr.family && !conf->zone_set) /* cli.md 1.1, -z */
		memcpy(&m->zone, m->addr.ip + 12, sizeof(m->zone));
}

static int sheep_join(struct sheep *sh, char **msg)
{
	const struct store_ident *id = store_ident(sh->store);
	struct cluster_conf conf = {
		.driver = sh->conf->driver,
		.param = sh->conf->driver_param,
		.self = sh->self,
		.zone_auto = !sh->conf->zone_set,
		.max_gen = store_max_gen(sh->store),
		.clean_epoch = id->clean_epoch,
		.dir = store_dir(sh->store),
		.hooks = {sheep_view, sheep_vdi, sheep_format, sheep_shutdown, sheep_out,
			  sheep_warn},
		.arg = sh,
	};
	char *waiting = NULL;

	memcpy(conf.clean_name, id->clean_name, sizeof(conf.clean_name));
	sh->clean_epoch = id->clean_epoch; /* who never serves stays clean */
	memcpy(sh->clean_name, id->clean_name, sizeof(sh->clean_name));
	int r = cluster_start(sh->sched, &conf, &sh->cluster, &waiting, msg); /* ~ */
	if (r < 0) {
		sh->off_bus = r != -EPERM;
		free(waiting);
		return r;
	}
	*msg = waiting;
	return 0;
}

static int sheep_open(struct sheep *sh, char **msg)
{
	int r;

	sh->pool = buf_pool_new(POOL_KEEP);
	if (!sh->pool)
		return -ENOMEM;
	r = store_open(sh->sched, sh->env, &sh->conf->store, &sh->store, msg); /* ~ */
	if (r < 0)
		return r;
	r = peer_init(sh);
	if (r == 0)
		r = replica_init(sh);
	if (r == 0)
		r = sync_init(sh); /* ~ */
	if (r == 0)
		r = gateway_init(sh);
	if (r == 0)
		r = server_start(sh, msg);
	if (r < 0)
		return r;
	sheep_make_self(sh);
	return sheep_join(sh, msg); /* ~ */
}

static void sheep_close(struct sheep *sh);
static void sheep_begin_exit(struct sheep *sh);

int sheep_start(struct sheep *sh, char **msg)
{
	*msg = NULL;
	int r = sheep_open(sh, msg); /* ~ */
	if (r == 0 && sh->out)
		r = -ENOTCONN;
	if (r == -EAGAIN)
		sh->again = true;
	if (r < 0) {
		if (!*msg)
			*msg = str_printf("Cannot start: %s", strerror(-r));
		sh->stopping = true;
		sheep_close(sh); /* ~ */
		return r;
	}
	server_ready(sh);
	sh->started = true;
	sh->tick.fn = sheep_tick;
	env_timer_set(sh->env, &sh->tick, env_now(sh->env) + TICK_NS);
	log_notice(sh->log, "daemon (version %s) started", PACKAGE_VERSION);
	if (*msg)
		log_notice(sh->log, "%s", *msg);
	if (sh->exiting)
		sheep_begin_exit(sh);
	return 0;
}

/* ---- stop ---- */

static bool all_released(struct sheep *sh)
{
	const struct vdi *v = NULL;

	while ((v = cluster_vdi_next(sh->cluster, v ? v->vid : 0)))
		if (v->owned && !v->deleted)
			return false;
	return true;
}

/* An ordered shutdown: stay a replica until every gateway has released what it owns.  Then no write
 * is in flight anywhere and the copies are equal: that is what the clean mark says (DESIGN 4.3).
 * False: somebody did not manage; the next start then compares. */
static bool shutdown_settle(struct sheep *sh)
{
	uint64_t until = env_now(sh->env) + SHUTDOWN_WAIT_NS;

	while (!all_released(sh) && !sh->out) {
		uint64_t next = env_now(sh->env) + 50000000ull;
		if (next > until)
			return false;
		co_sleep(next - env_now(sh->env)); /* ~ */
	}
	return !sh->out;
}

static void mark_clean(struct sheep *sh)
{
	int r = store_flush(sh->store); /* ~ */

	if (r == 0)
		r = store_mark_clean(sh->store, sh->clean_epoch, sh->clean_name); /* ~ */
	if (r < 0)
		log_err(sh->log, "no clean mark: %s", strerror(-r));
}

/* Take down what exists, from the clients inwards. */
static void sheep_close(struct sheep *sh)
{
	sh->closing = true;
	if (sh->server)
		server_hangup(sh);
	if (sh->cluster)
		cluster_hangup(sh->cluster);
	if (sh->gateway)
		gateway_stop(sh); /* ~ */
	server_stop(sh);	  /* ~ */
	if (sh->sync)
		sync_stop(sh); /* ~ */
	if (sh->peers)
		peer_stop(sh); /* ~ */
	if (sh->cluster) {
		cluster_stop(sh->cluster); /* ~ */
		sh->cluster = NULL;
	}
	gateway_done(sh);
	sync_done(sh);
	replica_done(sh);
	peer_done(sh);
	if (sh->store) {
		if (sh->clean_epoch)
			mark_clean(sh); /* ~ */
		store_close(sh->store); /* ~ */
		sh->store = NULL;
	}
	if (sh->pool) {
		buf_pool_free(sh->pool);
		sh->pool = NULL;
	}
}

void sheep_stop(struct sheep *sh)
{
	sh->stopping = true;
	env_timer_del(sh->env, &sh->tick);
	if (!sh->out) {
		server_drain(sh, DRAIN_MS);  /* ~ */
		gateway_drain(sh, DRAIN_MS); /* ~ */
	}
	if (sh->shutdown && shutdown_settle(sh)) { /* ~ */
		const struct view *v = cluster_view(sh->cluster);
		if (v) {
			sh->clean_epoch = v->epoch;
			memcpy(sh->clean_name, v->name, sizeof(sh->clean_name));
		}
	}
	sheep_close(sh); /* ~ */
	sh->started = false;
}

static void sheep_exit_co(void *arg)
{
	struct sheep *sh = arg;

	sheep_stop(sh); /* ~ */
	log_notice(sh->log, "stopped");
	if (sh->stopped)
		sh->stopped(sh);
}

static void sheep_begin_exit(struct sheep *sh)
{
	if (!co_start(sh->sched, sheep_exit_co, sh, "exit"))
		abort(); /* as many coroutines as there can be, and none to stop with */
}

void sheep_exit(struct sheep *sh, int status, const char *why)
{
	if (status > sh->exit_status)
		sh->exit_status = status;
	if (sh->exiting)
		return;
	sh->exiting = true;
	log_notice(sh->log, "stopping: %s", why);
	if (sh->started) /* else sheep_start() does it */
		sheep_begin_exit(sh);
}
