"""A Ray cluster of several nodes on this machine: each node is a raylet of its own.

    python -m tests.infra.ray.emulated_cluster '{"NAME": {"num_gpus": 2, "labels": {"KEY": "VALUE"}}, ...}'

Prints the address of the head, then answers each line of its input: `kill NAME` ends that node and all its processes
as a crash would, `add NAME` starts one like it. It ends with its input.
"""

import json
import os
import secrets
import signal
import subprocess
import sys
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

from tests.run.train_process import ROOT, descendants

STORE = 80 * 2**20


class EmulatedCluster:
    """The process of a cluster. `token` is what it asks for; None where it is open to anybody."""

    def __init__(self, nodes: dict[str, dict[str, Any]], *, guarded: bool = True) -> None:
        self.token = secrets.token_hex(16) if guarded else None
        variables = {"RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"}
        if self.token:
            variables |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.infra.ray.emulated_cluster", json.dumps(nodes)],
            cwd=ROOT,
            env=os.environ | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.address, self.dashboard = self._answer().split()

    def kill(self, name: str) -> None:
        self._say(f"kill {name}")

    def add(self, name: str) -> None:
        self._say(f"add {name}")

    def __enter__(self) -> "EmulatedCluster":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=60)

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        assert self._answer() == "done"

    def _answer(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("cluster: "):
                return line.removeprefix("cluster: ").strip()
        raise AssertionError("the cluster has ended")


def main() -> None:
    with TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        serve(folder)


def serve(folder: str) -> None:
    """Ray's files lie in `folder`, so that its jobs take no other cluster of this machine for theirs."""
    from ray._private.utils import write_ray_address
    from ray.cluster_utils import Cluster

    wanted = json.loads(sys.argv[1])
    head = {
        "num_cpus": 0,
        "object_store_memory": STORE,
        "temp_dir": folder,
        "dashboard_host": "127.0.0.1",
        "dashboard_port": 0,
        "dashboard_agent_listen_port": 0,  # its own; another head on this machine has Ray's usual one
    }
    cluster = Cluster(initialize_head=True, head_node_args=head | {"include_dashboard": True})
    write_ray_address(cluster.address, folder)
    nodes = {name: cluster.add_node(object_store_memory=STORE, **node) for name, node in wanted.items()}
    print(f"cluster: {cluster.address} http://{cluster.webui_url}", flush=True)
    for line in sys.stdin:
        verb, name = line.split()
        if verb == "kill":
            raylet = nodes[name].all_processes["raylet"][0].process.pid
            for pid in [raylet, *descendants(raylet)]:
                os.kill(pid, signal.SIGKILL)
            cluster.remove_node(nodes.pop(name), allow_graceful=False)
        else:
            nodes[name] = cluster.add_node(object_store_memory=STORE, **wanted[name])
        print("cluster: done", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
