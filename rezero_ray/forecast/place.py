"""How fast a device is at what a step is made of: effective speeds, not what its data sheet promises. Pure.

Of a known GPU they are peaks of data sheets times the efficiencies below; none of them was measured here. Of a CPU,
and of a GPU that is not in the table, they are measured (`rezero_ray.forecast.measurement`).
"""

import math
from bisect import bisect
from dataclasses import dataclass

AS_OF = "2026-11"
"""When the table below was last compared with the makers' data sheets."""

ENGINE = 0.45
"""Of peak, in prefill: 64 prompts of GLM-4.7-Flash in 1.2 s on an H100 (docs/forecast.md)."""

TRAINING = 0.35
"""Of peak, forward and backward with ZeRO-3: the middle of 0.15 to 0.45 (docs/forecast.md)."""

MEMORY = 0.7
"""Of peak, reading weights and cache while decoding (docs/forecast.md)."""

LINK = 0.67
"""Of one direction's peak: 300 of 450 GB/s over NVLink 4 (docs/forecast.md)."""

LOGIT_BYTES = 40
"""Read and written for a sampled logit: ten passes in float32 (temperature, softmax, draw, logprobs, rank)."""

GPU_OPERATION_SECONDS = 6e-6
"""To launch one kernel that no graph holds."""


@dataclass(frozen=True)
class Place:
    """One device, or all cores of a machine.

    Attributes:
        name: as the maker has it.
        origin: where the figures are from.
        products: FLOP/s of products with so many rows, as pairs (rows, FLOP/s), rows rising; in the config's dtype.
        engine, training: what of that an engine's passes reach, and a learner's.
        memory: bytes/s read.
        logits: logits/s turned into a sampled token and its logprob.
        operation: seconds to launch a small operation.
        gather: bytes/s that a learner rank receives from the others; None where ranks share the memory.
        cores: None for a GPU; the cores that all processes of a CPU run share.
    """

    name: str
    origin: str
    products: tuple[tuple[float, float], ...]
    engine: float
    training: float
    memory: float
    logits: float
    operation: float
    gather: float | None
    cores: int | None = None

    def flops(self, rows: float) -> float:
        """FLOP/s of products with so many rows; between two figures along a straight line over log rows."""
        known = [at for at, _ in self.products]
        place = bisect(known, rows)
        if place == 0:
            return self.products[0][1]
        if place == len(known):
            return self.products[-1][1]
        (below, slow), (above, fast) = self.products[place - 1 : place + 1]
        return slow + (fast - slow) * math.log(rows / below) / math.log(above / below)


@dataclass(frozen=True)
class DataSheet:
    """Peaks: dense TFLOP/s in bfloat16 and float32, memory TB/s, GB/s of the link in one direction."""

    bfloat16: float
    float32: float
    memory: float
    link: float


NVLINK_3, NVLINK_4, NVLINK_5, PCIE_4, PCIE_5 = 300, 450, 900, 31.5, 63

DATA_SHEETS = {
    "B200": DataSheet(2250, 75, 8.0, NVLINK_5),
    "H200": DataSheet(989, 67, 4.8, NVLINK_4),
    "H100": DataSheet(989, 67, 3.35, NVLINK_4),
    "H100 NVL": DataSheet(835, 60, 3.9, PCIE_5),
    "H100 PCIe": DataSheet(756, 51, 2.0, PCIE_5),
    "A100 80GB": DataSheet(312, 19.5, 2.04, NVLINK_3),
    "A100": DataSheet(312, 19.5, 1.56, NVLINK_3),
    "L40S": DataSheet(362, 91.6, 0.864, PCIE_4),
    "L4": DataSheet(121, 30.3, 0.3, PCIE_4),
    "A10": DataSheet(125, 31.2, 0.6, PCIE_4),
}
"""NVIDIA's, without sparsity; SXM where there is one."""


def data_sheet_of(gpu: str) -> str | None:
    """The entry of the table for a GPU, by the name that nvidia-smi or a cloud gives it."""
    words = gpu.upper().replace("-", " ").replace("!", " ").split()
    for name in sorted(DATA_SHEETS, key=lambda name: -len(name)):
        if all(word in words for word in name.upper().split()):
            return name
    return None


def known_place(gpu: str, dtype: str) -> Place | None:
    """By the data sheet of a GPU; None for one that is not in the table."""
    name = data_sheet_of(gpu)
    if name is None:
        return None
    sheet = DATA_SHEETS[name]
    peak = 1e12 * (sheet.bfloat16 if dtype == "bfloat16" else sheet.float32)
    memory = 1e12 * sheet.memory * MEMORY
    return Place(
        name=name,
        origin=f"data sheet of {AS_OF} times stated efficiencies, not measured",
        products=((1.0, peak),),
        engine=ENGINE,
        training=TRAINING,
        memory=memory,
        logits=memory / LOGIT_BYTES,
        operation=GPU_OPERATION_SECONDS,
        gather=1e9 * sheet.link * LINK,
    )
