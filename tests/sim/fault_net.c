/* fault_net.c - what can go wrong between machines: connections, links, the bus. */
#include "config.h"

#include "tests/sim/fault_net.h"

/* How long something lasts: about as long as it takes to the next faults, up to @max. */
static uint64_t lasts(struct run *r, uint64_t max)
{
	uint64_t ns = 4 * r->shape.gap_ns;

	return prng_in(&r->w.rnd_fault, MS, ns < max ? ns : max);
}

/* A link: now and then for so long that somebody has to go (SD_PEER_SILENT_NS, SD_INSIST_NS). */
static uint64_t cut_lasts(struct run *r, uint64_t max)
{
	struct prng *p = &r->w.rnd_fault;

	return prng_chance(p, 1, 4) ? prng_in(p, 3 * SEC, 15 * SEC) : lasts(r, max);
}

/* ---- connections ---- */

bool k_reset(struct run *r, struct node *n)
{
	if (!net_reset_one(r->w.net, n->ip, &r->w.rnd_fault))
		return false;
	story(&r->w, "%s > a connection is reset", n->name);
	world_fault(&r->w, FAULT_RESET);
	return true;
}

bool k_half_open(struct run *r, struct node *n)
{
	uint64_t ns = cut_lasts(r, 3 * SEC);

	if (!net_half_open(r->w.net, n->ip, &r->w.rnd_fault, ns))
		return false;
	story(&r->w, "%s > a connection is reset, the other end does not know for %u ms", n->name,
	      (unsigned)(ns / MS));
	world_fault(&r->w, FAULT_HALF_OPEN);
	return true;
}

/* ---- links ---- */

/* @arg: the other address, in 8 bits, then which directions. */
enum { FROM = 256, TO = 512 };

static void set_cut(struct run *r, const struct node *n, uint32_t arg, bool cut)
{
	if (arg & FROM)
		net_cut(r->w.net, n->ip, arg & 255, cut);
	if (arg & TO)
		net_cut(r->w.net, arg & 255, n->ip, cut);
}

static void uncut(struct run *r, struct node *n, uint32_t arg)
{
	story(&r->w, "%s > the link to 10.0.0.%u is whole again", n->name, arg & 255);
	set_cut(r, n, arg, false);
}

/* Another node, or a client. */
static uint32_t other_end(struct run *r, const struct node *n)
{
	struct prng *p = &r->w.rnd_fault;
	uint32_t ip = n->ip;

	if (prng_chance(p, 1, 5))
		return r->client[prng_in(p, 0, r->shape.nr_clients - 1)].ip;
	while (ip == n->ip)
		ip = any_node(r)->ip;
	return ip;
}

bool k_cut(struct run *r, struct node *n)
{
	uint32_t arg = other_end(r, n) | FROM | TO;
	uint64_t ns = cut_lasts(r, 4 * SEC);

	if (!later(r, ns, uncut, n, arg))
		return false;
	story(&r->w, "%s > the link to 10.0.0.%u is cut for %u ms", n->name, arg & 255,
	      (unsigned)(ns / MS));
	world_fault(&r->w, FAULT_CUT);
	set_cut(r, n, arg, true);
	return true;
}

bool k_cut_one_way(struct run *r, struct node *n)
{
	uint32_t arg = other_end(r, n) | FROM;
	uint64_t ns = cut_lasts(r, 4 * SEC);

	if (!later(r, ns, uncut, n, arg))
		return false;
	story(&r->w, "%s > nothing reaches 10.0.0.%u from here for %u ms", n->name, arg & 255,
	      (unsigned)(ns / MS));
	world_fault(&r->w, FAULT_CUT_ONE_WAY);
	set_cut(r, n, arg, true);
	return true;
}

void cut_node(struct run *r, struct node *n, bool cut)
{
	for (unsigned i = 0; i < r->shape.nr_nodes; i++)
		if (r->node[i].ip != n->ip)
			set_cut(r, n, r->node[i].ip | FROM | TO, cut);
	for (unsigned i = 0; i < r->shape.nr_clients; i++)
		set_cut(r, n, r->client[i].ip | FROM | TO, cut);
}

static void uncut_node(struct run *r, struct node *n, uint32_t arg)
{
	story(&r->w, "%s > its links are whole again", n->name);
	cut_node(r, n, false);
}

/* Its data links only: for the bus it is alive. */
bool k_cut_off(struct run *r, struct node *n)
{
	uint64_t ns = cut_lasts(r, 5 * SEC);

	if (!later(r, ns, uncut_node, n, 0))
		return false;
	story(&r->w, "%s > all its links are cut for %u ms", n->name, (unsigned)(ns / MS));
	world_fault(&r->w, FAULT_CUT);
	cut_node(r, n, true);
	return true;
}

static void fast(struct run *r, struct node *n, uint32_t arg)
{
	net_slow(r->w.net, n->ip, 0);
}

bool k_slow(struct run *r, struct node *n)
{
	struct prng *p = &r->w.rnd_fault;
	uint64_t ns = prng_in(p, MS, 20 * MS);

	if (!later(r, lasts(r, 5 * SEC), fast, n, 0))
		return false;
	world_fault(&r->w, FAULT_SLOW_LINK);
	if (prng_chance(p, 1, 2)) {
		story(&r->w, "%s > all its links are slow: %u ms", n->name, (unsigned)(ns / MS));
		net_slow(r->w.net, n->ip, ns);
		return true;
	}
	uint32_t ip = other_end(r, n);
	story(&r->w, "%s > the link to 10.0.0.%u is slow: %u ms", n->name, ip, (unsigned)(ns / MS));
	net_slow_link(r->w.net, n->ip, ip, ns);
	net_slow_link(r->w.net, ip, n->ip, ns);
	return true;
}

static void reads_well(struct run *r, struct node *n, uint32_t arg)
{
	net_slow_reader(r->w.net, n->ip, 0, 0);
}

bool k_slow_reader(struct run *r, struct node *n)
{
	struct prng *p = &r->w.rnd_fault;
	uint32_t window = (uint32_t)prng_in(p, 1, 32) << 10;

	if (!later(r, lasts(r, 5 * SEC), reads_well, n, 0))
		return false;
	story(&r->w, "%s > reads slowly, its window is %u KiB", n->name, window >> 10);
	world_fault(&r->w, FAULT_SLOW_READER);
	net_slow_reader(r->w.net, n->ip, window, (uint32_t)prng_in(p, 0, 200));
	return true;
}

/* ---- the bus ---- */

static void bus_well(struct run *r, struct node *n, uint32_t arg)
{
	bus_lag(r->w.bus, n->ip, 0);
	bus_batch(r->w.bus, n->ip, 0);
}

bool k_late(struct run *r, struct node *n)
{
	uint64_t ns = prng_in(&r->w.rnd_fault, MS, r->shape.gap_ns);

	if (!later(r, lasts(r, 4 * SEC), bus_well, n, 0))
		return false;
	story(&r->w, "%s > the bus lags by up to %u ms", n->name, (unsigned)(ns / MS));
	bus_lag(r->w.bus, n->ip, ns);
	world_fault(&r->w, FAULT_LATE_VIEW);
	return true;
}

bool k_batch(struct run *r, struct node *n)
{
	uint64_t ns = prng_in(&r->w.rnd_fault, 5 * MS, 300 * MS);

	if (!later(r, lasts(r, 4 * SEC), bus_well, n, 0))
		return false;
	story(&r->w, "%s > the bus delivers every %u ms", n->name, (unsigned)(ns / MS));
	bus_batch(r->w.bus, n->ip, ns);
	world_fault(&r->w, FAULT_BATCH);
	return true;
}

/* All links between the machines in @arg (bit i: node i) and the rest. */
static void cut_sides(struct run *r, uint32_t arg, bool cut)
{
	for (unsigned i = 0; i < r->shape.nr_nodes; i++)
		for (unsigned k = 0; k < r->shape.nr_nodes; k++)
			if ((arg >> i & 1) != (arg >> k & 1))
				net_cut(r->w.net, r->node[i].ip, r->node[k].ip, cut);
}

static void unite(struct run *r, struct node *n, uint32_t arg)
{
	story(&r->w, "all > the split ends");
	cut_sides(r, arg, false);
	bus_join(r->w.bus);
}

static bool split(struct run *r, uint32_t side, bool links)
{
	struct prng *p = &r->w.rnd_fault;
	uint64_t notice = prng_in(p, 100 * MS, 1700 * MS), ns = prng_in(p, 50 * MS, 4 * SEC);
	bool ips[64] = {false};
	char names[2 * NODES_MAX + 1];
	unsigned len = 0;

	for (unsigned i = 0; i < r->shape.nr_nodes; i++)
		ips[r->node[i].ip] = side >> i & 1;
	if (!later(r, ns, unite, &r->node[0], links ? side : 0))
		return false;
	if (!bus_split(r->w.bus, ips, notice, prng_in(p, 0, 3 * SEC)))
		return true; /* at the end it unites what is not split */
	for (unsigned i = 0; i < r->shape.nr_nodes; i++)
		if (ips[r->node[i].ip])
			len += (unsigned)snprintf(names + len, sizeof(names) - len, " %s",
						  r->node[i].name);
	story(&r->w, "all > the bus is split, without quorum:%s; %s, for %u ms", len ? names : " ",
	      links ? "so are the links" : "the links are whole", (unsigned)(ns / MS));
	cut_sides(r, links ? side : 0, true);
	world_fault(&r->w, side & (side - 1) ? FAULT_SPLIT : FAULT_SILENT);
	return true;
}

bool k_split(struct run *r, struct node *n)
{
	uint32_t side = (uint32_t)prng_in(&r->w.rnd_fault, 1, (1u << r->shape.nr_nodes) - 2);

	return !bus_is_split(r->w.bus) && split(r, side, prng_chance(&r->w.rnd_fault, 2, 3));
}

/* The others see it leave; its process and its links live on: what leases are for. */
bool k_silent(struct run *r, struct node *n)
{
	return !bus_is_split(r->w.bus) && split(r, 1u << n->idx, false);
}

bool k_quorum(struct run *r, struct node *n)
{
	struct prng *p = &r->w.rnd_fault;

	if (bus_is_split(r->w.bus))
		return false;
	story(&r->w, "all > the cluster loses quorum");
	bus_lose_quorum(r->w.bus, prng_in(p, 0, SEC), prng_in(p, 0, SEC));
	world_fault(&r->w, FAULT_QUORUM);
	return true;
}
