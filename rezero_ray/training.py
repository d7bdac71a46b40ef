"""The controller: a run, step by step. Every detail lives in the module that its name says."""

import time

from actors.crew import Crew
from actors.rollout_stream import RolloutStream
from rezero_ray import checkpoint
from rezero_ray.agreement import mismatch_kl, require_match
from rezero_ray.batch import build_batch
from rezero_ray.canary import run_canary
from rezero_ray.checkpoint_writer import CheckpointWriter
from rezero_ray.config import Config
from rezero_ray.errors import RunError
from rezero_ray.evaluation import held_out_prompts, scores_of
from rezero_ray.forecast.beforehand import shape_of
from rezero_ray.interruption import StopRequest
from rezero_ray.plan import expectation
from rezero_ray.preflight.expected import Expected
from rezero_ray.preflight.machine import this_machine
from rezero_ray.preflight.model_facts import find_model
from rezero_ray.preflight.model_identity import model_fingerprint
from rezero_ray.publication import PublicationWatch
from rezero_ray.records import Adapter
from rezero_ray.reporting.forecast_watch import ForecastWatch
from rezero_ray.reporting.reporter import Reporter
from rezero_ray.reporting.step_metrics import StepLosses, StepTimes, step_metrics
from rezero_ray.run_directory import RunDirectory
from rezero_ray.sampler import PromptSampler, require_same_sizes
from rezero_ray.schedule import RolloutSchedule, limits_of, rolled_out_again
from rezero_ray.spending import Spending


class Training:
    """The loop over steps. What it carries from one to the next is in the schedule: see `rezero_ray.schedule`."""

    def __init__(
        self,
        config: Config,
        crew: Crew,
        directory: RunDirectory,
        reporter: Reporter,
        saver: CheckpointWriter,
        stop: StopRequest,
        spending: Spending,
        expected: Expected | None = None,
    ) -> None:
        self._config, self._crew, self._directory = config, crew, directory
        self._reporter, self._saver, self._stop, self._spending = reporter, saver, stop, spending
        self._expected = expected
        self._sizes = crew.environments.sizes()
        self._schedule = RolloutSchedule(self._sampler_at_the_start(), limits_of(config))
        self._start = self._schedule.state()
        self._stream = RolloutStream(self._schedule, crew.environments, crew.engines, config, reporter)
        self._model = model_fingerprint(config)
        self._probe: list[int] = []
        self._learner_restarts = 0
        self._step_began = time.monotonic()

    def run(self, *, resume: bool) -> None:
        """From the first step, or the one behind the newest checkpoint, to the last."""
        self._begin(resume=resume)
        self._reporter.ready(self._crew.parameters, self._crew.bundles, self._schedule.version)
        with self._reporter.phase("canary"):
            self._probe = self._check_agreement()
            self._watch_publications()
        self._forecast = self._watch_forecast()
        self._stop.armed = True
        self._spending.ready()
        self._evaluate()
        self._spending.look_ahead(self._schedule.version, self._saver.seconds)
        self._step_began = time.monotonic()
        while self._schedule.version < self._config.max_steps and not self._is_stopping():
            try:
                self._step()
            except RunError as error:
                self._recover(error)
                self._spending.look_ahead(self._schedule.version, self._saver.seconds)
        self._saver.finish()

    def _is_stopping(self) -> bool:
        return self._stop.requested or self._spending.stopped is not None

    def _step(self) -> None:
        """Wait for a batch, train, publish, report, save. Rollouts of later steps go on meanwhile."""
        config, crew, step = self._config, self._crew, self._schedule.version + 1
        with self._reporter.phase("rollouts", config.orchestrator.batch_size) as wait:
            groups = self._stream.next_batch()
        with self._reporter.phase("training") as train:
            batch = build_batch(groups, config, ranks=len(config.trainer_gpu_ids))
            running = crew.learners.begin_step(batch, step)
            what = f"learner ranks at step {step}"
            reports = self._stream.meanwhile(running, config.limits.train_step, what, "learner")
            report = reports[0]
            if config.orchestrator.max_async_level == 0:
                require_match(report.metrics["mismatch_kl"], config.trust.max_mismatch_kl, f"step {step}")
        with self._reporter.phase("publishing") as sync:
            adapter = crew.learners.adapter()
            crew.engines.publish(step, adapter)
            self._require_applied(step)
        losses = self._losses()
        self._schedule.trained()
        self._directory.add_rollouts(step, groups, batch.advantages)
        began, self._step_began = self._step_began, time.monotonic()
        times = StepTimes(
            step=self._step_began - began,
            rollout=self._stream.seconds_of(groups),
            wait=wait.seconds,
            train=train.seconds,
            sync=sync.seconds,
        )
        self._spending.pace.stepped(times.step)
        peaks = {"engine": list(crew.engines.peak_bytes.values()), "learner": [r.peak_bytes for r in reports]}
        row = step_metrics(groups, batch, report, times, losses) | self._forecast.row(groups, batch, peaks)
        row["tokens/computed"] = sum(each.computed_tokens for each in reports)
        row |= self._evaluate() | self._spending.metrics()
        self._reporter.step(row, groups)
        self._spending.look_ahead(self._schedule.version, self._saver.seconds)
        last = step == config.max_steps or self._is_stopping()
        self._forecast.look(step, last=last)
        if last or step % config.ckpt.interval == 0:
            self._save(step, adapter)

    def _watch_forecast(self) -> ForecastWatch:
        """Find out how fast this place is, and what a step should take there."""
        config, machine, found = self._config, this_machine(), None
        facts = find_model(config.model.name)
        if facts is not None:
            with self._reporter.phase("measuring the place"):
                place = self._crew.learners.place(shape_of(facts))
            found = expectation(config, facts, machine, machine.device(config), place, self._expected)
        return ForecastWatch(found, self._directory, self._reporter.say)

    def _watch_publications(self) -> None:
        """From the version as it stands, each publication has to be applied."""
        self._crew.engines.watch(self._schedule.version, self._probe)
        self._publications = PublicationWatch(self._config.model.dtype)
        self._require_applied(self._schedule.version)

    def _require_applied(self, version: int) -> None:
        """Compare engines and learner on the probe. The step's own `mismatch_kl` will not do where rollouts are older
        than the learner: it holds what the policy has changed since."""
        learner, engines = self._crew.learners.logprobs(self._probe), self._crew.engines.scores
        self._publications.published(version, learner, engines)
        if self._config.orchestrator.max_async_level > 0:
            for scores in engines.values():
                limit = self._config.trust.max_mismatch_kl
                require_match(mismatch_kl(learner, scores), limit, f"policy version {version}")

    def _evaluate(self) -> dict[str, float]:
        """Score the newest policy on held-out tasks where that is due. Returns what metrics.jsonl says of it."""
        settings, version = self._config.orchestrator.eval, self._schedule.version
        if settings is None or not settings.is_due(version, self._config.max_steps):
            return {}
        if version in {s.policy_version for s in self._directory.evaluations()}:
            return {}
        prompts = held_out_prompts({n: s.held_out for n, s in self._sizes.items()}, self._config, settings)
        with self._reporter.phase("evaluation", len(prompts)) as phase:
            groups = self._stream.held_out(prompts, version, settings, self._gives_up_evaluating)
        self._step_began += phase.seconds
        self._spending.pace.evaluated(phase.seconds)
        if groups is None:
            return {}
        scores = scores_of(prompts, groups, version, settings)
        self._reporter.evaluation(scores, phase.seconds)
        return {key: value for score in scores for key, value in score.metrics().items()} | {
            "time/eval": phase.seconds
        }

    def _gives_up_evaluating(self) -> bool:
        return self._stop.requested or self._spending.used_up()

    def _losses(self) -> StepLosses:
        """What the step under way had to do without; counted anew from here."""
        schedule, faults = self._schedule, dict(self._stream.faults)
        self._stream.faults.clear()
        return StepLosses(schedule.put_aside, schedule.dropped, schedule.resampled, faults)

    def _begin(self, *, resume: bool) -> None:
        """Take over the newest checkpoint, or the start; publish its policy."""
        found = self._newest_checkpoint() if resume else None
        done = found.run.step if found else 0
        state = found.run.schedule if found else self._start
        if state.ready and self._directory.makes_rollouts_again(done):
            state = rolled_out_again(state)
        try:
            require_same_sizes(found.run.sizes if found else {}, self._training_sizes())
            self._schedule.restore(state, done)
        except ValueError as error:
            raise RunError("checkpoint", f"step {done} does not fit this config: {error}") from error
        if found:
            self._crew.learners.load_state(found.learner)
        self._directory.rewind(done)
        self._directory.adopt_config(done)
        self._crew.engines.publish(done, self._crew.learners.adapter())

    def _recover(self, error: RunError) -> None:
        """A learner that failed is started again, and the run goes back to the newest checkpoint. All else goes on
        to the caller: engines and environment workers come back by themselves, within the step."""
        if error.kind != "learner" or self._learner_restarts >= self._config.faults.restarts:
            raise error
        self._learner_restarts += 1
        self._stream.faults["learner"] += 1
        self._reporter.say(f"the learner was lost and starts again: {error.message}")
        try:
            with self._reporter.phase("starting the learner again"):
                self._go_back()
        except RunError as again:
            self._recover(again)

    def _go_back(self) -> None:
        """All of the learner anew, from the newest checkpoint."""
        rows = self._directory.metrics()
        self._stream.abandon()
        self._saver.finish()
        self._crew.learners.restart()
        self._crew.engines.reset()
        self._begin(resume=True)
        for row in rows[self._schedule.version :]:  # taken again, and what broke in them stays counted
            self._stream.faults.update(
                {key.removeprefix("errors/"): n for key, n in row.items() if key.startswith("errors/")}
            )
        self._watch_publications()

    def _check_agreement(self) -> list[int]:
        """The start-up canary. Returns its probe, the ids of one real prompt and completion."""
        crew, version = self._crew, self._schedule.version
        prompt = self._sampler_at_the_start().take(1)[0]
        probe = crew.environments.one_group(prompt, version).rollouts[0].token_ids.tolist()
        run_canary(
            self._config,
            crew.learners,
            crew.engines,
            probe=probe,
            version=version,
            on_result=self._reporter.canary,
        )
        return probe

    def _sampler_at_the_start(self) -> PromptSampler:
        weights = {environment.name: environment.weight for environment in self._config.orchestrator.env}
        return PromptSampler(self._training_sizes(), weights, seed=self._config.seed)

    def _training_sizes(self) -> dict[str, int]:
        return {name: of.train for name, of in self._sizes.items()}

    def _save(self, step: int, adapter: Adapter) -> None:
        """Copy the state of everything; it is written while the run goes on."""
        with self._reporter.phase("checkpoint"):
            state = checkpoint.RunState(
                step=step,
                seed=self._config.seed,
                schedule=self._schedule.state(),
                model=self._model,
                sizes=self._training_sizes(),
            )
            self._saver.begin(state, self._crew.learners.state(), adapter)

    def _newest_checkpoint(self) -> checkpoint.Checkpoint | None:
        found, passed_over = checkpoint.load_newest(self._directory.path)
        for line in passed_over:
            self._reporter.say(f"checkpoint passed over: {line}")
        self._reporter.say(
            f"resumed after step {found.run.step}"
            if found
            else "no complete checkpoint: starting from step 1"
        )
        return found
