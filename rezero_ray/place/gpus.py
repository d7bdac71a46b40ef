"""The GPUs of this machine, and which of them read each other's memory. Asked of the driver, without torch.

The driver is asked in child processes with a time limit, because a sick one does not answer; and this process gets no
CUDA context, which would hold memory of every GPU.
"""

import ctypes
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from rezero_ray.host.visible_gpus import VARIABLE, visible_gpus
from rezero_ray.place.records import Gpu

SECONDS = 20.0
"""A healthy driver answers in one or two, with eight GPUs and no persistence daemon."""

DEV = Path("/dev")

_QUERY = "uuid,name,memory.total,memory.used,driver_version"


class DriverError(Exception):
    """The driver could not be asked; the message says why."""


def devices() -> bool:
    """Whether the kernel shows GPUs (of NVIDIA's; in WSL one device for all), and CUDA_VISIBLE_DEVICES leaves any."""
    count = len(list(DEV.glob("nvidia[0-9]*"))) or (64 if (DEV / "dxg").exists() else 0)
    return bool(visible_gpus(os.environ.get(VARIABLE), [None] * count).names)


def gpus() -> list[Gpu]:
    """Those that CUDA_VISIBLE_DEVICES leaves, in its order.

    Raises:
        DriverError: nvidia-smi is missing, fails or does not answer.
    """
    command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    if shutil.which(command[0]) is None:
        raise DriverError("nvidia-smi is not on the PATH")
    uuids, every = [], []
    for line in _answer(command).splitlines():
        try:
            uuid, name, total, used, driver = (part.strip() for part in line.split(","))
            every.append(Gpu(name, int(total) / 1024, int(used) / 1024, driver))
        except ValueError:
            raise DriverError(f"nvidia-smi says {line.strip()!r}") from None
        uuids.append(uuid)
    visible = visible_gpus(os.environ.get(VARIABLE), uuids)
    return [every[ordinal] for ordinal in visible.ordinals if ordinal is not None]


def peers() -> list[list[bool]]:
    """`peers()[i][j]`: GPU i can read GPU j's memory.

    Raises:
        DriverError: as for `gpus`.
    """
    told: list[list[bool]] = json.loads(_answer([sys.executable, "-m", __name__]))
    return told


def ask_driver(cuda: Any) -> list[list[bool]]:
    """The matrix, from a loaded libcuda: what `torch.cuda.can_device_access_peer` asks.

    Raises:
        DriverError: with the number that CUDA's driver API answered.
    """

    def ask(name: str, *arguments: Any) -> int:
        answer = ctypes.c_int()
        status = getattr(cuda, name)(ctypes.byref(answer), *arguments)
        if status:
            raise DriverError(f"{name} answers {status}")
        return answer.value

    if status := cuda.cuInit(0):
        raise DriverError(f"cuInit answers {status}")
    devices = [ask("cuDeviceGet", index) for index in range(ask("cuDeviceGetCount"))]
    return [
        [one == other or bool(ask("cuDeviceCanAccessPeer", one, other)) for other in devices]
        for one in devices
    ]


def _answer(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise DriverError(f"no answer within {SECONDS:.0f} s") from None
    except OSError as error:
        raise DriverError(str(error)) from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
        raise DriverError(said[-1])
    return done.stdout


if __name__ == "__main__":
    try:
        print(json.dumps(ask_driver(ctypes.CDLL("libcuda.so.1"))))
    except (OSError, DriverError) as error:
        sys.exit(str(error))
