"""However `rezero serve` ends, no server is left behind."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SERVE = """
import sys, time
from rezero_ray.serving import server
server.SERVER = "tests.serving.sleeping_server"
with server.Server({}, [], base_name="m", host="127.0.0.1", port=1, key="k", environment={}) as running:
    while "engine" not in running.log.read_text():
        time.sleep(0.02)
    engine = running.log.read_text().split()[1]
    print(running._process.pid, engine, running._lifeline.pid, running.log.parent, flush=True)
    sys.stdin.read()
"""


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize("how", ["killed", "its whole group killed", "ended"])
def test_server_engine_and_folder_go_with_the_process_that_started_them(how: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None and process.stdin is not None
    *pids, folder = process.stdout.readline().split()
    assert len(pids) == 3 and all(lives(int(pid)) for pid in pids)
    if how == "killed":
        process.kill()
    elif how == "ended":
        process.stdin.close()
    else:
        import os

        os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)
    deadline = time.monotonic() + 10
    while any(lives(int(pid)) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not [pid for pid in pids if lives(int(pid))]
    assert not Path(folder).exists()
