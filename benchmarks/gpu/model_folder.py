"""Models of random weights in folders like any other model's, drawn on the device that is measured.

Shapes decide the time, values do not; but zeros are faster than data on a GPU, so nothing is zero.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import torch

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def write_model(config: Any, folder: Path, device: torch.device, *, seed: int = 0) -> Path:
    """Save the model of a Transformers `config` in bfloat16, under the hub's names; returns `folder`."""
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[0] if device.type == "cuda" else []), torch.device(device):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    return folder


def add_tokenizer(folder: Path, source: Path) -> None:
    """Copy a tokenizer's files into a model's folder."""
    for name in TOKENIZER_FILES:
        shutil.copyfile(source / name, folder / name)


def fast_folder(device: torch.device) -> str | None:
    """Where a temporary model is read fastest: shared memory beside a GPU, else the system's temporary folder."""
    return "/dev/shm" if device.type == "cuda" and os.access("/dev/shm", os.W_OK) else None
