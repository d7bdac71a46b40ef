"""Claims about what depends on the processor: choices by its flags, and vLLM's own by what torch says of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rezero_ray.vllm_cpu import processor
from rezero_ray.vllm_cpu.processor import Flags

AVX2: Flags = frozenset({"sse4_2", "fma", "avx", "avx2"})
AVX512 = AVX2 | {"avx512f", "avx512bw", "avx512vl", "avx512_vnni"}
ZEN4 = AVX512 | {"avx512_bf16"}
SAPPHIRE_RAPIDS = ZEN4 | {"amx_bf16", "amx_tile", "amx_int8"}
ARM: Flags = frozenset({"fp", "asimd", "sve", "bf16"})
X86 = [AVX2, AVX512, ZEN4, SAPPHIRE_RAPIDS]

WHAT_VLLM_CHOOSES = """
import json, sys
import torch
from types import SimpleNamespace
from vllm.config import AttentionConfig
from vllm.platforms.cpu import CpuPlatform
from vllm.utils.import_utils import resolve_obj_by_qualname
kind = SimpleNamespace(use_mla=True, use_sparse=False)
found = []
for amx, arguments in json.loads(sys.argv[1]):
    torch.cpu._is_amx_tile_supported = lambda: amx
    backend = AttentionConfig(backend=arguments.get("attention_backend")).backend
    chosen = resolve_obj_by_qualname(CpuPlatform.get_attn_backend_cls(backend, kind))
    fp32, blocks = torch.float32 in chosen.supported_dtypes, chosen.supports_block_size(arguments["block_size"])
    found.append([chosen.get_name(), fp32, blocks])
print(json.dumps(found))
"""


def test_flags_are_those_of_the_first_processor() -> None:
    text = "processor\t: 0\nflags\t\t: fpu avx2 fma\n\nprocessor\t: 1\nflags\t\t: fpu\n"
    assert processor.flags_of(text) == {"fpu", "avx2", "fma"}
    assert processor.flags_of("processor : 0\nFeatures : fp asimd bf16\n") == {"fp", "asimd", "bf16"}
    assert processor.flags_of("model name : of no help\n") == frozenset()


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [
        (AVX2, "float32"),
        (AVX512, "float32"),
        (ZEN4, "bfloat16"),
        (SAPPHIRE_RAPIDS, "bfloat16"),
        (ARM, "bfloat16"),
        (frozenset(), "float32"),
    ],
)
def test_the_native_dtype_is_the_one_that_the_processor_multiplies(flags: Flags, dtype: str) -> None:
    assert processor.native_dtype(flags) == dtype


@pytest.mark.parametrize("flags", X86)
def test_every_processor_with_avx2_runs_the_engine(flags: Flags) -> None:
    assert processor.missing_instructions(flags, "x86_64") is None


def test_a_processor_without_avx2_does_not_run_it() -> None:
    assert processor.missing_instructions(frozenset({"sse4_2", "fma"}), "x86_64") == "avx2"
    assert processor.missing_instructions(frozenset({"sse4_2"}), "x86_64") == "avx2 and fma"
    assert processor.missing_instructions(ARM, "aarch64") is None
    assert processor.missing_instructions(frozenset(), "x86_64") is None, "nothing is known"


@pytest.mark.slow  # vLLM takes seconds to import
def test_an_mla_model_has_the_same_attention_on_every_processor() -> None:
    """With blocks alone vLLM takes the backend without float32 where there is AMX; when that fails, it is mended."""
    ours = processor.attention_arguments(mla=True)
    cases = [(SAPPHIRE_RAPIDS, {"block_size": 16}), (SAPPHIRE_RAPIDS, ours), (ZEN4, ours), (AVX2, ours)]
    told = json.dumps([(processor.prefers_amx_mla(flags), arguments) for flags, arguments in cases])
    done = subprocess.run(
        [sys.executable, "-c", WHAT_VLLM_CHOOSES, told],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"VLLM_LOGGING_LEVEL": "ERROR"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    names_fp32_blocks = json.loads(done.stdout.splitlines()[-1])
    assert names_fp32_blocks == [["AMX_MLA", False, False], *[["CPU_MLA", True, True]] * 3]
