"""How the ranks of a learner find each other: a store that is open before its address is told to anyone.

A port that is looked for, closed, and opened by torch some seconds later may be another's by then.
"""

import os
from typing import Any

from rezero_ray.host.interfaces import addresses_by_interface, interface_of


def open_store(host: str) -> Any:
    """A `TCPStore` on a free port of this machine, for as long as it is kept. Its address: `host`, `.port`."""
    import torch

    return torch.distributed.TCPStore(  # type: ignore[attr-defined]  # torch does not export it by name
        host, 0, is_master=True, wait_for_workers=False
    )


def join(host: str, port: int, *, rank: int, world_size: int, own: str | None = None) -> None:
    """Set what torch and DeepSpeed read: this process is `rank`, at the address `own` (that of the store when None),
    and the store is there already.

    gloo looks for its interface by the host's name, which some hosts cannot resolve; it gets the interface of the
    address by which Ray knows the node, unless the user has named one.
    """
    interface = interface_of(own or host, addresses_by_interface())
    if interface is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE=str(world_size),
        LOCAL_RANK="0",
        MASTER_ADDR=host,
        MASTER_PORT=str(port),
        TORCHELASTIC_USE_AGENT_STORE="True",  # rank 0 joins like the others, and opens none of its own
    )
