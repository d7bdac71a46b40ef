"""What rewards say of a run itself: reward functions that failed and count as 0.0, steps that teach nothing. Pure.

Read from the rows of metrics.jsonl: `errors/zeroed`, `errors/<environment>/zeroed` (rollouts) and `reward/signal`,
`reward/<environment>/signal` (share of the groups with an advantage other than zero).
"""

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def step_lines(row: Row) -> list[str]:
    """What is to be said after one step."""
    found = []
    if zeroed := row.get("errors/zeroed", 0):
        where = ", ".join(
            f"{name} {count}" for name, count in _by_environment(row, "errors", "zeroed").items()
        )
        found.append(
            f"Reward errors: {zeroed} of {row['rollouts/trained']} rollouts have a reward function that failed and "
            f"counts as 0.0 ({where}; `rezero show` names it)"
        )
    if row.get("reward/signal") == 0:
        found.append(
            f"No signal: the rewards of each group of step {row['step']} are equal, so every advantage is zero"
        )
    return found


def run_lines(rows: Sequence[Row]) -> list[str]:
    """What is to be said of a whole run."""
    found = []
    names = dict.fromkeys(name for row in rows for name in _by_environment(row, "reward", "signal"))
    for name in names:
        own = [row for row in rows if f"reward/{name}/signal" in row]
        zeroed = sum(row.get(f"errors/{name}/zeroed", 0) for row in own)
        if zeroed:
            found.append(
                f"{name}: {zeroed} rollouts have a reward function that failed and counts as 0.0 "
                '(reward_errors = "zero")'
            )
        if not any(row[f"reward/{name}/signal"] for row in own):
            found.append(
                f"{name}: nothing was learned from it. The rewards of each group were equal in all {len(own)} steps "
                f"with it ({_span([row[f'reward/{name}/mean'] for row in own])}). Try its reward functions: rezero "
                f"check --env {name}"
            )
    return found


def _by_environment(row: Row, prefix: str, suffix: str) -> dict[str, float]:
    """Values of `prefix/<environment>/suffix`, those of 0 counts left out."""
    start, end = f"{prefix}/", f"/{suffix}"
    return {
        key[len(start) : -len(end)]: value
        for key, value in row.items()
        if key.startswith(start) and key.endswith(end) and len(key) > len(start + end)
        if value or suffix != "zeroed"
    }


def _span(means: Sequence[float]) -> str:
    lowest, highest = min(means), max(means)
    return f"mean reward {lowest:.4g}" + ("" if lowest == highest else f" to {highest:.4g}")
