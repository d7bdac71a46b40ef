"""The command that shuts a program in with bubblewrap."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from environments.sandbox.paths import DEVICES, SINK
from environments.sandbox.records import SandboxError


def bubblewrap_command(
    readable: Sequence[str], writable: Sequence[str], box: str, stand_in: int | None
) -> list[str]:
    """What to put before the program: `readable` and `writable` paths are all there is, the network is empty.

    `stand_in` is the user id that root's program gets. Raises SandboxError where a tool is not installed.
    """
    options = [_tool("bwrap"), "--die-with-parent", "--new-session", "--unshare-ipc", "--unshare-pid"]
    options += ["--unshare-net", "--unshare-uts"]
    above = {str(parent) for path in (*readable, *writable) for parent in Path(path).parents}
    for parent in sorted(above - {"/", *readable}):
        options += ["--perms", "0755", "--dir", parent]
    for path in readable:
        kind = "--dev-bind-try" if path in DEVICES else "--ro-bind-try"
        options += [kind, path, path]
    for path in writable:
        options += ["--dev-bind" if path == SINK else "--bind", path, path]
    options += ["--remount-ro", "/", "--chdir", box]
    if stand_in is None:
        return [*options, "--unshare-user", "--"]
    user = [f"--reuid={stand_in}", f"--regid={stand_in}", "--clear-groups", "--bounding-set=-all"]
    return [*options, "--", _tool("setpriv"), *user, "--no-new-privs", "--"]


def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise SandboxError(f"{name} is not installed")
    return path
