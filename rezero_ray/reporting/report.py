"""report.html: the curves of a run on one page that needs nothing beside it."""

import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rezero_ray.evaluation import Score
from rezero_ray.reporting.reward_signal import run_lines

CURVES = {
    "reward/mean": "reward",
    "entropy": "entropy (nats)",
    "mismatch_kl": "mismatch KL",
    "time/step": "seconds a step",
}


def draw_curves(rows: Sequence[Mapping[str, Any]], keys: Sequence[str], *, format: str = "svg") -> bytes:
    """One panel a key over the steps, each with its mean of five steps."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(keys), figsize=(4.2 * len(keys), 3.2), squeeze=False)
    steps = [row["step"] for row in rows]
    for axis, key in zip(axes[0], keys, strict=True):
        values = [row[key] for row in rows]
        smooth = [
            sum(values[max(0, i - 4) : i + 1]) / len(values[max(0, i - 4) : i + 1])
            for i in range(len(values))
        ]
        axis.plot(steps, values, color="0.75", linewidth=1, marker=".", markersize=4)
        axis.plot(steps, smooth, color="tab:blue", linewidth=2, label="mean of 5 steps")
        axis.set_title(CURVES.get(key, key))
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
    axes[0][0].legend(frameon=False, fontsize=8)
    return _rendered(figure, format)


def draw_scores(scores: Sequence[Score], *, format: str = "svg") -> bytes:
    """Mean reward of held-out tasks over the policy versions, with its interval: a line an environment."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(6.4, 3.2))
    for name in dict.fromkeys(score.environment for score in scores):
        own = [score for score in scores if score.environment == name]
        means = [score.average.mean for score in own]
        below = [score.average.mean - score.average.low for score in own]
        above = [score.average.high - score.average.mean for score in own]
        versions = [score.policy_version for score in own]
        axis.errorbar(versions, means, yerr=[below, above], marker="o", capsize=3, label=name)
    axis.set_title("reward of held-out tasks, 95 %")
    axis.set_xlabel("policy version")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize=8)
    return _rendered(figure, format)


def _rendered(figure: Any, format: str) -> bytes:
    from matplotlib import pyplot

    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format=format, dpi=110, metadata={"Date": None} if format == "svg" else None)
    pyplot.close(figure)
    return buffer.getvalue()


def write_report(
    directory: Path, rows: Sequence[Mapping[str, Any]], run: Mapping[str, Any], scores: Sequence[Score] = ()
) -> Path:
    """Write `report.html` for a run's metrics and what its evaluations found."""
    pictures = [draw_curves(rows, list(CURVES)).decode()]
    if scores:
        pictures.append(draw_scores(scores).decode())
    drawn = "".join(picture[picture.index("<svg") :] for picture in pictures)
    facts = "".join(
        f"<tr><th>{html.escape(str(key))}</th><td>{html.escape(str(value))}</td></tr>"
        for key, value in run.items()
        if key != "attempts"
    )
    warnings = "".join(f"<p><b>{html.escape(line)}</b></p>" for line in run_lines(rows))
    path = directory / "report.html"
    path.write_text(
        "<!doctype html><meta charset='utf-8'><title>rezero_ray run</title>"
        "<style>body{font:15px sans-serif;margin:2em}th{text-align:left;padding-right:1em}</style>"
        f"<h1>{html.escape(str(run['run_id']))}</h1>{warnings}{drawn}<table>{facts}</table>",
        "utf-8",
    )
    return path
