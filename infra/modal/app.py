"""The App of a run: one function, called once, in a container of its own."""

from typing import Any

from infra.modal import container
from infra.modal.client import modal_client
from infra.modal.image import image_of
from infra.modal.table import ModalInfraConfig

FUNCTION = "train"


def app_of(table: ModalInfraConfig, name: str, config_id: str, hours: float | None) -> tuple[Any, Any]:
    """The App and its function, as they will be sent; Modal's bills are grouped by the App's tags.

    `hours` is what the budget leaves a run, if it has one: no attempt may take longer, whatever it is stuck in.

    An App each, because a retry takes the newest definition of its function: with one App for all, launching
    a second run would change what the first comes back as.
    """
    modal = modal_client()
    app = modal.App(name, tags={"run": name, "config_id": config_id}, include_source=False)
    function = app.function(
        name=FUNCTION,
        timeout=max(1, int(3600 * min(table.timeout_hours, hours or table.timeout_hours))),
        startup_timeout=3600,
        retries=modal.Retries(max_retries=table.retries, initial_delay=0.0, backoff_coefficient=1.0),
        **resources_of(table),
    )(container.train)
    return app, function


def resources_of(table: ModalInfraConfig) -> dict[str, Any]:
    """The machine of a run, as the arguments of `App.function`."""
    modal = modal_client()
    return {
        "image": image_of(table),
        "gpu": table.gpu or None,
        "cpu": table.cpu,
        "memory": int(table.memory_gib * 1024),
        "volumes": {
            folder: modal.Volume.from_name(volume, create_if_missing=True)
            for folder, volume in table.volumes().items()
        },
        "secrets": [modal.Secret.from_name(table.secret)],
        "region": table.region or None,
        "max_containers": 1,
        "single_use_containers": True,
    }
