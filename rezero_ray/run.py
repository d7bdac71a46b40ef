"""A run: its cluster, its actors, its files, from the first to the last. The steps are in `rezero_ray.training`."""

import sys
from contextlib import ExitStack

from actors.crew import start_crew
from infra.bootstrap import start_cluster
from infra.rates import rate_of
from rezero_ray.checkpoint_writer import CheckpointWriter
from rezero_ray.config import Config
from rezero_ray.errors import RunError
from rezero_ray.interruption import ClusterWatch, StopRequest
from rezero_ray.place.examination import look_at_start
from rezero_ray.place.report import every_finding, pretty
from rezero_ray.preflight.expected import Expected
from rezero_ray.preflight.machine import this_machine
from rezero_ray.reporting.reporter import Reporter
from rezero_ray.run_directory import RunDirectory
from rezero_ray.spending import Spending
from rezero_ray.training import Training

DONE, FAILED, INTERRUPTED = 0, 1, 130

ENDING_SECONDS = 10.0
"""A run that was asked to stop and then lost an actor looks this long whether all of Ray was stopped with it."""

CLUSTER_LOST = (
    "cluster error: Ray's processes on this machine have ended: something else stopped them, or memory ran out. "
    "--resume continues from the newest checkpoint"
)


def run_training(config: Config, *, resume: bool, expected: Expected | None = None) -> int:
    """Train as configured. Returns the exit status: 0 done, or stopped by its budget with a checkpoint; 1 failed;
    130 interrupted with a checkpoint.

    `expected` is what the environments say of the rollouts' lengths, for the plan that the run compares itself with.

    Raises:
        ConfigError: another process holds the run directory.
    """
    device = this_machine().device(config)
    resume = resume or config.ckpt.resume == "auto"
    gpus = len(set(config.inference_gpu_ids) | set(config.trainer_gpu_ids)) if device == "cuda" else 0
    status, code = "failed", FAILED
    stop, watch = StopRequest(), None
    try:
        directory = RunDirectory(config, device=device)
    except RunError as error:
        print(f"failed: {error}", file=sys.stderr)
        return FAILED
    with ExitStack() as stack:
        stack.enter_context(directory)
        spending = stack.enter_context(Spending(config, rate_of(config.infra), directory))
        reporter = stack.enter_context(Reporter(config, directory))
        try:
            place = look_at_start(config, device)
            directory.keep_doctor(pretty(place))
            reporter.place(every_finding(place))
            cluster = stack.enter_context(start_cluster(config, gpus=gpus))
            stack.enter_context(stop)
            watch = stack.enter_context(ClusterWatch(cluster.alive, stop))
            reporter.cluster(cluster.found, cluster.dashboard, cluster.logs, cluster.token_command)
            crew = stack.enter_context(start_crew(config, device, cluster.alive))
            saver = CheckpointWriter(
                directory.path, config.ckpt.keep_last, reporter.checkpoint, directory.require_held
            )
            stack.enter_context(saver)
            Training(config, crew, directory, reporter, saver, stop, spending, expected).run(resume=resume)
            stopped = spending.stopped is not None
            status, code = outcome(interrupted=stop.requested, out_of_budget=stopped, steps=directory.done)
        except KeyboardInterrupt:
            if stop.requested or not stop.cluster_lost:
                status, code = "interrupted", INTERRUPTED
            else:
                reporter.say(f"failed: {CLUSTER_LOST}")
        except Exception as error:
            by_ray = type(error).__module__.startswith("ray.")
            lost = (stop.requested or by_ray) and watch is not None and watch.sees_end_within(ENDING_SECONDS)
            if lost and stop.requested:
                status, code = "interrupted", INTERRUPTED
            elif lost or isinstance(error, RunError):
                reporter.say(f"failed: {CLUSTER_LOST if lost else error}")
            else:
                raise
        finally:
            if watch is not None:
                watch.end()
            directory.record_end(status)
            reporter.end(status, spending.lines(steps=directory.done))
    return code


def outcome(*, interrupted: bool, out_of_budget: bool, steps: int) -> tuple[str, int]:
    """The status of a run that has not failed, for run.json, and its exit status.

    A budget that let it take `steps` steps has been kept to, and a checkpoint is there; one that was used up by the
    start has bought nothing.
    """
    if interrupted:
        return "interrupted", INTERRUPTED
    if out_of_budget:
        return "out of budget", DONE if steps else FAILED
    return "done", DONE
