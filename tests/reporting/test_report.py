"""Claims about report.html and its curves."""

from pathlib import Path

import pytest

from rezero_ray.evaluation import Estimate, Score
from rezero_ray.reporting.report import CURVES, draw_curves, write_report

ROWS = [{"step": step, **dict.fromkeys(CURVES, step / 10)} for step in range(1, 13)]


@pytest.mark.parametrize("rows", [ROWS, ROWS[:1], []], ids=["twelve", "one", "none"])
def test_the_report_is_one_page_that_needs_nothing_beside_it(
    tmp_path: Path, rows: list[dict[str, float]]
) -> None:
    path = write_report(tmp_path, rows, {"run_id": "abc-123", "status": "done"})
    page = path.read_text("utf-8")
    assert path == tmp_path / "report.html"
    assert page.startswith("<!doctype html>")
    assert page.count("<svg") == 1
    assert "<img" not in page
    assert "<script" not in page
    assert "<h1>abc-123</h1>" in page
    assert "<tr><th>status</th><td>done</td></tr>" in page
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_run_says_of_itself_is_text_not_markup(tmp_path: Path) -> None:
    page = write_report(tmp_path, ROWS, {"run_id": "<b>", "note": "a < b & c"}).read_text("utf-8")
    assert "<h1>&lt;b&gt;</h1>" in page
    assert "a &lt; b &amp; c" in page


def test_every_curve_has_a_panel() -> None:
    picture = draw_curves(ROWS, list(CURVES)).decode()
    assert picture.count('id="axes_') == len(CURVES)
    for title in CURVES.values():
        assert f"<!-- {title} -->" in picture


def test_scores_of_held_out_tasks_have_a_picture_with_their_intervals(tmp_path: Path) -> None:
    scores = [
        Score(name, version, 4, {}, 0, Estimate(0.1, 0.0, 0.2), Estimate(0.5, 0.4, 0.6), 1.0)
        for name in ("phishing-detection", "network-logs")
        for version in (0, 10, 20)
    ]
    page = write_report(tmp_path, ROWS, {"run_id": "abc"}, scores).read_text("utf-8")
    assert page.count("<svg") == 2
    for name in ("phishing-detection", "network-logs"):
        assert f"<!-- {name} -->" in page
    assert page.count('id="LineCollection_') == 4  # the intervals, in the plot and in its legend


def test_curves_come_as_png_too() -> None:
    assert draw_curves(ROWS, ["reward/mean"], format="png").startswith(b"\x89PNG")
