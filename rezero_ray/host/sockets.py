"""Folders that are short enough for the sockets in them. Linux allows 107 bytes for the path of one.

Ray, vLLM and Python's multiprocessing put sockets into the folder for temporary files, whose path is long in batch
systems. A short link to that folder makes the paths fit and leaves the files where the user wants them.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

LONGEST_PATH = 107

RAYS_PART = len("/session_2026-11-28_06-54-05_123456_4194304/sockets/plasma_store")
"""The longest of all: vLLM's sockets take 37 bytes, multiprocessing's 32."""

LONGEST_RAY_FOLDER = LONGEST_PATH - RAYS_PART
LONGEST_TEMPORARY = LONGEST_RAY_FOLDER - len("/ray")

SHORT = ("/tmp", "/var/tmp", "/dev/shm")
"""Where a link may lie."""


class NoShortFolderError(Exception):
    """The folder for temporary files is too long, and nowhere is room for a short link to it."""


def ray_folder(variables: Mapping[str, str]) -> str:
    """Ray's folder: its logs, what it spills, its sockets. Where Ray itself would have it."""
    return f"{variables.get('RAY_TMPDIR') or variables.get('TMPDIR') or '/tmp'}/ray"


def fits_ray(folder: str) -> bool:
    """Whether Ray's sockets fit into this folder of its own."""
    return len(os.fsencode(folder)) <= LONGEST_RAY_FOLDER


def _writable(folder: str) -> bool:
    return Path(folder).is_dir() and os.access(folder, os.W_OK | os.X_OK)


def place_for_link(temporary: str, writable: Callable[[str], bool] = _writable) -> str | None:
    """Where a link to this folder is to lie; None where its own path is short enough.

    Raises:
        NoShortFolderError: it is not, and none of SHORT can be written.
    """
    if len(os.fsencode(temporary)) <= LONGEST_TEMPORARY:
        return None
    for folder in SHORT:
        if writable(folder):
            return folder
    raise NoShortFolderError(
        f"{temporary} is longer than the {LONGEST_TEMPORARY} bytes that leave room for sockets, and none of "
        f"{', '.join(SHORT)} can be written for a link to it"
    )


@contextmanager
def short_temporary_folder() -> Iterator[None]:
    """TMPDIR of this process, and of those that it starts, is short enough for sockets within the context.

    Raises:
        NoShortFolderError: as `place_for_link`.
    """
    temporary = tempfile.gettempdir()
    place = place_for_link(temporary)
    if place is None:
        yield
        return
    before = os.environ.get("TMPDIR")
    folder = Path(tempfile.mkdtemp(prefix="rz-", dir=place))  # nobody else's: a name in /tmp can be taken
    link = folder / "t"
    try:
        link.symlink_to(temporary)
        os.environ["TMPDIR"] = tempfile.tempdir = str(link)
        yield
    finally:
        tempfile.tempdir = temporary
        if before is None:
            os.environ.pop("TMPDIR", None)
        else:
            os.environ["TMPDIR"] = before
        link.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
