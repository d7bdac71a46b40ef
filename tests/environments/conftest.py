"""The environments, loaded once. `verifiers` takes over two signal handlers; they are given back."""

import signal
from collections.abc import Iterator

import pytest
import verifiers as vf

from environments.code_vulnerability import environment as code_vulnerability
from environments.config_verification import environment as config_verification
from environments.network_logs import environment as network_logs
from environments.phishing_detection import environment as phishing_detection
from environments.redteam_attack import environment as redteam_attack


@pytest.fixture(scope="session")
def given_back_signals() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def phishing(given_back_signals: None) -> vf.Environment:
    return phishing_detection.load_environment(num_train=60, num_eval=20)


@pytest.fixture(scope="session")
def redteam(given_back_signals: None) -> vf.Environment:
    return redteam_attack.load_environment(num_train=60, num_eval=20)


@pytest.fixture(scope="session")
def config(given_back_signals: None) -> vf.Environment:
    return config_verification.load_environment(num_train=30, num_eval=20)


@pytest.fixture(scope="session")
def network(given_back_signals: None) -> vf.Environment:
    return network_logs.load_environment(num_train=60, num_eval=20)


@pytest.fixture(scope="session")
def code(given_back_signals: None) -> vf.Environment:
    return code_vulnerability.load_environment(num_train=12, num_eval=20)
