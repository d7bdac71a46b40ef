"""What Modal can be asked before anything is built or rented."""

from infra.modal.client import modal_answers, modal_client
from infra.modal.table import ModalInfraConfig
from rezero_ray.config import Config, ConfigError, Problem
from rezero_ray.config.problems import shown


def examine(config: Config) -> list[Problem]:
    """Whether Modal knows us, and the Secret. Volumes are made when they are missing; a quota cannot be asked for."""
    table = config.infra
    assert isinstance(table, ModalInfraConfig)
    try:
        with modal_answers():
            modal = modal_client()
            try:
                modal.Secret.from_name(table.secret).hydrate()
            except modal.exception.NotFoundError:
                remedy = f"make it: modal secret create {table.secret} HF_TOKEN=hf_..."
                return [Problem("infra.secret", "Modal has no such Secret", remedy, shown(table.secret))]
    except ConfigError as error:
        return list(error.problems)
    return []
