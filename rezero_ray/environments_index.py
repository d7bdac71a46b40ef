"""What an environment id means, and how it is built: the same for the preflight and for the workers.

An id is a name, whose module has a `load_environment`, or `module:name` for a class or function to be called in its
place. Nothing is imported before `load_environment` is called: `verifiers` alone takes seconds.
"""

import importlib
import importlib.util
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BUILT_IN: Mapping[str, str] = {
    "redteam-attack": "environments.redteam_attack.environment",
    "code-vulnerability": "environments.code_vulnerability.environment",
    "phishing-detection": "environments.phishing_detection.environment",
    "config-verification": "environments.config_verification.environment",
    "network-logs": "environments.network_logs.environment",
}

_guard_lock = threading.Lock()


def module_of(env_id: str) -> str:
    """The module of an id: ours for a built-in one, the one that it names, else by verifiers' rule
    (`owner/my-env` -> `my_env`)."""
    module, colon, _ = env_id.partition(":")
    return BUILT_IN.get(env_id) or (module if colon else env_id.replace("-", "_").split("/")[-1])


def loader_of(env_id: str) -> str:
    """What is called with the args, by its name in the module."""
    return env_id.partition(":")[2] or "load_environment"


def source_of(env_id: str) -> str | None:
    """Path of the module's source (empty where there is none to read), None if it cannot be imported.

    Neither the module nor the packages around it are executed.
    """
    package, *inner = module_of(env_id).split(".")
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if inner:  # looking for a module inside a package would import the package
        path = Path(next(iter(spec.submodule_search_locations or ()), ""), *inner)
        there = [file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()]
        return str(there[0]) if there else None
    return spec.origin if spec.origin and spec.origin.endswith(".py") else ""


def install_hint(env_id: str) -> str:
    """What to do about an id that cannot be imported: where its module is looked for, the hub's command for an id of
    the hub, or the built-in that was meant. Never the name of a package: on a public index it may be a stranger's."""
    module = module_of(env_id).partition(".")[0]
    twin = env_id.rpartition("/")[2].removeprefix("sv-env-")
    built_in = f'; or write id = "{twin}", the built-in one' if twin in BUILT_IN and ":" not in env_id else ""
    if "/" in env_id:
        return f"install it: prime env install {env_id}{built_in}"
    return (
        f"put {module}.py, or the package {module}, into the working directory, or install your own package of it "
        f"(uv pip install PATH){built_in}"
    )


def load_environment(env_id: str, args: Mapping[str, Any]) -> Any:
    """Builds the `verifiers` environment of an id. Whatever its module raises goes through.

    Works on any thread, and leaves the process's signal handlers as they were.
    """
    with _signal_handlers_kept():
        module = importlib.import_module(module_of(env_id))
        environment = getattr(module, loader_of(env_id))(**args)
    environment.env_id = environment.env_id or env_id
    environment.env_args = environment.env_args or dict(args)
    return environment


@contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """`verifiers.Environment.__post_init__` (0.2.0) sets SIGINT and SIGTERM handlers. That raises off the
    main thread, where an async Ray actor builds its environment; on it, the run's own handlers would be lost.
    So `signal.signal` does nothing while an environment is built.
    """
    with _guard_lock:
        original = signal.signal
        signal.signal = lambda signum, handler: signal.getsignal(signum)  # type: ignore[assignment]
        try:
            yield
        finally:
            signal.signal = original
