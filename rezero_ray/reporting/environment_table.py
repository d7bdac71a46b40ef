"""The tables of `rezero check --env`: what an environment holds, and what it gives for which answers."""

from statistics import fmean

from rich.console import Console
from rich.table import Table

from rezero_ray.preflight.environment_report import EnvironmentReport

PIPED_WIDTH = 120
"""Columns where there is no terminal."""


def print_environment(report: EnvironmentReport, tokens: tuple[int, str] | None) -> None:
    """
    Args:
        tokens: of the longest prompt, and the model whose tokenizer counted them.
    """
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    facts = Table(box=None, pad_edge=False, show_header=False)
    facts.add_column(style="dim")
    facts.add_column()
    for name, text in _facts(report, tokens):
        facts.add_row(name, text)
    env = report.env
    console.print(env.name if env.name == env.id else f"{env.name} ({env.id})", style="bold")
    console.print(facts)
    console.print()
    console.print(_answers(report))
    console.print()


def _facts(report: EnvironmentReport, tokens: tuple[int, str] | None) -> list[tuple[str, str]]:
    facts, described = report.facts, report.described
    shortest, median, longest = described["characters"]
    prompts = f"{shortest} to {longest} characters, half of them up to {median}"
    counted = f"{tokens[0]} tokens of {tokens[1]}" if tokens else "not in tokens: --model NAME counts them"
    weighted = [f"{name} {weight:g}" for name, weight in report.components.items() if weight]
    others = [name for name, weight in report.components.items() if not weight]
    lowest, highest = report.env.reward_range
    return [
        ("class", f"{facts['class']} of verifiers {facts['verifiers']} on Python {facts['python']}"),
        ("tasks", _tasks(report)),
        ("prompts", f"{prompts}; the longest has {counted}" if tokens else f"{prompts}; {counted}"),
        ("turns", f"up to {facts['turns']}" if facts["turns"] > 0 else "no limit"),
        ("reward", f"in [{lowest:g}, {highest:g}]: " + (" + ".join(weighted) or "its parts have no names")),
        *([("metrics", ", ".join(others))] if others else []),
        ("scoring", _scoring(report)),
    ]


def _tasks(report: EnvironmentReport) -> str:
    train, held_out = (len(report.described[split]) for split in ("train", "held_out"))
    text = f"{train} training, {held_out} held out"
    if held_out:
        text += f"; {report.in_both_splits or 'none'} in both"
    if report.again is not None:
        same = report.again.described["tasks"] == report.described["tasks"]
        text += f"; {'the same' if same else 'others'} in a second process"
    return text


def _scoring(report: EnvironmentReport) -> str:
    speed, same = report.milliseconds, len(report.scored) - len(report.unsteady)
    text = f"{same} of {len(report.scored)} answers got the same reward every time"
    if report.again is not None:
        text += ", in two processes and in opposite order"
    if report.zeroed:
        text += f"; {len(report.zeroed)} have a reward error counted as 0.0"
    if speed is None:
        return text
    return f"{speed:.1f} ms of one core an answer, {1000 / speed:.3g} a second; {text}"


def _answers(report: EnvironmentReport) -> Table:
    table = Table("answers", box=None, pad_edge=False, header_style="dim")
    for name in ("tried", "rewarded", "lowest", "mean", "highest"):
        table.add_column(name, justify="right")
    table.add_column("")
    for each in report.answers:
        rewards = each.rewards
        numbers = [min(rewards), fmean(rewards), max(rewards)] if rewards else []
        source = f"by {report.described['solution']}" if each.kind == "perfect" else ""
        cells = [f"{number:+.2f}" for number in numbers] or ["", "", ""]
        table.add_row(each.kind, str(each.tried), str(len(rewards)), *cells, source)
    if not report.described["solution"]:
        table.add_row("perfect", "0", "0", "", "", "", "not known")
    return table
