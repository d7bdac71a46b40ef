"""Scores on held-out tasks for a reader."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from rezero_ray.evaluation import Estimate, Score, difference
from rezero_ray.reporting.comparison_table import PIPED_WIDTH


def evaluation_line(score: Score) -> str:
    """One score in a line."""
    failed = f", {score.failed} tasks failed" if score.failed else ""
    zeroed = f", {score.zeroed} rollouts with a reward error counted as 0.0" if score.zeroed else ""
    return (
        f"Evaluation of policy {score.policy_version}: {score.environment} avg@{score.k} {interval(score.average)}, "
        f"pass@{score.k} {score.passed.mean:.0%} of {len(score.rewards)} tasks{failed}{zeroed}"
    )


def interval(found: Estimate) -> str:
    """`+0.123 [+0.101, +0.145]`."""
    return f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def print_scores(base: Sequence[Score], adapter: Sequence[Score]) -> None:
    """A row an environment: the base model, the adapter where there is one, and the difference."""
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    k = base[0].k
    table = Table("environment", box=None, pad_edge=False, header_style="dim")
    names = ["tasks", f"base avg@{k}", f"pass@{k}", "varied"]
    if adapter:
        names += [f"adapter avg@{k}", f"pass@{k}", "varied", "difference"]
    for name in names:
        table.add_column(name, justify="right")
    others = {score.environment: score for score in adapter}
    for score in base:
        cells = [score.environment, str(len(score.rewards)), *_cells(score)]
        if (other := others.get(score.environment)) is not None:
            cells += [*_cells(other), interval(difference(score, other))]
        table.add_row(*cells)
    console.print(table)
    console.print(
        "intervals: 95 %, over the tasks; varied: tasks whose rollouts differ in reward", style="dim"
    )
    for score in [*base, *adapter]:
        if score.failed:
            console.print(f"{score.environment}, policy {score.policy_version}: {score.failed} tasks failed")
        if score.zeroed:
            console.print(
                f"{score.environment}, policy {score.policy_version}: {score.zeroed} rollouts have a reward function "
                "that failed and counts as 0.0"
            )


def _cells(score: Score) -> tuple[str, str, str]:
    return interval(score.average), f"{score.passed.mean:.0%}", f"{score.varied:.0%}"
