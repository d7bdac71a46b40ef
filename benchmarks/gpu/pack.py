"""Packs what the GPU trial needs for a machine that has PyTorch and Transformers but no network, in small pieces.

    python -m benchmarks.gpu.pack --out .gpu

Needs uv and a Python 3.12 on this machine; some minutes. Writes, for each call that carries them:

    small/*.tar.xz    DeepSpeed, PEFT, msgspec, pydantic and a tokenizer: stages 1 and 2
    1/*.tar.xz ...    with these too, vLLM, Ray and verifiers: stage 3

Every archive is unpacked by itself into one folder, so those of a call can be unpacked at the same time. The packages
in `small-requirements.txt` and `site-requirements.txt` fit torch 2.11.0 with CUDA 13 and Python 3.12. Left out are
packages that the machine has, what an H100 never loads, and code for other GPUs (`benchmarks.gpu.fatbin`).
"""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.gpu.fatbin import prune, wanted_of_flash_attention_3
from benchmarks.gpu.model_folder import TOKENIZER_FILES

HERE = Path(__file__).parent
PLATFORM = "x86_64-manylinux_2_31"
ARCHIVES = 12
"""Of stage 3's packages: as many of them as are in a piece are unpacked at the same time."""

PIECE_BYTES = 56_000_000
"""What one call carries at most, with room for the working tree."""

NEVER_LOADED = (
    "bin",
    "include",
    "share",
    "ray/jars",
    "ray/dashboard/client",
    "ray/cpp",
    "ray/rllib",
    "vllm/vllm-rs",
    "vllm/_qutlass_C*",
    "vllm/vllm_flash_attn/_vllm_fa2_C*",  # an H100 takes FlashAttention-3
    "vllm/third_party/deep_gemm",  # compiles its kernels when they are first used
    "vllm/third_party/fmha_sm100",
    "vllm/third_party/tml_fa4",
)

CUDA_LIBRARIES: dict[str, Callable[[bytes], bool]] = {
    "vllm/_C_stable_libtorch.abi3.so": lambda _: True,
    "vllm/_moe_C_stable_libtorch.abi3.so": lambda _: True,
    "vllm/_flashmla_C.abi3.so": lambda _: True,
    "vllm/_flashmla_extension_C.abi3.so": lambda _: True,
    "vllm/vllm_flash_attn/_vllm_fa3_C.abi3.so": wanted_of_flash_attention_3,
}

STRIPPED = ("ray/_raylet.so", "ray/core/src/ray/raylet/raylet", "ray/core/src/ray/gcs/gcs_server")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=Path(".gpu"), help="folder of the pieces, kept out of git"
    )
    parser.add_argument("--python", default=None, help="an interpreter of Python 3.12")
    parser.add_argument("--tokenizer", type=Path, default=Path("models/SmolLM2-135M-Instruct"))
    options = parser.parse_args()
    python = options.python or _python()
    with tempfile.TemporaryDirectory(prefix="rezero-pack-") as folder:
        small, site = Path(folder, "small"), Path(folder, "site")
        install(HERE / "small-requirements.txt", small, python)
        tokenizer = small / "rezero-tokenizer"
        tokenizer.mkdir()
        for name in TOKENIZER_FILES:
            shutil.copyfile(options.tokenizer / name, tokenizer / name)
        install(HERE / "site-requirements.txt", site, python)
        slim(small)
        slim(site)
        shutil.rmtree(options.out, ignore_errors=True)
        into_pieces(write_archives(small, options.out, 4), options.out, ["small"])
        pieces = [str(number) for number in range(1, 10)]
        into_pieces(write_archives(site, options.out, ARCHIVES), options.out, pieces)
    for piece in sorted(path for path in options.out.iterdir() if path.is_dir()):
        files = list(piece.iterdir())
        size = sum(file.stat().st_size for file in files)
        print(f"{piece}: {len(files)} archives, {size / 1e6:.1f} MB")
    return 0


def _python() -> str:
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [str(path) for path in sorted(root.glob("versions/3.12*/bin/python"))]
    chosen = found[-1] if found else shutil.which("python3.12")
    if chosen is None:
        sys.exit("pack: needs Python 3.12; name one with --python")
    return chosen


def install(requirements: Path, target: Path, python: str) -> None:
    """Wheels for the GPU machine, without their dependencies; DeepSpeed comes as source and compiles nothing."""
    lines = [line for line in requirements.read_text().splitlines() if line and not line.startswith("#")]
    source = [line for line in lines if line.startswith("deepspeed==")]
    common = ["uv", "pip", "install", "-q", "--python", python, "--no-deps", "--link-mode", "copy"]
    wheels = [line for line in lines if line not in source]
    _run([*common, "--only-binary", ":all:", "--python-platform", PLATFORM, "--target", str(target), *wheels])
    if source:
        _run([*common, "--target", str(target), *source], DS_BUILD_OPS="0")


def _run(command: Sequence[str], **environment: str) -> None:
    subprocess.run(command, env={**os.environ, **environment}, check=True)


def slim(target: Path) -> None:
    """Remove what is never loaded, and code that does not run on an H100."""
    for pattern in NEVER_LOADED:
        for path in target.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in target.rglob("*.pyc"):
        path.unlink()
    for name, wanted in CUDA_LIBRARIES.items():
        if (library := target / name).exists():
            found = prune(library.read_bytes(), wanted)
            library.write_bytes(found.library)
            print(f"{name}: {found.kept / 1e6:.1f} MB of code kept, {found.zeroed / 1e6:.1f} MB zeroed")
    for name in STRIPPED:
        if (target / name).exists():
            _run(["strip", "--strip-unneeded", str(target / name)])


def write_archives(source: Path, out: Path, count: int) -> list[Path]:
    """Archives of alike size that together hold all files of `source`."""
    files = sorted(path for path in source.rglob("*") if not path.is_dir())
    groups = even_groups({path: _compressed(path) for path in files}, count)
    return [_archive(source, group, out / f"{number}.tar.xz") for number, group in enumerate(groups)]


def into_pieces(archives: Sequence[Path], out: Path, names: Sequence[str]) -> None:
    """Move the archives into as few folders as a call can carry each, named by the first of `names`.

    Raises:
        ValueError: the pieces would be larger than that.
    """
    sizes = {path: path.stat().st_size for path in archives}
    for count in range(1, len(names) + 1):
        pieces = even_groups(sizes, count)
        if all(sum(sizes[path] for path in piece) <= PIECE_BYTES for piece in pieces):
            for name, piece in zip(names, pieces, strict=False):
                (out / name).mkdir()
                for path in piece:
                    path.rename(out / name / path.name)
            return
    raise ValueError(
        f"{sum(sizes.values())} bytes do not fit into {len(names)} pieces of {PIECE_BYTES} bytes"
    )


def even_groups(weights: dict[Path, int], count: int) -> list[list[Path]]:
    """The heaviest first, each to the group with the least so far."""
    groups: list[list[Path]] = [[] for _ in range(count)]
    sums = [0] * count
    for path in sorted(weights, key=lambda path: (-weights[path], str(path))):
        lightest = sums.index(min(sums))
        groups[lightest].append(path)
        sums[lightest] += weights[path]
    return groups


def _compressed(path: Path) -> int:
    """Bytes after fast compression, piece by piece: a large file is not held in memory."""
    return 512 + sum(len(zlib.compress(block, 1)) for block in _blocks(path))


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            yield block


def _archive(source: Path, files: Sequence[Path], target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as out:
        process = subprocess.Popen(["xz", "-3", "-T0", "-c"], stdin=subprocess.PIPE, stdout=out)
        assert process.stdin is not None
        with tarfile.open(fileobj=process.stdin, mode="w|") as archive:
            for path in sorted(files):
                archive.add(path, path.relative_to(source))
        process.stdin.close()
        if process.wait():
            raise RuntimeError(f"xz failed with {process.returncode} on {target.name}")
    return target


if __name__ == "__main__":
    sys.exit(main())
