/* fake_server.h - a small cluster in memory for test_client: several gateways over real sockets, in
 * a thread of its own with an env of its own.  The knobs may be turned at any time. */
#ifndef TESTS_UNIT_FAKE_SERVER_H
#define TESTS_UNIT_FAKE_SERVER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "sheepdog/proto.h"

#define FAKE_GATEWAYS 3
#define FAKE_SHIFT    20u /* object size 1 MiB */

enum fake_mode {
	FAKE_UP,
	FAKE_DOWN,    /* not listening */
	FAKE_MUTE,    /* takes connections and requests, answers nothing */
	FAKE_GARBAGE, /* answers bytes that mean nothing */
	FAKE_CLOSING, /* takes connections and closes them */
};

struct fake_knobs {
	_Atomic int mode[FAKE_GATEWAYS];
	_Atomic unsigned shuffle; /* answer in random order, about one request in so many a turn */
	_Atomic unsigned drop;	  /* reset a connection after about so many requests */
	_Atomic bool old;	  /* the original: no HELLO, no flush */
	_Atomic bool deaf;	  /* object requests are kept unanswered until this is cleared */
	_Atomic unsigned fail_op; /* this opcode ... */
	_Atomic unsigned fail_result; /* ... fails so ... */
	_Atomic unsigned fail_times;  /* ... so often, on every gateway or: */
	_Atomic int fail_gateway;     /* only there (-1: all) */
	_Atomic unsigned lose_op;     /* this opcode's next answer is lost with its connection */
	_Atomic bool snapshot;	      /* the next turn takes a snapshot of every volume */
	_Atomic unsigned bad_length;  /* the next read is answered with a wrong length */
};

struct fake_stats {
	_Atomic unsigned hellos, conns, resets, ops[256], max_session_step, old_session_ops;
	_Atomic unsigned flags_seen; /* of writes */
};

struct fake;
struct fake *fake_start(unsigned port, const char *unix_path);
void fake_stop(struct fake *f);
struct fake_knobs *fake_knobs(struct fake *f);
struct fake_stats *fake_stats(struct fake *f);
/* Only after fake_stop_thread(): look at what is stored. */
void fake_halt(struct fake *f);
unsigned fake_objects(struct fake *f, uint32_t vid);
/* "127.0.0.1:P,..." of gateways first..last. */
const char *fake_list(struct fake *f, unsigned first, unsigned last, char *buf, size_t len);

#endif
