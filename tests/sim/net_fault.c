/* net_fault.c - what goes wrong in the simulated network. */
#include "config.h"

#include "tests/sim/net_int.h"

#include <string.h>

void net_cut(struct sim_net *n, uint32_t a, uint32_t b, bool cut)
{
	n->cut[net_ip(a)][net_ip(b)] = cut;
}

bool net_is_cut(struct sim_net *n, uint32_t a, uint32_t b)
{
	return n->cut[net_ip(a)][net_ip(b)];
}

void net_hold_open(struct sim_net *n, uint32_t a, uint32_t b, bool held)
{
	struct env_sock *s;

	cds_list_for_each_entry (s, &n->socks, node)
		if (s->state == S_OPEN && s->p->ip == b && net_addr_ip(&s->remote) == a)
			s->held = held;
}

void net_let(struct sim_net *n, uint32_t a, uint32_t b)
{
	struct env_sock *s;
	struct chunk *c;

	cds_list_for_each_entry (s, &n->socks, node) {
		if (s->p->ip != b || net_addr_ip(&s->remote) != a)
			continue;
		s->let = 0;
		cds_list_for_each_entry (c, &s->coming, node)
			s->let++;
	}
}

void net_lose(struct sim_net *n, uint32_t a, uint32_t b)
{
	struct env_sock *s;

	cds_list_for_each_entry (s, &n->socks, node)
		if (s->state == S_OPEN && s->p->ip == a && net_addr_ip(&s->remote) == b)
			net_sock_reset(s);
}

void net_slow_link(struct sim_net *n, uint32_t a, uint32_t b, uint64_t extra_ns)
{
	n->slow[net_ip(a)][net_ip(b)] = extra_ns;
}

void net_slow(struct sim_net *n, uint32_t ip, uint64_t extra_ns)
{
	for (uint32_t i = 0; i < NET_IPS; i++) {
		net_slow_link(n, ip, i, extra_ns);
		net_slow_link(n, i, ip, extra_ns);
	}
}

/* A window that has grown again: who waits for it goes on. */
static void windows_open(struct sim_net *n)
{
	struct env_sock *s;

	cds_list_for_each_entry (s, &n->socks, node)
		if (s->peer && s->want_out) {
			s->want_out = false;
			net_sock_event(s, ENV_SOCK_OUT);
		}
}

void net_slow_reader(struct sim_net *n, uint32_t ip, uint32_t window, uint32_t byte_ns)
{
	n->window[net_ip(ip)] = window;
	n->byte_ns[net_ip(ip)] = byte_ns;
	windows_open(n);
}

void net_heal(struct sim_net *n)
{
	struct env_sock *s;

	cds_list_for_each_entry (s, &n->socks, node)
		s->held = false;
	memset(n->cut, 0, sizeof(n->cut));
	memset(n->slow, 0, sizeof(n->slow));
	memset(n->window, 0, sizeof(n->window));
	memset(n->byte_ns, 0, sizeof(n->byte_ns));
	windows_open(n);
}

static struct env_sock *pick(struct sim_net *n, uint32_t ip, struct prng *r)
{
	struct env_sock *s, *one = NULL;
	unsigned nr = 0;

	cds_list_for_each_entry (s, &n->socks, node)
		if (s->state == S_OPEN && s->peer && s->p->ip == ip && prng_in(r, 0, nr++) == 0)
			one = s;
	return one;
}

/* Both ends see it; of what was on its way some is lost, in the middle of a message as like as not.
 */
bool net_reset_one(struct sim_net *n, uint32_t ip, struct prng *r)
{
	struct env_sock *s = pick(n, ip, r), *end[2];
	struct chunk *c;

	if (!s)
		return false;
	end[0] = s;
	end[1] = s->peer;
	for (int i = 0; i < 2; i++) {
		net_lose_end(n, end[i]);
		while (prng_chance(r, 1, 2) && !cds_list_empty(&end[i]->coming)) {
			c = cds_list_first_entry(&end[i]->coming, struct chunk, node);
			if (c->kind != K_DATA)
				break;
			cds_list_del(&c->node);
			cds_list_add_tail(&c->node, &end[i]->ready);
		}
		net_sock_reset(end[i]);
	}
	return true;
}

bool net_half_open(struct sim_net *n, uint32_t ip, struct prng *r, uint64_t ns)
{
	struct env_sock *s = pick(n, ip, r), *other;

	if (!s)
		return false;
	other = s->peer;
	net_lose_end(n, other);
	s->peer = NULL;
	net_sock_reset(s);
	other->peer = NULL;
	other->half = true;
	net_carry(other, K_RESET, NULL, 0, 0, ns);
	return true;
}
