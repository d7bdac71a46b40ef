"""Modal's Sandboxes, faked: each is a folder, and what is exec'ed in it is a process of this machine.

The folder holds the local files that the image adds, and takes the place of `CODE`: a program finds there what it
would find on Modal and nothing else of ours. Image, isolation and limits are what was sent, and are not there.
"""

import asyncio
import base64
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpclib import GRPCError, Status
from grpclib.server import Stream
from modal_proto import api_pb2, task_command_router_grpc
from modal_proto import task_command_router_pb2 as router_pb2

from environments.sandbox.modal_tier import CODE

if TYPE_CHECKING:
    from tests.infra.modal.fake_control_plane import FakeControlPlane

ROOT = Path(__file__).parents[3]

CHUNK = 1 << 16


@dataclass
class FakeSandbox:
    """A Sandbox as it was asked for, and what runs in it. `deaf`: it takes commands and starts none."""

    request: Any
    folder: Path
    alive: bool = True
    commands: list[list[str]] = field(default_factory=list)
    processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    deaf = False

    def end(self) -> None:
        self.alive = False
        for process in self.processes.values():
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
        shutil.rmtree(self.folder)


class SandboxRpcs:
    """What a client asks the control plane for."""

    plane: "FakeControlPlane"

    def on_AuthTokenGet(self, request: Any) -> Any:
        until = base64.urlsafe_b64encode(json.dumps({"exp": time.time() + 3600}).encode()).decode()
        return api_pb2.AuthTokenGetResponse(token=f"header.{until.rstrip('=')}.signature")

    def on_AppGetOrCreate(self, request: Any) -> Any:
        identifier = self.plane.apps.setdefault(request.app_name, f"ap-{len(self.plane.apps) + 1}")
        return api_pb2.AppGetOrCreateResponse(app_id=identifier)

    def on_SandboxCreateV2(self, request: Any) -> Any:
        number = len(self.plane.sandboxes) + 1
        folder = Path(tempfile.mkdtemp(prefix="fake-sandbox-"))
        for mount_id in request.definition.mount_ids:
            _lay_out(self.plane.mounts[int(mount_id.partition("-")[2]) - 1], folder)
        self.plane.sandboxes[f"ta-{number}V"] = FakeSandbox(request, folder)
        access = api_pb2.CommandRouterAccess(url=self.plane.url, jwt="of-the-fake")
        return api_pb2.SandboxCreateV2Response(
            sandbox_id=f"sb-{number}", task_id=f"ta-{number}V", command_router_access=access
        )

    def on_SandboxWait(self, request: Any) -> Any:
        return api_pb2.SandboxWaitResponse()

    on_SandboxWaitV2 = on_SandboxWait

    def on_SandboxTerminate(self, request: Any) -> Any:
        return self.on_SandboxTerminateV2(request)

    def on_SandboxTerminateV2(self, request: Any) -> Any:
        sandbox = self.plane.sandboxes[f"ta-{request.sandbox_id.partition('-')[2]}V"]
        if sandbox.alive:
            sandbox.end()
        return api_pb2.SandboxTerminateResponse()


def _lay_out(mount: Any, folder: Path) -> None:
    for file in mount.files:
        name = file.filename.removeprefix(f"{CODE}/")
        content = (ROOT / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == file.sha256_hex
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


class CommandRouter(task_command_router_grpc.TaskCommandRouterBase):
    """What a client asks the machine for on which a Sandbox runs. Not answered: files, snapshots, side containers."""

    def __init__(self, plane: "FakeControlPlane") -> None:
        self.plane = plane

    def _process(self, request: Any) -> asyncio.subprocess.Process:
        sandbox = self.plane.sandboxes[request.task_id]
        if request.exec_id not in sandbox.processes:
            raise GRPCError(Status.NOT_FOUND, f"no {request.exec_id} in {request.task_id}")
        return sandbox.processes[request.exec_id]

    async def TaskExecStart(self, stream: Stream[Any, Any]) -> None:
        request = await _received(stream)
        sandbox = self.plane.sandboxes[request.task_id]
        while sandbox.deaf:
            await asyncio.sleep(0.05)
        if not sandbox.alive:
            raise GRPCError(Status.NOT_FOUND, f"{request.task_id} has ended")
        sandbox.commands.append(list(request.command_args))
        program, *arguments = request.command_args
        assert program == "python"
        sandbox.processes[request.exec_id] = await asyncio.create_subprocess_exec(
            sys.executable,
            *(word.replace(CODE, str(sandbox.folder)) for word in arguments),
            cwd=sandbox.folder,
            env={},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        await stream.send_message(router_pb2.TaskExecStartResponse())

    async def TaskExecStdinWrite(self, stream: Stream[Any, Any]) -> None:
        request = await _received(stream)
        writer = self._process(request).stdin
        assert writer is not None
        writer.write(request.data)
        if request.eof:
            writer.close()
        await stream.send_message(router_pb2.TaskExecStdinWriteResponse())

    async def TaskExecStdioRead(self, stream: Stream[Any, Any]) -> None:
        request = await _received(stream)
        process = self._process(request)
        first = request.file_descriptor == router_pb2.TASK_EXEC_STDIO_FILE_DESCRIPTOR_STDOUT
        async for data in _chunks(process.stdout if first else process.stderr):
            await stream.send_message(router_pb2.TaskExecStdioReadResponse(data=data))

    async def TaskExecWait(self, stream: Stream[Any, Any]) -> None:
        code = await self._process(await _received(stream)).wait()
        ended = {"code": code} if code >= 0 else {"signal": -code}
        await stream.send_message(router_pb2.TaskExecWaitResponse(**ended))


CommandRouter.__abstractmethods__ = frozenset()  # the others answer nothing


async def _received(stream: Stream[Any, Any]) -> Any:
    request = await stream.recv_message()
    assert request is not None
    return request


async def _chunks(reader: asyncio.StreamReader | None) -> AsyncIterator[bytes]:
    assert reader is not None
    while data := await reader.read(CHUNK):
        yield data
