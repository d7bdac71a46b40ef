"""The tiers of this machine, and a program run in one of them, behind the launcher."""

import functools
import json
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from secrets import randbelow, token_hex

from environments.sandbox import landlock
from environments.sandbox.bubblewrap import bubblewrap_command
from environments.sandbox.paths import SINK, anybody_may_run, readable_paths
from environments.sandbox.process_tree import kill, marked
from environments.sandbox.records import Isolation, Limits, Outcome, Program, SandboxError, Status, Tier

GRACE_SECONDS = 20.0
"""What the launcher may take beyond the program's wall time before it counts as broken."""

FIRST_STAND_IN, STAND_INS = 1 << 30, 1 << 29
"""User ids that nobody has. Where this process is root's, each program runs under one of them."""

MARKER = "REZERO_SANDBOX"
"""Environment variable with an unguessable value by which left-over processes are found."""

PACKAGES = "REZERO_PACKAGES"
"""Environment variable that names the folder of this Python's packages, for a program started without `site`."""


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
        outcome = run_here(tier, Program({}, ["/bin/true"]))
    except SandboxError as error:
        return str(error)
    return "" if outcome.exit_code == 0 else f"a trial run failed: {outcome.stderr.strip()}"


def isolation_here(tier: Tier) -> Isolation:
    """What a tier of this machine gives."""
    if tier != "plain":
        return Isolation(tier)
    network = (
        "the network is not cut off but for TCP" if landlock.abi() >= 4 else "the network is not cut off"
    )
    return Isolation("plain", (f"no namespaces: {network}", *landlock.losses(landlock.abi())))


def run_here(tier: Tier, program: Program) -> Outcome:
    """Runs a program in a new directory that holds its files; nothing of it is left when this returns.

    Raises SandboxError when the sandbox itself fails.
    """
    marker = token_hex(16)
    with tempfile.TemporaryDirectory(prefix="rezero-sandbox-", ignore_cleanup_errors=True) as scratch:
        base = Path(scratch).resolve()
        for name in ("box", "root"):
            (base / name).mkdir(0o700)
        stand_in = None if os.getuid() else FIRST_STAND_IN + randbelow(STAND_INS)
        root_stays = stand_in is not None and tier == "plain" and not anybody_may_run(program.command[0])
        _write(base / "box", program.files)
        if stand_in is not None and not root_stays:
            base.chmod(0o711)
            for path in (base / "box", *(base / "box").rglob("*")):
                os.chown(path, stand_in, stand_in)
        (base / "stdin").touch(0o600)
        (base / "stdin").write_text(program.stdin, errors="replace")
        request = _request(tier, base, program, marker, stand_in)
        request["effective_user"] = 0 if root_stays else stand_in
        try:
            report = _launch(request, program.limits)
        finally:
            if tier == "plain":
                kill(marked(f"{MARKER}={marker}"))
        if report["failure"]:
            raise SandboxError(f"{tier}: {report['failure']}")
        streams = [_beginning(base / name, program.limits.output_kib) for name in ("stdout", "stderr")]
    return _outcome(report, tier, *streams)


def check_names(files: Mapping[str, str]) -> None:
    """Raises ValueError for a file name that leads out of the sandbox's directory."""
    for name in files:
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts or not relative.parts:
            raise ValueError(f"{name!r} is not a file name inside the sandbox's directory")


def _request(
    tier: Tier, base: Path, program: Program, marker: str, stand_in: int | None
) -> dict[str, object]:
    box, command = str(base / "box"), list(program.command)
    readable, writable = readable_paths(), [box, SINK]
    if tier == "bubblewrap":
        command = [*bubblewrap_command(readable, writable, box, stand_in), *command]
    write = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return {
        "tier": tier,
        "stand_in": stand_in,
        "command": command,
        "environment": {**program.environment, **_variables(base / "box", marker)},
        "directory": box,
        "root": str(base / "root"),
        "readable": readable,
        "writable": writable,
        "streams": [
            (str(base / "stdin"), os.O_RDONLY),
            (str(base / "stdout"), write),
            (str(base / "stderr"), write),
        ],
        "limits": asdict(program.limits),
    }


def _variables(box: Path, marker: str) -> dict[str, str]:
    return {
        "PATH": f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(box),
        "TMPDIR": str(box),
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        MARKER: marker,
        PACKAGES: sysconfig.get_paths()["purelib"],
    }


def _write(box: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = box / name
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
