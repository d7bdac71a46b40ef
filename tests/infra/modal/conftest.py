"""The real `modal` client, pointed at the fake control plane."""

from collections.abc import Iterator

import pytest

from tests.infra.modal.fake_control_plane import FakeControlPlane


@pytest.fixture(scope="session")
def session_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeControlPlane]:
    plane = FakeControlPlane()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODAL_SERVER_URL", plane.url)
        patch.setenv("MODAL_TOKEN_ID", "ak-test")
        patch.setenv("MODAL_TOKEN_SECRET", "as-test")
        patch.setenv("MODAL_CONFIG_PATH", str(tmp_path_factory.mktemp("modal") / "none.toml"))
        yield plane


@pytest.fixture
def plane(session_plane: FakeControlPlane) -> FakeControlPlane:
    """A control plane that nobody has asked for anything."""
    session_plane.forget()
    return session_plane
