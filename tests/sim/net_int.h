/* net_int.h - inside of net.c and net_fault.c: the simulated network. */
#ifndef TESTS_SIM_NET_INT_H
#define TESTS_SIM_NET_INT_H

#include "tests/sim/world.h"

#include <assert.h>

#define NET_WINDOW (256u << 10)
#define NET_IPS	   64u

enum kind { K_DATA, K_EOF, K_RESET };

struct chunk { /* on its way to a socket */
	struct cds_list_head node;
	enum kind kind;
	uint64_t at;
	size_t len, used;
	uint8_t data[];
};

enum state { S_LISTEN, S_CONNECTING, S_OPEN, S_FAILED };

struct env_sock {
	struct env *env; /* first: env.h */
	struct cds_list_head node;
	struct sim_net *net;
	struct proc *p;
	enum state state;
	struct net_addr local, remote;
	env_sock_fn fn;
	void *arg;
	struct pevent pe;
	unsigned events;
	bool pe_set, want_out, eof, reset, held;
	int error;
	/* listeners */
	struct cds_list_head backlog; /* sockets of ours that nobody has accepted yet */
	/* streams */
	struct env_sock *peer;		    /* NULL: that end is gone */
	struct cds_list_head coming, ready; /* chunks */
	struct event arrive;
	uint64_t last_at, give_up;
	size_t unread; /* bytes in coming and ready */
	unsigned let;  /* so many chunks arrive whatever holds them */
	bool half;     /* there is no other end, and nobody has said so */
	size_t lost;   /* bytes sent into that void */
};

struct sim_net {
	struct world *w;
	struct cds_list_head socks;
	bool cut[NET_IPS][NET_IPS];	 /* from, to */
	uint64_t slow[NET_IPS][NET_IPS]; /* ns more */
	uint32_t byte_ns[NET_IPS];	 /* to this address a byte takes so long */
	uint32_t window[NET_IPS];	 /* what it takes in unread; 0: NET_WINDOW */
	uint16_t next_port;
	/* net_on_send() */
	struct event *doom;
	unsigned doom_left;
	uint32_t doomed;
};

static inline unsigned net_ip(uint32_t ip)
{
	assert(ip < NET_IPS);
	return ip;
}

static inline uint32_t net_addr_ip(const struct net_addr *a)
{
	return a->ip[15];
}

/* ---- net.c ---- */

void net_sock_event(struct env_sock *s, unsigned events);
void net_chunks_free(struct cds_list_head *list);
/* To socket @to, behind what is already on its way, @extra ns later than it would be. */
void net_carry(struct env_sock *to, enum kind kind, const struct iovec *iov, int n, size_t len,
	       uint64_t extra);
/* @s has seen a reset; what was on its way to it is lost. */
void net_sock_reset(struct env_sock *s);
/* From where on the end of what is on its way to @to does not arrive. */
void net_lose_end(struct sim_net *n, struct env_sock *to);

#endif
