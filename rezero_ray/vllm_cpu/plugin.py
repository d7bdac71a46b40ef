"""This project's CPU platform for vLLM: registered, found without an installation, and required of the engine.

vLLM finds platforms through entry points of the group `vllm.platform_plugins`, in every process that it starts. The
entry point lies beside this file, in `discovery/`, as the metadata of a distribution. That folder joins the path of
the engine's process and of those that it starts, so sources that are merely copied (Modal's image, the package of a
submitted Ray job) have the plug-in as an installed project has.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

NAME = "rezero_cpu"
"""Of the entry point, as VLLM_PLUGINS lists it."""

PLATFORM = "rezero_ray.vllm_cpu.platform.GroupedLoraCpuPlatform"

DISCOVERY = Path(__file__).parent / "discovery"
ROOT = Path(__file__).parents[2]


def register() -> str | None:
    """The entry point: the name of our platform class where vLLM would run on its CPU platform, else None."""
    from vllm.platforms import cpu_platform_plugin

    return None if cpu_platform_plugin() is None else PLATFORM


def wanted(variables: Mapping[str, str]) -> bool:
    """Whether vLLM is to load the plug-in: VLLM_PLUGINS is unset or names it."""
    named = variables.get("VLLM_PLUGINS")
    return named is None or NAME in named.split(",")


def is_whole() -> bool:
    """Whether the entry point is there, which copies of the sources may leave out."""
    return any(DISCOVERY.glob("*.dist-info/entry_points.txt"))


def python_path(before: str | None) -> str:
    """PYTHONPATH for a process that runs vLLM: our packages and the plug-in, ahead of what is there `before`."""
    ours = [str(ROOT), str(DISCOVERY)]
    return os.pathsep.join(
        [*ours, *(part for part in (before or "").split(os.pathsep) if part and part not in ours)]
    )


def make_discoverable() -> None:
    """Let this process and those that it starts find the plug-in. To be called before vLLM is imported."""
    os.environ["PYTHONPATH"] = python_path(os.environ.get("PYTHONPATH"))
    if str(DISCOVERY) not in sys.path:
        sys.path.append(str(DISCOVERY))


def require_platform() -> None:
    """
    Raises:
        RuntimeError: vLLM runs on another platform than ours, although VLLM_PLUGINS does not leave ours out. Its own
            LoRA operation would write a fraction of the tokens per second without a word.
    """
    from vllm.platforms import current_platform

    found = f"{type(current_platform).__module__}.{type(current_platform).__qualname__}"
    if wanted(os.environ) and found != PLATFORM:
        raise RuntimeError(
            f"vLLM runs on {found} instead of {PLATFORM}, whose LoRA operation is several times faster: it found no "
            f"entry point {NAME} in {DISCOVERY}. Restore that folder, or set VLLM_PLUGINS to a list without {NAME} "
            "to run on vLLM's own"
        )
