/* sheep.h - one daemon: everything hangs off struct sheep; several live in one process in tests. */
#ifndef SHEEP_SHEEP_H
#define SHEEP_SHEEP_H

#include "lib/base/buf.h"
#include "lib/base/log.h"
#include "lib/co/co.h"
#include "sheep/cluster.h"
#include "sheep/store/store.h"

struct server;	/* server.c: listeners, client connections, requests */
struct gateway; /* gateway.c, vdi.c: ownership and the owner's side of the data path */
struct peers;	/* peer.c: connections to other daemons */
struct replica; /* replica.c: this node's side of the data path */
struct sync;	/* sync.c, recover.c: DESIGN 5.5 */

struct sheep_conf { /* fixed at start: what the options say */
	struct store_conf store;
	const struct bus_driver *driver;
	const char *driver_param;
	struct net_addr bind;	/* -b; family 0: 0.0.0.0 and [::] */
	struct net_addr myaddr; /* -y; family 0: the driver's */
	uint16_t port;
	bool gateway;
	bool zone_set;
	uint32_t zone;
	uint16_t fixed_vnodes;
	const char *pidfile;
	bool foreground;
};

/* Counters of STAT (0xB8), in its order. */
struct sheep_stat {
	uint64_t gway_active, peer_active, gway_total, peer_total, gway_rx, gway_tx, peer_rx,
		peer_tx, gway_remove, gway_read, gway_write, gway_flush, peer_remove, peer_read,
		peer_write;
};

struct sheep {
	const struct sheep_conf *conf;
	struct env *env;
	struct co_sched *sched; /* of this daemon alone */
	struct log *log;	/* NULL: no log */
	struct buf_pool *pool;	/* from here on: made by sheep_start() */
	struct store *store;
	struct cluster *cluster;
	struct server *server;
	struct gateway *gateway;
	struct peers *peers;
	struct replica *replica;
	struct sync *sync;
	struct member self;
	struct sheep_stat stat;
	/* life (sheep.c) */
	bool stopping; /* no new work */
	bool closing;  /* the data path is being taken down: hooks do nothing any more */
	bool started;  /* sheep_start() returned 0 */
	bool exiting;  /* sheep_exit() was called */
	bool out;      /* off the bus: nothing is drained */
	bool again; /* out or not in, but welcome as a new incarnation: start again (DESIGN 4.4) */
	bool off_bus;  /* the cluster could not be joined, and did not say no */
	bool shutdown; /* an ordered shutdown of the whole cluster */
	bool joined;   /* a view with this node was applied */
	int exit_status;
	uint32_t clean_epoch; /* the clean mark to leave behind (DESIGN 4.3); 0: none */
	uint8_t clean_name[8];
	struct env_timer tick;
	void (*stopped)(struct sheep *sh); /* called once everything is closed */
	void *arg;
};

/* Start a daemon (sheep.c): opens the store, listens, joins the cluster.  The caller has set conf,
 * env, sched, log, stopped and arg and zeroed the rest.  *msg: a malloc'ed
 * sentence (why it failed, or what it waits for).  Failed with sh->again: try again, after a while.
 *  Does not daemonize, install signals or touch pid
 * files: main.c does. */
co_fn int sheep_start(struct sheep *sh, char **msg);
/* Stop: leave the cluster, finish what is in flight without error replies, close all.  @clean_mark:
 * after an ordered cluster shutdown.  Asserts that no coroutine, buffer or fd of it is left. */
co_fn void sheep_stop(struct sheep *sh);
/* Ask for the end: logs @why, then sheep_stop() in a coroutine of its own, then sh->stopped().
 * Later calls only make the exit status worse.  From anywhere on the reactor. */
void sheep_exit(struct sheep *sh, int status, const char *why);

#endif
