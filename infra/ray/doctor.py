"""`rezero doctor` as a job of a Ray cluster, for whoever reaches only its dashboard."""

import secrets
import shlex
import time

from infra.doctor import Answer
from infra.ray.launcher import POLL_SECONDS, guarded_client
from infra.ray.package import CONFIG, packed
from infra.ray.table import RayInfraConfig
from rezero_ray.config import Config
from rezero_ray.config.infra_table import LAUNCHED
from rezero_ray.errors import RunError

SECONDS = 900.0
"""For a place on the cluster and all that is measured; a healthy one takes half a minute."""


def examine_there(config: Config) -> Answer:
    """Submit the command, wait for its end, and take its line of JSON out of the job's logs.

    Raises:
        ConfigError: the cluster does not answer, does not take our token or asks nobody for one.
        RunError: the job does not end.
    """
    table = config.infra
    assert isinstance(table, RayInfraConfig)
    client = guarded_client(table)
    command = [table.python, "-m", "rezero_ray.cli", "doctor", CONFIG, "--json"]
    with packed(config) as folder:
        name = client.submit_job(
            entrypoint=f"exec {shlex.join(command)}",
            submission_id=f"doctor-{secrets.token_hex(4)}",
            runtime_env={"working_dir": str(folder), "env_vars": {LAUNCHED: "1"}},
        )
    try:
        deadline = time.monotonic() + SECONDS
        while not (job := client.get_job_info(name)).status.is_terminal():
            if time.monotonic() > deadline:
                raise RunError(
                    "cluster", f"the job {name} has not ended after {SECONDS:.0f} s; it is stopped"
                )
            time.sleep(POLL_SECONDS)
        lines = client.get_job_logs(name).splitlines()
    finally:
        client.stop_job(name)
    reports = [line for line in lines if line.startswith('{"made"')]
    others = [line for line in lines if line not in reports] or [job.message or ""]
    return Answer(reports[-1] if reports else "", "\n".join(others))
