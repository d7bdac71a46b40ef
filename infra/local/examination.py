"""Whether Ray can be started on this machine: its folder, its sockets, the files that it may open."""

import os
import resource
import socket
import tempfile

from rezero_ray.config.problems import Problem
from rezero_ray.config.schema import Config
from rezero_ray.host.sockets import (
    LONGEST_RAY_FOLDER,
    NoShortFolderError,
    fits_ray,
    place_for_link,
    ray_folder,
)

FEWEST_OPEN_FILES = 1024
"""Below it Ray's own processes run out of sockets while a run starts. Ray raises the soft limit to the hard one."""


def examine(config: Config, *, resume: bool) -> list[Problem]:
    found = [_folder(), _open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[1]), _loopback()]
    return [problem for problem in found if problem is not None]


def _folder() -> Problem | None:
    """A long TMPDIR gets a short link; RAY_TMPDIR is taken as it is."""
    remedy = "set it to a short path on a local disk"
    named = os.environ.get("RAY_TMPDIR")
    if named and not fits_ray(ray_folder(os.environ)):
        what = (
            f"Ray's folder {named}/ray exceeds the {LONGEST_RAY_FOLDER} bytes that leave room for its sockets"
        )
        return Problem("RAY_TMPDIR", what, f"{remedy}, e.g. RAY_TMPDIR=/tmp")
    try:
        place_for_link(tempfile.gettempdir())
    except NoShortFolderError as error:
        return Problem("TMPDIR", str(error), remedy)
    return None


def _open_files(hard: int) -> Problem | None:
    if hard == resource.RLIM_INFINITY or hard >= FEWEST_OPEN_FILES:
        return None
    what = f"this process may open {hard} files at most, a run needs {FEWEST_OPEN_FILES}"
    return Problem(
        "ulimit -n", what, "raise the hard limit: ulimit -Hn 65536, LimitNOFILE=, docker run --ulimit"
    )


def _loopback() -> Problem | None:
    """Engine, learner ranks and dashboard listen there."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=5).close()
    except OSError as error:
        what = f"cannot connect to itself at 127.0.0.1: {error}"
        return Problem("network", what, "bring the loopback interface up: ip link set lo up")
    return None
