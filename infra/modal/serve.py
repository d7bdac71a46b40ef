"""`python -m infra.modal.serve RUN_OR_MODEL ...`: `rezero serve` in a container of Modal.

The container starts with the first request and goes some minutes after the last. Two doors stand before the engine:
Modal's proxy authentication (headers Modal-Key and Modal-Secret) and the server's own key.
"""

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from infra.modal.client import modal_answers, modal_client
from infra.modal.image import image_of
from infra.modal.table import ModalInfraConfig
from rezero_ray.config import ConfigError, Origin, Problem

PORT = 8000
REQUEST = "REZERO_SERVE"
"""Environment variable of the container: the command's words and the TOML files' texts, as JSON."""

START_SECONDS = 3600  # of the first container: it downloads the model
CONCURRENT_REQUESTS = 256


def main(argv: Sequence[str] | None = None) -> int:
    """Deploys, and prints the address and the key. Exit status as of `rezero`."""
    try:
        return _deploy(_parser().parse_args(argv))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2


def app_of(options: argparse.Namespace, key: str) -> tuple[Any, Any]:
    """The App and its one function, as they will be sent."""
    modal = modal_client()
    table = ModalInfraConfig(gpu=options.gpu, cpu=8.0, memory_gib=128.0)
    texts = [_text(file) for file in options.config]
    request = {"words": options.words, "tomls": texts, "home": table.home}
    volumes = {
        folder: modal.Volume.from_name(name, create_if_missing=True)
        for folder, name in table.volumes().items()
    }
    checkpoints = f"{table.home}/checkpoints"
    volumes[checkpoints] = volumes[checkpoints].with_mount_options(read_only=True)
    app = modal.App(options.name, include_source=False)
    web = modal.web_server(PORT, startup_timeout=START_SECONDS, requires_proxy_auth=not options.no_proxy_auth)
    many = modal.concurrent(max_inputs=CONCURRENT_REQUESTS)
    function = app.function(
        name="serve",
        image=image_of(table),
        gpu=table.gpu or None,
        cpu=table.cpu,
        memory=int(table.memory_gib * 1024),
        volumes=volumes,
        secrets=[modal.Secret.from_name(table.secret), modal.Secret.from_dict({"VLLM_API_KEY": key})],
        env={REQUEST: json.dumps(request)},
        timeout=3600,
        startup_timeout=START_SECONDS,
        min_containers=0,
        max_containers=1,
        scaledown_window=options.idle_seconds,
    )(many(web(serve)))
    return app, function


def serve() -> None:
    """What runs in the container: starts the server, which Modal waits for."""
    request = json.loads(os.environ[REQUEST])
    checkpoints = Path(request["home"], "checkpoints")
    folder = Path(tempfile.mkdtemp(prefix="rezero-serve-"))
    files = []
    for number, text in enumerate(request["tomls"]):
        files.append(folder / f"{number}.toml")
        files[-1].write_text(text, "utf-8")
    model = base_model(request["words"], request["tomls"], checkpoints)
    if not model.startswith("/"):
        from huggingface_hub import snapshot_download

        snapshot_download(model)
    subprocess.Popen(command(request["words"], files), cwd=checkpoints)


def command(words: Sequence[str], files: Sequence[Path]) -> list[str]:
    """`rezero serve` behind Modal's proxy."""
    configs = [word for file in files for word in ("--config", str(file))]
    listening = ["--serve.host", "0.0.0.0", "--serve.port", str(PORT), "--serve.api_key_env", "VLLM_API_KEY"]
    return [sys.executable, "-m", "rezero_ray.cli", "serve", *words, *configs, *listening]


def base_model(words: Sequence[str], tomls: Sequence[str], checkpoints: Path) -> str:
    """The model that will be loaded: the run's or the one named, unless a TOML file names another."""
    first = words[0].partition("=")[2] or words[0]
    for folder in (checkpoints / first, *(checkpoints / first).parents[1:2]):
        if (folder / "config.toml").is_file():
            first = tomllib.loads((folder / "config.toml").read_text("utf-8"))["model"]["name"]
            named = [tomllib.loads(text).get("model", {}).get("name") for text in tomls]
            return str([name for name in (first, *named) if name][-1])
    return first


def _deploy(options: argparse.Namespace) -> int:
    key = os.environ.get("VLLM_API_KEY") or secrets.token_urlsafe(32)
    with modal_answers():
        app, function = app_of(options, key)
        print(
            f"deploying {options.name}; the image is built first where it is new, which takes minutes",
            flush=True,
        )
        app.deploy()
        address = function.get_web_url()
    print(f"serving at {address}/v1; the first request starts a container ({options.gpu})")
    print(f"key: {'the one in VLLM_API_KEY' if os.environ.get('VLLM_API_KEY') else key}")
    if not options.no_proxy_auth:
        print("and headers Modal-Key, Modal-Secret: a proxy auth token of the workspace's settings")
    print(f"end it: modal app stop {options.name}")
    return 0


def _text(file: Path) -> str:
    try:
        text = file.read_text("utf-8")
        tomllib.loads(text)
    except (OSError, ValueError) as error:
        what = f"cannot be read: {error}"
        raise ConfigError([Problem("", what, "name a TOML file", origin=Origin(str(file)))]) from None
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m infra.modal.serve",
        description="Serve a model, or runs of the checkpoints Volume beside their base model, on Modal.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "words", nargs="+", metavar="RUN_OR_MODEL", help="as of `rezero serve`; runs relative to the Volume"
    )
    parser.add_argument(
        "--config", action="append", default=[], type=Path, metavar="TOML", help="configs/serve/..."
    )
    parser.add_argument("--name", default="re-zero-serve", help="of the App (default %(default)s)")
    parser.add_argument("--gpu", default="H100:1", help="as [infra] gpu (default %(default)s)")
    parser.add_argument(
        "--idle-seconds",
        type=int,
        default=300,
        help="without a request, before the container goes (default 300)",
    )
    parser.add_argument(
        "--no-proxy-auth", action="store_true", help="only the server's own key stands before the engine"
    )
    return parser


if __name__ == "__main__":
    # Modal finds the function by its module's name, which is not __main__
    sys.exit(import_module("infra.modal.serve").main())
