"""What every backend hands over, and how each connects to Ray."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rezero_ray.errors import RunError
from rezero_ray.host.proxies import bypass_proxies
from rezero_ray.host.sockets import NoShortFolderError, ray_folder, short_temporary_folder


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster that this process is connected to."""

    cpus: float
    gpus: float
    dashboard: str | None
    logs: str
    token_command: str = "ray get-auth-token"
    """Prints the token that the dashboard asks for."""
    found: str = ""
    """What there is, in a line."""
    alive: Callable[[], bool] = lambda: True
    """Whether the processes of Ray that this one started live; true where it started none."""


@contextmanager
def connected(**where: Any) -> Iterator[Any]:
    """Ray's context, by `ray.init` with these arguments and what every run has; disconnected in the end.

    Raises:
        RunError: there is no short folder for sockets, or Ray did not start in time.
    """
    bypass_proxies()
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    # Of ranks that fail together one error is told; Ray would print the traceback of each of the others.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    with ExitStack() as stack:
        try:
            stack.enter_context(short_temporary_folder())
        except NoShortFolderError as error:
            raise RunError("cluster", str(error)) from None
        context = _initialised(**where)
        try:
            yield context
        finally:
            import ray

            ray.shutdown()


def _initialised(**where: Any) -> Any:
    """
    Raises:
        RunError: Ray gives its processes half a minute to start, which a busy machine may not do.
    """
    import ray

    try:
        return ray.init(log_to_driver=False, logging_level="warning", namespace="rezero", **where)
    except Exception as error:
        if "timed out during startup" not in str(error):
            raise
        load = f"{os.getloadavg()[0]:.0f} processes compete for {len(os.sched_getaffinity(0))} CPUs"
        logs = f"{ray_folder(os.environ)}/session_latest/logs"
        what = f"Ray did not start within the time that it gives itself ({load}); its logs are in {logs}"
        raise RunError("cluster", f"{what}. Start the run again when the machine is less busy.") from error


def described(context: Any, *, cpus: float, gpus: float, found: str = "") -> Cluster:
    """The cluster of a Ray context."""
    import ray

    session = Path(ray._private.worker._global_node.get_session_dir_path())
    return Cluster(
        cpus=cpus,
        gpus=gpus,
        dashboard=f"http://{context.dashboard_url}" if context.dashboard_url else None,
        logs=str(session.resolve() / "logs"),  # a short link to it ends with the run
        found=found,
        alive=own_processes_live,
    )


def own_processes_live() -> bool:
    """Whether the raylet and the GCS that this process started are there. Those of others are not seen from here."""
    import ray

    node = ray._private.worker._global_node
    if node is None:
        return False
    return all(
        each.process.poll() is None
        for kind in ("raylet", "gcs_server")
        for each in node.all_processes.get(kind, [])
    )
