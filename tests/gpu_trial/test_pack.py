"""Claims about the pieces that are carried to a GPU machine."""

import tarfile
from pathlib import Path

import pytest

from benchmarks.gpu import pack


def fill(folder: Path, sizes: dict[str, int]) -> None:
    for name, size in sizes.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes(range(256)) * (size // 256))


def test_the_archives_of_all_pieces_unpack_to_the_whole_folder(tmp_path: Path) -> None:
    source, out = tmp_path / "site", tmp_path / "out"
    sizes = {"a/large.so": 40_960, "a/small.py": 256, "b.py": 512, "c/d/e.py": 1024, "f.py": 256}
    fill(source, sizes)
    (source / "link.so").symlink_to("a/large.so")
    pack.into_pieces(pack.write_archives(source, out, 3), out, ["1", "2"])
    assert [path.name for path in out.iterdir()] == ["1"]
    names = []
    for path in sorted((out / "1").iterdir()):
        with tarfile.open(path) as archive:
            names += archive.getnames()
            archive.extractall(tmp_path / "back", filter="data")
    assert sorted(names) == sorted([*sizes, "link.so"])
    for name in names:
        assert (tmp_path / "back" / name).read_bytes() == (source / name).read_bytes()


def test_pieces_are_as_few_as_hold_the_archives_and_none_is_larger_than_a_call_carries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "PIECE_BYTES", 1000)
    fill(tmp_path, {f"{number}.tar.xz": 512 for number in range(3)} | {"3.tar.xz": 256})
    archives = sorted(tmp_path.glob("*.tar.xz"))
    with pytest.raises(ValueError, match="1792 bytes do not fit into 1 pieces"):
        pack.into_pieces(archives, tmp_path, ["1"])
    pack.into_pieces(archives, tmp_path, ["1", "2", "3", "4"])
    pieces = {
        folder.name: sum(path.stat().st_size for path in folder.iterdir()) for folder in tmp_path.iterdir()
    }
    assert len(pieces) == 3
    assert max(pieces.values()) <= 1000
    assert sum(pieces.values()) == 1792


def test_what_is_never_loaded_is_removed_and_the_rest_stays(tmp_path: Path) -> None:
    removed = [
        "vllm/vllm_flash_attn/_vllm_fa2_C.abi3.so",
        "ray/jars/x.jar",
        "a/__pycache__/b.pyc",
        "bin/tool",
    ]
    kept = ["vllm/vllm_flash_attn/interface.py", "ray/worker.py", "vllm/_flashmla_C.abi3.so"]
    fill(tmp_path, dict.fromkeys([*removed, *kept], 256))
    pack.slim(tmp_path)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()) == sorted(kept)
