"""Why vLLM's engine core died.

The core is a process of its own. What its front end raises says "see stack trace above": the cause is in the logs
that both write to, standard output (vLLM's logger) and standard error of the actor's process.
"""

import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_POINTS_ELSEWHERE = re.compile(r"see (the )?(root cause|stack trace)|EngineDeadError", re.IGNORECASE)
_PREFIX = re.compile(
    r"^(\([^)]*pid=\d+[^)]*\)\s*)*((ERROR|CRITICAL|WARNING|INFO)\s+[\d-]+ [\d:]+ \[[^\]]*\]\s?)?"
)
_RAISED = re.compile(r"^[A-Za-z_][\w.]*(Error|Exception|Interrupt|Exit|Warning)?(: .*|$)")
_LAST_BYTES = 1 << 18  # of the log; a traceback of vLLM's has some thousands


class EngineFailed(RuntimeError):
    """vLLM failed, with the cause that its engine core logged; one line."""


@contextmanager
def explained() -> Iterator[None]:
    """Within, an error of vLLM's that names no cause is raised again with it.

    Raises:
        EngineFailed: in its place.
    """
    try:
        yield
    except Exception as error:
        if not _POINTS_ELSEWHERE.search(f"{type(error).__name__}: {error}"):
            raise
        logs = own_logs()
        found = [(log, cause) for log in logs if (cause := root_cause(_tail(log))) is not None]
        log, cause = found[0] if found else (next(iter(logs), None), None)
        where = f"{socket.gethostname()}:{log}" if log is not None else "the log of the engine's process"
        why = cause or str(error).strip().partition("\n")[0]
        raise EngineFailed(f"{type(error).__name__}: {why} (log: {where})") from error


def own_logs(descriptors: Sequence[Path] = (Path("/proc/self/fd/1"), Path("/proc/self/fd/2"))) -> list[Path]:
    """The files that standard output and standard error go to, where they are files."""
    found = []
    for descriptor in descriptors:
        try:
            target = descriptor.readlink()
        except OSError:
            continue
        if target.is_file():
            found.append(target)
    return found


def root_cause(log: str) -> str | None:
    """The last line of the last traceback in a log that is not vLLM's own pointer to another; None without one."""
    found = None
    within = False
    for line in log.splitlines():
        said = _PREFIX.sub("", line)
        if said.startswith("Traceback (most recent call last)"):
            within = True
        elif within and said and not said[0].isspace():
            within = False
            if _RAISED.match(said) and not _POINTS_ELSEWHERE.search(said):
                found = said.strip()
    return found


def _tail(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - _LAST_BYTES))
            return stream.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
