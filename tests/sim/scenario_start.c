/* scenario_start.c - stories of clusters that stop as a whole and start again (DESIGN 4.3; WHY B4).
 * What must not happen stands above each. */
#include "config.h"

#include "include/sheepdog/proto.h"
#include "tests/sim/scenario.h"

/* S, of the same epoch as all, has not heard of the last claim; it is back first.  The generation
 * of that claim is not given again. */
void log_position_counts(struct stage *s)
{
	stage_cluster(s, 4, 2);
	struct cast *c;
	holds_bus(s, 'S');
	c = client(s, "R", false);
	wrote(c, 0);
	wrote(c, 0);
	power_cut(s, "PQRS");
	gets_bus(s, 'S');
	start(s, 'S');
	pass(s, 200 * MS);
	stage_heal(s);
	has_read(c, 0);
	wrote(c, 0);
	has_read(c, 0);
}

/* P and Q join R, which hears of it late, take a write, and all go; R, alone again, may not think
 * that it was alone all the time. */
void joiner_is_known_first(struct stage *s)
{
	s->bare = true;
	stage_gateways(s, 3, 2, 1);
	dies(s, 'P');
	dies(s, 'Q');
	until_view(s, 'R', "R");
	late_bus(s, 'R', 1500 * MS);
	start(s, 'P');
	start(s, 'Q');
	struct cast *c = creator(s, "PQ");
	for (int i = 0; i < 280 && !has_opened(c); i++)
		pass(s, 10 * MS);
	if (has_opened(c)) {
		writes(c, 0);
		pass(s, 100 * MS);
	}
	power_cut(s, "PQR");
	gets_bus(s, 'R');
	start(s, 'R');
	pass(s, 500 * MS);
	stage_heal(s);
	until_open(c);
	has_read(c, 0);
}

/* P, R and T went on without the others, with a write that nobody acknowledged, and do not come
 * back; Q and S go on by force.  What comes back later is of the branch that was given up: it takes
 * what Q and S have. */
void forced_branch_is_true(struct stage *s)
{
	stage_gateways(s, 5, 3, 1);
	struct cast *c = client(s, "TS", false);
	wrote(c, 0);
	wrote(c, 1);
	dies(s, 'Q');
	until_view(s, 'T', "PRST");
	until_in_sync(s, 'S');
	struct cast *gone = client(s, "T", false);
	dies(s, 'S');
	until_view(s, 'T', "PRT");
	until_view(s, 'P', "PRT");
	cut(s, 'P', 'T');
	struct step *w = writes(gone, 0);
	until_applied(s, 'P', w);
	client_dies(s, gone);
	for (const char *r = "PRT"; *r; r++)
		dies(s, *r);
	joined(s, 'P', 'T');
	start(s, 'Q');
	start(s, 'S');
	until_started(s, 'Q');
	until_started(s, 'S');
	pass(s, 200 * MS);
	expect(s, !epoch_of(s, 'Q'), "without the others nobody goes on");
	administers(s, 'Q', SD_OP_FORCE_RECOVER);
	until_view(s, 'S', "QS");
	has_read(c, 0);
	wrote(c, 1);
	wrote(c, 2);
	stage_heal(s);
	has_read(c, 0);
	has_read(c, 1);
}

/* A cluster that was shut down goes on in the same epoch: nothing was in flight, all copies are
 * equal, nobody compares.  The owner's last flush is under way when its connection breaks: who is
 * about to stop lets it in again. */
void shutdown_makes_no_epoch(struct stage *s)
{
	stage_cluster(s, 4, 2);
	struct cast *c = client(s, "R", true);
	wrote(c, 0);
	uint32_t epoch = epoch_of(s, 'P');
	uint64_t began = s->w->now;
	slow(s, 'P', 'R', 50 * MS);
	administers(s, 'S', SD_OP_SHUTDOWN);
	pass(s, 20 * MS);
	loses_links(s, 'R', 'P');
	until_stopped(s);
	expect(s, s->w->now - began < 2 * SEC, "a shutdown waits for nobody");
	stage_heal(s);
	expect(s, epoch_of(s, 'P') == epoch && epoch_of(s, 'S') == epoch, "the same epoch");
	has_read(c, 0);
	wrote(c, 0);
	stage_heal(s);
	has_read(c, 0);
}
