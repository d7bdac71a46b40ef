"""Code that a model wrote runs here: a process of its own in an empty directory, with limits, without network.

Three tiers, the best one that this machine gives:

- `bubblewrap`: `bwrap` is installed and works. Nothing is lost.
- `namespaces`: the kernel gives unprivileged namespaces and Landlock, used directly. Nothing is lost.
- `plain`: limits, and Landlock as far as the kernel has it; `isolation().losses` names what is not cut off.

In every tier a launcher (`environments.sandbox.launcher`) watches wall time, processes, memory and files, and
kills the program with all its descendants. The program reads the system's and Python's own directories and
its own; it writes in its own, which is removed afterwards.
"""

import asyncio
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from secrets import randbelow, token_hex
from typing import Literal

from environments.sandbox import landlock
from environments.sandbox.bubblewrap import bubblewrap_command
from environments.sandbox.paths import SINK, SandboxError, readable_paths
from environments.sandbox.process_tree import kill, marked

Tier = Literal["bubblewrap", "namespaces", "plain"]
Status = Literal["finished", "timed out", "killed"]

GRACE_SECONDS = 20.0
"""What the launcher may take beyond the program's wall time before it counts as broken."""

FIRST_STAND_IN, STAND_INS = 1 << 30, 1 << 29
"""User ids that nobody has. Where this process is root's, each program runs under one of them."""

MARKER = "REZERO_SANDBOX"
"""Environment variable with an unguessable value by which left-over processes are found."""


@dataclass(frozen=True)
class Limits:
    """What a program may use. `cpu_seconds` holds for each process; memory, processes and files together."""

    wall_seconds: float = 20.0
    cpu_seconds: int = 5
    memory_mib: int = 512
    processes: int = 16
    file_mib: int = 16
    output_kib: int = 64


@dataclass(frozen=True)
class Outcome:
    """How a program ended, with the first `output_kib` of each stream.

    `finished`: by itself, with `exit_code`. `timed out`: wall time. `killed`: for `reason`, or by a signal,
    which is then `-exit_code`.
    """

    status: Status
    exit_code: int
    reason: str
    stdout: str
    stderr: str
    seconds: float


@dataclass(frozen=True)
class Isolation:
    """The tier in use, and what it does not cut off."""

    tier: Tier
    losses: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.tier}: " + ("; ".join(self.losses) if self.losses else "nothing is lost")


@functools.cache
def tiers() -> tuple[Tier, ...]:
    """The tiers that work on this machine, best first; each was tried once. `plain` works everywhere."""
    candidates: tuple[Tier, ...] = ("bubblewrap", "namespaces")
    return (*(tier for tier in candidates if not why_not(tier)), "plain")


@functools.cache
def why_not(tier: Tier) -> str:
    """Why a tier cannot be had on this machine; empty if it can."""
    if tier == "namespaces" and landlock.losses(landlock.abi()):
        return "; ".join(landlock.losses(landlock.abi()))
    try:
        outcome = Sandbox(tier).run({}, ["/bin/true"])
    except SandboxError as error:
        return str(error)
    return "" if outcome.exit_code == 0 else f"a trial run failed: {outcome.stderr.strip()}"


def isolation(tier: Tier | None = None) -> Isolation:
    """What this machine gives, or what `tier` would."""
    tier = tier or tiers()[0]
    if tier != "plain":
        return Isolation(tier)
    network = (
        "the network is not cut off but for TCP" if landlock.abi() >= 4 else "the network is not cut off"
    )
    return Isolation("plain", (f"no namespaces: {network}", *landlock.losses(landlock.abi())))


class Sandbox:
    """Runs programs in one tier, by default the best of this machine. Holds no state between runs."""

    def __init__(self, tier: Tier | None = None) -> None:
        self.tier: Tier = tier or tiers()[0]

    def run(
        self,
        files: Mapping[str, str],
        command: Sequence[str],
        *,
        limits: Limits | None = None,
        environment: Mapping[str, str] | None = None,
        stdin: str = "",
    ) -> Outcome:
        """Runs `command` (an absolute path and arguments) in a new directory that holds `files`.

        Nothing of it is left when this returns. Raises SandboxError when the sandbox itself fails, ValueError
        for a file name that leads out of the directory.
        """
        limits = limits or Limits()
        marker = token_hex(16)
        with tempfile.TemporaryDirectory(prefix="rezero-sandbox-", ignore_cleanup_errors=True) as scratch:
            base = Path(scratch).resolve()
            for name in ("box", "root"):
                (base / name).mkdir()
            stand_in = None if os.getuid() else FIRST_STAND_IN + randbelow(STAND_INS)
            _write(base / "box", files)
            if stand_in is not None and self.tier != "plain":
                for path in (base / "box", *(base / "box").rglob("*")):
                    os.chown(path, stand_in, stand_in)
            (base / "stdin").write_text(stdin, errors="replace")
            variables = {**(environment or {}), **_variables(base / "box", marker)}
            request = self._request(base, list(command), variables, limits, stand_in)
            try:
                report = _launch(request, limits)
            finally:
                if self.tier == "plain":
                    kill(marked(f"{MARKER}={marker}"))
            if report["failure"]:
                raise SandboxError(f"{self.tier}: {report['failure']}")
            streams = [_beginning(base / name, limits.output_kib) for name in ("stdout", "stderr")]
        return _outcome(report, self.tier, *streams)

    async def run_async(
        self,
        files: Mapping[str, str],
        command: Sequence[str],
        *,
        limits: Limits | None = None,
        environment: Mapping[str, str] | None = None,
        stdin: str = "",
    ) -> Outcome:
        """`run` in a thread: the event loop goes on meanwhile."""
        return await asyncio.to_thread(
            self.run, files, command, limits=limits, environment=environment, stdin=stdin
        )

    def _request(
        self,
        base: Path,
        command: list[str],
        variables: dict[str, str],
        limits: Limits,
        stand_in: int | None,
    ) -> dict[str, object]:
        box = str(base / "box")
        readable, writable = readable_paths(), [box, SINK]
        if self.tier == "bubblewrap":
            command = [*bubblewrap_command(readable, writable, box, stand_in), *command]
        write = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        return {
            "tier": self.tier,
            "stand_in": stand_in,
            "command": command,
            "environment": variables,
            "directory": box,
            "root": str(base / "root"),
            "readable": readable,
            "writable": writable,
            "streams": [
                (str(base / "stdin"), os.O_RDONLY),
                (str(base / "stdout"), write),
                (str(base / "stderr"), write),
            ],
            "limits": asdict(limits),
        }


def _variables(box: Path, marker: str) -> dict[str, str]:
    return {
        "PATH": f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(box),
        "TMPDIR": str(box),
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        MARKER: marker,
    }


def _write(box: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts or not relative.parts:
            raise ValueError(f"{name!r} is not a file name inside the sandbox's directory")
        path = box / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, errors="replace")


def _launch(request: dict[str, object], limits: Limits) -> dict[str, object]:
    """The launcher's report. Its own death counts as a kill by the program where a program can do that."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r}); "
    code += "from environments.sandbox.launcher import main; main()"
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
        env={},
    ) as launcher:
        try:
            said, complaint = launcher.communicate(json.dumps(request), limits.wall_seconds + GRACE_SECONDS)
        except BaseException as error:
            launcher.kill()
            if isinstance(error, subprocess.TimeoutExpired):
                raise SandboxError(
                    f"the launcher did not end {GRACE_SECONDS:.0f} s after the limit"
                ) from None
            raise
    if launcher.returncode:
        raise SandboxError(f"the launcher ended with {launcher.returncode}: {complaint.strip()[-500:]}")
    report: dict[str, object] = json.loads(said)
    return report


def _beginning(path: Path, kib: int) -> str:
    with path.open("rb") as stream:
        return stream.read(kib << 10).decode(errors="replace")


def _outcome(report: Mapping[str, object], tier: Tier, stdout: str, stderr: str) -> Outcome:
    code, reason, seconds = report["exit_code"], str(report["reason"]), report["seconds"]
    assert isinstance(code, int) and isinstance(seconds, float)
    if tier != "plain" and code > 128:  # handed on by the processes between
        code = 128 - code
    status: Status = "finished"
    if reason == "wall time":
        status = "timed out"
    elif reason or code < 0:
        status = "killed"
        reason = reason or _signal_reason(-code)
    return Outcome(status, code, reason, stdout, stderr, seconds)


def _signal_reason(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = str(number)
    return "CPU time" if name == "SIGXCPU" else f"signal {name}"
