"""What Modal can be asked before anything is built or rented."""

from pathlib import PurePosixPath

from infra.modal.client import modal_answers, modal_client
from infra.modal.table import ModalInfraConfig
from rezero_ray.config import Config, ConfigError, Problem
from rezero_ray.config.problems import shown


def examine(config: Config, *, resume: bool) -> list[Problem]:
    """Whether Modal knows us, has the Secret, and has no other run in output_dir. A Volume that is missing is made at
    the launch; a quota cannot be asked for."""
    table = config.infra
    assert isinstance(table, ModalInfraConfig)
    try:
        with modal_answers():
            problems = _secret(table)
            if not (resume or config.ckpt.resume == "auto"):
                problems += _output(table, config)
    except ConfigError as error:
        return list(error.problems)
    return problems


def _secret(table: ModalInfraConfig) -> list[Problem]:
    modal = modal_client()
    try:
        modal.Secret.from_name(table.secret).hydrate()
    except modal.exception.NotFoundError:
        remedy = f"make it: modal secret create {table.secret} HF_TOKEN=hf_..."
        return [Problem("infra.secret", "Modal has no such Secret", remedy, shown(table.secret))]
    return []


def _output(table: ModalInfraConfig, config: Config) -> list[Problem]:
    modal = modal_client()
    folder = PurePosixPath(table.output_dir(config)).relative_to(PurePosixPath(table.home, "checkpoints"))
    try:
        found = modal.Volume.from_name(table.checkpoints_volume).listdir(str(folder))
    except modal.exception.NotFoundError:  # the Volume, or the folder in it
        return []
    size = {PurePosixPath(entry.path).name: entry.size for entry in found}
    if not found or ("run.json" in size and "checkpoints" not in size and not size.get("metrics.jsonl")):
        return []  # nothing, or a run that ended before its first step
    what = f"{folder} of the Volume {table.checkpoints_volume} is not empty: it holds another run"
    remedy = "go on with it: --resume; or begin anew: name another output_dir"
    return [Problem("output_dir", what, remedy, shown(config.output_dir))]
