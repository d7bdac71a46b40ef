"""The policies that a run published, in Transformers and PEFT: an implementation of neither engine nor learner."""

import tomllib
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.run.train_process import ROOT


class PublishedPolicies:
    """Policy version v is the base model with the adapter of checkpoint v; version 0 is the base model."""

    def __init__(self, output: Path) -> None:
        self._checkpoints = output / "checkpoints"
        config = tomllib.loads((output / "config.toml").read_text("utf-8"))
        self.base = ROOT / config["model"]["name"]
        self._temperature = config["orchestrator"]["sampling"]["temperature"]
        self._loaded: set[int] = set()

    def difference(self, row: dict[str, Any], version: int) -> float:
        """Largest difference of a rollout's logprobs, over the tokens that the policy wrote, from those that policy
        `version` gives at the run's sampling temperature; in nats."""
        import torch

        ids, mask = torch.tensor(row["token_ids"]), torch.tensor(row["loss_mask"][1:], dtype=torch.bool)
        with torch.no_grad():
            scores = (self._logits(ids[None], version)[0, :-1] / self._temperature).log_softmax(-1)
        own = scores.gather(1, ids[1:, None]).squeeze(1)
        return float((own - torch.tensor(row["logprobs"][1:]))[mask].abs().max())

    def distance_from_greedy(self, prompt_ids: list[int], reply_ids: list[int], version: int) -> float:
        """Largest lead, in nats, of the likeliest token over the reply's under policy `version`."""
        import torch

        with torch.no_grad():
            logits = self._logits(torch.tensor([[*prompt_ids, *reply_ids]]), version)
        scores = logits[0, len(prompt_ids) - 1 : -1].log_softmax(-1)
        own = scores.gather(1, torch.tensor(reply_ids)[:, None]).squeeze(1)
        return float((scores.max(-1).values - own).max())

    def _logits(self, ids: Any, version: int) -> Any:
        if version == 0:
            with self._model.disable_adapter():
                return self._model(ids).logits
        name = f"version-{version}"
        if version not in self._loaded:
            self._loaded.add(version)
            self._model.load_adapter(str(self._checkpoints / f"step_{version:06d}/adapter"), name)
        self._model.set_adapter(name)
        return self._model(ids).logits

    @cached_property
    def _model(self) -> Any:
        from peft import LoraConfig, PeftModel
        from transformers import AutoModelForCausalLM

        base = AutoModelForCausalLM.from_pretrained(self.base, dtype="float32")
        return PeftModel(base, LoraConfig(target_modules=["q_proj"]), adapter_name="unused").eval()


def assert_base_model_defended(output: Path, rows: list[dict[str, Any]], args: dict[str, Any]) -> None:
    """The greedy replies in rollouts of `redteam-attack` are those of the base model, and not the policy's own."""
    from transformers import AutoTokenizer

    from environments.redteam_attack.defender import defence
    from environments.redteam_attack.environment import load_environment, task_of
    from rezero_ray.chat import ChatTokenizer

    policies = PublishedPolicies(output)
    tokenizer = AutoTokenizer.from_pretrained(policies.base)
    chat = ChatTokenizer(tokenizer)
    tasks = [task_of(info) for info in load_environment(**args).get_dataset()["info"]]
    told_apart = 0
    for row in rows:
        message, reply = (each["content"] for each in row["text"][:2])
        task = tasks[row["prompt"]["example"]]
        assert task is not None
        asked = [message.model_dump() for message in defence(task.scenario, [(message, "")])]
        prompt_ids, reply_ids = chat.prompt_ids(asked), tokenizer.encode(reply)
        assert policies.distance_from_greedy(prompt_ids, reply_ids, 0) < 5e-3
        told_apart += policies.distance_from_greedy(prompt_ids, reply_ids, row["policy_version"]) > 0.05
    assert told_apart


def assert_versions_are_those_named(output: Path, rows: list[dict[str, Any]]) -> None:
    """Every rollout was sampled from the version that it names, all of it: under any other its logprobs differ."""
    policies = PublishedPolicies(output)
    told_apart = 0
    for row in rows:
        version = row["policy_version"]
        found = policies.difference(row, version)
        assert found < 5e-3
        if version:
            told_apart += policies.difference(row, version - 1) > 10 * found
    assert told_apart or all(row["policy_version"] == 0 for row in rows)
