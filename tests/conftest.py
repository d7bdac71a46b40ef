"""Settings of all tests, and what several of their folders share."""

import gc
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from rezero_ray.foreign.interpreter import CACHE_VARIABLE
from tests.memory_watch import watch

# How fast an example is made depends on what else the machine does; the claims do not.
settings.register_profile("rezero", suppress_health_check=[HealthCheck.too_slow], deadline=None)
settings.load_profile("rezero")

# A shell's background ignores Ctrl-C, and so does all that is started there; what the tests start is to hear it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    watch(config)


def pytest_collection_finish() -> None:
    """What is imported by now stays; the garbage collector need not look at it again and again."""
    gc.freeze()


@pytest.fixture(scope="session")
def interpreters_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty cache for `tests.foreign_interpreters`; nothing is taken from the one of this machine's user."""
    folder = tmp_path_factory.mktemp("interpreters")
    with pytest.MonkeyPatch.context() as changes:
        changes.setenv(CACHE_VARIABLE, str(folder))
        yield folder
