"""Every key of docs/configuration.md: with which value other than its default it is used, and which test sees what it
does. A key without a row fails `test_every_key_has_a_row`.

Rows with a `run` are of one real run on the CPU (`tests/run/key_runs.py`), where all its keys are in force at once.
The other rows name where they are used: another real run, a learner, a worker, the schedule, a Ray cluster, Modal's
client, or a server. Keys of GPUs are checked up to what vLLM is told (`needs_gpu`); a run with them needs a GPU.
"""

from typing import Any, NamedTuple

from tests.keys.loss_variants import VARIANTS, changed
from tests.run import key_runs

RUN = "tests/run/test_keys.py"
TRAINING = "tests/run/test_training_run.py"
FAULTS = "tests/run/test_faults.py"
LEARNER = "tests/keys/test_losses_on_the_learner.py"
ENGINE_ARGUMENTS = "tests/actors/test_engine_arguments.py"
LIMITS = "tests/actors/test_limits.py"
TIME_LIMITS = "tests/actors/test_time_limits.py"
GIVEN_UP = "tests/actors/test_given_up.py"
FOREIGN = "tests/actors/test_foreign_environments.py"
MODAL = "tests/infra/modal/test_keys.py"
CLUSTER = "tests/infra/ray/test_emulated_cluster.py"
SERVE = "tests/serving/test_serve.py"

SYNCHRONOUS = "SYNCHRONOUS"
RUNS: dict[str, dict[str, Any]] = {SYNCHRONOUS: key_runs.SYNCHRONOUS}
SET_BY_THE_FIXTURE = {"model.name", "output_dir", "mlflow.tracking_uri"}


class Row(NamedTuple):
    """
    Attributes:
        test: `file::function` that observes the key's effect.
        run: the run of `key_runs` that has the key, where it is one.
        value: other than the default; the run's where there is one.
        needs_gpu: no run here can have it.
    """

    test: str
    run: str | None = None
    value: Any = None
    needs_gpu: bool = False


def _synchronous(test: str, *keys: str) -> dict[str, Row]:
    return {key: Row(f"{RUN}::{test}", SYNCHRONOUS) for key in keys}


def _modal(**keys: Any) -> dict[str, Row]:
    test = f"{MODAL}::test_every_key_is_in_the_function_that_is_sent"
    return {f"infra.{key}": Row(test, value=value) for key, value in keys.items()}


def _loss_options() -> dict[str, Row]:
    """Each option of each loss, on a real learner."""
    test = f"{LEARNER}::test_each_option_changes_the_step_and_the_loss_is_the_pure_functions"
    return {
        f"trainer.loss.{name}": Row(test, value=value)
        for _, plain, options in VARIANTS
        for name, value in changed(plain, options).items()
    }


TABLE: dict[str, Row] = {
    **_synchronous(
        "test_two_engines_two_ranks_and_two_workers_for_each_environment",
        "inference_gpu_ids",
        "trainer_gpu_ids",
        "inference.parallel.dp",
        "orchestrator.env_workers",
    ),
    **_synchronous(
        "test_it_takes_max_steps_on_the_device_and_writes_into_output_dir",
        "max_steps",
        "device",
        "output_dir",
    ),
    **_synchronous("test_prompts_are_the_seeds_with_each_environments_weight", "seed"),
    **_synchronous(
        "test_prompts_are_the_seeds_with_each_environments_weight",
        "orchestrator.env.0.id",
        "orchestrator.env.0.name",
        "orchestrator.env.0.weight",
    ),
    **_synchronous(
        "test_turns_tokens_and_lengths_are_bounded",
        "seq_len",
        "orchestrator.sampling.max_tokens",
        "orchestrator.env.0.max_turns",
    ),
    **_synchronous("test_the_adapter_has_rank_alpha_modules_and_dtype", "model.name", "model.dtype"),
    **_synchronous(
        "test_the_adapter_has_rank_alpha_modules_and_dtype",
        "trainer.model.lora.rank",
        "trainer.model.lora.alpha",
        "trainer.model.lora.target_modules",
    ),
    **_synchronous(
        "test_mlflow_has_the_run_under_the_names_of_the_wandb_table_in_the_named_store",
        "wandb.project",
        "wandb.name",
        "wandb.offline",
        "mlflow.tracking_uri",
        "mlflow.rollouts_per_step",
    ),
    "mlflow.experiment": Row(f"{TRAINING}::test_mlflow_holds_the_metrics_and_the_adapter", value="re-zero"),
    "mlflow.run_name": Row(f"{TRAINING}::test_mlflow_holds_the_metrics_and_the_adapter", value="cpu"),
    "mlflow.enabled": Row("tests/run/test_trust.py::test_without_mlflow_there_is_no_run_in_it", value=False),
    **_synchronous("test_every_step_has_a_checkpoint", "ckpt.interval"),
    "ckpt.keep_last": Row("tests/test_checkpoint.py::test_the_last_few_are_kept", value=2),
    "ckpt.resume": Row(
        "tests/preflight/test_resuming.py"
        "::test_what_may_not_change_is_refused_by_every_command_with_both_values_and_nothing_changes",
        value="auto",
    ),
    **_synchronous(
        "test_the_step_is_cut_into_micro_batches_as_the_trainer_table_says",
        "trainer.micro_batch_tokens",
        "trainer.share_prompts",
    ),
    **_synchronous("test_no_layer_is_computed_twice", "trainer.model.gradient_checkpointing"),
    "trainer.model.logits_chunk": Row(
        "tests/learning/test_policy.py"
        "::test_the_learner_scores_a_given_text_at_temperature_1_whatever_the_sampling_temperature_is",
        SYNCHRONOUS,
    ),
    **_synchronous(
        "test_the_models_code_runs_in_the_learner_and_not_in_the_engine", "trainer.model.trust_remote_code"
    ),
    "inference.model.trust_remote_code": Row(
        f"{ENGINE_ARGUMENTS}::test_each_key_of_the_engine_is_the_argument_of_vllm", value=True
    ),
    **_synchronous(
        "test_the_learning_rate_warms_up_and_decays_to_its_least",
        "trainer.optim.lr",
        "trainer.optim.warmup_steps",
        "trainer.optim.schedule",
        "trainer.optim.min_lr_ratio",
    ),
    **_synchronous(
        "test_the_first_update_is_adamws_with_these_betas_this_decay_and_a_clipped_gradient",
        "trainer.optim.weight_decay",
        "trainer.optim.betas",
        "trainer.optim.max_grad_norm",
    ),
    **_loss_options(),
    **_synchronous(
        "test_the_loss_is_grpos_with_its_penalty",
        "trainer.loss.type",
        "trainer.loss.kl_coef",
        "trainer.loss.kl_estimator",
    ),
    **{
        f"trainer.zero.{key}": Row(
            f"{ENGINE_ARGUMENTS}::test_each_key_of_zero_is_the_setting_of_deepspeed", SYNCHRONOUS
        )
        for key in ("param_persistence_threshold", "prefetch_bucket_size", "max_live_parameters")
    },
    **_synchronous(
        "test_a_step_has_batch_size_groups_of_rollouts_per_example",
        "orchestrator.batch_size",
        "orchestrator.rollouts_per_example",
    ),
    "orchestrator.max_async_level": Row(
        f"{FAULTS}::test_rollouts_are_at_most_one_version_old_and_some_are", value=1
    ),
    "orchestrator.stale": Row(
        "tests/schedule/test_schedule.py::test_a_straggler_is_waited_for_begun_again_or_put_aside",
        value="drop",
    ),
    **_synchronous(
        "test_groups_without_signal_are_replaced_within_half_a_batch",
        "orchestrator.filter_zero_advantage",
        "orchestrator.resample_budget",
        "orchestrator.env.0.args",
    ),
    **_synchronous(
        "test_at_temperature_0_6_canary_and_steps_match_and_the_rollouts_are_sampled_at_it",
        "orchestrator.sampling.temperature",
    ),
    **_synchronous("test_the_template_is_told_not_to_think", "orchestrator.sampling.thinking"),
    "orchestrator.advantage.normalize": Row(
        "tests/test_advantages.py::test_mean_only_subtracts_and_none_changes_nothing", value="mean"
    ),
    **_synchronous(
        "test_rewards_reach_the_top_of_reward_range_and_advantages_have_epsilon",
        "orchestrator.advantage.epsilon",
        "orchestrator.env.0.reward_range",
    ),
    **_synchronous(
        "test_a_reward_function_that_raises_counts_as_zero_and_is_recorded",
        "orchestrator.env.0.reward_errors",
    ),
    "orchestrator.env.0.timeout": Row(f"{FOREIGN}::test_a_child_that_hangs_is_given_up_and_ended", value=8.0),
    "orchestrator.env.0.rollout_timeout": Row(
        f"{TIME_LIMITS}::test_what_runs_over_its_limit_is_an_error_that_says_what_it_was", value=0.2
    ),
    "orchestrator.env.0.score_timeout": Row(
        f"{TIME_LIMITS}::test_what_runs_over_its_limit_is_an_error_that_says_what_it_was", value=0.05
    ),
    "faults.attempts": Row(f"{GIVEN_UP}::test_a_prompt_is_given_up_after_as_many_attempts", value=2),
    "orchestrator.env.0.tool_timeout": Row(
        f"{TIME_LIMITS}::test_what_runs_over_its_limit_is_an_error_that_says_what_it_was", value=0.05
    ),
    "orchestrator.env.0.requirements": Row(
        "tests/run/test_mixed_environments.py::test_each_toy_lives_with_its_own_packages_and_is_learned_from",
        value=["verifiers==0.1.10"],
    ),
    "orchestrator.env.0.python": Row(
        "tests/preflight/test_foreign_environments.py"
        "::test_it_is_loaded_by_its_own_interpreter_and_what_was_changed_is_noted",
        value="/usr/bin/python3",
    ),
    "orchestrator.env.0.dict_messages": Row(
        f"{FOREIGN}::test_dict_messages_are_restored_where_the_code_asks_for_them", value=False
    ),
    "orchestrator.env.0.raw_reward_range": Row(
        f"{FOREIGN}::test_many_groups_share_a_child_and_a_raw_range_is_mapped", value=[0.0, 0.5]
    ),
    **_synchronous(
        "test_held_out_tasks_are_scored_as_the_eval_table_says",
        "orchestrator.eval.interval",
        "orchestrator.eval.num_examples",
        "orchestrator.eval.rollouts_per_example",
        "orchestrator.eval.pass_reward",
    ),
    "inference.gpu_memory_utilization": Row(
        f"{ENGINE_ARGUMENTS}::test_each_key_of_the_engine_is_the_argument_of_vllm", value=0.55, needs_gpu=True
    ),
    "inference.model.enforce_eager": Row(
        f"{ENGINE_ARGUMENTS}::test_each_key_of_the_engine_is_the_argument_of_vllm", value=True, needs_gpu=True
    ),
    "inference.parallel.tp": Row(
        f"{ENGINE_ARGUMENTS}::test_each_key_of_the_engine_is_the_argument_of_vllm", value=2, needs_gpu=True
    ),
    **_synchronous(
        "test_vllm_has_the_settings_of_the_inference_table",
        "inference.cpu_kv_cache_gib",
        "inference.model.enable_prefix_caching",
        "inference.model.max_num_batched_tokens",
    ),
    "inference.model.max_num_seqs": Row(
        f"{ENGINE_ARGUMENTS}::test_each_key_of_the_engine_is_the_argument_of_vllm", SYNCHRONOUS
    ),
    "inference.model.enable_auto_tool_choice": Row(
        f"{FOREIGN}::test_tools_are_offered_called_and_answered_and_a_slow_one_is_an_error", value=True
    ),
    "inference.model.tool_call_parser": Row(
        f"{FOREIGN}::test_tools_are_offered_called_and_answered_and_a_slow_one_is_an_error", value="hermes"
    ),
    "inference.model.max_model_len": Row(
        f"{ENGINE_ARGUMENTS}::test_each_key_of_the_engine_is_the_argument_of_vllm", value=48
    ),
    "weight_sync.mode": Row(
        "tests/config/test_wrong_requests.py::test_one_wrong_line_is_named_with_its_remedy",
        value="merged",
    ),
    "trust.canary": Row("tests/test_canary.py::test_without_a_canary_no_module_is_perturbed", value=False),
    "trust.max_mismatch_kl": Row(
        "tests/test_canary.py::test_a_mismatch_above_the_limit_ends_the_run_before_anything_is_perturbed",
        value=0.001,
    ),
    "limits.cluster": Row(
        f"{LIMITS}::test_cluster_bounds_the_wait_for_bundles_that_somebody_else_has", value=0.5
    ),
    "limits.engine_start": Row(f"{LIMITS}::test_engine_start_bounds_the_start_of_engines", value=0.5),
    "limits.learner_start": Row(f"{LIMITS}::test_learner_start_bounds_the_start_of_ranks", value=0.5),
    "limits.train_step": Row(f"{LIMITS}::test_train_step_bounds_what_ranks_do_together", value=0.5),
    "limits.publish": Row(
        f"{LIMITS}::test_publish_bounds_a_publication_and_the_engine_counts_as_lost", value=0.5
    ),
    "limits.group": Row(
        "tests/actors/test_environment_worker.py::test_one_that_hangs_is_given_up_after_the_limit", value=1.0
    ),
    "limits.takeover": Row(
        "tests/holding/test_lock.py"
        "::test_a_holder_on_another_host_that_gives_no_sign_of_life_is_replaced_after_the_limit",
        value=15.0,
    ),
    "faults.max_put_aside": Row(
        f"{GIVEN_UP}::test_the_run_stops_beyond_the_share_of_a_batch_that_may_be_given_up", value=0.75
    ),
    "faults.restarts": Row(f"{LIMITS}::test_an_engine_is_started_again_as_often_as_restarts_says", value=1),
    "budget.max_usd": Row(
        "tests/infra/modal/test_training.py"
        "::test_its_budget_stops_it_with_a_checkpoint_and_modal_does_not_call_again",
        value=1.0,
    ),
    "budget.max_hours": Row(
        "tests/infra/modal/test_launch.py::test_no_attempt_may_take_longer_than_the_budget_leaves", value=2.0
    ),
    "infra.kind": Row(
        f"{CLUSTER}::test_a_run_is_submitted_once_followed_stopped_and_then_submitted_again_and_trains",
        value="ray",
    ),
    **_synchronous("test_an_hour_costs_what_the_table_says", "infra.usd_per_hour"),
    **_synchronous(
        "test_ray_has_the_cpus_and_the_store_of_the_infra_table_and_no_dashboard",
        "infra.num_cpus",
        "infra.object_store_gib",
        "infra.dashboard",
    ),
    **_modal(
        app="keys",
        gpu="H200:2",
        cpu=12.0,
        memory_gib=96.0,
        timeout_hours=5.0,
        retries=2,
        region=["eu-west"],
        image="nvidia/cuda:13.0.1-devel-ubuntu22.04",
        home="/keys",
        checkpoints_volume="keys-checkpoints",
        mlflow_volume="keys-mlflow",
        hf_cache_volume="keys-hf",
        vllm_cache_volume="keys-vllm",
        secret="keys-token",
    ),
    **{
        f"infra.{key}": Row(
            f"{CLUSTER}::test_a_run_is_submitted_once_followed_stopped_and_then_submitted_again_and_trains",
            value=value,
        )
        for key, value in {
            "address": "127.0.0.1:6379",
            "submit": True,
            "python": "/usr/bin/python3",
            "inference_labels": {"rezero": "inference"},
            "trainer_labels": {"rezero": "train"},
        }.items()
    },
    "infra.require_token": Row(f"{CLUSTER}::test_a_cluster_that_is_open_to_anybody_is_refused", value=False),
    "serve.host": Row(
        f"{SERVE}::test_it_listens_on_the_host_and_hands_vllm_the_further_arguments", value="127.0.0.2"
    ),
    "serve.port": Row(f"{SERVE}::test_it_listens_on_the_host_and_hands_vllm_the_further_arguments", value=0),
    "serve.arguments": Row(
        f"{SERVE}::test_it_listens_on_the_host_and_hands_vllm_the_further_arguments",
        value={"max_logprobs": 3},
    ),
    "serve.api_key_env": Row(
        "tests/serving/test_api_key.py::test_the_key_is_the_one_in_the_variable_that_api_key_env_names",
        value="KEYS_OWN",
    ),
}
