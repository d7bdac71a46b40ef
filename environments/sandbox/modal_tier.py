"""A program run in a Sandbox of Modal's: another machine, without network, without secrets, without our files.

One Sandbox serves this process. It is made when the first program comes, and replaced when it fails: making one
takes seconds, and minutes the first time in a workspace, when its image is built. In it the launcher runs each
program in the best local tier of that place, which keeps the programs apart from each other. When this process
ends, the Sandbox ends; where it is killed, `environments.sandbox.modal_watch` ends it.
"""

import asyncio
import atexit
import contextlib
import importlib.util
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Coroutine
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO, cast

from environments.sandbox.local_tiers import GRACE_SECONDS
from environments.sandbox.modal_worker import PYTHON
from environments.sandbox.records import Isolation, Outcome, Program, SandboxError, Tier

RUN_NAME = "REZERO_RUN"
"""Environment variable with the App of a run that lives on Modal; its Sandboxes belong to that App."""

APP = "re-zero-sandboxes"
"""The App of all other Sandboxes."""

PACKAGES = ("jinja2", "pyyaml")
"""What programs import beyond the standard library, in the versions that are installed here."""

CODE = "/rezero"
START = (
    f"import sys; sys.path.insert(0, {CODE!r}); from environments.sandbox.modal_worker import main; main()"
)

CORES, MEMORY_MIB = (1.0, 8.0), (1024, 16384)
"""Requested, and at most; Modal bills the greater of what is requested and what is used.

32 threads of `asyncio.to_thread` with 512 MiB each are the most that runs at once.
"""

LIFETIME_SECONDS = 4 * 3600
IDLE_SECONDS = 600
"""A Sandbox without a program for this long is ended by Modal. A training step in between may take minutes."""

CREATE_SECONDS = 300.0
FAREWELL_SECONDS = 5.0

TRANSPORT_SECONDS = 40.0
"""What Modal may take to start the worker and to carry its answer, beyond the time of the program."""


@dataclass(frozen=True)
class Room:
    """A Sandbox that runs, the tier in which it runs programs, and the input of the process that watches this one."""

    sandbox: Any
    tier: Tier
    watch: BinaryIO


class ModalSandbox:
    """The Sandbox of this process; many programs at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._room: Room | None = None

    def run(self, program: Program) -> Outcome:
        """Runs a program; a failure that is not the program's is tried once more, on a fresh Sandbox.

        Raises SandboxError when that fails as well.
        """
        try:
            return self._run(program)
        except SandboxError as error:
            logging.getLogger(__name__).warning("%s; trying once more on a fresh one", error)
            return self._run(program)

    def close(self) -> None:
        """Ends the Sandbox, if there is one."""
        if self._room is not None:
            self._give_up(self._room)

    def _run(self, program: Program) -> Outcome:
        room = self._open_room()
        try:
            return Outcome(
                **_ask(room.sandbox, _request(program, room.tier), program.limits.wall_seconds)["outcome"]
            )
        except SandboxError:
            self._give_up(room)
            raise

    def _open_room(self) -> Room:
        if not self._lock.acquire(timeout=CREATE_SECONDS):
            raise SandboxError(f"Modal: waited {CREATE_SECONDS:g} s for another thread to make a Sandbox")
        try:
            if self._room is None:
                self._room = _make_room()
                atexit.unregister(self.close)
                atexit.register(self.close)  # after the client's own farewell, so that it comes before
            return self._room
        finally:
            self._lock.release()

    def _give_up(self, room: Room) -> None:
        with self._lock:
            first, self._room = self._room is room, None if self._room is room else self._room
        if first:  # others may have met the same failure
            _terminate(room.sandbox, room.watch)


SHARED = ModalSandbox()
"""The one of this process. It costs nothing until a program comes."""


def check_modal() -> None:
    """Raises ValueError where the package is not installed."""
    if importlib.util.find_spec("modal") is None:
        raise ValueError('sandbox "modal" needs the package modal: python -m pip install modal==1.6.4')


def _make_room() -> Room:
    sandbox = _within(CREATE_SECONDS, "a Sandbox", _create())
    watch = _watched(sandbox.object_id)
    try:
        found = Isolation(**_ask(sandbox, {}, seconds=GRACE_SECONDS)["isolation"])
    except SandboxError:
        _terminate(sandbox, watch)
        raise
    logging.getLogger(__name__).info(
        "Sandbox %s on Modal, without network; what keeps its programs apart is %s", sandbox.object_id, found
    )
    return Room(sandbox, found.tier, watch)


def _watched(sandbox_id: str) -> BinaryIO:
    """Starts what ends the Sandbox when this process is killed. Written to is the word that it need not."""
    starting = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("modal_watch.py")), sandbox_id],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    starting.wait()
    assert starting.stdin is not None
    return cast(BinaryIO, starting.stdin)


async def _create() -> Any:
    import modal

    app = await modal.App.lookup.aio(os.environ.get(RUN_NAME, APP), create_if_missing=True)
    return await modal.Sandbox.create.aio(
        "sleep",
        "infinity",
        app=app,
        image=_image(modal),
        cpu=CORES,
        memory=MEMORY_MIB,
        block_network=True,
        timeout=LIFETIME_SECONDS,
        idle_timeout=IDLE_SECONDS,
    )


def _image(modal: Any) -> Any:
    """This version of Python with the packages, bubblewrap and this folder."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return (
        modal.Image.debian_slim(python_version=python)
        .apt_install("bubblewrap")
        .uv_pip_install(*(f"{name}=={version(name)}" for name in PACKAGES))
        .add_local_dir(Path(__file__).parent, f"{CODE}/environments/sandbox", ignore=["**/__pycache__"])
    )


def _request(program: Program, tier: Tier) -> dict[str, Any]:
    fields = asdict(program)
    fields["command"] = [PYTHON if word == sys.executable else word for word in program.command]
    return {"tier": tier, "program": fields}


def _ask(sandbox: Any, request: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The answer of a worker in the Sandbox, which has `seconds` and what the launcher and Modal may take."""
    limit = seconds + GRACE_SECONDS + TRANSPORT_SECONDS
    name = f"the Sandbox {sandbox.object_id}"
    status, said, complaint = _within(limit, name, _exec(sandbox, json.dumps(request), limit))
    try:
        answer: dict[str, Any] = json.loads(said)
    except ValueError:
        raise SandboxError(f"Modal: a worker in {name} ended with {status}: {complaint[-500:]}") from None
    if "failure" in answer:
        raise SandboxError(f"Modal: {name}: {answer['failure']}")
    return answer


async def _exec(sandbox: Any, text: str, limit: float) -> tuple[int, str, str]:
    process = await sandbox.exec.aio("python", "-I", "-c", START, timeout=int(limit) + 1)
    process.stdin.write(text)
    process.stdin.write_eof()
    await process.stdin.drain.aio()
    said, complaint = await asyncio.gather(process.stdout.read.aio(), process.stderr.read.aio())
    return await process.wait.aio(), said, complaint


def _terminate(sandbox: Any, watch: BinaryIO) -> None:
    """Ends it where Modal can be reached; else its watch keeps trying."""
    with watch:
        try:
            _within(FAREWELL_SECONDS, "the end of a Sandbox", sandbox.terminate.aio())
        except SandboxError as error:
            logging.getLogger(__name__).warning("%s; it is tried again", error)
        else:
            with contextlib.suppress(BrokenPipeError):  # the watch was killed
                watch.write(b"done")
                watch.flush()


def _within(seconds: float, what: str, coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What the coroutine returns. Whatever it raises, of Modal's, gRPC's or the network's, is a SandboxError."""
    try:
        return asyncio.run(asyncio.wait_for(coroutine, seconds))
    except TimeoutError:
        raise SandboxError(f"Modal: waited {seconds:g} s for {what}") from None
    except Exception as error:
        raise SandboxError(f"Modal: {what}: {type(error).__name__}: {error}") from error
