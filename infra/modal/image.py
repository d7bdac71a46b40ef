"""The container's image: a CUDA base, the project's own pins, and this working tree."""

from pathlib import Path
from typing import Any

from infra.modal.client import modal_client
from infra.modal.table import ModalInfraConfig

ROOT = Path(__file__).parents[2]
CODE = "rezero-code"  # folder below `home`
PYTHON = "3.11"
UV = "0.13.8"
ROOMS = ("rezero_ray", "actors", "infra", "environments")


def image_of(table: ModalInfraConfig) -> Any:
    """What changes least comes first, so that a change of the code builds nothing.

    The pins are complete lists, so nothing is resolved. `devel`, because vLLM and DeepSpeed compile kernels
    with nvcc. checkov and Rego get an interpreter of their own, where config-verification looks for it.
    """
    pins = "gpu" if table.gpu else "cpu"
    oracles = "$(python -c 'import sys; print(sys.prefix)')/config-oracles"
    image = (
        modal_client()
        .Image.from_registry(table.image, add_python=PYTHON)
        .entrypoint([])
        .apt_install("build-essential", "git", "bubblewrap", "libnuma1")
        .uv_pip_install(f"uv=={UV}", uv_version=UV)
        .uv_pip_install(
            requirements=[str(ROOT / "requirements" / f"{pins}.txt")],
            extra_options="--no-deps" if pins == "gpu" else "--no-deps --torch-backend cpu",
            uv_version=UV,
            env={"DS_BUILD_OPS": "0"},
        )
        .add_local_file(ROOT / "requirements" / "config-oracles.txt", "/config-oracles.txt", copy=True)
        .run_commands(
            f"uv venv --python $(command -v python) {oracles}",
            f"uv pip install --no-deps --python {oracles} -r /config-oracles.txt",
        )
        .env(environment_of(table))
    )
    for room in ROOMS:
        image = image.add_local_dir(ROOT / room, f"{table.home}/{CODE}/{room}", ignore=["**/__pycache__"])
    return image


def environment_of(table: ModalInfraConfig) -> dict[str, str]:
    """Environment variables of every process in the container."""
    return {
        "PYTHONPATH": f"{table.home}/{CODE}",
        "PYTHONUNBUFFERED": "1",
        "HF_HOME": f"{table.home}/.cache/huggingface",
        "VLLM_CACHE_ROOT": f"{table.home}/.cache/vllm",
        "REZERO_DOCTOR_CACHE": f"{table.home}/checkpoints/.doctor",  # on a Volume, for the runs to come
    }
