"""Claims about what follows the end of an attempt."""

import pytest

from infra.modal.attempts import may_start, verdict


@pytest.mark.parametrize(
    ("exit_status", "progressed", "follows"),
    [
        (0, True, "done"),
        (0, False, "done"),
        (2, True, "refused"),
        (2, False, "refused"),
        (1, True, "again"),
        (1, False, "failed"),
        (-9, False, "again"),
        (130, False, "again"),
    ],
)
def test_only_what_may_end_otherwise_is_tried_again(exit_status: int, progressed: bool, follows: str) -> None:
    assert verdict(exit_status, progressed=progressed) == follows


def test_three_attempts_that_begin_at_the_same_checkpoint_are_the_last() -> None:
    assert may_start([], 0)
    assert may_start([0, 0], 0)
    assert not may_start([0, 0, 0], 0)
    assert may_start([0, 0, 0], 5)
    assert not may_start([0, 5, 5, 5], 5)
    assert may_start([5, 5, 0, 5], 5)
