"""The table of `rezero replay`: recorded, replayed, difference."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from rezero_ray.step_comparison import Quantity, StepComparison

PIPED_WIDTH = 120
"""Columns where there is no terminal: no number is broken in two."""


def print_comparison(
    comparisons: Sequence[StepComparison],
    start: int,
    tolerance: float,
    loss: str | None = None,
    other: Mapping[str, float] | None = None,
) -> None:
    """Print the last step's quantities, what differs in it, and what differs already before it.

    Args:
        comparisons: of the replayed steps, in order.
        start: step of the checkpoint that the replay began with; 0 for the start of the run.
        tolerance: relative.
        loss, other: another loss and what it gives, by the quantities' names.
    """
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    last = comparisons[-1]
    origin = f"the checkpoint of step {start}" if start else "the start of the run"
    console.print(f"step {last.step}, replayed from {origin}", style="bold", soft_wrap=True)
    table = Table("quantity", box=None, pad_edge=False, header_style="dim")
    for name in ("recorded", "replayed", "difference", *([loss] if loss else [])):
        table.add_column(name, justify="right")
    table.add_column("")
    for quantity in last.quantities:
        differs = quantity.differs(tolerance)
        extra = [_number((other or {}).get(quantity.name))] if loss else []
        table.add_row(*_cells(quantity), *extra, "differs" if differs else "", style="red" if differs else "")
    console.print(table)
    for line in _verdict(comparisons, tolerance):
        console.print(line, soft_wrap=True)


def _cells(quantity: Quantity) -> tuple[str, str, str, str]:
    numbers = (quantity.recorded, quantity.replayed)
    return quantity.name, _number(numbers[0]), _number(numbers[1]), f"{quantity.difference:.1e}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _verdict(comparisons: Sequence[StepComparison], tolerance: float) -> list[str]:
    """A line for each step that differs, the last one's at the end, and one if that agrees."""
    last = comparisons[-1]
    lines = []
    for comparison in comparisons:
        names = comparison.differing(tolerance)
        if names:
            place = f" (furthest off: prompt {comparison.prompt}, rollout {comparison.rollout})"
            already = "" if comparison is last else " already"
            listed = ", ".join(name + place if name == "advantage" else name for name in names)
            lines.append(f"step {comparison.step} differs{already}: {listed}")
        elif comparison is last:
            lines.append(f"step {comparison.step} agrees within {tolerance:g}")
    return lines
