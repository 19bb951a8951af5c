"""Bugs of which a unit test shows more than a cluster does: each with a check that fails while it is planted.

Two kinds. Some lose a session only in a moment that random runs hardly ever meet. Others lose nothing, but cost
messages, memory or time, and no checker of whole runs looks at these. Which test it is stands here, so that none of the
two is changed without the other.
"""

from collections.abc import Callable, Mapping
from functools import partial

from tests.unit import (
    test_drain,
    test_placement,
    test_reads_elsewhere,
    test_shares,
    test_surplus,
    test_suspicion,
    test_views,
)

CLOSE_UP: Mapping[str, Callable[[], None]] = {
    "who_fills_up_has_everything": (
        test_reads_elsewhere.test_a_reader_that_has_not_heard_of_a_drain_finds_what_the_new_holders_took_since
    ),
    "what_is_gained_is_there": (
        test_reads_elsewhere.test_a_node_says_no_for_sure_only_of_partitions_that_it_has_in_whole
    ),
    "gains_go_unnoticed": (test_drain.test_who_reads_at_a_new_holder_while_both_former_ones_drain_gets_the_session),
    "writers_are_not_asked": (
        test_reads_elsewhere.test_what_its_writer_has_told_nobody_yet_is_found_there_by_who_was_answered
    ),
    "only_holders_take_writes": test_drain.test_a_copy_that_a_hedge_left_is_handed_over_before_its_offer_is_due,
    "node_ids_are_placed": test_placement.test_a_restart_in_place_moves_nothing,
    "any_view_compares": partial(test_shares.test_digests_are_compared_only_where_both_place_alike, False),
    "new_holders_hear_of_no_access": (
        test_shares.test_a_new_holder_is_told_of_the_accesses_to_what_it_now_holds_and_of_no_others
    ),
    "copies_in_use_go": test_surplus.test_copies_in_use_are_not_asked_about_until_nobody_used_them_for_a_minute,
    "nothing_is_secured": test_drain.test_securing_says_what_is_left_until_nothing_is,
    "pushed_copies_are_not_offered": (
        test_surplus.test_a_session_that_was_pushed_here_by_another_view_is_offered_to_all_holders
    ),
    "the_ends_of_the_dead_are_forgotten": (
        test_reads_elsewhere.test_a_logout_that_only_a_non_holder_heard_of_outlives_who_was_asked_for_it
    ),
    "views_are_not_compared": test_views.test_a_node_asks_the_peer_whose_view_differs_and_learns_whom_it_missed,
    "nobody_need_confirm": test_suspicion.test_a_helper_confirms_only_once,
}
