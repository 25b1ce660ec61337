/* scenario_lease.c - stories of members that are alive on the bus and dead for their peers
 * (DESIGN 4.4, 5.6). */
#include "config.h"

#include "include/sheepdog/limits.h"
#include "sheep/cluster.h"
#include "tests/sim/scenario.h"

/* Until who does not answer is out, for any reason, and a claimer has waited for the lease. */
#define GOES_ON_NS (20 * SEC)

static void cut_both(struct stage *s, char a, char b)
{
	cut(s, a, b);
	cut(s, b, a);
}

static void goes_through(struct stage *s, struct cast *c, const struct step *hangs)
{
	struct step *w = writes(c, 8);
	uint64_t until = s->w->now + GOES_ON_NS;

	until_done(s, w);
	expect(s, w->done && s->w->now < until, "a write waited for longer than it may");
	expect(s, !hangs || hangs->done, "an earlier write waits still");
}

/* 5.6: the link between two of three: each of them has one accuser, and they are two.  One goes. */
void one_link_is_cut(struct stage *s)
{
	stage_cluster(s, 3, 3);
	struct cast *c = client(s, "PQR", false);
	wrote(c, 0);
	uint32_t e = epoch_of(s, 'R');
	cut_both(s, 'P', 'Q');
	struct step *w = writes(c, 0);
	goes_through(s, c, w);
	expect(s, epoch_of(s, 'R') > e, "nobody went");
	stage_heal(s);
	wrote(c, 16);
}

static unsigned nr_accused(struct stage *s)
{
	struct incarnation who[2];

	return cluster_suspects(node_at(s, 'R')->sh->cluster, who, 2);
}

/* It comes back when they accuse each other already, and before one of them has to go: both stay.
 */
void link_comes_back(struct stage *s)
{
	stage_cluster(s, 3, 3);
	struct cast *c = client(s, "PQR", false);
	wrote(c, 0);
	uint32_t e = epoch_of(s, 'R');
	cut_both(s, 'P', 'Q');
	struct step *w = writes(c, 0);
	uint64_t end = s->w->now + 3 * SD_INSIST_NS;
	while (nr_accused(s) < 2 && s->w->now < end)
		pass(s, 10 * MS);
	expect(s, !w->done && nr_accused(s) == 2, "they do not accuse each other");
	joined(s, 'P', 'Q');
	joined(s, 'Q', 'P');
	until_done(s, w);
	pass(s, 2 * SD_INSIST_NS);
	expect(s, epoch_of(s, 'R') == e, "a node that answers again was expelled");
}

/* The same, in one direction only. */
void one_way_is_cut(struct stage *s)
{
	stage_cluster(s, 4, 3);
	struct cast *c = client(s, "QPR", false);
	wrote(c, 0);
	cut(s, 'Q', 'P');
	struct step *w = writes(c, 0);
	goes_through(s, c, w);
	stage_heal(s);
	wrote(c, 16);
}

/* 5.6: dead for all its peers: it is the one that goes, whoever complains first. */
void dead_for_its_peers(struct stage *s)
{
	stage_cluster(s, 4, 2);
	struct cast *c = client(s, "S", false), *other;
	wrote(c, 0);
	uint64_t start = node_start_nr(s, 'S');
	cut_both(s, 'P', 'Q');
	cut_both(s, 'P', 'R');
	cut_both(s, 'P', 'S');
	struct step *w = writes(c, 0);
	goes_through(s, c, w);
	other = client(s, "R", false);
	has_read(other, 0);
	expect(s, node_start_nr(s, 'S') == start, "a node that is well was expelled");
	stage_heal(s);
	wrote(c, 16);
}

/* Who is busy for a second is not dead. */
void busy_is_not_dead(struct stage *s)
{
	stage_cluster(s, 3, 3);
	struct cast *c = client(s, "R", false);
	wrote(c, 0);
	uint32_t e = epoch_of(s, 'R');
	for (unsigned i = 0; i < 6; i++) {
		struct step *w = writes(c, i);
		pauses(s, i % 2 ? 'P' : 'Q');
		pass(s, 1200 * MS);
		goes_on(s, i % 2 ? 'P' : 'Q');
		until_done(s, w);
		cut_both(s, 'R', 'P'); /* and a link that is away for as long */
		w = writes(c, i);
		pass(s, 1200 * MS);
		joined(s, 'R', 'P');
		joined(s, 'P', 'R');
		until_done(s, w);
	}
	expect(s, epoch_of(s, 'R') == e, "a node that was busy was expelled");
}
