"""Claims about runs whose environment is set up for something else: proxies, another cluster's address, a folder for
temporary files that is too long for sockets, few open files, a host without a name that resolves."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.host.two_servers import answering
from tests.run.train_process import ROOT, SMALL, read_lines

pytestmark = [pytest.mark.slow, pytest.mark.nightly, pytest.mark.timeout(900)]

NAMELESS = 'ulimit -Sn 256; hostname no-such-host-4711; exec "$@"'
"""A shell in a UTS namespace of its own, where there may be one."""

WITHOUT_NAMESPACE = 'ulimit -Sn 256; exec "$@"'


def may_rename_itself() -> bool:
    """Whether a process of this user gets a UTS namespace, in which it names the host as it likes."""
    if shutil.which("unshare") is None:
        return False
    done = subprocess.run(["unshare", "--uts", "hostname", "other"], capture_output=True, check=False)
    return done.returncode == 0


def test_a_run_needs_no_proxy_no_name_and_no_short_folder(tiny_model: Path, tmp_path: Path) -> None:
    long = tmp_path / ("deep/" * 20)
    long.mkdir(parents=True)
    output = tmp_path / "run"
    shell = (
        ["unshare", "--uts", "bash", "-c", NAMELESS]
        if may_rename_itself()
        else ["bash", "-c", WITHOUT_NAMESPACE]
    )
    with answering(403) as (proxy, asked):
        variables = dict.fromkeys(("http_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"), proxy)
        variables |= {"no_proxy": "", "NO_PROXY": "intranet", "RAY_ADDRESS": "10.255.255.1:6379"}
        variables |= {"TMPDIR": str(long), "HF_HUB_OFFLINE": "1", "RAY_USAGE_STATS_ENABLED": "0"}
        done = subprocess.run(
            [
                *(*shell, "bash", sys.executable, "-m", "rezero_ray.train"),
                *("configs/redteam.toml", "configs/overlays/cpu.toml", *SMALL),
                *("--max_steps", "1", "--trainer_gpu_ids", "[1]", "--trust.canary", "false"),
                *("--model.name", str(tiny_model), "--output_dir", str(output)),
            ],
            cwd=ROOT,
            env=os.environ | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-4000:]
    assert len(read_lines(output / "metrics.jsonl")) == 1
    assert not [path for path in asked if "127.0.0.1" in path or "localhost" in path], asked
