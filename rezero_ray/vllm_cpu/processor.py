"""What depends on the processor when vLLM and torch run on it: pure functions of its flags.

The flags are those of `/proc/cpuinfo`: `flags` of x86, `Features` of ARM. vLLM 0.30 asks torch for the same facts
(`torch.cpu._is_amx_tile_supported` and others), which read the processor itself.
"""

from pathlib import Path
from typing import Any, Literal

Flags = frozenset[str]

MLA_BLOCK_TOKENS, BLOCK_TOKENS = 16, 32
"""The smallest cache blocks that the kernels take."""


def flags_of(cpuinfo: str) -> Flags:
    """Flags of the first processor in the text of `/proc/cpuinfo`; none where it names none."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def processor_flags() -> Flags:
    """Flags of this machine's processor; none where the kernel does not list them."""
    try:
        return flags_of(Path("/proc/cpuinfo").read_text("utf-8", errors="replace"))
    except OSError:
        return frozenset()


def multiplies_bfloat16(flags: Flags) -> bool:
    """Whether the processor has instructions for bfloat16 products; others are faster in float32."""
    return not flags.isdisjoint({"avx512_bf16", "amx_bf16", "bf16"})


def native_dtype(flags: Flags) -> Literal["bfloat16", "float32"]:
    """The dtype that this processor trains fastest in."""
    return "bfloat16" if multiplies_bfloat16(flags) else "float32"


def missing_instructions(flags: Flags, architecture: str) -> str | None:
    """What vLLM's x86 build needs and the processor lacks; None where nothing is missing or nothing is known."""
    if architecture not in ("x86_64", "AMD64") or not flags:
        return None
    lacking = sorted({"avx2", "fma"} - flags)
    return " and ".join(lacking) or None


def prefers_amx_mla(flags: Flags) -> bool:
    """Whether vLLM 0.30 takes its AMX_MLA backend for an MLA model unless another one is named.

    It is bfloat16 only, and takes latent sizes of 576 and blocks of multiples of 32.
    """
    return "amx_tile" in flags


def attention_arguments(*, mla: bool) -> dict[str, Any]:
    """The engine arguments that decide which attention kernels run, the same on every processor.

    An MLA model names the backend: vLLM otherwise takes AMX_MLA where `prefers_amx_mla`, which rejects float32, and
    the learner would be compared with other kernels than those that the tests hold it against.
    """
    if not mla:
        return {"block_size": BLOCK_TOKENS}
    return {"block_size": MLA_BLOCK_TOKENS, "attention_backend": "CPU_MLA"}
