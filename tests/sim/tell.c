/* tell.c - what is said about a run beside its story. */
#include "config.h"

#include "tests/sim/tell.h"

#include <assert.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#define OUT STDOUT_FILENO

static const char about_lines[] =
	"# How to read this story.  [seconds.microseconds] is virtual time; then who:\n"
	"#   A, B, C...   machines, and the daemon on each: 10.0.0.1:7000, 10.0.0.2:7000, ...\n"
	"#     A > ...    what the simulator does to it: a fault, a start, the end of a fault\n"
	"#     A   f(9):  what its daemon logs (function and line); further in: what it logs with "
	"-l debug\n"
	"#   all > ...    a fault that hits all of them; \"all > heals\" is the end of all faults\n"
	"#   bus > ...    who is a member, at this place of the order of all messages.  A2 is the "
	"second start\n"
	"#                of A's daemon: another member than A1.  \"left\": its death was noticed; "
	"\"fell silent\":\n"
	"#                it may be alive; \"is back\": its death and its new start came as one "
	"change\n"
	"#   client0 > ...  a client: 10.0.0.50, client1: 10.0.0.51, ...; the administrator is "
	"10.0.0.40\n"
	"#   FAILED: ...  what a check has found; the run ends there\n"
	"# Words (doc/architecture.md has all of them):\n"
	"#   epoch, view  the agreed list of nodes that hold data, and its number\n"
	"#   VDI          a volume, called by its number in hex; its objects are pieces of it: "
	"object\n"
	"#                00xxxxxxiiiiiiii is the piece iiiiiiii of VDI xxxxxx, 80xxxxxx00000000 "
	"its inode\n"
	"#   owner        the node through which all reads and writes of a VDI go; each owner has "
	"a new\n"
	"#                generation; dirty: the owner before it did not finish, so objects are "
	"compared first\n"
	"#   in sync      it holds all that was answered, and knows it; todo: the objects for "
	"which that is\n"
	"#                not so; at rest: nothing is left to be repaired\n"
	"#   lease        how long a node may go on without hearing from the others\n";

static const char about_run[] =
	"# Order of events: the nodes start, the cluster is formatted, volumes v0, v1... are made "
	"(t0.0...: those\n"
	"# that a client makes and deletes); clients work while faults happen; all heals and must "
	"come to rest;\n"
	"# clients read everything once more and end; all copies are compared; an orderly end.\n"
	"# --until SECONDS stops before a failure and says what everybody waits for.\n";

static const char about_scenario[] = "# Order of events: the nodes start, the cluster is "
				     "formatted, a volume is made; \"A > is P\": P, Q, R... are\n"
				     "# the names of the nodes in tests/sim/scenario*.c, in the "
				     "order of the ring; then the steps as they\n"
				     "# stand there; all heals and must come to rest; everything "
				     "is read once more; an orderly end.\n";

void tell_legend(const struct world *w, const char *scenario)
{
	if (w->story)
		fprintf(w->story, "%s%s#\n", about_lines, scenario ? about_scenario : about_run);
}

void tell_failure(const struct world *w, const char *scenario)
{
	uint64_t before = w->now - US;
	unsigned nr = 0;

	fflush_unlocked(stdout); /* also in a crash, which may be in there */
	dprintf(OUT, "  faults:");
	for (unsigned i = 0; i < FAULT_NR; i++)
		if (w->faults[i])
			dprintf(OUT, "%s %s %" PRIu64, nr++ ? "," : "", fault_names[i],
				w->faults[i]);
	dprintf(OUT, "%s\n  the story: sim %s%s%s--seed %" PRIu64 " --log", nr ? "" : " none",
		scenario ? "--scenario " : "", scenario ? scenario : "", scenario ? " " : "",
		w->seed);
	if (!scenario)
		dprintf(OUT, "; up to just before: --until %llu.%06llu", before / SEC,
			before % SEC / US);
	dprintf(OUT, "\n");
}

/* ---- crashes ---- */

static struct {
	const struct world *w;
	const char *scenario;
	uint8_t stack[64 << 10]; /* the one that has overflowed is of no use */
} crash;

static void on_crash(int sig)
{
	const struct world *w = crash.w;

	fflush_unlocked(stdout);
	if (w) {
		dprintf(OUT, "%s%sseed %" PRIu64 " FAILED: %s at %.6f s\n",
			crash.scenario ? crash.scenario : "", crash.scenario ? ", " : "", w->seed,
			sig == SIGALRM ? "it hangs" : strsignal(sig), (double)w->now / 1e9);
		tell_failure(w, crash.scenario);
	}
	_exit(2);
}

void tell_crash(const struct world *w, const char *scenario)
{
	static const int signals[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM};
	stack_t stack = {.ss_sp = crash.stack, .ss_size = sizeof(crash.stack)};
	struct sigaction sa = {.sa_handler = on_crash, .sa_flags = SA_ONSTACK | (int)SA_RESETHAND};

	crash.w = w;
	crash.scenario = scenario;
	int r = sigaltstack(&stack, NULL);
	for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		r |= sigaction(signals[i], &sa, NULL);
	assert(r == 0);
}
