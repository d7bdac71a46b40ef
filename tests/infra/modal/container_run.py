"""A run small enough for a container that is a process of this machine."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from infra.modal.launcher import ModalRun, launch
from rezero_ray.config.loading import load_config
from tests.infra.modal.fake_control_plane import ROOT, Call

CORES = 2
RECIPE = [ROOT / "configs/phishing.toml", ROOT / "configs/overlays/cpu.toml"]


def launch_small(folder: Path, model: Path, **changes: str) -> ModalRun:
    """One engine, one learner rank, two rollouts of eight tokens a step.

    `folder` is the container's home; `changes` by dotted key, `__` for the dot.
    """
    keys = {
        "infra.kind": "modal",
        "infra.gpu": '""',
        "infra.cpu": str(CORES),
        "infra.home": str(folder),
        "infra.retries": "1",
        "model.name": str(model),
        "output_dir": "run",
        "trainer_gpu_ids": "[1]",
        "max_steps": "2",
        "ckpt.interval": "1",
        "trust.canary": "false",
        "orchestrator.batch_size": "1",
        "orchestrator.rollouts_per_example": "2",
        "orchestrator.sampling.max_tokens": "8",
        "inference.cpu_kv_cache_gib": "0.1",
    }
    keys |= {key.replace("__", "."): value for key, value in changes.items()}
    flags = [word for key, value in keys.items() for word in (f"--{key}", value)]
    return launch(load_config(RECIPE, flags), resume=False, force_new=False)


def wait_until(
    container: subprocess.Popen[bytes], call: Call, holds: Callable[[], bool], seconds: float = 300
) -> None:
    """Raises AssertionError with the logs where the container ends first, or `seconds` pass."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert container.poll() is None, "".join(call.logs)
        assert time.monotonic() < deadline, "".join(call.logs)
        time.sleep(0.05)
