"""Are these the weights that a run was trained on? Told from a few kilobytes of each file."""

import hashlib
from pathlib import Path

from rezero_ray.config import Config
from rezero_ray.preflight.model_facts import local_folder

SAMPLES, SAMPLE_BYTES = 16, 4096
"""Of each weight file, evenly spaced. Training moves nearly every weight, so any sample differs; reading whole files
would take longer than the rest of the preflight."""


def model_fingerprint(config: Config) -> str:
    """Of the base model of a config; empty where it is not on this machine."""
    folder = local_folder(config.model.name)
    return fingerprint(folder) if folder is not None else ""


def fingerprint(folder: Path) -> str:
    """Hexadecimal digest of config.json and of names, sizes, headers and samples of the safetensors files.

    A copy of the files has the same one, wherever it lies. Empty where a file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        digest.update((folder / "config.json").read_bytes())
        for file in sorted(folder.glob("*.safetensors")):
            size = file.stat().st_size
            digest.update(f"{file.name} {size}\n".encode())
            with file.open("rb") as stream:
                for number in range(SAMPLES):
                    stream.seek(number * max(0, size - SAMPLE_BYTES) // (SAMPLES - 1))
                    digest.update(stream.read(SAMPLE_BYTES))
    except OSError:
        return ""
    return digest.hexdigest()
