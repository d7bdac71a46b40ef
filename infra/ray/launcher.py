"""Submits a run to a Ray cluster as a job. The job goes on without this process."""

import asyncio
import logging
import os
import re
import shlex
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

from infra.ray.address import answers_without_token, honour_token, hosts_of, knock, open_to_anybody
from infra.ray.package import CONFIG, packed
from infra.ray.table import RayInfraConfig
from rezero_ray.config import Config, ConfigError, Problem, config_id
from rezero_ray.config.infra_table import LAUNCHED
from rezero_ray.config.problems import shown
from rezero_ray.host.proxies import bypass_proxies

DONE, FAILED, INTERRUPTED = 0, 1, 130

PREFIX = "rezero-"

STOP_SECONDS = 900
"""A run that is asked to stop finishes its step and saves; Ray kills it after this long. Ray's own 3 would not do."""

POLL_SECONDS = 0.5

_STEP = re.compile(r"Orchestrator Step (\d+):")


class RayJob:
    """A run submitted to a cluster, by its submission id."""

    def __init__(self, client: Any, name: str) -> None:
        self._client, self.name = client, name
        self.address = f"{client.get_address()}/#/jobs/{name}"

    def facts(self) -> list[tuple[str, str]]:
        job = self._client.get_job_info(self.name)
        return [
            ("status", self.status()),
            ("address", self.address),
            ("config_id", job.metadata["config_id"]),
            ("output_dir", job.metadata["output_dir"]),
            ("launched", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(job.start_time / 1000))),
            ("Ray dashboard", self._client.get_address()),
            ("its token", "`ray get-auth-token` on the cluster's head prints it"),
        ]

    def status(self) -> str:
        job = self._client.get_job_info(self.name)
        name = job.status.value
        if name == "PENDING":
            return f"queued: {job.message or 'no process yet'}"
        words = {"RUNNING": "running", "SUCCEEDED": "done", "STOPPED": "stopped"}
        return f"{words.get(name) or _failure(job)}, {self._how_far()}"

    def _how_far(self) -> str:
        try:
            steps = _STEP.findall(self._client.get_job_logs(self.name))
        except RuntimeError:  # they lie on the node of the job's process
            return "its logs cannot be read"
        return f"step {steps[-1]}" if steps else "no step yet"

    def logs(self) -> Iterator[str]:
        """From the begin on, as the job writes them; ends when the job has ended."""
        pieces: SimpleQueue[str | BaseException | None] = SimpleQueue()
        threading.Thread(target=self._tail, args=(pieces,), daemon=True).start()
        while (piece := pieces.get()) is not None:
            if isinstance(piece, BaseException):
                raise ConfigError([Problem("", f"the logs of {self.name} end here: {piece}")])
            yield piece

    def _tail(self, pieces: SimpleQueue[str | BaseException | None]) -> None:
        """Ray's client has the logs for `async for` only."""

        async def follow() -> None:
            async for piece in self._client.tail_job_logs(self.name):
                pieces.put(piece)

        try:
            asyncio.run(follow())
            job = self._client.get_job_info(self.name)
            if job.status.value == "FAILED" and job.driver_exit_code is None:
                pieces.put(f"{_failure(job)}\n")
            pieces.put(None)
        except Exception as error:  # told to the reader
            pieces.put(error)

    def stop(self) -> None:
        self._client.stop_job(self.name)

    def result(self) -> int:
        """Waits."""
        while not (job := self._client.get_job_info(self.name)).status.is_terminal():
            time.sleep(POLL_SECONDS)
        if job.status.value == "STOPPED":
            return INTERRUPTED
        return DONE if job.status.value == "SUCCEEDED" else int(job.driver_exit_code or FAILED)


def _failure(job: Any) -> str:
    """How a job failed; where its process never ran, or was lost with its node, Ray's own message says it."""
    if job.driver_exit_code is None:
        return f"failed: {job.message}"
    return f"failed with exit status {job.driver_exit_code}"


def launch(config: Config, *, resume: bool, force_new: bool) -> RayJob:
    """Submit the run under an id that is made of its config_id, so that the cluster takes it once only.

    Raises:
        ConfigError: it runs there already (`force_new` overrides that, into another output_dir), or the cluster
            does not answer, does not take our token or asks nobody for one.
    """
    table = config.infra
    assert isinstance(table, RayInfraConfig)
    client = guarded_client(table)
    if table.address is not None:
        print(f"to come back to it: export RAY_ADDRESS={client.get_address()}")
    name = _free_name(client, config, force_new=force_new)
    command = [table.python, "-m", "rezero_ray.train", CONFIG, *(["--resume"] if resume else [])]
    with packed(config) as folder:
        try:
            client.submit_job(
                entrypoint=f"exec {shlex.join(command)}",
                submission_id=name,
                runtime_env={
                    "working_dir": str(folder),
                    "env_vars": {LAUNCHED: "1", "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)},
                },
                metadata={"config_id": config_id(config), "output_dir": config.output_dir},
            )
        except RuntimeError as error:
            if "already exists" not in str(error):
                problem = Problem("infra.address", f"the cluster does not take it: {error}")
                raise ConfigError([problem]) from error
            raise _refusal(RayJob(client, name), "is this configuration", _AGAIN) from error
    return RayJob(client, name)


def guarded_client(table: RayInfraConfig) -> Any:
    """Ray's own client of the cluster that the table names.

    Raises:
        ConfigError: it does not answer, does not take our token or asks nobody for one.
    """
    client = _client(table.address)
    open_at = answers_without_token(client.get_address()) if table.require_token else None
    if open_at is not None:
        raise ConfigError([Problem("infra.require_token", open_to_anybody(open_at), "", shown(True))])
    return client


def runs() -> Sequence[RayJob]:
    """Our jobs on the cluster of RAY_ADDRESS, the newest first; none where it is not set."""
    if not (os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS")):
        return []
    client = _client(None)
    return [RayJob(client, job.submission_id) for job in _ours(client)]


_AGAIN = "or start it a second time: --force-new and another --output_dir"


def _free_name(client: Any, config: Config, *, force_new: bool) -> str:
    """`rezero-CONFIG_ID`, with a number behind it where jobs of that name have ended: Ray takes an id only once.

    Two launches at the same time find the same name, and the cluster refuses one of them.
    """
    name, jobs = PREFIX + config_id(config), _ours(client)
    for job in jobs:
        if job.status.is_terminal():
            continue
        run = RayJob(client, job.submission_id)
        if job.metadata["output_dir"] == config.output_dir and (
            force_new or job.metadata["config_id"] != config_id(config)
        ):
            raise _refusal(run, "writes into the same output_dir", "name another --output_dir")
        if job.metadata["config_id"] == config_id(config) and not force_new:
            raise _refusal(run, "is this configuration", _AGAIN)
    taken = {job.submission_id for job in jobs}
    names = [name, *(f"{name}-{number}" for number in range(2, len(taken) + 2))]
    return next(candidate for candidate in names if candidate not in taken)


def _ours(client: Any) -> list[Any]:
    """Ray's records of the jobs that this module has submitted, the newest first."""
    jobs = [job for job in client.list_jobs() if (job.submission_id or "").startswith(PREFIX)]
    return sorted(jobs, key=lambda job: job.start_time or 0, reverse=True)


def _refusal(run: RayJob, why: str, remedy: str) -> ConfigError:
    what = f"the run {run.name} {why}, and goes on: {run.address}"
    follow = f"follow it: rezero logs {run.name}; stop it: rezero stop {run.name}; {remedy}"
    return ConfigError([Problem("infra.kind", what, follow, '"ray"')])


def _client(address: str | None) -> Any:
    """Ray's own client. Raises ConfigError where no cluster answers, or it does not take our token."""
    where = address or os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS") or "auto"
    import ray

    bypass_proxies(*hosts_of(where))  # Ray's client takes proxies from the environment
    honour_token()
    from ray.job_submission import JobSubmissionClient

    for module in ("job.sdk", "dashboard_sdk"):  # they tell of every package and socket
        logging.getLogger(f"ray.dashboard.modules.{module}").setLevel(logging.WARNING)
    try:
        knock(where)
        with _told(where):
            return JobSubmissionClient(where)
    except ray.exceptions.AuthenticationError as error:
        remedy = "set RAY_AUTH_TOKEN to its own (`ray get-auth-token` on its head prints it)"
        problem = Problem("infra.address", "the cluster asks for a token", remedy, shown(where))
        raise ConfigError([problem]) from error
    except (OSError, ValueError, RuntimeError) as error:  # Ray's ConnectionError is one
        remedy = "start one with `ray start --head`, or name the `host:port` of its head or of its dashboard"
        what = f"no Ray cluster takes jobs there ({error})"
        raise ConfigError([Problem("infra.address", what, remedy, shown(where))]) from error


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Ray's client prefers RAY_ADDRESS to its argument, and RAY_API_SERVER_ADDRESS to both."""
    before = os.environ.get("RAY_API_SERVER_ADDRESS")
    os.environ["RAY_API_SERVER_ADDRESS"] = where
    try:
        yield
    finally:
        del os.environ["RAY_API_SERVER_ADDRESS"]
        if before is not None:
            os.environ["RAY_API_SERVER_ADDRESS"] = before
