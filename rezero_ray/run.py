"""The controller: a run, step by step. Every detail lives in the module that its name says."""

from contextlib import ExitStack

from actors.crew import Crew, start_crew
from infra import start_cluster
from rezero_ray import checkpoint
from rezero_ray.agreement import judge_canary, mismatch_kl, require_change, require_match
from rezero_ray.batch import build_batch
from rezero_ray.config import Config
from rezero_ray.errors import RunError
from rezero_ray.interruption import StopRequest
from rezero_ray.preflight.machine import this_machine
from rezero_ray.records import Adapter, Group
from rezero_ray.reporting.reporter import Reporter
from rezero_ray.reporting.step_metrics import StepTimes, step_metrics
from rezero_ray.run_directory import RunDirectory
from rezero_ray.sampler import PromptSampler

DONE, FAILED, INTERRUPTED = 0, 1, 130


def run_training(config: Config, *, resume: bool) -> int:
    """Train as configured. Returns the exit status: 0 done, 1 failed, 130 interrupted with a checkpoint."""
    device = this_machine().device(config)
    resume = resume or config.ckpt.resume == "auto"
    directory = RunDirectory(config, device=device)
    gpus = len(set(config.inference_gpu_ids) | set(config.trainer_gpu_ids)) if device == "cuda" else 0
    status, code = "failed", FAILED
    with ExitStack() as stack:
        reporter = stack.enter_context(Reporter(config, directory))
        try:
            cluster = stack.enter_context(start_cluster(config, gpus=gpus))
            stop = stack.enter_context(StopRequest())
            reporter.cluster(cluster.dashboard, cluster.logs)
            crew = stack.enter_context(start_crew(config, device, cpus=cluster.cpus))
            Training(config, crew, directory, reporter, stop).run(resume=resume)
            status, code = ("interrupted", INTERRUPTED) if stop.requested else ("done", DONE)
        except RunError as error:
            reporter.say(f"failed: {error}")
        except KeyboardInterrupt:
            status, code = "interrupted", INTERRUPTED
        finally:
            directory.end(status)
            reporter.end(status)
    return code


class Training:
    """The loop over steps and the state it carries: the sampler's position and the published version."""

    def __init__(
        self, config: Config, crew: Crew, directory: RunDirectory, reporter: Reporter, stop: StopRequest
    ) -> None:
        self._config, self._crew, self._directory = config, crew, directory
        self._reporter, self._stop = reporter, stop
        self._sizes = crew.environments.sizes()
        self._sampler = self._sampler_at_the_start()
        self._version = 0

    def run(self, *, resume: bool) -> None:
        """From the first step, or the one behind the newest checkpoint, to the last."""
        done = self._restore() if resume else 0
        self._directory.rewind(done)
        adapter = self._crew.learners.adapter()
        self._version = done
        self._crew.engines.publish(self._version, adapter)
        self._reporter.ready(self._crew.parameters, self._crew.bundles, done)
        with self._reporter.phase("canary"):
            probe = self._check_agreement()
        self._stop.armed = True
        for step in range(done + 1, self._config.max_steps + 1):
            adapter = self._step(step, adapter, probe)
            last = step == self._config.max_steps or self._stop.requested
            if last or step % self._config.ckpt.interval == 0:
                self._save(step, adapter)
            if self._stop.requested:
                return

    def _step(self, step: int, adapter: Adapter, probe: list[int]) -> Adapter:
        """Roll out, train, publish, report. Returns the adapter of the new version."""
        config, crew = self._config, self._crew
        prompts = self._sampler.take(config.orchestrator.batch_size)
        with self._reporter.phase("rollouts", len(prompts)) as rollout:
            groups = crew.environments.collect(prompts, self._version, self._reporter.group)
            trained = _complete(groups)
        with self._reporter.phase("training") as train:
            batch = build_batch(trained, config, ranks=len(config.trainer_gpu_ids))
            report = crew.learners.step(batch, step)
            require_match(report.metrics["mismatch_kl"], config.trust.max_mismatch_kl, f"step {step}")
        with self._reporter.phase("publishing") as sync:
            updated = crew.learners.adapter()
            self._publish(step, updated, probe, changed=updated.digest != adapter.digest)
        self._directory.add_rollouts(step, trained, batch.advantages)
        times = StepTimes(rollout=rollout.seconds, train=train.seconds, sync=sync.seconds)
        self._reporter.step(step_metrics(groups, batch, report, times, policy_version=step), trained)
        return updated

    def _publish(self, version: int, adapter: Adapter, probe: list[int], *, changed: bool) -> None:
        """Publish, and require that the engines' logprobs move with the adapter."""
        engines = self._crew.engines
        before = engines.logprobs(self._version, probe) if changed else []
        engines.publish(version, adapter)
        for old, new in zip(before, engines.logprobs(version, probe) if changed else [], strict=True):
            require_change(old, new, version)
        self._version = version

    def _check_agreement(self) -> list[int]:
        """The start-up canary. Returns its probe, the ids of one real prompt and completion."""
        config, learners, engines = self._config, self._crew.learners, self._crew.engines
        prompt = self._sampler_at_the_start().take(1)
        group = _complete(self._crew.environments.collect(prompt, self._version, lambda _: None))[0]
        probe = group.rollouts[0].token_ids
        learner_before = learners.logprobs(probe)
        engine_before = engines.logprobs(self._version, probe)
        for before in engine_before:
            require_match(mismatch_kl(learner_before, before), config.trust.max_mismatch_kl, "at the start")
        for number, module in enumerate(
            config.trainer.model.lora.target_modules if config.trust.canary else []
        ):
            adapter, learner_after = learners.canary(module, config.seed, probe)
            for before, after in zip(engine_before, engines.canary(number, adapter, probe), strict=True):
                result = judge_canary(
                    module,
                    learner_before=learner_before,
                    learner_after=learner_after,
                    engine_before=before,
                    engine_after=after,
                    dtype=config.model.dtype,
                )
            self._reporter.canary(result)
        return probe

    def _sampler_at_the_start(self) -> PromptSampler:
        weights = {environment.id: environment.weight for environment in self._config.orchestrator.env}
        return PromptSampler(self._sizes, weights, seed=self._config.seed)

    def _save(self, step: int, adapter: Adapter) -> None:
        with self._reporter.phase("checkpoint"):
            state = checkpoint.RunState(step=step, seed=self._config.seed, sampler=self._sampler.state)
            path = checkpoint.save(
                self._directory.path,
                state,
                self._crew.learners.state(),
                adapter,
                keep_last=self._config.ckpt.keep_last,
            )
        self._reporter.checkpoint(path)

    def _restore(self) -> int:
        """Take over the newest whole checkpoint. Returns its step, 0 where there is none."""
        found, passed_over = checkpoint.load_newest(self._directory.path)
        for line in passed_over:
            self._reporter.say(f"checkpoint passed over: {line}")
        if found is None:
            self._reporter.say("no complete checkpoint: starting from step 1")
            return 0
        try:
            self._sampler.restore(found.run.sampler)
        except ValueError as error:
            raise RunError(
                "checkpoint", f"step {found.run.step} does not fit this config: {error}"
            ) from error
        self._crew.learners.load_state(found.learner)
        self._reporter.say(f"resumed after step {found.run.step}")
        return found.run.step


def _complete(groups: list[Group]) -> list[Group]:
    """The groups that were not given up.

    Raises:
        RunError: none is left.
    """
    complete = [group for group in groups if group.error is None]
    if not complete:
        raise RunError("environment", f"every group of the step failed; the first said: {groups[0].error}")
    return complete
