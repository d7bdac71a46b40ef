"""The `modal` package, which is optional, and what it says when it cannot do its work, in our terms."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from rezero_ray.config import ConfigError, Problem


def modal_client() -> ModuleType:
    """The package. Raises ConfigError with the command that installs it."""
    try:
        import modal
    except ModuleNotFoundError as error:
        if error.name != "modal":
            raise
        remedy = (
            "install it: python -m pip install 'modal==1.6.4' (it is in requirements/cpu.txt and gpu.txt)"
        )
        raise ConfigError([Problem("infra.kind", "needs the package modal", remedy, '"modal"')]) from None
    return modal


@contextmanager
def modal_answers() -> Iterator[None]:
    """Turns Modal's refusals (no token, no such Secret, not reachable) into a ConfigError."""
    modal = modal_client()
    failures = {
        modal.exception.AuthError: "log in: modal token new (or set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET)",
        modal.exception.ConnectionError: "is the network there? See https://status.modal.com",
        modal.exception.PermissionDeniedError: "ask the owner of the workspace",
        modal.exception.NotFoundError: "make what it names (docs/modal.md), or correct the name in [infra]",
        modal.exception.ResourceExhaustedError: "the workspace's limit is reached: see `modal app list`",
        modal.exception.InvalidError: "correct what it names in [infra]",
        modal.exception.ImageBuildError: "read the build's log above; nothing was rented",
    }
    try:
        yield
    except tuple(failures) as error:
        remedy = next(text for kind, text in failures.items() if isinstance(error, kind))
        raise ConfigError([Problem("infra.kind", f"Modal says: {error}", remedy, '"modal"')]) from error
