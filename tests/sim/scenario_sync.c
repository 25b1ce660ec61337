/* scenario_sync.c - stories of writes, views and replicas that come and go (DESIGN 5.2, 5.5, 5.6).
 * Each is a trace of the model in the words of stage.h; what must not happen stands above it. */
#include "config.h"

#include "tests/sim/scenario.h"

/* B2: an answer of an older epoch counts for nothing: the replica that gave it has died since, and
 * came back with less. */
void answers_are_void(struct stage *s)
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
void todo_is_not_done(struct stage *s)
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

/* B1f: the source of a pull must have applied the puller's epoch, or it takes one more write after.
 */
void pull_waits_for_source(struct stage *s)
{
	stage_cluster(s, 4, 2);
	struct cast *c = client(s, "S", false);
	wrote(c, 0);
	holds_bus(s, 'S');
	holds_bus(s, 'P');
	cut(s, 'S', 'P');
	struct step *w = writes(c, 0);
	until_applied(s, 'Q', w);
	dies(s, 'Q');
	until_view(s, 'R', "PRS");
	pass(s, 100 * MS); /* R may not have it yet */
	joined(s, 'S', 'P');
	pass(s, 50 * MS); /* answered, perhaps: in the epoch of P, S and the Q that was */
	gets_bus(s, 'P');
	gets_bus(s, 'S');
	until_in_sync(s, 'R');
	dies(s, 'P');
	has_read(c, 0);
}

/* B1g: what was pulled in an older epoch is not stored in a newer one. */
void pull_of_old_epoch(struct stage *s)
{
	stage_cluster(s, 4, 2);
	struct cast *c = client(s, "S", false);
	wrote(c, 0);
	dies(s, 'P');
	until_pulling(s, 'R');
	cut(s, 'Q', 'R'); /* what R pulls is on its way */
	start(s, 'P');
	until_view(s, 'S', "PQRS");
	until_in_sync(s, 'P');
	wrote(c, 0); /* on P and Q */
	dies(s, 'P');
	until_view(s, 'R', "QRS");
	joined(s, 'Q', 'R');
	until_in_sync(s, 'R');
	dies(s, 'Q');
	has_read(c, 0);
}

/* B3: a write that was let in in an older epoch enters the journal no more after the view. */
void checked_again_at_the_journal(struct stage *s)
{
	stage_cluster(s, 4, 2);
	struct cast *c = client(s, "R", false), *other;
	wrote(c, 0);
	cut(s, 'R', 'P');
	writes(c, 0);
	pass(s, 5 * MS);
	client_dies(s, c);
	dies(s, 'R');
	until_view(s, 'S', "PQS");
	other = client(s, "S", false);
	has_read(other, 0);
	pass(s, 500 * MS);
	has_read(other, 0);
}

/* B13: what is still under way on an older connection is void, whatever it finds when it arrives.
 */
void old_connection_is_void(struct stage *s)
{
	stage_cluster(s, 3, 3);
	struct cast *c = client(s, "R", false);
	wrote(c, 256); /* another object; all know each other now */
	old_links_hold(s, 'R', 'Q', true);
	struct step *w = writes(c, 0);
	until_applied(s, 'P', w);
	loses_links(s, 'R', 'Q');
	until_done(s, w); /* sent again over a new one */
	discarded(c);
	old_links_hold(s, 'R', 'Q', false);
	pass(s, 100 * MS);
	expect(s, !version_at(s, 'Q').gen, "a removed object is back on Q");
	wrote(c, 0);
	has_read(c, 0);
}

/* What was dropped beside the ring and what was removed meanwhile stays so: the state that a mark
 * vouches for is durable before the mark (DESIGN 5.5; simulator seed 300806). */
void dropped_stays_dropped(struct stage *s)
{
	stage_cluster(s, 4, 2);
	struct cast *c = client(s, "S", false);
	wrote(c, 0);
	dies(s, 'Q');
	until_view(s, 'R', "PRS");
	until_in_sync(s, 'R');
	start(s, 'Q');
	until_view(s, 'S', "PQRS");
	until_rest(s, "PQRS"); /* R has dropped it, in its page cache */
	discarded(c);
	dies(s, 'Q');
	until_view(s, 'R', "PRS");
	until_in_sync(s, 'R'); /* nobody has it: nothing moves */
	power_cut(s, "PRS");
	stage_heal(s);
	expect(s, !version_at(s, 'P').gen && !version_at(s, 'Q').gen, "a removed object is back");
	has_read(c, 0);
}

/* B1k: a copy beside the ring is the only good one until the ring says otherwise. */
void surplus_is_kept(struct stage *s)
{
	stage_cluster(s, 4, 2);
	struct cast *c = client(s, "S", false);
	wrote(c, 0);
	dies(s, 'P');
	until_rest(s, "QRS");
	dies(s, 'Q');
	until_rest(s, "RS");
	wrote(c, 0); /* on R and S only */
	cut(s, 'R', 'P');
	cut(s, 'R', 'Q');
	cut(s, 'S', 'P');
	cut(s, 'S', 'Q');
	start(s, 'P');
	start(s, 'Q');
	until_view(s, 'R', "PQRS");
	until_view(s, 'S', "PQRS");
	pass(s, 300 * MS);
	stage_heal(s);
	has_read(c, 0);
}

/* B1i: the one who was alone in the last epoch knows more than all who are here. */
void absent_may_know_more(struct stage *s)
{
	stage_cluster(s, 3, 1);
	struct cast *c = client(s, "R", false);
	wrote(c, 0);
	dies(s, 'P');
	until_view(s, 'R', "QR");
	struct step *r = reads(c, 0);
	pass(s, 500 * MS);
	stage_heal(s);
	until_done(s, r);
}

/* B1a: a higher version that was never acknowledged gives way to the one in sync. */
void higher_is_not_better(struct stage *s)
{
	stage_cluster(s, 4, 2);
	struct cast *c = client(s, "R", false), *other;
	wrote(c, 0);
	cut(s, 'R', 'Q');
	struct step *w = writes(c, 0);
	until_applied(s, 'P', w);
	client_dies(s, c);
	dies(s, 'R');
	until_view(s, 'Q', "PQS");
	dies(s, 'P');
	until_view(s, 'S', "QS");
	other = client(s, "S", false);
	has_read(other, 0);
	start(s, 'P');
	until_view(s, 'S', "PQS");
	until_in_sync(s, 'P');
	has_read(other, 0);
	dies(s, 'P');
	until_view(s, 'S', "QS");
	has_read(other, 0);
}

/* 5.2: an answer to the client means that every replica has it. */
void all_have_answered(struct stage *s)
{
	stage_cluster(s, 4, 2);
	struct cast *c = client(s, "SR", false);
	wrote(c, 0);
	cut(s, 'S', 'Q');
	struct step *w = writes(c, 0);
	until_applied(s, 'P', w);
	dies(s, 'S');
	dies(s, 'P');
	until_view(s, 'R', "QR");
	until_done(s, w);
	has_read(c, 0);
}

/* 5.6: what a dead owner had in flight is decided once, for all replicas. */
void takeover_compares(struct stage *s)
{
	stage_cluster(s, 4, 2);
	struct cast *c = client(s, "S", false), *other;
	wrote(c, 0);
	cut(s, 'S', 'Q');
	struct step *w = writes(c, 0);
	until_applied(s, 'P', w);
	client_dies(s, c);
	dies(s, 'S');
	until_view(s, 'R', "PQR");
	other = client(s, "R", false);
	has_read(other, 0);
	dies(s, 'P');
	has_read(other, 0);
}

/* B1i, B1d: who was alone in later epochs is gone; somebody of before is back and knows less.  The
 * owner is gone as well, so a takeover asks. */
void absent_was_newer(struct stage *s)
{
	stage_cluster(s, 4, 2);
	struct cast *c = client(s, "RS", false);
	wrote(c, 0);
	dies(s, 'Q');
	until_rest(s, "PRS");
	wrote(c, 0); /* on P and R */
	cut(s, 'R', 'S');
	cut(s, 'R', 'Q');
	dies(s, 'P');
	until_view(s, 'R', "RS");
	start(s, 'Q');
	until_view(s, 'R', "QRS");
	dies(s, 'R');
	until_view(s, 'S', "QS");
	struct step *r = reads(c, 0);
	pass(s, 500 * MS);
	stage_heal(s);
	until_done(s, r);
}

/* B1j: the two who took writes last are back with the two of the ring, who were away by then. */
void all_answer_first(struct stage *s)
{
	stage_cluster(s, 5, 2);
	struct cast *c = client(s, "T", false);
	wrote(c, 0);
	dies(s, 'P');
	until_rest(s, "QRST");
	dies(s, 'Q');
	until_rest(s, "RST");
	wrote(c, 0); /* on R and S */
	dies(s, 'R');
	dies(s, 'S');
	until_view(s, 'T', "T");
	stage_heal(s);
	has_read(c, 0);
}

/* B1h: P and Q become in sync, take a write alone and die at once; R, away for long, was in sync
 * before that. */
void marks_are_durable(struct stage *s)
{
	stage_cluster(s, 5, 2);
	struct cast *c = client(s, "T", false);
	wrote(c, 0);
	dies(s, 'P');
	until_rest(s, "QRST");
	dies(s, 'Q');
	until_rest(s, "RST");
	dies(s, 'R');
	until_rest(s, "ST");
	start(s, 'P');
	start(s, 'Q');
	until_rest(s, "PQST");
	wrote(c, 0); /* on P and Q */
	dies(s, 'P');
	dies(s, 'Q');
	until_view(s, 'T', "ST");
	stage_heal(s);
	has_read(c, 0);
}

/* E, x-take: R, in todo, is sent Q's state just before that of P is made the state of all. */
void takeover_asks_all(struct stage *s)
{
	stage_gateways(s, 5, 3, 2);
	struct cast *c = client(s, "S", false), *other;
	wrote(c, 0);
	other = client(s, "T", false);
	dies(s, 'R');
	until_rest(s, "PQST");
	wrote(c, 0);
	cut(s, 'S', 'Q');
	struct step *w = writes(c, 0);
	until_applied(s, 'P', w);
	client_dies(s, c);
	dies(s, 'S');
	until_view(s, 'T', "PQT");
	start(s, 'R');
	until_pulling(s, 'R');
	cut(s, 'Q', 'R');
	pass(s, 50 * MS);
	struct step *r = reads(other, 0);
	pass(s, 200 * MS);
	joined(s, 'Q', 'R');
	until_done(s, r);
	until_in_sync(s, 'R');
	dies(s, 'P');
	has_read(other, 0);
	dies(s, 'Q');
	has_read(other, 0);
}

/* I4: the owner S has not heard of Q's death; R has, and has pulled from P. */
void old_epoch_is_refused(struct stage *s)
{
	stage_gateways(s, 4, 2, 1);
	struct cast *c = client(s, "S", false);
	wrote(c, 0);
	cut(s, 'S', 'P');
	struct step *w = writes(c, 0);
	until_applied(s, 'Q', w);
	late_bus(s, 'S', 400 * MS);
	dies(s, 'Q');
	until_view(s, 'R', "PRS");
	until_in_sync(s, 'R');
	joined(s, 'S', 'P');
	pass(s, 100 * MS);
	gets_bus(s, 'S');
	until_done(s, w);
	dies(s, 'P');
	has_read(c, 0);
}

/* B1e: a view in which an arc was not gained makes nothing of it in sync. */
void todo_stays_todo(struct stage *s)
{
	stage_cluster(s, 4, 2);
	struct cast *c = client(s, "S", false);
	wrote(c, 0);
	cut(s, 'Q', 'R');
	dies(s, 'P');
	until_view(s, 'R', "QRS");
	dies(s, 'Q');
	until_view(s, 'S', "RS");
	struct step *r = reads(c, 0);
	pass(s, 300 * MS);
	stage_heal(s);
	until_done(s, r);
}

/* 5.5: an object in todo is not read. */
void todo_is_not_read(struct stage *s)
{
	stage_cluster(s, 4, 2);
	struct cast *c = client(s, "S", false);
	wrote(c, 0);
	dies(s, 'P');
	until_rest(s, "QRS");
	wrote(c, 0);
	cut(s, 'Q', 'P');
	cut(s, 'R', 'P');
	start(s, 'P');
	until_view(s, 'S', "PQRS");
	struct step *r = reads(c, 0);
	pass(s, 100 * MS);
	stage_heal(s);
	until_done(s, r);
}
