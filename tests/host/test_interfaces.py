"""Claims about the interface of an address."""

import socket
from unittest.mock import patch

import pytest

from actors.rendezvous import join
from rezero_ray.host.interfaces import addresses_by_interface, interface_of

HELD = {"lo": ["127.0.0.1", "::1"], "ib0": ["10.1.0.7"], "eth0": ["fd00::7", "fe80::1%eth0"]}


@pytest.mark.parametrize(
    ("address", "name"),
    [("127.0.0.1", "lo"), ("10.1.0.7", "ib0"), ("fd00::7", "eth0"), ("fe80::1", "eth0"), ("10.1.0.8", None)],
)
def test_an_address_is_looked_up_among_all(address: str, name: str | None) -> None:
    assert interface_of(address, HELD) == name


def test_gloo_is_told_the_interface_and_needs_no_name_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    with patch.dict("os.environ"), patch.object(socket, "gethostbyname", side_effect=socket.gaierror):
        monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
        join("127.0.0.1", 1, rank=0, world_size=1)
        import os

        assert os.environ["GLOO_SOCKET_IFNAME"] == interface_of("127.0.0.1", addresses_by_interface())
        os.environ["GLOO_SOCKET_IFNAME"] = "ib0"
        join("127.0.0.1", 1, rank=0, world_size=1)
        assert os.environ["GLOO_SOCKET_IFNAME"] == "ib0", "the user's own stays"
