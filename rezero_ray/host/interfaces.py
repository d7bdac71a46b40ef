"""The network interface that an address belongs to, for libraries that want a name."""

from collections.abc import Mapping, Sequence


def interface_of(address: str, addresses: Mapping[str, Sequence[str]]) -> str | None:
    """Name of the interface with this IP address; None where none has it.

    Args:
        addresses: IP addresses by interface; an IPv6 address may carry its zone (`fe80::1%eth0`).
    """
    for name, held in addresses.items():
        if address in (each.partition("%")[0] for each in held):
            return name
    return None


def addresses_by_interface() -> dict[str, list[str]]:
    """Of this machine."""
    import psutil

    return {name: [each.address for each in held] for name, held in psutil.net_if_addrs().items()}
