"""Modal's prices on a day, for when Modal cannot be asked: USD an hour, under the names of `modal billing rates`.

The names and figures are what others were answered on 20 and 29 September 2026; the GPUs' agree, second by second,
with what modal.com/pricing said from May to October 2026. A GPU without a figure here has no price.
"""

from collections.abc import Mapping, Sequence

DATE = "2026-09"

CPU, MEMORY = (
    "cpu_hour_cost",
    "mem_gib_hour_cost",
)  # a physical core, a GiB; Sandboxes pay three times as much

USD_PER_HOUR: Mapping[str, float] = {
    CPU: 0.0473,
    MEMORY: 0.008,
    "gpu_hour_cost_t4": 0.59,
    "gpu_hour_cost_l4": 0.80,
    "gpu_hour_cost_a10g": 1.10,
    "gpu_hour_cost_l40s": 1.95,
    "gpu_hour_cost_a100_40gb": 2.10,
    "gpu_hour_cost_a100_80gb": 2.50,
    "gpu_hour_cost_rtx6000": 3.03,
    "gpu_hour_cost_h100": 3.95,
    "gpu_hour_cost_h200": 4.54,
    "gpu_hour_cost_b200": 6.25,
}

GPU_KEYS: Mapping[str, str] = {
    "T4": "gpu_hour_cost_t4",
    "L4": "gpu_hour_cost_l4",
    "A10": "gpu_hour_cost_a10g",
    "L40S": "gpu_hour_cost_l40s",
    "A100": "gpu_hour_cost_a100_40gb",
    "A100-40GB": "gpu_hour_cost_a100_40gb",
    "A100-80GB": "gpu_hour_cost_a100_80gb",
    "RTX-PRO-6000": "gpu_hour_cost_rtx6000",
    "H100": "gpu_hour_cost_h100",
    "H100!": "gpu_hour_cost_h100",
    "H200": "gpu_hour_cost_h200",
    "B200": "gpu_hour_cost_b200",
}
"""Modal's name of the price of each GPU of `infra.gpu`."""

BROAD_REGIONS = frozenset({"us", "eu", "ap", "uk", "ca", "me", "sa", "af", "mx"})


def region_factor(regions: Sequence[str]) -> float:
    """What naming regions multiplies the price by: 1.5 for a broad one, 1.75 for narrow ones only.

    modal.com/docs/guide/region-selection: of several, the smaller factor counts.
    """
    if not regions:
        return 1.0
    return 1.5 if BROAD_REGIONS & set(regions) else 1.75
