"""Claims about comparing a replayed step with its record."""

import math

import pytest

from rezero_ray.records import StepReport
from rezero_ray.reporting.comparison_table import print_comparison
from rezero_ray.step_comparison import Quantity, StepComparison, compare_step
from rezero_ray.step_record import StepRecord
from tests.record_builders import make_group, make_rollout

RECORD = StepRecord(
    groups=[
        make_group([make_rollout([1], [2]), make_rollout([1], [3])], index=7),
        make_group([make_rollout([4], [5]), make_rollout([4], [6])], index=8),
    ],
    advantages=[[0.5, -0.5], [1.0, -1.0]],
)
ROW = {
    "loss": 0.25,
    "grad_norm": 2.0,
    "entropy": 1.5,
    "mismatch_kl": 1e-6,
    "lr": 1e-4,
    "rollouts/trained": 4,
}
TOLERANCE = 1e-3


def replayed(
    advantages: list[list[float]] | None = None, *, row: dict[str, float] | None = None, **changes: float
) -> StepComparison:
    """The record's own numbers replayed, but for the changes."""
    found = {**ROW, **changes}
    report = StepReport(
        step=3,
        loss=found["loss"],
        grad_norm=found["grad_norm"],
        lr=found["lr"],
        metrics={"entropy": found["entropy"], "mismatch_kl": found["mismatch_kl"]},
        micro_batches=1,
        computed_tokens=8,
        seconds=0.1,
    )
    return compare_step(row or ROW, RECORD, report, advantages or RECORD.advantages, max_mismatch_kl=0.05)


def test_the_same_numbers_agree_without_any_tolerance() -> None:
    assert replayed().differing(0.0) == []


@pytest.mark.parametrize("name", ["loss", "grad_norm", "entropy", "lr"])
def test_a_number_beyond_the_tolerance_is_named_and_one_within_is_not(name: str) -> None:
    # All scales here are at most 0.75, the mean size of the advantages.
    size = max(ROW[name], 0.75 if name == "loss" else 0.0)
    assert replayed(**{name: ROW[name] + 1.1 * TOLERANCE * size}).differing(TOLERANCE) == [name]
    assert replayed(**{name: ROW[name] + 0.9 * TOLERANCE * size}).differing(TOLERANCE) == []


def test_a_loss_near_zero_is_judged_by_the_size_of_the_advantages() -> None:
    row = {**ROW, "loss": 1e-9}
    assert replayed(row=row, loss=-3e-8).differing(TOLERANCE) == []
    assert replayed(row=row, loss=1e-3).differing(TOLERANCE) == ["loss"]


def test_a_mismatch_is_judged_by_the_size_of_its_limit() -> None:
    assert replayed(mismatch_kl=4e-5).differing(TOLERANCE) == []
    assert replayed(mismatch_kl=6e-5).differing(TOLERANCE) == ["mismatch_kl"]


def test_the_advantage_that_is_furthest_off_has_its_place() -> None:
    comparison = replayed([[0.5, -0.6], [1.0, -0.7]])
    assert comparison.differing(TOLERANCE) == ["advantage"]
    assert (comparison.prompt, comparison.rollout) == (8, 2)
    advantage = next(quantity for quantity in comparison.quantities if quantity.name == "advantage")
    assert (advantage.recorded, advantage.replayed) == (-1.0, -0.7)


def test_a_rollout_too_few_differs_however_wide_the_tolerance() -> None:
    assert replayed(row={**ROW, "rollouts/trained": 5}).differing(10.0) == ["rollouts"]


def test_a_number_that_was_not_recorded_differs() -> None:
    row = {name: value for name, value in ROW.items() if name != "entropy"}
    assert replayed(row=row).differing(TOLERANCE) == ["entropy"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_agrees_with_itself_alone(value: float) -> None:
    assert not Quantity("loss", value, value).differs(TOLERANCE)
    assert Quantity("loss", value, 1.0).differs(TOLERANCE)
    assert Quantity("loss", 1.0, value).differs(TOLERANCE)
    assert Quantity("loss", math.inf, -math.inf).differs(TOLERANCE)


def test_the_table_marks_what_differs_and_where(capsys: pytest.CaptureFixture[str]) -> None:
    earlier = replayed(grad_norm=3.0)
    print_comparison([earlier, replayed([[0.5, -0.6], [1.0, -1.0]])], 1, TOLERANCE)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "step 3, replayed from the checkpoint of step 1"
    table = {line.split()[0]: line.split() for line in lines[1:10] if line}
    assert table["quantity"] == ["quantity", "recorded", "replayed", "difference"]
    assert table["loss"][:3] == ["loss", "0.25", "0.25"]
    assert table["advantage"] == ["advantage", "-0.5", "-0.6", "-1.0e-01", "differs"]
    assert [name for name, cells in table.items() if cells[-1] == "differs"] == ["advantage"]
    assert lines[-2:] == [
        "step 3 differs already: grad_norm",
        "step 3 differs: advantage (furthest off: prompt 7, rollout 2)",
    ]


def test_another_loss_has_a_column_that_is_not_judged(capsys: pytest.CaptureFixture[str]) -> None:
    other = dict.fromkeys(("loss", "grad_norm", "entropy", "mismatch_kl", "lr"), 123456.0)
    print_comparison([replayed()], 0, TOLERANCE, "importance_sampling", other)
    text = capsys.readouterr().out
    assert "step 3, replayed from the start of the run" in text
    assert "importance_sampling" in text
    assert text.count("123456") == 5
    assert text.endswith("step 3 agrees within 0.001\n")
