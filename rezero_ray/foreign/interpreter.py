"""The interpreter of an environment that does not live in ours: made once with uv, and cached.

A virtual environment is kept under the hash of what it was made from. It counts when its marker file is there, which
is written last; it is made under a lock, so that workers and the preflight of one machine wait for each other.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CACHE_VARIABLE = "REZERO_ENVIRONMENTS_CACHE"
MARKER = "complete.json"
_TOLD_LINES = 20  # of what uv says when it fails


class InterpreterProblem(Exception):
    """The interpreter cannot be had. The message is for the one who wrote the request."""


@dataclass(frozen=True)
class Interpreter:
    """What `[[orchestrator.env]]` asks for.

    With `requirements`, a virtual environment of them, made with `python` (a version or a path; our own when None).
    With `python` alone, that interpreter as it is.
    """

    requirements: tuple[str, ...]
    python: str | None

    @property
    def key(self) -> str:
        """Names its folder in the cache. A relative path among the requirements means one under this directory."""
        here = str(Path.cwd()) if any(_is_relative(line) for line in self.requirements) else ""
        made_from = [sorted(self.requirements), self.python or _our_version(), here]
        return hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:20]

    @property
    def folder(self) -> Path:
        return cache_folder() / self.key

    @property
    def ready(self) -> bool:
        """Whether it can be used without being made first."""
        return not self.requirements or (self.folder / MARKER).exists()

    def path(self, seconds: float) -> Path:
        """The interpreter, made if it is not there yet. Blocks; takes `seconds` at most for each call of uv.

        Raises:
            InterpreterProblem: it cannot be made, in uv's own words, or does not exist.
        """
        if not self.requirements:
            return _existing(self.python or sys.executable)
        python = self.folder / "bin" / "python"
        if not self.ready:
            with _locked(self.folder):
                if not self.ready:
                    self._make(python, seconds)
        return python

    def _make(self, python: Path, seconds: float) -> None:
        uv, settings = find_uv(), uv_settings(os.environ, pip_configuration())
        shutil.rmtree(self.folder, ignore_errors=True)
        make = [uv, "venv", "--quiet", "--python", self.python or sys.executable, str(self.folder)]
        _run(make, settings, seconds)
        install = [uv, "pip", "install", "--quiet", "--python", str(python), "-r", "-"]
        _run(install, settings, seconds, stdin="\n".join(self.requirements) + "\n")
        marker = {"requirements": list(self.requirements), "python": self.python}
        (self.folder / MARKER).write_text(json.dumps(marker), "utf-8")


def cache_folder() -> Path:
    """`$REZERO_ENVIRONMENTS_CACHE`, or ~/.cache/rezero_ray/environments."""
    given = os.environ.get(CACHE_VARIABLE)
    return Path(given) if given else Path.home() / ".cache" / "rezero_ray" / "environments"


def find_uv() -> str:
    """
    Raises:
        InterpreterProblem: there is none beside our interpreter, and none on PATH.
    """
    beside = Path(sys.executable).parent / "uv"
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        raise InterpreterProblem("uv is needed and not found; install it with: python -m pip install uv")
    return found


def pip_configuration() -> dict[str, str]:
    """The global settings of pip's configuration files, by name; nothing where pip is not there."""
    base = getattr(sys, "_base_executable", sys.executable)
    answer = subprocess.run(
        [base, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    settings = (line.partition("=") for line in answer.stdout.splitlines() if line.startswith("global."))
    return {
        name.removeprefix("global."): value.strip("'\"").replace("\\n", " ") for name, _, value in settings
    }


def uv_settings(variables: os._Environ[str] | dict[str, str], configured: dict[str, str]) -> dict[str, str]:
    """Environment variables that make uv look where pip looks; what is set for uv itself wins.

    They hold what may be secret: they are given to uv and written nowhere.
    """
    settings = {"UV_HTTP_TIMEOUT": variables.get("UV_HTTP_TIMEOUT", "180")}
    for name, variable, joiner in (
        ("find-links", "UV_FIND_LINKS", ","),
        ("index-url", "UV_DEFAULT_INDEX", ""),
        ("extra-index-url", "UV_INDEX", " "),
        ("cert", "SSL_CERT_FILE", ""),
    ):
        pip = variables.get("PIP_" + name.replace("-", "_").upper()) or configured.get(name)
        value = variables.get(variable) or (joiner.join(pip.split()) if pip else None)
        if value:
            settings[variable] = value
    if "UV_INDEX" in settings and not variables.get("UV_INDEX"):  # pip takes the best of all its indexes
        settings["UV_INDEX_STRATEGY"] = variables.get("UV_INDEX_STRATEGY", "unsafe-best-match")
    return settings


def _run(command: Sequence[str], settings: dict[str, str], seconds: float, stdin: str = "") -> None:
    variables = {**os.environ, **settings}
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        variables.pop(name, None)
    try:
        done = subprocess.run(
            command, input=stdin, env=variables, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise InterpreterProblem(f"uv was not done within {seconds:.0f} s: {' '.join(command)}") from None
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        for value in settings.values():
            if "@" in value:
                said = [line.replace(value, "(the index)") for line in said]
        raise InterpreterProblem("\n".join(said[-_TOLD_LINES:]) or f"uv ended with {done.returncode}")


def _existing(python: str) -> Path:
    found = shutil.which(str(Path(python).expanduser()))
    if found is None:
        raise InterpreterProblem(f"there is no interpreter {python}")
    return Path(found)


def _is_relative(requirement: str) -> bool:
    path = requirement.removeprefix("-e").strip()
    return path.startswith((".", "~")) or (requirement.startswith("-e") and not path.startswith("/"))


def _our_version() -> str:
    return ".".join(map(str, sys.version_info[:3]))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Held by one process of this machine at a time; released when that process ends, however it does."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
