"""Does this machine's processor run what the config asks of it? And does vLLM load our platform for it?"""

import os
import platform

from rezero_ray.config import Config, Problem
from rezero_ray.config.problems import shown
from rezero_ray.preflight.findings import Findings
from rezero_ray.vllm_cpu import plugin
from rezero_ray.vllm_cpu.processor import Flags, missing_instructions, multiplies_bfloat16, processor_flags


def examine_processor(config: Config, device: str) -> Findings:
    """Nothing on a GPU."""
    if device != "cpu":
        return Findings()
    return on_cpu(config, processor_flags(), platform.machine()) + _plugin(config)


def _plugin(config: Config) -> Findings:
    if not plugin.wanted(os.environ):
        return Findings(notes=[without_plugin(os.environ["VLLM_PLUGINS"])])
    if plugin.is_whole():
        return Findings()
    what = f"these sources lack {plugin.DISCOVERY}, by which vLLM finds our LoRA operation for the CPU"
    return Findings([Problem("device", what, "copy the whole folder rezero_ray", shown(config.device))])


def on_cpu(config: Config, flags: Flags, architecture: str) -> Findings:
    """What a processor with these flags lacks."""
    findings = Findings()
    lacking = missing_instructions(flags, architecture)
    if lacking is not None:
        what = f"this processor has no {lacking}, which vLLM's and torch's CPU builds need"
        findings.problems.append(
            Problem("device", what, "run on another machine, or on a GPU", shown(config.device))
        )
    if config.model.dtype == "bfloat16" and flags and not multiplies_bfloat16(flags):
        findings.notes.append(
            "model.dtype: this processor has no bfloat16 instructions (avx512_bf16, amx_bf16): "
            '"float32" is several times faster here'
        )
    return findings


def without_plugin(plugins: str) -> str:
    """The note where VLLM_PLUGINS leaves our platform out."""
    return (
        f"VLLM_PLUGINS={plugins!r} leaves out {plugin.NAME}: engines use vLLM's own LoRA operation, which writes a "
        "fraction of the tokens per second"
    )
