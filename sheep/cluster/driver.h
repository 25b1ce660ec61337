/* driver.h - what a cluster driver is: ordered broadcast and membership, nothing else.  DESIGN 4.1.
 *
 * A driver fills in struct bus_ops.  Everything runs on the reactor thread; callbacks come from
 * env_run, never from inside bus_send.  Promises B1..B5 of DESIGN 4.1.
 */
#ifndef SHEEP_CLUSTER_DRIVER_H
#define SHEEP_CLUSTER_DRIVER_H

#include "lib/co/co.h"

/* A member is an incarnation: a restarted daemon is a new one. */
struct incarnation {
	uint8_t uuid[16]; /* store UUID */
	uint64_t start;	  /* start number */
};

struct bus;

struct bus_member {
	struct incarnation inc;
	bool silent; /* in `left` only: it fell silent or was expelled, its death is not known (B5)
		      */
};

struct bus_cb {
	/* The membership at this place of the order.  @members is sorted by order of arrival
	 * (oldest first) and includes self unless we are out. */
	void (*view)(void *arg, const struct bus_member *members, unsigned nr,
		     const struct bus_member *left, unsigned nr_left);
	/* A message; @from is in the membership at this place (B3). */
	void (*message)(void *arg, const struct incarnation *from, const void *msg, size_t len);
	/* We are out of the membership (lost quorum, expelled, the driver's service died): no more
	 * callbacks.
	 * @reason is for the operator. */
	void (*out)(void *arg, const char *reason);
	/* Something is wrong that only the operator can set right; the driver goes on.  A sentence
	 * for the log.  From no callback and not from inside of send(); must not close the bus. */
	void (*warn)(void *arg, const char *text);
};

struct bus_driver {
	const char *name;
	const char *help; /* one line on its parameter, for --help */
	bool param_path;  /* the parameter is a path: the options make it absolute */
	/* Join.  @param is what follows "name:" in -c, or NULL.  The first callback is a view with
	 * self in it.  -errno and *err (malloc'ed sentence that says what to do) on failure. */
	int (*open)(struct env *env, const char *param, const struct incarnation *self,
		    const struct bus_cb *cb, void *arg, struct bus **ret, char **err);
	/* Leave in an orderly way and free; no callback afterwards. */
	void (*close)(struct bus *b);
	/* Broadcast; delivered to all members including the sender, in one order.  -EMSGSIZE above
	 * BUS_MSG_MAX, -ENOTCONN when out. */
	int (*send)(struct bus *b, const void *msg, size_t len);
	/* Default address of this node when no -y is given (16 bytes, as struct net_addr.ip). */
	int (*my_address)(struct bus *b, uint8_t ip[16]);
	/* The members have agreed that @who is out: take it out of the membership, as one that fell
	 * silent, if the driver can.  NULL: it cannot.  No yield; no callback from inside. */
	void (*expel)(struct bus *b, const struct incarnation *who);
};

/* NULL terminated; sheep/cluster/drivers.c */
extern const struct bus_driver *const bus_drivers[];

#endif
