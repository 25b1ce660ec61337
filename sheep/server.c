/* server.c - the server's listeners, bounds and life; see server.h. */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "lib/base/util.h"
#include "sheep/server_int.h"

static void server_retry(struct env_timer *t)
{
	struct server *srv = caa_container_of(t, struct server, retry);

	for (unsigned i = 0; i < srv->nr_listen; i++)
		client_accepted(srv, srv->listen[i]);
	server_kick(srv);
}

/* Deferred: replies of this turn leave, requests without a coroutine and paused connections get
 * another chance. */
static void server_work(struct env_defer *d)
{
	struct server *srv = caa_container_of(d, struct server, work);
	struct cds_list_head list;
	struct client *cl;
	unsigned n;

	while (!cds_list_empty(&srv->dirty)) {
		cl = cds_list_first_entry(&srv->dirty, struct client, dirty_node);
		cds_list_del(&cl->dirty_node);
		cl->dirty = false;
		client_flush(cl);
	}
	request_run_ready(srv);
	if (srv->stopping)
		return;
	if (srv->full && srv->nr_clients < SERVER_CONNS_MAX) {
		srv->full = false;
		server_retry(&srv->retry);
	}
	/* Each connection paused now is tried once; those that pause again wait for the next kick.
	 * An unserved one stays until another goes away. */
	CDS_INIT_LIST_HEAD(&list);
	cds_list_splice(&srv->paused, &list);
	CDS_INIT_LIST_HEAD(&srv->paused);
	for (n = 0; !cds_list_empty(&list) && n < SERVER_CONNS_MAX; n++)
		client_input(cds_list_first_entry(&list, struct client, paused_node));
	assert(cds_list_empty(&list));
}

void server_kick(struct server *srv)
{
	env_defer(srv->sh->env, &srv->work);
}

void server_retry_later(struct server *srv)
{
	env_timer_set(srv->sh->env, &srv->retry, env_now(srv->sh->env) + SERVER_RETRY_NS);
}

static void server_accept(struct env_sock *lst, unsigned events, void *arg)
{
	client_accepted(arg, lst);
}

static int server_listen(struct server *srv, const struct net_addr *a, const char *what, char **err)
{
	int r;

	assert(srv->nr_listen < SERVER_LISTEN_MAX);
	r = env_listen(srv->sh->env, a, server_accept, srv, &srv->listen[srv->nr_listen]);
	if (r < 0) {
		*err = str_printf("Cannot listen on %s: %s", what, strerror(-r));
		return r;
	}
	srv->nr_listen++;
	return 0;
}

static int server_listen_tcp(struct server *srv, struct net_addr a, char **err)
{
	CLEANUP(freep)
	char *what = str_printf("TCP port %u (%s)", a.port, a.family == AF_INET ? "IPv4" : "IPv6");
	struct net_addr name;
	int r = server_listen(srv, &a, what, err);

	if (r < 0)
		return r;
	if (!srv->port && env_sock_name(srv->listen[srv->nr_listen - 1], &name) == 0)
		srv->port = name.port;
	return 0;
}

static int server_listen_all(struct server *srv, char **err)
{
	const struct sheep_conf *conf = srv->sh->conf;
	struct net_addr a = conf->bind, sock = {.family = AF_UNIX};
	int r;

	a.port = conf->port;
	if (a.family) {
		r = server_listen_tcp(srv, a, err);
	} else {
		a.family = AF_INET;
		r = server_listen_tcp(srv, a, err);
		a.family = AF_INET6;
		a.port = srv->port;
		/* A host without IPv6 is fine. */
		if (r == 0 && server_listen_tcp(srv, a, err) < 0) {
			log_info(srv->sh->log, "%s: serving IPv4 only", *err);
			free(*err);
			*err = NULL;
		}
	}
	if (r < 0)
		return r;
	if ((size_t)snprintf(sock.path, sizeof(sock.path), "%s/sock", conf->store.dir) >=
	    sizeof(sock.path)) {
		log_warn(srv->sh->log, "%s is too long for a unix socket: none is made",
			 conf->store.dir);
		return 0;
	}
	return server_listen(srv, &sock, sock.path, err);
}

static void server_unlisten(struct server *srv)
{
	while (srv->nr_listen)
		env_sock_close(srv->listen[--srv->nr_listen], false);
}

static void server_free(struct server *srv)
{
	struct request *rq, *next;

	env_defer_del(srv->sh->env, &srv->work);
	env_timer_del(srv->sh->env, &srv->retry);
	cds_list_for_each_entry_safe (rq, next, &srv->spare, node)
		free(rq);
	free(srv->scratch);
	free(srv);
}

int server_start(struct sheep *sh, char **err)
{
	struct server *srv = calloc(1, sizeof(*srv));
	int r;

	if (!srv)
		return -ENOMEM;
	srv->sh = sh;
	srv->work.fn = server_work;
	srv->retry.fn = server_retry;
	CDS_INIT_LIST_HEAD(&srv->clients);
	CDS_INIT_LIST_HEAD(&srv->paused);
	CDS_INIT_LIST_HEAD(&srv->dirty);
	CDS_INIT_LIST_HEAD(&srv->parked);
	CDS_INIT_LIST_HEAD(&srv->ready);
	CDS_INIT_LIST_HEAD(&srv->spare);
	co_cond_init(&srv->idle);
	srv->scratch = malloc(SERVER_SCRATCH);
	r = srv->scratch ? server_listen_all(srv, err) : -ENOMEM;
	if (r < 0) {
		server_unlisten(srv);
		server_free(srv);
		return r;
	}
	sh->server = srv;
	return 0;
}

/* Requests parked while the cluster waits go on when it runs. */
static void server_watch(void *arg)
{
	struct server *srv = arg;

	while (!srv->stopping) {
		request_unpark(srv);
		co_cond_wait(cluster_changed(srv->sh->cluster), "server: cluster"); /* ~ */
	}
	srv->watching = false;
	co_cond_broadcast(&srv->idle);
}

void server_ready(struct sheep *sh)
{
	struct server *srv = sh->server;

	if (srv->is_ready || srv->stopping)
		return;
	srv->is_ready = true;
	srv->watching = co_start(sh->sched, server_watch, srv, "server watch");
	server_kick(srv);
}

/* Requests that somebody works on or that are on their way out. */
static bool server_busy(struct server *srv)
{
	struct client *cl;
	unsigned receiving = 0;

	cds_list_for_each_entry (cl, &srv->clients, node)
		receiving += cl->rx != NULL;
	return srv->nr_requests > srv->nr_parked + receiving;
}

void server_drain(struct sheep *sh, unsigned ms)
{
	struct server *srv = sh->server;

	if (!srv)
		return;
	uint64_t until = env_now(sh->env) + ms * 1000000ull;
	srv->draining = true;
	while (server_busy(srv))
		if (co_cond_wait_until(&srv->idle, until, "server: drain") < 0) /* ~ */
			break;
}

void server_hangup(struct sheep *sh)
{
	struct server *srv = sh->server;

	if (!srv)
		return;
	srv->stopping = srv->draining = true;
	server_unlisten(srv);
	while (!cds_list_empty(&srv->clients))
		client_close(cds_list_first_entry(&srv->clients, struct client, node));
	if (srv->watching)
		co_cond_broadcast(cluster_changed(sh->cluster));
	server_kick(srv); /* requests without a coroutine are dropped */
}

void server_stop(struct sheep *sh)
{
	struct server *srv = sh->server;

	if (!srv)
		return;
	server_hangup(sh);
	while (srv->nr_requests || srv->watching)
		co_cond_wait(&srv->idle, "server: stop"); /* ~ */
	/* Replies that ended with a closed connection are gone, nothing refers to us any more. */
	assert(!srv->bytes && !srv->nr_clients);
	sh->server = NULL;
	server_free(srv);
}

unsigned server_nr_clients(const struct server *srv)
{
	return srv->nr_clients;
}

unsigned server_nr_requests(const struct server *srv)
{
	return srv->nr_requests;
}

uint16_t server_port(const struct server *srv)
{
	return srv->port;
}
