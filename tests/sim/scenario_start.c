/* scenario_start.c - stories of clusters that stop as a whole and start again (DESIGN 4.3; WHY B4).
 * What must not happen stands above each. */
#include "config.h"

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
