"""report.html: the curves of a run on one page that needs nothing beside it."""

import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format=format, dpi=110, metadata={"Date": None} if format == "svg" else None)
    pyplot.close(figure)
    return buffer.getvalue()


def write_report(directory: Path, rows: Sequence[Mapping[str, Any]], run: Mapping[str, Any]) -> Path:
    """Write `report.html` for a run's metrics."""
    picture = draw_curves(rows, list(CURVES)).decode()
    facts = "".join(
        f"<tr><th>{html.escape(str(key))}</th><td>{html.escape(str(value))}</td></tr>"
        for key, value in run.items()
    )
    path = directory / "report.html"
    path.write_text(
        "<!doctype html><meta charset='utf-8'><title>rezero_ray run</title>"
        "<style>body{font:15px sans-serif;margin:2em}th{text-align:left;padding-right:1em}</style>"
        f"<h1>{html.escape(str(run['run_id']))}</h1>{picture[picture.index('<svg') :]}<table>{facts}</table>",
        "utf-8",
    )
    return path
