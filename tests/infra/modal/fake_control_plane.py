"""A fake of Modal's control plane on 127.0.0.1, for the real `modal` client and its real container entry point.

It answers what these ask for and nothing else: every other RPC of `modal_proto` is UNIMPLEMENTED. No image is
built, no machine rented, no Volume stored: images, mounts and Volumes are ids, and what was sent is kept for the
test to look at. What it cannot show is what only the cloud can.
"""

import asyncio
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grpclib import GRPCError, Status
from grpclib.const import Handler
from grpclib.server import Server, Stream
from modal_proto import api_grpc, api_pb2

from tests.infra.modal.fake_rpcs import ClientRpcs, ContainerRpcs
from tests.infra.modal.fake_sandboxes import CommandRouter, FakeSandbox, SandboxRpcs

ROOT = Path(__file__).parents[3]

PRICES = {
    "cpu_hour_cost": "0.05000",
    "mem_gib_hour_cost": "0.01000",
    "gpu_hour_cost_h100": "4.00000",
    "gpu_hour_cost_l4": "1.00",
}
"""What the workspace pays: a unit, an hour, as Modal writes it. Round figures, and none of its own."""


@dataclass
class Call:
    """A call of a function: its one input, what was printed, how it ended."""

    function_id: str
    item: Any
    retries: int
    attempt: int = 0
    served: bool = False
    cancelled: bool = False
    output: Any = None
    logs: list[str] = field(default_factory=list)
    collected: threading.Event = field(default_factory=threading.Event)  # set once `logs` are whole
    results: list[Any] = field(default_factory=list)


class FakeControlPlane:
    """Its state, by Modal's ids; `url` is where the client finds it."""

    def __init__(self) -> None:
        self.apps: dict[str, str] = {}  # name -> id
        self.tags: dict[str, dict[str, str]] = {}
        self.functions: dict[str, Any] = {}
        self.app_of: dict[str, str] = {}  # function -> app
        self.images: dict[str, Any] = {}
        self.mounts: list[Any] = []
        self.names: dict[str, str] = {}  # id of a Volume, Secret or Dict -> its name
        self.secrets_there = {"huggingface"}
        self.volume_files: dict[tuple[str, str], list[str]] = {}  # by the Volume's name and a folder in it
        self.dicts: dict[str, dict[bytes, bytes]] = {}
        self.calls: dict[str, Call] = {}
        self.commits: list[tuple[str, Any]] = []
        self.on_commit: Callable[[str], Any] = lambda volume: None
        self.on_reload: Callable[[str], None] = lambda volume: None
        self.tunnels: list[int] = []
        self.sandboxes: dict[str, FakeSandbox] = {}  # by the id of their task
        self.prices: dict[str, str] = dict(PRICES)
        self.asked: Counter[str] = Counter()
        self.refused = ""  # an RPC that answers RESOURCE_EXHAUSTED
        self.serving = ""  # the call whose container runs
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()
        assert self._ready.wait(10)

    def _serve(self) -> None:
        async def begin() -> None:
            server = Server([Service(self), CommandRouter(self)])
            await server.start("127.0.0.1", 0)
            port = server._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
            self.url = f"http://127.0.0.1:{port}"
            self._ready.set()
            await server.wait_closed()

        self._loop.run_until_complete(begin())

    def add_call(self, call_id: str, function_id: str, item: Any, retries: int) -> None:
        self.calls[call_id] = Call(function_id, item, retries)

    def forget(self) -> None:
        """Everything, as before the first request."""
        for kept in (self.apps, self.tags, self.functions, self.app_of, self.images, self.dicts, self.calls):
            kept.clear()  # type: ignore[attr-defined]
        self.mounts.clear()
        self.commits.clear()
        self.tunnels.clear()
        self.sandboxes.clear()
        self.asked.clear()
        self.on_commit = lambda volume: None
        self.on_reload = lambda volume: None
        self.refused = ""
        self.volume_files = {}
        self.prices = dict(PRICES)
        self.secrets_there = {"huggingface"}

    def named(self, kind: str, name: str) -> str:
        identifier = f"{kind}-{name}"
        self.names[identifier] = name
        return identifier

    def function_of(self, app: str) -> Any:
        """The definition of the one function of an App, as it was sent."""
        (found,) = (f for i, f in self.functions.items() if self.app_of[i] == self.apps[app])
        return found

    def dockerfile_of(self, image_id: str) -> list[str]:
        """The commands of an image and of all that it is built on, the base first."""
        image = self.images[image_id]
        below = [line for base in image.base_images for line in self.dockerfile_of(base.image_id)]
        return below + list(image.dockerfile_commands)

    def container(self, call_id: str, folder: Path) -> subprocess.Popen[bytes]:
        """Modal's own container entry point as a process of this machine, for the next attempt of a call.

        Its environment is what the image sets (`ENV` lines) and what Modal's worker sets; what it prints are the
        logs of the call.
        """
        call = self.calls[call_id]
        call.attempt, call.served = call.attempt + 1, False
        call.collected.clear()
        definition = self.functions[call.function_id]
        layout = api_pb2.AppLayout(function_ids={definition.function_name: call.function_id})
        layout.objects.add(
            object_id=call.function_id,
            function_handle_metadata=api_pb2.FunctionHandleMetadata(
                function_name=definition.function_name, function_type=definition.function_type
            ),
        )
        arguments = folder / f"{call_id}-{call.attempt}.arguments"
        arguments.write_bytes(
            api_pb2.ContainerArguments(
                task_id=f"ta-{call_id}-{call.attempt}",
                function_id=call.function_id,
                app_id=self.app_of[call.function_id],
                function_def=definition,
                app_layout=layout,
            ).SerializeToString()
        )
        variables = {
            "MODAL_SERVER_URL": self.url,
            "MODAL_IS_REMOTE": "1",
            "MODAL_TASK_ID": f"ta-{call_id}-{call.attempt}",
            "MODAL_CONTAINER_ARGUMENTS_PATH": str(arguments),
            "MODAL_HEARTBEAT_INTERVAL": "1",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}",
            "PYTHONUNBUFFERED": "1",
        }
        self.serving = call_id
        process = subprocess.Popen(
            [sys.executable, "-m", "modal._container_entrypoint"],
            cwd=folder,
            env=os.environ | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        threading.Thread(target=self._collect, args=(process, call), daemon=True).start()
        return process

    def _collect(self, process: subprocess.Popen[bytes], call: Call) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            call.logs.append(line.decode("utf-8", errors="replace"))
        call.collected.set()

    def finish(self, call_id: str, result: Any, data_format: int = api_pb2.DATA_FORMAT_PICKLE) -> None:
        self.calls[call_id].output = api_pb2.FunctionGetOutputsItem(
            result=result, idx=0, input_id=f"in-{call_id}", data_format=data_format
        )


class Service(ClientRpcs, ContainerRpcs, SandboxRpcs, api_grpc.ModalClientBase):
    """The RPCs. A handler takes the request and returns the answer, or several for a stream."""

    def __init__(self, plane: FakeControlPlane) -> None:
        self.plane = plane

    def __mapping__(self) -> dict[str, Handler]:
        return {
            path: self._answered_by_name(path, handler) for path, handler in super().__mapping__().items()
        }

    def _answered_by_name(self, path: str, handler: Handler) -> Handler:
        name = path.rpartition("/")[2]

        async def answer(stream: Stream[Any, Any]) -> None:
            self.plane.asked[name] += 1
            method = getattr(self, f"on_{name}", None)
            if method is None:
                raise GRPCError(Status.UNIMPLEMENTED, f"the fake control plane has no {name}")
            if name == self.plane.refused:
                raise GRPCError(Status.RESOURCE_EXHAUSTED, f"{name} is refused")
            request = await stream.recv_message()
            result = method(request)
            if hasattr(result, "__aiter__"):
                async for message in result:
                    await stream.send_message(message)
                return
            await stream.send_message(await result if asyncio.iscoroutine(result) else result)

        return Handler(answer, handler.cardinality, handler.request_type, handler.reply_type)


Service.__abstractmethods__ = frozenset()  # what `on_...` does not answer is refused in `_answered_by_name`
