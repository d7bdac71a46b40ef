"""A trial's sections: each measured by itself, so that one failure does not lose the others; JSON and a table."""

import argparse
import contextlib
import json
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

Rows = list[dict[str, Any]]


class Trial:
    """What a stage found, section by section; written after each, so that a killed stage keeps what it had."""

    def __init__(self, name: str, arguments: argparse.Namespace) -> None:
        self.device = torch.device(arguments.device)
        self.small: bool = arguments.small
        self._out = Path(arguments.out)
        self._only = set(arguments.only or ())
        self._deadline = time.monotonic() + arguments.seconds
        self._started = time.monotonic()
        self.result: dict[str, Any] = {"stage": name, "machine": describe(self.device), "sections": {}}

    @property
    def seconds_left(self) -> float:
        return self._deadline - time.monotonic()

    def section(self, name: str, measure: Callable[["Trial"], Rows], needs_seconds: float = 5.0) -> None:
        """Run one section unless it was not asked for or too little time is left; print and save its rows."""
        if self._only and name not in self._only:
            return
        started = time.monotonic()
        entry: dict[str, Any] = {}
        if self.seconds_left < needs_seconds:
            entry["skipped"] = f"{self.seconds_left:.0f} s were left, {needs_seconds:.0f} are needed"
        else:
            try:
                entry["rows"] = measure(self)
            except Exception as error:
                entry["error"] = f"{type(error).__name__}: {error}"[:2000]
                entry["traceback"] = traceback.format_exc()[-6000:]
        if self.device.type == "cuda":
            with contextlib.suppress(Exception):
                torch.cuda.empty_cache()
        entry["seconds"] = round(time.monotonic() - started, 2)
        self.result["sections"][name] = entry
        self.save()
        print(f"\n== {name} ({entry['seconds']} s) ==", flush=True)
        print(entry.get("error") or entry.get("skipped") or table(entry["rows"]), flush=True)
        if "traceback" in entry:
            print(entry["traceback"][-1500:], flush=True)

    def save(self) -> None:
        self.result["seconds"] = round(time.monotonic() - self._started, 1)
        self._out.parent.mkdir(parents=True, exist_ok=True)
        self._out.write_text(json.dumps(self.result, indent=1) + "\n")

    @property
    def failed(self) -> list[str]:
        return [name for name, entry in self.result["sections"].items() if "error" in entry]


def arguments(
    description: str, seconds: float = 230.0, *, more: Callable[[argparse.ArgumentParser], Any] | None = None
) -> argparse.Namespace:
    """The options of every stage, and those that `more` adds."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="sizes for a test on the CPU")
    parser.add_argument("--out", required=True, help="the JSON file to write")
    parser.add_argument("--seconds", type=float, default=seconds, help="no section starts after these")
    parser.add_argument("--only", nargs="*", help="names of sections; all by default")
    if more is not None:
        more(parser)
    return parser.parse_args()


def describe(device: torch.device) -> dict[str, Any]:
    """What the figures depend on; nothing that names the machine."""
    import transformers

    found: dict[str, Any] = {"torch": torch.__version__, "transformers": transformers.__version__}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "gpu": properties.name,
            "gpu_gib": round(properties.total_memory / 1024**3, 1),
            "capability": list(torch.cuda.get_device_capability(device)),
        }
    return found


def milliseconds(
    call: Callable[[], Any], device: torch.device, *, rounds: int = 5, warm_up: int = 2
) -> float:
    """Median over `rounds`, by events on CUDA and by the clock on the CPU."""
    for _ in range(warm_up):
        call()
    times = []
    for _ in range(rounds):
        if device.type == "cuda":
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            call()
            end.record()
            torch.cuda.synchronize()
            times.append(begin.elapsed_time(end))
        else:
            started = time.perf_counter()
            call()
            times.append((time.perf_counter() - started) * 1000)
    return sorted(times)[len(times) // 2]


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """||found - expected|| / ||expected|| in float64 on the CPU; NaN where anything is NaN."""
    one, other = found.detach().double().cpu(), expected.detach().double().cpu()
    return float((one - other).norm() / other.norm())


def profiled(call: Callable[[], Any]) -> tuple[int, list[dict[str, Any]]]:
    """Kernel launches of one call on CUDA, and its kernels by time: name, calls, milliseconds."""
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        call()
        torch.cuda.synchronize()
    kernels = [
        {"kernel": event.key[:110], "calls": event.count, "ms": round(event.self_device_time_total / 1000, 3)}
        for event in found.key_averages()
        if event.self_device_time_total > 0
    ]
    kernels.sort(key=lambda row: -row["ms"])
    return sum(row["calls"] for row in kernels), kernels


def table(rows: Sequence[dict[str, Any]]) -> str:
    if not rows:
        return "(no rows)"
    header = list(dict.fromkeys(key for row in rows for key in row))
    lines = [header, *([_cell(row.get(key, "")) for key in header] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
    )


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
