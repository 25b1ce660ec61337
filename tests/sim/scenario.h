/* scenario.h - the stories of scenario.c. */
#ifndef TESTS_SIM_SCENARIO_H
#define TESTS_SIM_SCENARIO_H

#include "tests/sim/stage.h"

/* scenario_sync.c */
void answers_are_void(struct stage *s);
void todo_is_not_done(struct stage *s);
void todo_is_not_read(struct stage *s);
void todo_stays_todo(struct stage *s);
void pull_waits_for_source(struct stage *s);
void pull_of_old_epoch(struct stage *s);
void checked_again_at_the_journal(struct stage *s);
void old_connection_is_void(struct stage *s);
void dropped_stays_dropped(struct stage *s);
void surplus_is_kept(struct stage *s);
void absent_may_know_more(struct stage *s);
void higher_is_not_better(struct stage *s);
void all_have_answered(struct stage *s);
void takeover_compares(struct stage *s);
void absent_was_newer(struct stage *s);
void all_answer_first(struct stage *s);
void marks_are_durable(struct stage *s);
void takeover_asks_all(struct stage *s);
void old_epoch_is_refused(struct stage *s);

/* scenario_owner.c */
void read_waits_for_write(struct stage *s);
void answer_needs_lease(struct stage *s);
void claim_waits_for_lease(struct stage *s);
void old_session_is_over(struct stage *s);
void gone_client_is_over(struct stage *s);
void flush_reaches_all(struct stage *s);
void first_flush_asks_all(struct stage *s);
void start_syncs(struct stage *s);
void repair_is_no_older(struct stage *s);
void reference_goes_first(struct stage *s);
void lost_cache_is_said(struct stage *s);
void flush_covers_others(struct stage *s);
void index_is_durable(struct stage *s);

/* scenario_start.c */
void log_position_counts(struct stage *s);
void joiner_is_known_first(struct stage *s);
void forced_branch_is_true(struct stage *s);
void shutdown_makes_no_epoch(struct stage *s);

/* scenario_lease.c */
void one_link_is_cut(struct stage *s);
void one_way_is_cut(struct stage *s);
void dead_for_its_peers(struct stage *s);
void link_comes_back(struct stage *s);
void busy_is_not_dead(struct stage *s);

#endif
