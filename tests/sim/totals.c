/* totals.c - what a campaign has done. */
#include "config.h"

#include "tests/sim/totals.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct totals *totals_new(uint64_t nr)
{
	struct totals *sum =
		mmap(NULL, sizeof(*sum) + nr * sizeof(sum->seed[0]), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	assert(sum != MAP_FAILED);
	return sum;
}

static void add(uint64_t *sum, uint64_t n)
{
	__atomic_add_fetch(sum, n, __ATOMIC_RELAXED);
}

void totals_add(struct totals *sum, const struct run *r, uint32_t cpu_us, struct seed_totals *ret)
{
	*ret = (struct seed_totals){.ms = (uint32_t)(r->w.now / MS), .cpu_us = cpu_us};
	for (unsigned i = 0; i < FAULT_NR; i++)
		ret->faults += (uint32_t)r->w.faults[i];
	for (unsigned i = 0; i < r->shape.nr_clients; i++)
		for (unsigned k = 0; k < WORK_NR; k++)
			ret->ops += (uint32_t)r->client[i].did[k];
	if (!sum)
		return;
	for (unsigned i = 0; i < FAULT_NR; i++)
		add(&sum->faults[i], r->w.faults[i]);
	for (unsigned i = 0; i < r->shape.nr_clients; i++) {
		add(&sum->clients[r->client[i].kind], 1);
		for (unsigned k = 0; k < WORK_NR; k++)
			add(&sum->did[k], r->client[i].did[k]);
	}
	add(&sum->ns, r->w.now);
	sum->seed[__atomic_fetch_add(&sum->nr, 1, __ATOMIC_RELAXED)] = *ret;
}

static int cmp_u32(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* Of one column of the seeds' totals. */
static uint32_t median(const struct totals *sum, size_t column)
{
	uint32_t *v = calloc(sum->nr, sizeof(*v));

	assert(v);
	for (uint64_t i = 0; i < sum->nr; i++)
		memcpy(&v[i], (const uint8_t *)&sum->seed[i] + column, sizeof(*v));
	qsort(v, sum->nr, sizeof(*v), cmp_u32);
	uint32_t m = v[sum->nr / 2];
	free(v);
	return m;
}

/* "1234 (name 12, other 3)". */
static void print_kinds(const uint64_t *nr, const char *const *names, unsigned n)
{
	const char *before = " (";
	uint64_t all = 0;

	for (unsigned i = 0; i < n; i++)
		all += nr[i];
	printf("%" PRIu64, all);
	for (unsigned i = 0; i < n; i++)
		if (nr[i]) {
			printf("%s%s %" PRIu64, before, names[i], nr[i]);
			before = ", ";
		}
	printf("%s", all ? ")" : "");
}

static void print_seeds(const struct totals *sum, const char *between)
{
	uint64_t cpu_us = 0;

	for (uint64_t i = 0; i < sum->nr; i++)
		cpu_us += sum->seed[i].cpu_us;
	printf("median seed%s%u operations, %u faults, %.1f simulated seconds; a seed costs %.2f s "
	       "of CPU",
	       between, median(sum, offsetof(struct seed_totals, ops)),
	       median(sum, offsetof(struct seed_totals, faults)),
	       median(sum, offsetof(struct seed_totals, ms)) / 1e3,
	       (double)cpu_us / 1e6 / (double)sum->nr);
}

void totals_print(const struct totals *sum, bool table)
{
	const char *begin = table ? "| " : "", *end = table ? " |\n" : "\n";
	const char *between = table ? " | " : ": ";

	if (table)
		printf("| campaign | |\n|---|---|\n");
	printf("%sruns%s%" PRIu64 ", %" PRIu64 " failed; %.1f simulated seconds (%.1f hours)%s",
	       begin, between, sum->passed + sum->failed, sum->failed, (double)sum->ns / 1e9,
	       (double)sum->ns / 3600e9, end);
	printf("%srun twice%s%" PRIu64 ", to compare their traces%s", begin, between, sum->twice,
	       end);
	if (sum->steps)
		printf("%ssteps of scenarios%s%" PRIu64 "%s", begin, between, sum->steps, end);
	if (sum->nr) {
		printf("%soperations%s", begin, between);
		print_kinds(sum->did, work_names, WORK_NR);
		printf("%s%sfaults%s", end, begin, between);
		print_kinds(sum->faults, fault_names, FAULT_NR);
		printf("%s%sclients%s", end, begin, between);
		print_kinds(sum->clients, client_kinds, CLIENT_NR);
		printf("%s%s", end, begin);
		print_seeds(sum, between);
		printf("%s", end);
	}
	printf("%" PRIu64 " passed, %" PRIu64 " failed\n", sum->passed, sum->failed);
}
