/* sim.c - many runs, each of a seed.
 *
 *   sim [--seed N] [--count N] [--jobs N] [--log] [--until SECONDS] [--no-faults] [--only KIND]
 *       [--twice] [--quiet] [--plant NAME] [--first] [--scenario NAME|all|list] [--marks]
 *       [--table] [--fail-at SECONDS] [--crash-at SECONDS]
 *
 * With --count each seed has a process of its own, and every 20th is run twice: the two traces must
 * be the same.  --log (of one seed) tells the story.  --scenario plays a story of stage.h instead,
 * with delays drawn from the seed; `all`: every one of them.  --marks: all scenarios, then the
 * seeds, and which clauses of the design and which kinds of faults that has hit (marks.h).
 * --fail-at,
 * --crash-at: so that it can be tested what is said of a run that fails, or crashes (selftest).
 */
#include "config.h"

#include "sheep/plant.h"
#include "tests/sim/marks.h"
#include "tests/sim/run.h"
#include "tests/sim/stage.h"
#include "tests/sim/tell.h"
#include "tests/sim/totals.h"

#include <assert.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define JOBS_MAX     64u
#define SEED_SECONDS 180u /* of real time */

struct options {
	uint64_t seed, count, until_ns, fail_ns, crash_ns;
	bool log, no_faults, twice, quiet;
	const char *only; /* kind of fault */
	bool first;	  /* one failure is enough */
	unsigned jobs;
	const struct scenario *scenario; /* NULL: a random run */
	bool all_scenarios, marks, table;
};

#define MARKS_SCENARIO_SEEDS 4u /* --marks: of each scenario */

#ifdef SIM_PLANTS
enum plant planted;
static const char *const plant_names[] = {"none",
#define X(name) #name,
					  PLANTS(X)
#undef X
};
#endif

/* --plant NAME: which bug this run has. */
static bool plant(const char *name)
{
#ifdef SIM_PLANTS
	for (unsigned i = 0; i < PLANT_NR; i++)
		if (!strcmp(plant_names[i], name)) {
			planted = (enum plant)i;
			return true;
		}
#endif
	fprintf(stderr, "no such plant here: %s\n", name);
	return false;
}

static uint32_t cpu_now(void)
{
	return (uint32_t)((uint64_t)clock() * 1000000 / CLOCKS_PER_SEC);
}

static int one_seed(const struct options *o, uint64_t seed, struct totals *sum, uint64_t *hash)
{
	struct run *r = calloc(1, sizeof(*r));
	uint32_t cpu_us = cpu_now();
	struct seed_totals st;
	uint64_t longest = 0;

	assert(r);
	world_init(&r->w, seed);
	memory_world_only(&r->w);
	r->w.story = o->log ? stdout : NULL;
	r->until_ns = o->until_ns;
	r->fail_ns = o->fail_ns;
	r->crash_ns = o->crash_ns;
	r->no_faults = o->no_faults;
	r->only = o->only;
	tell_crash(&r->w, NULL);
	tell_legend(&r->w, NULL);
	r->w.bus = bus_new(&r->w);
	draw_shape(r);
	phases(r);
	for (unsigned i = 0; i < r->shape.nr_clients; i++)
		if (r->client[i].longest > longest)
			longest = r->client[i].longest;
	fleet_done(r);
	admin_end(r);
	for (unsigned i = 0; i < r->shape.nr_nodes; i++)
		if (r->node[i].w)
			node_done(&r->node[i]);
	totals_add(sum, r, cpu_now() - cpu_us, &st);
	if (!o->quiet || r->w.failed)
		printf("seed %" PRIu64 " %s hash %016" PRIx64
		       ": %u ops, %u faults, %.1f s, %" PRIu64 " events, longest op %.1f s%s%s\n",
		       seed,
		       r->w.failed		? "FAILED"
		       : r->w.now > r->until_ns ? "stopped"
						: "ok",
		       r->w.hash, st.ops, st.faults, (double)r->w.now / 1e9, r->w.nr_events,
		       (double)longest / 1e9, r->w.failed ? ": " : "", r->w.why);
	if (r->w.failed)
		tell_failure(&r->w, NULL);
	fflush(stdout);
	tell_crash(NULL, NULL);
	*hash = r->w.hash;
	int status = r->w.failed;
	faults_done(r);
	bus_destroy(r->w.bus);
	world_done(&r->w);
	memory_world_only(NULL);
	free(r);
	return status;
}

static int one_scenario(const struct options *o, uint64_t seed, struct totals *sum, uint64_t *hash)
{
	struct world w;
	struct stage *s = calloc(1, sizeof(*s));

	assert(s);
	world_init(&w, seed);
	memory_world_only(&w);
	w.story = o->log ? stdout : NULL;
	w.bus = bus_new(&w);
	s->w = &w;
	tell_crash(&w, o->scenario->name);
	tell_legend(&w, o->scenario->name);
	o->scenario->play(s);
	stage_end(s);
	if (!o->quiet || w.failed)
		printf("%s, seed %" PRIu64 " %s hash %016" PRIx64 ": %.1f s%s%s\n",
		       o->scenario->name, seed, w.failed ? "FAILED" : "ok", w.hash,
		       (double)w.now / 1e9, w.failed ? ": " : "", w.why);
	if (w.failed)
		tell_failure(&w, o->scenario->name);
	fflush(stdout);
	tell_crash(NULL, NULL);
	if (sum) {
		__atomic_add_fetch(&sum->steps, s->nr_steps, __ATOMIC_RELAXED);
		__atomic_add_fetch(&sum->ns, w.now, __ATOMIC_RELAXED);
	}
	*hash = w.hash;
	int status = w.failed;
	stage_free(s);
	bus_destroy(w.bus);
	world_done(&w);
	memory_world_only(NULL);
	free(s);
	return status;
}

static int one(const struct options *o, uint64_t seed, struct totals *sum, uint64_t *hash)
{
	return o->scenario ? one_scenario(o, seed, sum, hash) : one_seed(o, seed, sum, hash);
}

/* What is allocated from now on has other addresses, in another order, and other contents. */
static void shuffle_memory(uint64_t seed)
{
	static void *block[4000];
	struct prng p;

	prng_init(&p, seed, 11);
	for (unsigned i = 0; i < 4000; i++) {
		size_t len = 16u << prng_in(&p, 0, 8);
		block[i] = malloc(len);
		assert(block[i]);
		memset(block[i], (int)prng_next(&p), len);
	}
	for (unsigned i = 0; i < 4000; i++) {
		unsigned k = (unsigned)prng_in(&p, i, 3999);
		void *b = block[k];
		block[k] = block[i];
		if (i % 4) /* the others are never given back */
			free(b);
	}
}

/* The same seed gives the same trace. */
static int seed_twice(const struct options *o, uint64_t seed, struct totals *sum)
{
	struct options again = *o;
	uint64_t hash[2];

	if (one(o, seed, sum, &hash[0]))
		return 1;
	marks_seed(o->scenario);
	again.quiet = true;
	shuffle_memory(seed);
	one(&again, seed, NULL, &hash[1]);
	__atomic_add_fetch(&sum->twice, 1, __ATOMIC_RELAXED);
	if (hash[0] == hash[1])
		return 0;
	printf("seed %" PRIu64 " FAILED: two runs, two traces: %016" PRIx64 ", %016" PRIx64 "\n"
	       "  where they part: sim --seed %" PRIu64 " --log, twice, and compare\n",
	       seed, hash[0], hash[1], seed);
	fflush(stdout);
	return 1;
}

/* Each seed in a process of its own: one that crashes or hangs is one that failed.  It says so
 * itself (tell_crash()), if it can. */
static void ended(struct totals *sum, const pid_t *pid, const uint64_t *seed, unsigned nr_jobs,
		  pid_t gone, int status)
{
	for (unsigned i = 0; i < nr_jobs; i++)
		if (pid[i] == gone && WIFSIGNALED(status)) {
			printf("seed %" PRIu64 " FAILED: %s\n  the story: sim --seed %" PRIu64
			       " --log\n",
			       seed[i], strsignal(WTERMSIG(status)), seed[i]);
			fflush(stdout);
		}
	if (status)
		sum->failed++;
	else
		sum->passed++;
}

static int child(const struct options *o, uint64_t seed, struct totals *sum)
{
	uint64_t hash;

	alarm(SEED_SECONDS);
	if (o->twice || seed % 20 == 0)
		return seed_twice(o, seed, sum);
	int status = one(o, seed, sum, &hash);
	marks_seed(o->scenario);
	return status;
}

static void many(const struct options *o, struct totals *sum)
{
	pid_t pid[JOBS_MAX] = {0};
	uint64_t seed[JOBS_MAX], next = o->seed, end = o->seed + o->count;
	unsigned running = 0;

	while (next < end || running) {
		if (o->first && sum->failed)
			next = end;
		int status;
		unsigned i = 0;
		if (next < end && running < o->jobs) {
			while (pid[i])
				i++;
			seed[i] = next++;
			pid[i] = fork();
			if (!pid[i])
				_exit(child(o, seed[i], sum));
			assert(pid[i] > 0);
			running++;
			continue;
		}
		pid_t gone = wait(&status);
		assert(gone > 0);
		ended(sum, pid, seed, JOBS_MAX, gone, status);
		for (i = 0; i < JOBS_MAX; i++)
			if (pid[i] == gone)
				pid[i] = 0;
		running--;
	}
}

/* --scenario NAME, all or list. */
static bool find_scenario(struct options *o, const char *name)
{
	o->all_scenarios = !strcmp(name, "all");
	if (o->all_scenarios)
		return true;
	for (const struct scenario *sc = scenarios; sc->name; sc++) {
		if (!strcmp(name, "list"))
			printf("%-24s %s\n", sc->name, sc->about);
		else if (!strcmp(name, sc->name))
			o->scenario = sc;
	}
	if (!strcmp(name, "list"))
		exit(0);
	if (!o->scenario)
		fprintf(stderr, "no such scenario: %s (--scenario list)\n", name);
	return o->scenario;
}

static bool parse(int argc, char **argv, struct options *o)
{
	static const struct option options[] = {
		{"seed", 1, NULL, 's'},	    {"count", 1, NULL, 'c'},	 {"log", 0, NULL, 'l'},
		{"until", 1, NULL, 'u'},    {"no-faults", 0, NULL, 'n'}, {"only", 1, NULL, 'o'},
		{"twice", 0, NULL, 't'},    {"jobs", 1, NULL, 'j'},	 {"quiet", 0, NULL, 'q'},
		{"plant", 1, NULL, 'p'},    {"first", 0, NULL, 'f'},	 {"marks", 0, NULL, 'm'},
		{"scenario", 1, NULL, 'S'}, {"table", 0, NULL, 'T'},	 {"fail-at", 1, NULL, 'F'},
		{"crash-at", 1, NULL, 'C'}, {NULL, 0, NULL, 0}};
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (opt) {
		case 's': o->seed = strtoull(optarg, NULL, 0); break;
		case 'c': o->count = strtoull(optarg, NULL, 0); break;
		case 'l': o->log = true; break;
		case 'u': o->until_ns = (uint64_t)(atof(optarg) * 1e9); break;
		case 'F': o->fail_ns = (uint64_t)(atof(optarg) * 1e9); break;
		case 'C': o->crash_ns = (uint64_t)(atof(optarg) * 1e9); break;
		case 'n': o->no_faults = true; break;
		case 'o': o->only = optarg; break;
		case 't': o->twice = true; break;
		case 'j': o->jobs = (unsigned)atoi(optarg); break;
		case 'q': o->quiet = true; break;
		case 'T': o->table = true; break;
		case 'f': o->first = true; break;
		case 'm':
			if (!marks_start())
				return false;
			o->marks = true;
			break;
		case 'p':
			if (!plant(optarg))
				return false;
			break;
		case 'S':
			if (!find_scenario(o, optarg))
				return false;
			break;
		default: return false;
		}
	return o->jobs >= 1 && o->jobs <= JOBS_MAX && o->count;
}

static void every_scenario(const struct options *o, uint64_t count, struct totals *sum)
{
	struct options each = *o;

	each.count = count;
	for (each.scenario = scenarios; each.scenario->name; each.scenario++)
		many(&each, sum);
}

int main(int argc, char **argv)
{
	struct options o = {.seed = 1,
			    .count = 1,
			    .jobs = 1,
			    .until_ns = UINT64_MAX,
			    .fail_ns = UINT64_MAX,
			    .crash_ns = UINT64_MAX};
	uint64_t hash;
	if (!parse(argc, argv, &o))
		return 64;
	struct totals *sum = totals_new(o.count); /* scenarios are not counted there */
	if (o.count == 1 && !o.twice && !o.all_scenarios && !o.marks) {
		o.quiet = false;
		return one(&o, o.seed, sum, &hash);
	}
	o.log = false; /* of one seed only */
	if (o.marks)
		every_scenario(&o, MARKS_SCENARIO_SEEDS, sum);
	if (o.all_scenarios)
		every_scenario(&o, o.count, sum);
	else
		many(&o, sum);
	bool as_listed = !o.marks || marks_report(o.count, sum->faults);
	totals_print(sum, o.table);
	return sum->failed || !as_listed;
}
