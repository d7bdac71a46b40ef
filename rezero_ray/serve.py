"""`rezero serve RUN_OR_MODEL`: vLLM's OpenAI-compatible server, a base model and runs' adapters side by side."""

import argparse
import json
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rezero_ray.agreement import SMALLEST_MOVE
from rezero_ray.config.flags import split_arguments
from rezero_ray.errors import RunError
from rezero_ray.host.sockets import NoShortFolderError, short_temporary_folder
from rezero_ray.preflight.machine import visible_gpu_ids
from rezero_ray.serving.server import ApiKey, Server, free_port, further_arguments
from rezero_ray.serving.targets import Served, find_served
from rezero_ray.vllm_cpu.plugin import python_path

DONE, FAILED = 0, 1

OWN_FLAGS = ("--step", "--config")

PROBE = "Is this mail phishing? Your account is locked. Sign in at http://example.com within 24 hours."
"""What base and adapters are compared on at the start."""

LORA_KEYS = ("enable_lora", "max_loras", "max_cpu_loras", "max_lora_rank", "lora_target_modules")


def main(argv: Sequence[str]) -> int:
    """Serves until it is interrupted; returns 1 where the server ended by itself.

    Raises:
        ConfigError: there is no such run, checkpoint or model, or they do not fit together.
        KeyboardInterrupt: Ctrl-C, after everything has ended. SIGTERM ends it with 0.
    """
    own, overrides = split_arguments(argv, OWN_FLAGS)
    options = _parser().parse_args(own)
    served = find_served(options.targets, step=options.step, files=options.config, overrides=overrides)
    settings = served.config.serve
    further = further_arguments(settings)
    key = ApiKey(settings)
    port = free_port(settings)
    for note in served.notes:
        print(f"note: {note}")
    print(f"loading {served.config.model.name} ({served.device})", flush=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it otherwise
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(DONE))
    try:
        with (
            short_temporary_folder(),
            Server(
                engine_settings(served) | further,
                served.adapters,
                base_name=served.base_name,
                host=settings.host,
                port=port,
                key=key.value,
                environment=_environment(served),
            ) as server,
        ):
            print(f"log: {server.log}", flush=True)
            server.await_ready(served.config.limits.engine_start)
            _compare(server, served)
            _announce(server, served, key)
            server.wait()
    except (RunError, NoShortFolderError) as error:
        print(f"failed: {error}")
        return FAILED
    return DONE


def engine_settings(served: Served) -> dict[str, Any]:
    """The engine that the rollouts came from (`actors.rollout_engine`), with what differs where clients ask.

    Clients get logprobs of the model (`raw_logprobs`), not of a temperature's distribution. All adapters have a
    place at once, so none is read again.
    """
    from actors.rollout_engine import engine_arguments

    config = served.config
    arguments = engine_arguments(config, served.device, 0) | {"logprobs_mode": "raw_logprobs"}
    del arguments["disable_log_stats"]
    if served.adapters:
        arguments |= {"max_loras": len(served.adapters), "max_cpu_loras": len(served.adapters)}
    else:
        for name in LORA_KEYS:
            del arguments[name]
    if config.inference.parallel.dp > 1:
        arguments["data_parallel_size"] = config.inference.parallel.dp
    if config.inference.model.enable_auto_tool_choice:
        arguments["enable_auto_tool_choice"] = True
    if config.inference.model.tool_call_parser:
        arguments["tool_call_parser"] = config.inference.model.tool_call_parser
    return arguments


def _environment(served: Served) -> dict[str, str]:
    import os

    from actors.rollout_engine import engine_environment

    wanted = engine_environment(served.device)
    unset = {name: value for name, value in wanted.items() if name not in os.environ}
    if served.device == "cuda":
        ids = visible_gpu_ids()
        unset["CUDA_VISIBLE_DEVICES"] = ",".join(ids[gpu] for gpu in served.config.inference_gpu_ids)
    if served.device == "cpu":
        unset["PYTHONPATH"] = python_path(os.environ.get("PYTHONPATH"))
    return unset


def _compare(server: Server, served: Served) -> None:
    """Say how far each adapter moves the base model: vLLM ignores some without a word."""
    if not served.adapters:
        return
    base = server.prompt_logprobs(served.base_name, PROBE)
    for adapter in served.adapters:
        own = server.prompt_logprobs(adapter.name, PROBE)
        move = sum(abs(a - b) for a, b in zip(own, base, strict=True)) / len(base)
        print(f"{adapter.name}: step {adapter.step}, rank {adapter.rank}; moves logprobs by {move:.2g} nats")
        if move < SMALLEST_MOVE:
            print(
                f"note: {adapter.name} answers as the base model does: it is hardly trained, or not applied"
            )


def _announce(server: Server, served: Served, key: ApiKey) -> None:
    names = [adapter.name for adapter in served.adapters]
    asked = (names or [served.base_name])[-1]
    body = {"model": asked, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 64}
    print(f"\nserving at {server.address}/v1 until Ctrl-C")
    print(f"models: {', '.join([served.base_name, *names])}")
    if key.made:
        print(f"key, made for this server: {key.value}\n")
        print(f"export OPENAI_API_KEY={key.value}")
    else:
        variable = served.config.serve.api_key_env or "VLLM_API_KEY"
        print(f"key: the one in {variable}\n")
        print(f'export OPENAI_API_KEY="${variable}"')
    print(f"curl {server.address}/v1/chat/completions \\")
    print('  -H "Authorization: Bearer $OPENAI_API_KEY" -H "Content-Type: application/json" \\')
    print(f"  -d {shlex.quote(json.dumps(body))}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rezero serve",
        usage="%(prog)s MODEL | [NAME=]RUN ... [--step N] [--config TOML ...] [--dotted.key value ...]",
        description="Serve a model, or runs' adapters beside their base model, by the OpenAI API: chat, completions, "
        "streaming, logprobs, tool calls. An adapter has its run's name.",
        epilog="Keys of docs/configuration.md are flags here as well (--serve.port 8001, --device cpu); a run brings "
        "its own config.toml. exit status: 0 ended by SIGTERM, 1 the server failed, 2 the request is wrong, "
        "130 Ctrl-C",
        allow_abbrev=False,
    )
    parser.add_argument(
        "targets",
        nargs="+",
        metavar="RUN_OR_MODEL",
        help="run directories, or RUN/checkpoints/step_N; or a model directory or hub id",
    )
    parser.add_argument(
        "--step", type=int, metavar="N", help="the runs' checkpoint of this step (default: the newest)"
    )
    parser.add_argument(
        "--config",
        action="append",
        default=[],
        type=Path,
        metavar="TOML",
        help="further keys (configs/serve/)",
    )
    return parser
