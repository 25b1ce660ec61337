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
	struct co_sched *sched;
	struct buf_pool *pool;
	struct log *log;
	struct store *store;
	struct cluster *cluster;
	struct server *server;
	struct gateway *gateway;
	struct peers *peers;
	struct replica *replica;
	struct sync *sync;
	struct member self;
	struct sheep_stat stat;
	bool stopping;
	int exit_status;
	void (*stopped)(struct sheep *sh); /* called once everything is closed */
	void *arg;
};

/* Start a daemon in @env (sheep.c): opens the store, joins the cluster, listens.  *msg: a malloc'ed
 * sentence (why it failed, or what it waits for).  Does not daemonize, install signals or touch pid
 * files: main.c does. */
co_fn int sheep_start(struct sheep *sh, char **msg);
/* Stop: leave the cluster, finish what is in flight without error replies, close all.  @clean_mark:
 * after an ordered cluster shutdown.  Asserts that no coroutine, buffer or fd of it is left. */
co_fn void sheep_stop(struct sheep *sh);

#endif
