/* ring.c - see ring.h; every rule and constant is from protocol.md 4.3 and 8. */
#include "lib/proto/ring.h"

#include <fenv.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sheepdog/limits.h"

#define FNV1A_64_INIT  0xcbf29ce484222325ull
#define FNV1A_64_PRIME 0x100000001b3ull

static uint64_t fnv1a64_more(uint64_t h, const void *buf, size_t len)
{
	const uint8_t *p = buf;
	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * FNV1A_64_PRIME;
	return h;
}

static uint64_t fnv1a64_u64(uint64_t h, uint64_t v)
{
	for (unsigned i = 0; i < 8; i++, v >>= 8)
		h = (h ^ (v & 0xff)) * FNV1A_64_PRIME;
	return h;
}

uint64_t sd_fnv1a64(const void *buf, size_t len)
{
	return fnv1a64_more(FNV1A_64_INIT, buf, len);
}

uint64_t sd_hash_next(uint64_t h)
{
	return fnv1a64_u64(h, h);
}

uint64_t sd_hash(const void *buf, size_t len)
{
	return sd_hash_next(sd_fnv1a64(buf, len));
}

uint64_t sd_hash_oid(uint64_t oid)
{
	return sd_hash_next(fnv1a64_u64(FNV1A_64_INIT, oid));
}

uint32_t sd_hash_vdi(const char *name)
{
	return (uint32_t)(sd_fnv1a64(name, strnlen(name, SD_NAME_LEN)) & 0xffffff);
}

static int point_cmp(const void *a, const void *b)
{
	const struct ring_point *x = a, *y = b;
	if (x->hash != y->hash)
		return x->hash < y->hash ? -1 : 1;
	return x->node < y->node ? -1 : x->node > y->node;
}

/* Number of different zones of the nodes that have vnodes. */
static unsigned count_zones(const struct ring_node *nodes, unsigned nr)
{
	unsigned zones = 0;
	for (unsigned i = 0; i < nr; i++) {
		unsigned j = 0;
		if (!nodes[i].nr_vnodes)
			continue;
		while (j < i && !(nodes[j].nr_vnodes && nodes[j].zone == nodes[i].zone))
			j++;
		zones += j == i;
	}
	return zones;
}

static void add_points(struct ring *r, const struct ring_node *n, uint32_t idx)
{
	uint8_t id[18];
	memcpy(id, n->ip, 16);
	id[16] = (uint8_t)n->port;
	id[17] = (uint8_t)(n->port >> 8);
	uint64_t h = sd_hash(id, sizeof(id));
	for (unsigned v = 0; v < n->nr_vnodes; v++) {
		h = sd_hash_next(h);
		r->points[r->nr_points++] = (struct ring_point){h, idx};
	}
}

struct ring *ring_new(const struct ring_node *nodes, unsigned nr)
{
	size_t points = 0;
	for (unsigned i = 0; i < nr; i++)
		points += nodes[i].nr_vnodes;
	struct ring *r = calloc(1, sizeof(*r));
	if (!r)
		return NULL;
	r->points = calloc(points + 1, sizeof(*r->points));
	r->zone = calloc(nr + 1, sizeof(*r->zone));
	if (!r->points || !r->zone) {
		ring_free(r);
		return NULL;
	}
	r->nr_nodes = nr;
	r->nr_zones = count_zones(nodes, nr);
	for (unsigned i = 0; i < nr; i++) {
		r->zone[i] = nodes[i].zone;
		add_points(r, &nodes[i], i);
	}
	qsort(r->points, r->nr_points, sizeof(*r->points), point_cmp);
	return r;
}

void ring_free(struct ring *r)
{
	if (!r)
		return;
	free(r->points);
	free(r->zone);
	free(r);
}

/* First point with hash >= @hash, wrapping around. */
static unsigned first_point(const struct ring *r, uint64_t hash)
{
	unsigned lo = 0, hi = r->nr_points;
	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;
		if (r->points[mid].hash < hash)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo == r->nr_points ? 0 : lo;
}

unsigned ring_lookup(const struct ring *r, uint64_t hash, unsigned copies, uint32_t *nodes)
{
	unsigned want = copies < r->nr_zones ? copies : r->nr_zones, nr = 0;
	if (!r->nr_points)
		return 0;
	unsigned start = first_point(r, hash);
	for (unsigned i = 0; i < r->nr_points && nr < want; i++) {
		uint32_t n = r->points[(start + i) % r->nr_points].node;
		unsigned j = 0;
		while (j < nr && r->zone[nodes[j]] != r->zone[n])
			j++;
		if (j == nr)
			nodes[nr++] = n;
	}
	return nr;
}

void ring_auto_vnodes(const uint64_t *space, unsigned nr, uint16_t *ret_vnodes)
{
	uint64_t sum = 0, counted = 0;
	for (unsigned i = 0; i < nr; i++)
		if (space[i]) {
			sum += space[i];
			counted++;
		}
	uint64_t avg = counted ? sum / counted : 0;
	for (unsigned i = 0; i < nr; i++) {
		float f = avg ? (float)space[i] / (float)avg : 0.0f;
		float v = rintf((float)SD_VNODES_DEFAULT *
				f); /* to even, the default rounding mode */
		ret_vnodes[i] = v >= (float)SD_VNODES_MAX ? SD_VNODES_MAX : (uint16_t)v;
	}
}
