"""What the fake control plane answers: to the client, and to the container. One method an RPC."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from modal_proto import api_pb2

if TYPE_CHECKING:
    from tests.infra.modal.fake_control_plane import FakeControlPlane

RESULT = api_pb2.GenericResult


class ClientRpcs:
    """Definitions, Dicts and calls, as the machine asks for them that launches."""

    plane: "FakeControlPlane"

    def on_ClientHello(self, request: Any) -> Any:
        return api_pb2.ClientHelloResponse(image_builder_version="2025.06")

    def on_WorkspaceNameLookup(self, request: Any) -> Any:
        return api_pb2.WorkspaceNameLookupResponse(username="team")

    def on_WorkspaceBillingRates(self, request: Any) -> Any:
        return api_pb2.WorkspaceBillingRatesResponse(rates=self.plane.prices, formatted="as in rates")

    def on_EnvironmentGetOrCreate(self, request: Any) -> Any:
        settings = api_pb2.EnvironmentSettings(image_builder_version="2025.06")
        metadata = api_pb2.EnvironmentMetadata(name="main", settings=settings)
        return api_pb2.EnvironmentGetOrCreateResponse(environment_id="en-1", metadata=metadata)

    def on_AppGetByDeploymentName(self, request: Any) -> Any:
        return api_pb2.AppGetByDeploymentNameResponse(app_id=self.plane.apps.get(request.name, ""))

    def on_AppCreate(self, request: Any) -> Any:
        identifier = f"ap-{len(self.plane.apps) + 1}"
        self.plane.apps[request.description] = identifier
        self.plane.tags[identifier] = dict(request.tags)
        return api_pb2.AppCreateResponse(app_id=identifier)

    def on_AppGetLayout(self, request: Any) -> Any:
        return api_pb2.AppGetLayoutResponse()

    def on_AppHeartbeat(self, request: Any) -> Any:
        return Empty()

    def on_AppClientDisconnect(self, request: Any) -> Any:
        return Empty()

    def on_AppPublish(self, request: Any) -> Any:
        return api_pb2.AppPublishResponse(url="https://modal.com/apps/test", deployed_at=time.time())

    def on_VolumeGetOrCreate(self, request: Any) -> Any:
        return api_pb2.VolumeGetOrCreateResponse(volume_id=self.plane.named("vo", request.deployment_name))

    async def on_VolumeListFiles(self, request: Any) -> AsyncIterator[Any]:
        files = self.plane.volume_files.get((self.plane.names[request.volume_id], request.path))
        if files is None:
            raise GRPCError(Status.NOT_FOUND, f"no such folder: {request.path}")
        entries = [api_pb2.FileEntry(path=f"{request.path}/{name}") for name in files]
        yield api_pb2.VolumeListFilesResponse(entries=entries)

    def on_SecretGetOrCreate(self, request: Any) -> Any:
        if request.deployment_name and request.deployment_name not in self.plane.secrets_there:
            raise GRPCError(Status.NOT_FOUND, f"Secret '{request.deployment_name}' not found")
        name = request.deployment_name or f"of-{len(self.plane.names)}"
        return api_pb2.SecretGetOrCreateResponse(secret_id=self.plane.named("st", name))

    def on_MountBatchedCheckExistence(self, request: Any) -> Any:
        return api_pb2.MountBatchedCheckExistenceResponse()

    def on_MountGetOrCreate(self, request: Any) -> Any:
        self.plane.mounts.append(request)
        return api_pb2.MountGetOrCreateResponse(mount_id=f"mo-{len(self.plane.mounts)}")

    def on_ImageGetOrCreate(self, request: Any) -> Any:
        identifier = f"im-{len(self.plane.images) + 1}"
        self.plane.images[identifier] = request.image
        return api_pb2.ImageGetOrCreateResponse(
            image_id=identifier, result=api_pb2.GenericResult(status=RESULT.GENERIC_STATUS_SUCCESS)
        )

    def on_FunctionPrecreate(self, request: Any) -> Any:
        identifier = _function_id(request.app_id, request.function_name)
        return api_pb2.FunctionPrecreateResponse(
            function_id=identifier, handle_metadata=self._handle(request.function_name)
        )

    def on_FunctionCreate(self, request: Any) -> Any:
        definition = request.function
        if request.function_data.ranked_functions:
            definition = request.function_data.ranked_functions[0].function
        name = definition.implementation_name or definition.function_name
        identifier = request.existing_function_id or _function_id(request.app_id, name)
        self.plane.functions[identifier] = definition
        self.plane.app_of[identifier] = request.app_id
        ranked = api_pb2.FunctionData.RankedFunction(rank=0, function=definition)
        return api_pb2.FunctionCreateResponse(
            function_id=identifier,
            function=definition,
            function_data=api_pb2.FunctionData(ranked_functions=[ranked]),
            handle_metadata=self._handle(definition.function_name),
        )

    def _handle(self, name: str) -> Any:
        kind = api_pb2.Function.FUNCTION_TYPE_FUNCTION
        return api_pb2.FunctionHandleMetadata(
            function_name=name, function_type=kind, supported_input_formats=[1], supported_output_formats=[1]
        )

    # the client: Dicts

    def on_DictGetOrCreate(self, request: Any) -> Any:
        self.plane.dicts.setdefault(identifier := self.plane.named("di", request.deployment_name), {})
        return api_pb2.DictGetOrCreateResponse(dict_id=identifier)

    def on_DictGet(self, request: Any) -> Any:
        value = self.plane.dicts[request.dict_id].get(request.key)
        return api_pb2.DictGetResponse(found=value is not None, value=value)

    def on_DictPop(self, request: Any) -> Any:
        value = self.plane.dicts[request.dict_id].pop(request.key, None)
        return api_pb2.DictPopResponse(found=value is not None, value=value)

    def on_DictUpdate(self, request: Any) -> Any:
        kept = self.plane.dicts[request.dict_id]
        created = not (request.if_not_exists and any(update.key in kept for update in request.updates))
        if created:
            kept.update({update.key: update.value for update in request.updates})
        return api_pb2.DictUpdateResponse(created=created)

    async def on_DictContents(self, request: Any) -> AsyncIterator[Any]:
        for key, value in self.plane.dicts[request.dict_id].items():
            yield api_pb2.DictEntry(key=key, value=value)

    # calls, from the client's side

    def on_FunctionMap(self, request: Any) -> Any:
        identifier = f"fc-{len(self.plane.calls) + 1}"
        retries = self.plane.functions[request.function_id].retry_policy.retries
        self.plane.add_call(identifier, request.function_id, request.pipelined_inputs[0].input, retries)
        answer = api_pb2.FunctionPutInputsResponseItem(idx=0, input_id=f"in-{identifier}")
        return api_pb2.FunctionMapResponse(function_call_id=identifier, pipelined_inputs=[answer])

    async def on_FunctionGetOutputs(self, request: Any) -> Any:
        call = self.plane.calls[request.function_call_id]
        deadline = time.monotonic() + request.timeout
        while call.output is None and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        outputs = [call.output] if call.output is not None else []
        unfinished = 0 if outputs else 1
        return api_pb2.FunctionGetOutputsResponse(outputs=outputs, num_unfinished_inputs=unfinished)

    def on_FunctionCallFromId(self, request: Any) -> Any:
        call = self.plane.calls[request.function_call_id]
        metadata = api_pb2.FunctionCallFromIdResponse.DESCRIPTOR.fields_by_name["metadata"].message_type
        metadata = metadata._concrete_class(
            app_id=self.plane.app_of[call.function_id], function_id=call.function_id
        )
        return api_pb2.FunctionCallFromIdResponse(
            function_call_id=request.function_call_id, num_inputs=1, metadata=metadata
        )

    def on_FunctionCallGetInfo(self, request: Any) -> Any:
        done = self.plane.calls[request.function_call_id].output is not None
        info = api_pb2.FunctionCallInfo(function_call_id=request.function_call_id, total_inputs=1)
        info.succeeded_inputs.total = int(done)
        return api_pb2.FunctionCallGetInfoResponse(info=info)

    async def on_AppGetLogs(self, request: Any) -> AsyncIterator[Any]:
        call = self.plane.calls[request.function_call_id]
        told, deadline = int(request.last_entry_id or 0), time.monotonic() + min(request.timeout, 5)
        while time.monotonic() < deadline and (told < len(call.logs) or call.output is None):
            items = [api_pb2.TaskLogs(data=text) for text in call.logs[told:]]
            told += len(items)
            if items:
                yield api_pb2.TaskLogsBatch(items=items, entry_id=str(told))
            await asyncio.sleep(0.05)

    def on_FunctionCallCancel(self, request: Any) -> Any:
        call = self.plane.calls[request.function_call_id]
        call.cancelled = True
        if not call.served:
            result = api_pb2.GenericResult(status=RESULT.GENERIC_STATUS_TERMINATED, exception="cancelled")
            self.plane.finish(request.function_call_id, result)
        return Empty()


def _function_id(app_id: str, name: str) -> str:
    return f"fu-{app_id.partition('-')[2]}{name}"


class ContainerRpcs:
    """What the container's entry point asks for; one container runs at a time."""

    plane: "FakeControlPlane"

    def on_ContainerHello(self, request: Any) -> Any:
        return Empty()

    def on_ContainerHeartbeat(self, request: Any) -> Any:
        call_id = self.plane.serving
        if not self.plane.calls[call_id].cancelled:
            return api_pb2.ContainerHeartbeatResponse()
        event = api_pb2.CancelInputEvent(input_ids=[f"in-{call_id}"])
        return api_pb2.ContainerHeartbeatResponse(cancel_input_event=event)

    def on_FunctionGetInputs(self, request: Any) -> Any:
        call_id = self.plane.serving
        call = self.plane.calls[call_id]
        if call.served:
            return api_pb2.FunctionGetInputsResponse(inputs=[api_pb2.FunctionGetInputsItem(kill_switch=True)])
        call.served = True
        item = api_pb2.FunctionGetInputsItem(
            input_id=f"in-{call_id}",
            input=call.item,
            function_call_id=call_id,
            function_call_invocation_type=api_pb2.FUNCTION_CALL_INVOCATION_TYPE_ASYNC,
            retry_count=call.attempt - 1,
        )
        return api_pb2.FunctionGetInputsResponse(inputs=[item])

    def on_FunctionPutOutputs(self, request: Any) -> Any:
        """A failure is an answer only when the retries are used up; until then the input is served again."""
        for output in request.outputs:
            call = self.plane.calls[output.function_call_id or self.plane.serving]
            failed = output.result.status == RESULT.GENERIC_STATUS_FAILURE
            call.results.append(output.result)
            if not failed or call.attempt > call.retries:
                self.plane.finish(self.plane.serving, output.result, output.data_format)
        return Empty()

    def on_TaskResult(self, request: Any) -> Any:
        self.plane.calls[self.plane.serving].results.append(request.result)
        return Empty()

    def on_VolumeCommit(self, request: Any) -> Any:
        volume = self.plane.names[request.volume_id]
        self.plane.commits.append((volume, self.plane.on_commit(volume)))
        return api_pb2.VolumeCommitResponse(skip_reload=True)

    def on_VolumeReload(self, request: Any) -> Any:
        self.plane.on_reload(self.plane.names[request.volume_id])
        return Empty()

    def on_TunnelStart(self, request: Any) -> Any:
        self.plane.tunnels.append(request.port)
        return api_pb2.TunnelStartResponse(host="ta-1.modal.test", port=443)

    def on_TunnelStop(self, request: Any) -> Any:
        return api_pb2.TunnelStopResponse(exists=True)
