/* scenario_owner.c - stories of owners: reads, leases, sessions, flushes (DESIGN 4.4, 5.1, 5.3,
 * 5.4).  What must not happen stands above each. */
#include "config.h"

#include "tests/sim/check.h"
#include "tests/sim/scenario.h"

#define OTHER_OBJECT ((1u << SD_OBJ_SHIFT_MIN) / SD_BLOCK_SIZE) /* its first block */

/* 5.3: P has the write, Q does not: what one read has seen the next one sees. */
void read_waits_for_write(struct stage *s)
{
	stage_cluster(s, 4, 2);
	struct cast *c = client(s, "P", false), *other;
	wrote(c, 0);
	other = client(s, "PS", false);
	cut(s, 'P', 'Q');
	struct step *w = writes(c, 0);
	until_applied(s, 'P', w);
	struct step *r = reads(other, 0);
	pass(s, 100 * MS);
	client_dies(s, c);
	dies(s, 'P');
	until_view(s, 'S', "QRS");
	until_done(s, r);
	has_read(other, 0);
}

/* B7: P does not know that it is out, and that others have written since. */
void answer_needs_lease(struct stage *s)
{
	stage_cluster(s, 4, 2);
	struct cast *c = client(s, "P", false), *other;
	wrote(c, 0);
	other = client(s, "R", false);
	has_read(other, 0);
	falls_silent(s, 'P', 5 * SEC);
	until_view(s, 'R', "QRS");
	wrote(other, 0);
	struct step *r = reads(c, 0);
	pass(s, 100 * MS);
	stage_heal(s);
	until_done(s, r);
}

/* B7: the owner before this one died for certain; but the one before that only fell silent. */
void claim_waits_for_lease(struct stage *s)
{
	stage_cluster(s, 4, 2);
	struct cast *c = client(s, "P", false), *second, *third;
	wrote(c, 0);
	second = client(s, "R", false);
	third = client(s, "S", false);
	falls_silent(s, 'P', 5 * SEC);
	until_view(s, 'R', "QRS");
	writes(second, 0);
	pass(s, 20 * MS);
	client_dies(s, second);
	dies(s, 'R');
	until_view(s, 'S', "QS");
	struct step *w = writes(third, 0);
	bool served = true;
	for (int i = 0; i < 100 && served && !w->done; i++) { /* as long as P's lease lasts */
		struct step *r = reads(c, 0);
		pass(s, 10 * MS);
		served = r->done;
	}
	reads(c, 0);
	pass(s, 100 * MS);
	stage_heal(s);
	until_done(s, w);
}

/* B6: R is gone; what its client asked it to write is still under way to the owner. */
void old_session_is_over(struct stage *s)
{
	stage_cluster(s, 4, 2);
	struct cast *owner = client(s, "Q", false), *c;
	wrote(owner, 0);
	c = client(s, "RS", false);
	wrote(c, 0);
	old_links_hold(s, 'R', 'Q', true);
	struct step *w = writes(c, 0);
	pass(s, 20 * MS);
	dies(s, 'R');
	until_done(s, w); /* by S */
	wrote(c, 0);
	old_links_hold(s, 'R', 'Q', false);
	pass(s, 100 * MS);
	has_read(c, 0);
}

/* 5.1, G8: a client is gone; the object that it asked for is made when another one, which has
 * opened the volume since, has made and written it. */
void gone_client_is_over(struct stage *s)
{
	stage_cluster(s, 4, 2);
	struct cast *owner = client(s, "Q", false), *c, *other;
	wrote(owner, OTHER_OBJECT);
	c = client(s, "R", false);
	cut(s, 'R', 'Q');
	writes(c, 0);
	pass(s, 20 * MS);
	client_dies(s, c);
	other = client(s, "S", false);
	wrote(other, 1);
	joined(s, 'R', 'Q');
	pass(s, 100 * MS);
	has_read(other, 1);
}

/* 5.4: every replica has it on its disk, not the owner's only. */
void flush_reaches_all(struct stage *s)
{
	stage_cluster(s, 4, 2);
	struct cast *c = client(s, "S", true);
	wrote(c, 0);
	flushed(c);
	wrote(c, 0);
	flushed(c);
	power_cut(s, "PQ");
	stage_heal(s);
	has_read(c, 0);
}

/* B5: the owner before this one knew who has cached writes. */
void first_flush_asks_all(struct stage *s)
{
	stage_cluster(s, 4, 2);
	struct cast *c = client(s, "SR", true);
	wrote(c, 0);
	flushed(c);
	wrote(c, 0);
	dies(s, 'S');
	until_view(s, 'R', "PQR");
	flushed(c);
	power_cut(s, "PQ");
	stage_heal(s);
	has_read(c, 0);
}

/* B5: both replicas died and are back, one after the other; what the kernel kept for them is
 * flushed, too. */
void start_syncs(struct stage *s)
{
	stage_gateways(s, 4, 2, 1);
	struct cast *c = client(s, "S", true);
	wrote(c, 0);
	flushed(c);
	wrote(c, 0);
	dies(s, 'P');
	start(s, 'P');
	until_view(s, 'S', "PQRS");
	until_rest(s, "PQRS");
	dies(s, 'Q');
	start(s, 'Q');
	until_view(s, 'S', "PQRS");
	until_rest(s, "PQRS");
	flushed(c);
	power_cut(s, "PQ");
	stage_heal(s);
	has_read(c, 0);
}

/* B9: the block that P is sent to repair its own is older than what P has by then. */
void repair_is_no_older(struct stage *s)
{
	stage_gateways(s, 4, 2, 1);
	struct cast *c = client(s, "S", false);
	wrote(c, 0);
	dies(s, 'P');
	start(s, 'P');
	until_view(s, 'S', "PQRS");
	until_rest(s, "PQRS");
	rots(s, 'P');
	slow(s, 'Q', 'P', 200 * MS);
	has_read(c, 0);	   /* by P, in vain, which repairs; by Q */
	pass(s, 250 * MS); /* a connection; the block is on its way */
	wrote(c, 0);
	pass(s, 400 * MS);
	has_read(c, 0);
}

/* DESIGN 8: between the two steps of a discard there is an orphan, never a dangling reference. */
void reference_goes_first(struct stage *s)
{
	stage_gateways(s, 4, 2, 1);
	struct cast *c = client(s, "S", false), *other;
	wrote(c, 0);
	discards(c);
	until_removed(s, 'P');
	until_removed(s, 'Q');
	client_dies(s, c);
	dies(s, 'S');
	other = client(s, "R", false);
	has_read(other, 0);
}

/* 5.4: both replicas lost power with a cached write; the client, which lives, hears of it at its
 * next flush, once. */
void lost_cache_is_said(struct stage *s)
{
	stage_gateways(s, 4, 2, 1);
	struct cast *c = client(s, "S", true);
	wrote(c, 0);
	flushed(c);
	wrote(c, 0);
	history_strict(s->h);
	power_cut(s, "PQ");
	stage_heal(s);
	flushes(c);
	pass(s, SEC);
	has_read(c, 0);
	flushed(c);
}

/* 5.4: a flush covers what others have written before it: a volume without a lock. */
void flush_covers_others(struct stage *s)
{
	stage_gateways(s, 4, 2, 2);
	struct cast *c = client(s, "S", true), *other = client(s, "R", true);
	wrote(c, 0);
	flushed(other);
	power_cut(s, "PQ");
	stage_heal(s);
	has_read(c, 0);
	flushes(c); /* EIO: that all was flushed is not known any more */
}

/* 5.4, T13: the client, which lives, writes on to an object that it has created before the cut. */
void index_is_durable(struct stage *s)
{
	stage_gateways(s, 4, 2, 2);
	struct cast *c = client(s, "S", true), *other;
	wrote(c, 0);
	power_cut(s, "PQ");
	stage_heal(s);
	flushes(c);
	wrote(c, 0);
	flushed(c);
	client_dies(s, c);
	other = client(s, "R", false);
	has_read(other, 0);
}
