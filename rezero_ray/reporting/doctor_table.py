"""The report of `rezero doctor`: a line a finding, and below it what to do about those that are not ok."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from rezero_ray.place.records import Finding
from rezero_ray.place.report import Report, every_finding

PIPED_WIDTH = 160
"""Columns where there is no terminal."""

STYLES = {"ok": "green", "low": "yellow", "bad": "bold red"}


def print_report(report: Report) -> None:
    """To standard output; colours and borders only on a terminal."""
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    for machine in report.machines:
        console.print(machine.figures.host + (f": {machine.roles}" if machine.roles else ""), style="bold")
        console.print(_table(machine.findings))
        console.print()
    if report.findings:
        console.print("together", style="bold")
        console.print(_table(report.findings))
        console.print()
    for finding in every_finding(report):
        if finding.verdict != "ok":
            console.print(
                f"{finding.verdict}: {finding.what}: {finding.remedy}", style=STYLES[finding.verdict]
            )
    for note in report.notes:
        console.print(f"note: {note}")
    console.print(_summary(report))


def _table(findings: Sequence[Finding]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=True, header_style="dim")
    for name in ("", "what"):
        table.add_column(name, no_wrap=True)
    for name in ("found", "needed"):
        table.add_column(name, overflow="fold")
    for finding in findings:
        table.add_row(
            finding.verdict,
            finding.what,
            finding.value,
            finding.needed,
            style=None if finding.verdict == "ok" else STYLES[finding.verdict],
        )
    return table


def _summary(report: Report) -> str:
    verdicts = [finding.verdict for finding in every_finding(report)]
    counted = [
        f"{verdicts.count(verdict)} {verdict}" for verdict in ("ok", "low", "bad") if verdict in verdicts
    ]
    return f"the place is {report.verdict} ({', '.join(counted)})"
