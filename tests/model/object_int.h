/* object_int.h - the state of the model of object.c, which is in three parts: the bus and all of it
 * (object.c), the owner (object_owner.c), the replicas (object_replica.c). */
#ifndef MODEL_OBJECT_INT_H
#define MODEL_OBJECT_INT_H

#include "tests/model/models.h"

enum { NODES = 4, LOG = 14, MSGS = 14 };

struct ver {
	uint8_t gen, seq;
};

/* Of an owner: what it is at with its VDI. */
enum phase { NOTHING, CLAIMED, SERVES };

struct node {
	uint8_t up, member; /* runs; has applied a view with itself in it */
	uint8_t pos;	    /* of the log, applied */
	uint8_t in_sync;
	uint8_t synced; /* durable: the newest epoch in which it was in sync */
	uint8_t silent, silent_at, lease_over;
	struct ver ver; /* durable; 0: absent */
	uint16_t has;	/* durable */
	/* the owner: */
	uint8_t phase, gen, seq, dirty;
	uint8_t out;	   /* writes in flight; the newest is `seq` */
	uint8_t acks[2];   /* masks, the oldest write first */
	struct ver before; /* of the oldest write in flight */
	uint16_t contents; /* with everything in flight */
	uint8_t asked;	   /* mask: these have told their version to the takeover */
	uint8_t pad;
	struct ver told[NODES];
	uint16_t told_has[NODES];
};

enum { WRITE = 1, PULL, SETTLE };

struct msg {
	uint8_t type, to, from, epoch;
	struct ver ver, prev; /* prev: of a SETTLE: .gen is the generation of the takeover */
	uint8_t checked, copy;
	uint16_t has;
};

enum { VIEW, CLAIM, RELEASE };

struct entry {
	uint8_t type, who; /* VIEW: the mask of its members */
	uint8_t arg;	   /* VIEW: somebody fell silent; RELEASE: clean */
};

struct state {
	struct entry log[LOG];
	struct node n[NODES];
	struct msg msg[MSGS];
	uint8_t nr_log, nr_msg;
	uint8_t writes, crashes, silent, joins, claims, releases, late, pad;
	uint16_t floor;
};

_Static_assert(sizeof(struct state) ==
		       3 * LOG + sizeof(struct node) * NODES + sizeof(struct msg) * MSGS + 12,
	       "states are compared as bytes");

/* What the state machine says at a place of the log. */
struct at {
	uint8_t epoch, members, ring;
	uint8_t gen, claim_pos; /* of the newest claim */
	int8_t owner;		/* -1: nobody */
	bool clean;		/* the last owner released so */
	bool dirty;		/* the present generation began so */
};

struct ctx {
	struct explore *x;
	const struct object_conf *conf;
	const struct state *s;
	struct at at[LOG + 1];
};

#define NAME "ABCD"

/* ---- object.c ---- */
/* The mutant to explore. */
bool mut(const struct ctx *c, enum object_mutant m);
int ver_cmp(struct ver a, struct ver b);
bool absent(struct ver v);
bool prefix(uint16_t a, uint16_t b);
uint8_t ring_of(const struct object_conf *conf, uint8_t members);
/* What the log says where @n is; at its end. */
const struct at *at(const struct ctx *c, unsigned n);
const struct at *tail(const struct ctx *c);
bool owns(const struct ctx *c, unsigned n);
bool meets(const struct ctx *c, unsigned n, uint8_t epoch);
void msgs_trim(const struct ctx *c, struct state *s);
void msg_put(struct state *s, struct msg m);
void msg_take(struct state *s, unsigned i);
const char *look(const struct ctx *c, const struct state *s);

/* ---- object_owner.c ---- */
bool removes(const struct ctx *c, uint16_t contents);
void write_send(const struct ctx *c, struct state *s, unsigned n, unsigned w, uint8_t skip);
const char *writes_settle(const struct ctx *c, struct state *s, unsigned n);
const char *answer(const struct ctx *c, struct state *s, const struct msg *m);
void owner_writes(const struct ctx *c, unsigned n);
void owner_reads(const struct ctx *c, unsigned n, unsigned from);
void owner_releases(const struct ctx *c, unsigned n);
void told_forget(struct node *o);
void owner_loads(const struct ctx *c, unsigned n);

/* ---- object_replica.c ---- */
void in_sync_now(const struct ctx *c, struct state *s, unsigned n);
void node_recovers(const struct ctx *c, unsigned n);
void node_drops(const struct ctx *c, unsigned n);
void message_arrives(const struct ctx *c, unsigned k);

#define NEXT(c, s, bad, ...)                                                                       \
	do {                                                                                       \
		msgs_trim(c, s);                                                                   \
		const char *bad_ = (bad);                                                          \
		step((c)->x, s, bad_ ? bad_ : look(c, s), __VA_ARGS__);                            \
	} while (0)

#endif
