"""vLLM's CPU platform, with our LoRA operation and, where threads are not bound, without a process too many."""

import os
from typing import TYPE_CHECKING

from vllm.platforms.cpu import CpuPlatform

if TYPE_CHECKING:
    from vllm.config import VllmConfig


class GroupedLoraCpuPlatform(CpuPlatform):
    """`CpuPlatform` in all but two things."""

    @classmethod
    def get_punica_wrapper(cls) -> str:
        return "rezero_ray.vllm_cpu.punica.GroupedPunicaWrapper"

    @classmethod
    def check_and_update_config(cls, vllm_config: "VllmConfig") -> None:
        """Run a single worker inside the engine's core process when `VLLM_CPU_OMP_THREADS_BIND=nobind`.

        vLLM puts it into a process of its own in order to bind OpenMP's threads before they start. Where they
        are not bound that process is for nothing, and dear: the core polls its shared memory without a pause
        and takes a third of a core from the worker's threads, and starting it costs one more import of vLLM.
        """
        super().check_and_update_config(vllm_config)
        parallel = vllm_config.parallel_config
        if parallel.world_size == 1 and os.environ.get("VLLM_CPU_OMP_THREADS_BIND") == "nobind":
            parallel.distributed_executor_backend = "uni"
