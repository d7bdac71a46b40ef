"""`rezero doctor` in a container like the run's, which ends with the command."""

import os
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

from infra.doctor import Answer
from infra.modal.app import resources_of
from infra.modal.client import modal_answers, modal_client
from infra.modal.examination import examine
from infra.modal.table import ModalInfraConfig
from rezero_ray.config import Config, ConfigError, dump_toml
from rezero_ray.config.infra_table import LAUNCHED

MINUTES = 15
"""Of the container, at most; two or three are usual. Its GPUs are paid for as long."""

COMMAND_SECONDS = 600.0

VOLUME_MIB = 256
"""Checkpoints of the recipes have 0.2 GB."""


def examine_there(config: Config) -> Answer:
    """Rent a container as a run of this config would, and look at it from inside.

    Raises:
        ConfigError: Modal refuses.
    """
    table = config.infra
    assert isinstance(table, ModalInfraConfig)
    problems = examine(config, resume=True)  # whatever run output_dir may hold
    if problems:
        raise ConfigError(problems)
    text = dump_toml(config.model_copy(update={"output_dir": table.output_dir(config)}))
    print(f"renting {table.gpu or 'a container'} for some minutes", file=sys.stderr, flush=True)
    with modal_answers():
        app, function = app_of(table)
        with app.run():
            return Answer(**function.remote(text))


def app_of(table: ModalInfraConfig) -> tuple[Any, Any]:
    """The App and its function, with the run's image, resources and Volumes; it is tried once."""
    app = modal_client().App(f"{table.app}-doctor", include_source=False)
    function = app.function(name="look", timeout=60 * MINUTES, startup_timeout=3600, **resources_of(table))(
        look
    )
    return app, function


def look(config_toml: str) -> dict[str, Any]:
    """What runs in the container: the fields of an `Answer`."""
    table = ModalInfraConfig.model_validate(tomllib.loads(config_toml)["infra"])
    volume = measure_volume(table)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.toml")
        config.write_text(config_toml, "utf-8")
        command = [sys.executable, "-m", "rezero_ray.cli", "doctor", str(config), "--json"]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                env=os.environ | {LAUNCHED: "1"},
                timeout=COMMAND_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            told = (error.stderr or b"").decode(errors="replace")
            return {
                "report": "",
                "errors": f"{told}\nno end within {COMMAND_SECONDS:.0f} s",
                "volume": volume,
            }
    modal_client().Volume.from_name(table.checkpoints_volume).commit()  # the report that later runs find
    return {"report": done.stdout, "errors": done.stderr, "volume": volume}


def measure_volume(table: ModalInfraConfig) -> dict[str, Any]:
    """Write a file into the Volume of checkpoints and commit it, as a run does its checkpoints; then remove it."""
    volume = modal_client().Volume.from_name(table.checkpoints_volume)
    found = {"name": table.checkpoints_volume, "file_mib": float(VOLUME_MIB), "write_s": 0.0, "commit_s": 0.0}
    block = os.urandom(2**20)
    try:
        with tempfile.NamedTemporaryFile(dir=f"{table.home}/checkpoints", prefix=".rezero-doctor-") as file:
            began = time.perf_counter()
            for _ in range(VOLUME_MIB):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            written = time.perf_counter()
            volume.commit()
            committed = time.perf_counter()
        volume.commit()
    except (OSError, modal_client().exception.Error) as error:
        return found | {"error": f"{type(error).__name__}: {error}"}
    return found | {"write_s": written - began, "commit_s": committed - written}
