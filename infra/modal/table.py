"""`[infra] kind = "modal"`."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from infra.modal.prices import GPU_KEYS, USD_PER_HOUR
from rezero_ray.config.infra_table import InfraTable, RentedMachine
from rezero_ray.config.problems import Problem, shown
from rezero_ray.config.table import PositiveFloat

if TYPE_CHECKING:
    from rezero_ray.config.schema import Config

GPU_GIB = {
    "T4": 15,
    "L4": 22,
    "A10": 22,
    "L40S": 44,
    "A100": 40,
    "A100-40GB": 40,
    "A100-80GB": 79,
    "RTX-PRO-6000": 95,
    "H100": 79,
    "H100!": 79,
    "H200": 140,
    "B200": 178,
}
"""GiB that CUDA sees of each GPU that Modal rents. `H100` may turn out to be an H200; `H100!` does not."""

SHM_GIB = 16.0
"""/dev/shm of a container, measured by others in a Modal Sandbox in February 2026."""

MAX_GPUS = 8  # of one container

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]


class ModalInfraConfig(InfraTable):
    """A container that Modal rents. It may be taken away at any moment; the run then goes on in another."""

    kind: Literal["modal"] = Field(default="modal", description="Where Ray comes from.")
    app: Name = Field(
        default="re-zero", description="Begins the name of the run's Modal App; its config_id follows."
    )
    gpu: str = Field(
        default="H100:4",
        description="GPUs of the container, `NAME:COUNT`; `H100!` is never exchanged for an H200; empty for none.",
    )
    cpu: Annotated[float, Field(gt=0, le=64)] = Field(default=32.0, description="Physical cores requested.")
    memory_gib: PositiveFloat = Field(default=256.0, description="GiB of memory requested.")
    timeout_hours: Annotated[float, Field(gt=0, le=24)] = Field(
        default=24.0, description="Time limit of an attempt; after it the run goes on in a new container."
    )
    retries: Annotated[int, Field(ge=0, le=10)] = Field(
        default=10, description="New containers after the time limit or a failure; each resumes."
    )
    region: list[str] = Field(
        default=[],
        description="Regions to choose from, e.g. `us-east`; naming any costs more. All when empty.",
    )
    image: str = Field(
        default="nvidia/cuda:13.0.2-devel-ubuntu24.04",
        description="Image of a registry that the project's pins are installed into.",
    )
    home: str = Field(
        default="/root",
        pattern=r"^/[^\s]*$",
        description="Folder in the container. The Volumes lie in it as checkpoints/, mlflow/, .cache/huggingface/ "
        "and .cache/vllm/; a relative output_dir is in checkpoints/.",
    )
    checkpoints_volume: Name = Field(
        default="re-zero-checkpoints", description="Volume of the run directories."
    )
    mlflow_volume: Name = Field(default="re-zero-mlflow", description="Volume of the MLflow stores.")
    hf_cache_volume: Name = Field(default="re-zero-hf-cache", description="Volume of downloaded models.")
    vllm_cache_volume: Name = Field(
        default="re-zero-vllm-cache", description="Volume of vLLM's compilations."
    )
    secret: Name = Field(
        default="huggingface", description="Modal Secret whose HF_TOKEN downloads the model."
    )
    dashboard: bool = Field(default=True, description="Open a tunnel to the Ray dashboard, behind a token.")

    def priced(self) -> bool:
        name, count = self.gpus()
        return super().priced() or not count or GPU_KEYS.get(name) in USD_PER_HOUR

    def launches(self) -> bool:
        return True

    def gpus(self) -> tuple[str, int]:
        """Name and count; ("", 0) for none."""
        name, _, count = self.gpu.partition(":")
        return name, int(count or 1) if name else 0

    def volumes(self) -> dict[str, str]:
        """Folder in the container -> name of the Volume."""
        return {
            f"{self.home}/checkpoints": self.checkpoints_volume,
            f"{self.home}/mlflow": self.mlflow_volume,
            f"{self.home}/.cache/huggingface": self.hf_cache_volume,
            f"{self.home}/.cache/vllm": self.vllm_cache_volume,
        }

    def output_dir(self, config: "Config") -> str:
        """Where the run directory lies in the container."""
        return str(PurePosixPath(self.home, "checkpoints", config.output_dir))

    def machine(self) -> RentedMachine | None:
        name, count = self.gpus()
        gib: tuple[float | None, ...] = (float(GPU_GIB[name]),) * count if count else ()
        return RentedMachine(gib, int(self.cpu), self.memory_gib, SHM_GIB, name or None)

    def problems(self, config: "Config") -> Iterator[Problem]:
        yield from self._gpu_problems(config)
        checkpoints = PurePosixPath(self.home, "checkpoints")
        output = PurePosixPath(self.output_dir(config))
        if ".." in output.parts or checkpoints not in output.parents:
            what = f"is not inside {checkpoints}, where the Volume of checkpoints lies: it would be lost"
            remedy = f'write a relative path, or "{checkpoints}/NAME"'
            yield Problem("output_dir", what, remedy, shown(config.output_dir), others=("infra.home",))
        name = PurePosixPath(config.model.name)
        hub_id = len(name.parts) == 2 and not config.model.name.startswith((".", "~", "/", "models/"))
        if not hub_id and PurePosixPath(self.home) not in name.parents:
            what = "is a path of this machine, which the container does not have"
            remedy = f"name a hub id, or a directory of a Volume below {self.home}"
            yield Problem("model.name", what, remedy, shown(config.model.name))
        for index, env in enumerate(config.orchestrator.env):
            if env.python is not None and "/" in env.python:
                what = "is an interpreter of this machine, which the container does not have"
                key = f"orchestrator.env.{index}.python"
                yield Problem(key, what, "name its packages in requirements instead", shown(env.python))

    def _gpu_problems(self, config: "Config") -> Iterator[Problem]:
        found = re.fullmatch(r"([A-Z0-9!-]+)(?::([1-9][0-9]?))?", self.gpu)
        if self.gpu and (found is None or found[1] not in GPU_GIB or int(found[2] or 1) > MAX_GPUS):
            what = f"expected NAME:COUNT with one of {', '.join(GPU_GIB)} and 1 to {MAX_GPUS}"
            yield Problem("infra.gpu", what, 'write "H100:4"', shown(self.gpu))
            return
        needed = max(*config.inference_gpu_ids, *config.trainer_gpu_ids) + 1
        count = self.gpus()[1]
        if config.device == "cpu" and count:
            what = f'device = "cpu" would leave {self.gpu} idle'
            yield Problem("infra.gpu", what, 'write ""', shown(self.gpu), others=("device",))
        if config.device != "cpu" and count < needed:
            what = f"inference_gpu_ids and trainer_gpu_ids name GPUs up to {needed - 1}"
            remedy = f'write "{self.gpus()[0] or "H100"}:{needed}", or name fewer'
            others = ("inference_gpu_ids", "trainer_gpu_ids", "device")
            yield Problem("infra.gpu", what, remedy, shown(self.gpu), others=others)
        if config.device != "cpu" and count > needed:
            what = f"{count} GPUs would be rented and {needed} used"
            remedy = f'write "{self.gpus()[0]}:{needed}", or name more'
            others = ("inference_gpu_ids", "trainer_gpu_ids", "device")
            yield Problem("infra.gpu", what, remedy, shown(self.gpu), others=others)
