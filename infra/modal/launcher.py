"""Takes a run to Modal: lock, deploy, call. The call goes on without this process."""

import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from infra.modal.app import app_of
from infra.modal.attempts import FAILED
from infra.modal.client import modal_answers, modal_client
from infra.modal.examination import examine
from infra.modal.records import ENDED, Records, RunRecord
from infra.modal.table import ModalInfraConfig
from infra.rates import rate_of
from rezero_ray.config import Config, ConfigError, Problem, config_id, dump_toml
from rezero_ray.cost import Rate, dollars

INTERRUPTED = 130


class ModalRun:
    """A run on Modal, by its record; every question is asked of Modal anew."""

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        self.name, self.address = record.name, record.address

    def facts(self) -> list[tuple[str, str]]:
        record = self.record
        return [
            ("status", self.status()),
            ("address", record.address),
            ("config_id", record.config_id),
            ("output_dir", record.output_dir),
            ("launched", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(record.launched))),
            ("cost", "not known yet" if record.cost is None else dollars(record.cost)),
            ("Ray dashboard", record.ray_dashboard or "not open"),
            ("its token", record.ray_token or "none yet"),
        ]

    def status(self) -> str:
        record = self.record
        if record.status in ENDED:
            return f"{record.status}, step {record.step}"
        if not self.is_alive():
            return f"ended ({record.status} when last heard of), step {record.step}"
        if not record.starts:
            return "launching" if not record.call_id else "queued: no container yet"
        return f"{record.status}, attempt {len(record.starts)}, step {record.step}"

    def logs(self) -> Iterator[str]:
        """As Modal has them, from the call's begin on; ends when the call has ended."""
        with modal_answers():
            for entry in self._call().logs.stream():
                yield entry.message

    def stop(self) -> None:
        with modal_answers():
            if not self.is_alive():
                return
            self._call().cancel()
            if not self.record.starts:  # no container will say so
                Records().update(self.record, status="stopped")

    def result(self) -> int:
        """Waits. A call that was cancelled has the status of an interruption."""
        with modal_answers():
            try:
                return int(self._call().get())
            except _endings():
                found = Records().get(self.name)
                return INTERRUPTED if found is not None and found.status == "stopped" else FAILED

    def is_alive(self) -> bool:
        """Whether the call is not finished, or a container is still at work on it."""
        if self.record.is_fresh(time.time()):
            return True
        if not self.record.call_id or self.record.status in ENDED:
            return False
        with modal_answers():
            try:
                self._call().get(timeout=0)
            except TimeoutError:
                return True
            except _endings():
                return False
        return False

    def _call(self) -> Any:
        if not self.record.call_id:
            raise ConfigError([Problem("", f"{self.name} has not been called yet", "wait for its launch")])
        return modal_client().FunctionCall.from_id(self.record.call_id)


def launch(config: Config, *, resume: bool, force_new: bool) -> ModalRun:
    """Deploy the run's App and call its function.

    Raises:
        ConfigError: it runs already (`force_new` overrides that, into another output_dir), or Modal refuses.
    """
    table = config.infra
    assert isinstance(table, ModalInfraConfig)
    with modal_answers():
        records = Records()
        wanted = _reserve(records, table, config, force_new=force_new)
        try:
            problems = examine(config, resume=resume)
            if problems:
                raise ConfigError(problems)
            return ModalRun(_call(records, table, config, wanted, resume=resume))
        except BaseException:
            records.release(wanted.name)
            raise


def runs() -> Sequence[ModalRun]:
    """The runs of the workspace; a finished one is forgotten a week after it was last looked at."""
    with modal_answers():
        found = sorted(Records().all(), key=lambda record: record.launched, reverse=True)
    return [ModalRun(record) for record in found]


def _reserve(records: Records, table: ModalInfraConfig, config: Config, *, force_new: bool) -> RunRecord:
    """The record that holds the lock of this configuration, or with `force_new` one beside it."""
    name = f"{table.app}-{config_id(config)}"
    wanted = RunRecord(name, config_id(config), table.output_dir(config), launched=time.time())
    for record in list(records.all()):
        same_config = record.config_id == wanted.config_id
        same_output = record.output_dir == wanted.output_dir
        if not (same_config or same_output):
            continue
        if not ModalRun(record).is_alive():
            if record.name == name:
                records.release(name)
        elif same_config and not force_new:
            remedy = "or start it a second time: --force-new and another --output_dir"
            raise _refusal(record, "is this configuration", remedy)
        elif same_output:
            raise _refusal(record, "writes into the same output_dir", "name another --output_dir")
        elif record.name == name:
            wanted = replace(wanted, name=f"{name}-{secrets.token_hex(2)}")
    if not records.reserve(wanted):
        raise _refusal(wanted, "is being launched by somebody else at this moment", "look: rezero runs")
    return wanted


def _refusal(record: RunRecord, why: str, remedy: str) -> ConfigError:
    what = f"the run {record.name} {why}, and goes on: {record.address}"
    follow = f"follow it: rezero logs {record.name}; {remedy}"
    return ConfigError([Problem("infra.kind", what, follow, '"modal"')])


def _call(
    records: Records, table: ModalInfraConfig, config: Config, record: RunRecord, *, resume: bool
) -> RunRecord:
    modal = modal_client()
    rate = rate_of(table)
    hours = config.budget.hours(rate.usd_per_hour if isinstance(rate, Rate) else None)
    app, function = app_of(table, record.name, record.config_id, hours)
    print(
        f"deploying {record.name}; the image is built first where it is new, which takes minutes", flush=True
    )
    if sys.stderr.isatty():
        with modal.enable_output():
            app.deploy()
    else:
        app.deploy()
    record = records.update(record, app_id=app.app_id)
    text = dump_toml(config.model_copy(update={"output_dir": record.output_dir}))
    call = function.spawn(record.name, text, resume)
    try:
        begun = records.get(record.name)
        if begun is not None and begun.call_id == call.object_id:
            return begun  # its container was faster than this
        return records.update(record, call_id=call.object_id, status="queued")
    except BaseException:
        call.cancel()
        raise


def _endings() -> tuple[type[Exception], ...]:
    """How the result of a call tells that it did not return."""
    from infra.modal.container import AttemptFailedError

    exception = modal_client().exception
    return (
        AttemptFailedError,
        exception.RemoteError,
        exception.FunctionTimeoutError,
        exception.InternalFailure,
        exception.OutputExpiredError,
        exception.ExecutionError,
        exception.NotFoundError,
    )
