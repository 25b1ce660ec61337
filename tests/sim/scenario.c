/* scenario.c - the list of named scenarios: short protocol stories (stage.h), each that of a bug
 * that was found or of a clause of the design (a trace of the model, tests/model).  Without a bug
 * they pass at any seed, which draws the delays; with the clause dropped (sheep/plant.h) the checks
 * at the end say so. */
#include "config.h"

#include "tests/sim/scenario.h"

const struct scenario scenarios[] = {
	{"answers-are-void", "an answer of an older epoch counts for nothing (B2)",
	 answers_are_void},
	{"todo-is-not-done", "an object in todo answers no write as done (B1c)", todo_is_not_done},
	{"todo-is-not-read", "an object in todo is not read (5.5)", todo_is_not_read},
	{"todo-stays-todo", "a new view never shortens todo (B1e)", todo_stays_todo},
	{"pull-waits-for-source", "the source of a pull is in the same epoch (B1f)",
	 pull_waits_for_source},
	{"pull-of-old-epoch", "a pull is thrown away if the view has changed (B1g)",
	 pull_of_old_epoch},
	{"checked-at-journal", "no yield between the check and the journal's queue (B3)",
	 checked_again_at_the_journal},
	{"old-connection-is-void", "what comes over an older connection is dropped (B13)",
	 old_connection_is_void},
	{"surplus-is-kept", "surplus goes when the ring is in sync (B1k)", surplus_is_kept},
	{"absent-may-know-more", "an absent node of a later epoch is waited for (B1i)",
	 absent_may_know_more},
	{"higher-is-not-better", "a higher version was never acknowledged (B1a)",
	 higher_is_not_better},
	{"all-have-answered", "a write is on all replicas when answered (5.2)", all_have_answered},
	{"takeover-compares", "what was in flight is decided once (5.6)", takeover_compares},
	{"one-link-is-cut", "two that cannot reach each other: one goes (5.6)", one_link_is_cut},
	{"one-way-is-cut", "the same, in one direction", one_way_is_cut},
	{"dead-for-its-peers", "who answers nobody is the one that goes (5.6)", dead_for_its_peers},
	{"busy-is-not-dead", "nobody is expelled for being busy (4.4)", busy_is_not_dead},
	{0},
};
