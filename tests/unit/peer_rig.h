/* peer_rig.h - daemons that are nothing but sheep/peer*.c, in one process, on the real env.
 *
 * A node's "replica" applies writes of an object in sequence (req.prev_seq: its number), checks
 * their contents, and notes everything it was handed.  A raw peer is a socket that the test itself
 * speaks through.
 */
#ifndef TESTS_UNIT_PEER_RIG_H
#define TESTS_UNIT_PEER_RIG_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "lib/env/linux.h"
#include "sheep/peer_int.h"

#define RIG_NODES   4u
#define RIG_OBJS    8u
#define RIG_NOTES   8192u
#define RIG_SECONDS 10u

struct note { /* one request handed to the replica */
	uint16_t op;
	uint64_t oid, seq;
	struct incarnation from;
	bool voided_before; /* requests running then: all void? */
};

struct cluster { /* what cluster.c would be */
	struct view view;
	struct member member[RIG_NODES];
	bool have_view;
	bool probes;		     /* it looks who does not answer */
	unsigned accused[RIG_NODES]; /* how often */
	struct incarnation suspect;
	unsigned nr_suspects; /* 0, 1 */
	struct cluster_params params;
};

struct rig;
struct node {
	struct sheep sh;
	struct cluster cl;
	struct rig *rig;
	unsigned nr;
	struct env_sock *listener;
	/* its replica */
	bool hold;	   /* handlers wait */
	bool hold_view;	   /* also when they are void: they do not look */
	bool bad_sum, old; /* answer -EBADMSG once; answer OLD_NODE_VER */
	struct co_cond cond;
	uint64_t applied[RIG_OBJS]; /* newest write, by object */
	unsigned nr_running, max_running, nr_canceled, nr_torn, nr_forwarded, nr_errors;
	struct peer_call *running[2048];
	size_t streamed;
	unsigned nr_notes;
	struct note note[RIG_NOTES];
};

struct rig {
	struct env *env;
	struct node *node[RIG_NODES];
	struct net_addr addr[RIG_NODES];
	struct incarnation inc[RIG_NODES];
	struct cds_list_head hellos;
	uint64_t random;
};

/* A call of the test. */
struct tcall {
	struct peer_call c;
	unsigned done;
	struct node *node;
	struct cds_list_head frames;
	uint64_t got;
	bool keep; /* do not give frames back */
};

struct tframe {
	struct cds_list_head node;
	struct buf *buf;
	size_t len;
};

struct raw {
	struct env_sock *sock;
	uint8_t buf[4096];
	size_t len;
	bool up, eof;
};

/* Log lines at level error of all nodes. */
unsigned rig_errors(void);

void rig_open(struct rig *r, unsigned nr_nodes, unsigned nr_co);
void rig_close(struct rig *r); /* stops all nodes; asserts that nothing is left */
struct node *node_open(struct rig *r, unsigned nr, unsigned nr_co);
void node_listen(struct node *n);
void node_close(struct node *n);
/* peer_stop() in a coroutine, to its end */
void node_stop(struct node *n);
/* The members of @mask; @tell: peer_view_changed() too. */
void node_view(struct node *n, unsigned mask, bool tell);
void node_release(struct node *n); /* handlers go on */
uint64_t rig_random(struct rig *r);
/* Turns of the env until *@what is @value; asserts that it becomes so. */
void rig_until(struct rig *r, const unsigned *what, unsigned value);
void rig_turns(struct rig *r, unsigned ms);

void fill(void *data, size_t len, uint64_t seed);
bool filled(const void *data, size_t len, uint64_t seed);

struct tcall *tcall(struct node *n, enum peer_op op);
struct tcall *twrite(struct node *n, uint64_t oid, uint64_t seq, size_t len);
struct tcall *tread(struct node *n, size_t len);
struct tcall *tpull(struct node *n, uint64_t size, uint32_t chunk, bool keep);
void submit(struct tcall *t, unsigned to);
void give_back(struct tcall *t);
void tfree(struct tcall *t);
/* Until it is done. */
void await(struct tcall *t);

/* A hello of member @as to node @to; the test speaks for @as. */
void raw_open(struct rig *r, struct raw *w, unsigned to);
void raw_hello_of(struct rig *r, unsigned as, unsigned to, unsigned ch, uint32_t conn_nr,
		  struct peer_hello *h);
/* To node 0, data channel; it is accepted. */
void hello_ok(struct rig *r, struct raw *w, unsigned as, uint32_t conn_nr);
uint32_t raw_hello(struct rig *r, struct raw *w, const struct peer_hello *h);
void raw_send(struct rig *r, struct raw *w, const void *data, size_t len);
void raw_write(struct rig *r, struct raw *w, uint64_t oid, uint64_t seq, size_t len);
void raw_until_eof(struct rig *r, struct raw *w);
void raw_close(struct raw *w);

struct peer_chan *chan_of(struct node *n, unsigned to, unsigned ch);
struct peer_conn *in_of(struct node *n, unsigned from, unsigned ch);

#endif
