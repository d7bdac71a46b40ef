"""Claims about what is read of the kernel and of control groups, from trees of files like theirs."""

from pathlib import Path

import pytest

from rezero_ray.place.limits import cpu_quota, memory_figures

GIB = 1024**3
MEMINFO = f"MemTotal: {1024 * 2**20} kB\nMemFree: 1024 kB\nMemAvailable: {900 * 2**20} kB\nHugePages_Total: 0"


def tree(root: Path, **files: object) -> Path:
    """Path with `__` for the slash -> text."""
    for name, text in {"proc__meminfo": MEMINFO, **files}.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


def test_the_tightest_group_above_the_process_is_the_limit(tmp_path: Path) -> None:
    groups = {
        "proc__self__cgroup": "0::/system.slice/run.scope",
        "sys__fs__cgroup__system.slice__run.scope__memory.max": "max",
        "sys__fs__cgroup__system.slice__memory.max": 16 * GIB,
        "sys__fs__cgroup__system.slice__memory.current": 6 * GIB,
        "sys__fs__cgroup__system.slice__memory.stat": f"anon 1\ninactive_file {2 * GIB}\nfile 9",
        "sys__fs__cgroup__system.slice__run.scope__cpu.max": "250000 100000",
        "sys__fs__cgroup__system.slice__cpu.max": "max 100000",
    }
    found = memory_figures(tree(tmp_path, **groups))
    assert (found.host_gib, found.available_gib) == (1024, 900)
    assert (found.limit_gib, found.used_gib) == (16, 4), "the file cache is given back when memory runs short"
    assert found.free_gib == 12
    assert cpu_quota(tmp_path) == 2.5


def test_version_1_and_a_container_that_sees_its_group_as_the_top(tmp_path: Path) -> None:
    groups = {
        "proc__self__cgroup": "4:memory:/docker/abc\n1:cpu,cpuacct:/docker/abc",
        "sys__fs__cgroup__memory__memory.limit_in_bytes": 8 * GIB,
        "sys__fs__cgroup__memory__memory.usage_in_bytes": GIB,
        "sys__fs__cgroup__cpu__cpu.cfs_quota_us": 400000,
        "sys__fs__cgroup__cpu__cpu.cfs_period_us": 100000,
    }
    found = memory_figures(tree(tmp_path, **groups))
    assert (found.limit_gib, found.free_gib) == (8, 7)
    assert cpu_quota(tmp_path) == 4


@pytest.mark.parametrize("limit", ["max", str(2**63 - 4096)])
def test_no_limit_leaves_what_the_host_has(tmp_path: Path, limit: str) -> None:
    names = ("sys__fs__cgroup__memory.max", "sys__fs__cgroup__memory__memory.limit_in_bytes")
    groups = {"proc__self__cgroup": "4:memory:/\n0::/\n", **dict.fromkeys(names, limit)}
    found = memory_figures(tree(tmp_path, **groups, sys__fs__cgroup__cpu__cpu="-1"))
    assert found.limit_gib is None
    assert found.free_gib == 900
    assert cpu_quota(tmp_path) is None


def test_this_machine_can_be_read() -> None:
    found = memory_figures()
    assert 0 < found.free_gib <= found.host_gib
