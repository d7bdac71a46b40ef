"""Claims about the clock of a node, from four moments: asked and answered by the command's clock, begun and ended by
the node's."""

import pytest

from actors.node_examiner import clock_offset


@pytest.mark.parametrize(
    ("began", "ended", "least"),
    [
        (101.0, 103.0, 0.0),  # between the two: nothing is known to be wrong
        (161.0, 163.0, 53.0),  # it says to have ended 53 s after its answer was here
        (41.0, 43.0, -59.0),  # it says to have begun 59 s before it was asked
    ],
)
def test_a_clock_is_off_by_what_the_order_of_events_takes(began: float, ended: float, least: float) -> None:
    assert clock_offset(100.0, began, ended, 110.0) == least
