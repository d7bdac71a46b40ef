"""`[infra] kind = "ray"`."""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from rezero_ray.config.infra_table import InfraTable
from rezero_ray.config.problems import Problem, shown

if TYPE_CHECKING:
    from rezero_ray.config.schema import Config


class RayInfraConfig(InfraTable):
    """A Ray cluster that runs already; the model lies under the same path on all of its nodes."""

    kind: Literal["ray"] = Field(default="ray", description="Where Ray comes from.")
    address: str | None = Field(
        default=None,
        pattern=r"^(https?://)?([^:/\s\[\]]+|\[[0-9A-Fa-f:.]+\]):[0-9]+$",
        description="`host:port` (`[IPv6]:port`) of its head, or to submit a job `http(s)://host:port` of its "
        "dashboard; RAY_ADDRESS, else the cluster of this machine, when unset.",
    )
    submit: bool = Field(
        default=False,
        description="Submit the run as a job that goes on without this process, which is its driver otherwise.",
    )
    python: str = Field(
        default="python",
        description="Interpreter of the submitted job: one of the cluster, with the project's requirements.",
    )
    inference_labels: dict[str, str] = Field(
        default={}, description="Labels of the nodes that engines may go to (`ray start --labels`)."
    )
    trainer_labels: dict[str, str] = Field(
        default={}, description="Labels of the nodes that learner ranks may go to."
    )
    require_token: bool = Field(
        default=True,
        description="Refuse a cluster whose dashboard and jobs API do not ask for a token, or of which that "
        "cannot be found out: whoever reaches them may run code on its nodes.",
    )

    def launches(self) -> bool:
        return self.submit

    def on_this_machine(self) -> bool:
        return False

    def inference_node(self) -> dict[str, str]:
        return self.inference_labels

    def trainer_node(self) -> dict[str, str]:
        return self.trainer_labels

    def problems(self, config: "Config") -> Iterator[Problem]:
        if config.device == "auto":
            what = 'with infra.kind = "ray" it cannot be seen here what the nodes have'
            yield Problem("device", what, 'write "cuda" or "cpu"', '"auto"', others=("infra.kind",))
        yield from self._submission_problems(config)
        yield from self._sharing_problems(config)

    def _submission_problems(self, config: "Config") -> Iterator[Problem]:
        if not self.submit:
            if self.address and "://" in self.address:
                what = "is a dashboard; a driver joins the head"
                remedy = "write the head's `host:port`, or submit = true"
                yield Problem("infra.address", what, remedy, shown(self.address), others=("infra.submit",))
            return
        if not PurePosixPath(config.output_dir).is_absolute():
            what = "a submitted job has a temporary folder for its current directory"
            remedy = "write an absolute path on the cluster's head"
            yield Problem("output_dir", what, remedy, shown(config.output_dir), others=("infra.submit",))
        name = config.model.name
        if not name.startswith("/") and (name.startswith((".", "~", "models/")) or name.count("/") != 1):
            what = "a submitted job has a temporary folder for its current directory"
            remedy = "write an absolute path that all nodes have, or a hub id"
            yield Problem("model.name", what, remedy, shown(name), others=("infra.submit",))

    def _sharing_problems(self, config: "Config") -> Iterator[Problem]:
        shared = set(config.inference_gpu_ids) & set(config.trainer_gpu_ids)
        if not shared or config.device == "cpu":
            return
        if config.inference.parallel.tp > 1:
            what = "Ray gives an engine of several GPUs whole ones: it cannot share them with learner ranks"
            others = ("inference_gpu_ids", "trainer_gpu_ids", "infra.kind")
            yield Problem("inference.parallel.tp", what, "give each its own GPUs", others=others)
        both = set(self.inference_labels) & set(self.trainer_labels)
        if any(self.inference_labels[key] != self.trainer_labels[key] for key in both):
            what = "a GPU is shared by engine and learner, and their labels name different nodes"
            others = ("infra.inference_labels", "inference_gpu_ids", "trainer_gpu_ids")
            remedy = "write the same labels, or give each its own GPUs"
            yield Problem("infra.trainer_labels", what, remedy, shown(self.trainer_labels), others=others)
