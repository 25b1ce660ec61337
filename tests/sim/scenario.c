/* scenario.c - named scenarios: short protocol stories (stage.h), each the story of a bug that was
 * found or of a clause of DESIGN 5 (a trace of the model).  Without the bug they pass at any seed;
 * with the clause dropped (sheep/plant.h) the checks at the end say so.
 */
#include "config.h"

#include "tests/sim/stage.h"

/* B2: an answer of an older epoch counts for nothing: the replica that gave it has died since, and
 * came back with less. */
static void answers_are_void(struct stage *s)
{
	stage_cluster(s, 4, 2);
	struct cast *c = client(s, "S", false);
	wrote(c, 0);
	cut(s, 'S', 'P');
	struct step *w = writes(c, 0);
	until_applied(s, 'Q', w);
	dies(s, 'Q');
	until_view(s, 'P', "PRS");
	until_view(s, 'S', "PRS");
	start(s, 'Q');
	until_view(s, 'P', "PQRS");
	until_in_sync(s, 'Q'); /* P has not seen the write yet */
	joined(s, 'S', 'P');
	until_done(s, w);
	dies(s, 'P');
	has_read(c, 0);
}

/* B1c: a replica in todo has the write in its old file: that is no answer. */
static void todo_is_not_done(struct stage *s)
{
	stage_cluster(s, 4, 2);
	struct cast *c = client(s, "S", false);
	wrote(c, 0);
	cut(s, 'S', 'P');
	struct step *w = writes(c, 0);
	until_applied(s, 'Q', w);
	dies(s, 'Q');
	until_view(s, 'P', "PRS");
	cut(s, 'P', 'Q');
	start(s, 'Q');
	until_view(s, 'Q', "PQRS");
	until_view(s, 'S', "PQRS");
	lets(s, 'S', 'P'); /* P refuses what is of an older epoch */
	pass(s, 10 * MS);  /* so the write is sent again; it reaches Q, which must wait for P */
	joined(s, 'P', 'Q');
	until_in_sync(s, 'Q');
	joined(s, 'S', 'P');
	until_done(s, w);
	dies(s, 'P');
	has_read(c, 0);
}

const struct scenario scenarios[] = {
	{"answers-are-void", "an answer of an older epoch counts for nothing (WHY B2)",
	 answers_are_void},
	{"todo-is-not-done", "an object in todo answers no write as done (WHY B1c)",
	 todo_is_not_done},
	{0},
};
