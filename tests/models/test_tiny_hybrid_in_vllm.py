"""vLLM applies an adapter on Nemotron-H's Mamba-2 and attention layers as the learner does.

On the CPU, in bfloat16 (vLLM's CPU convolution has no float32), without experts. On a GPU the start-up canary asks
the same of the real model.
"""

import importlib.util
import json
from pathlib import Path

import pytest

from rezero_ray.models import smollm2
from rezero_ray.models.tiny import make_tiny_nemotron_h
from tests.models.test_tiny_in_vllm import output_of
from tests.record_builders import make_config

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not importlib.util.find_spec("vllm"), reason="vLLM is not installed"),
    pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="about vLLM's CPU build"),
]

TOKENIZER = Path(__file__).parents[2] / smollm2.DEFAULT_OUTPUT
IN_PROJ, ATTENTION = ["in_proj"], ["q_proj", "k_proj", "v_proj", "o_proj"]
PROBE = list(range(100, 140))

ENGINE = """
import json, os, sys
from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest
if __name__ == "__main__":
    llm = LLM(
        sys.argv[1], dtype="bfloat16", enforce_eager=True, max_model_len=128, max_num_seqs=4,
        enable_prefix_caching=False, enable_chunked_prefill=False, enable_lora=True, max_loras=2, max_lora_rank=8,
        lora_target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "in_proj"],
    )
    probe = {"prompt_token_ids": json.loads(sys.argv[2])}
    sampling = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0)
    found = []
    for number, folder in enumerate(sys.argv[4:], start=1):
        adapter = LoRARequest(str(number), number, folder)
        result = llm.generate(probe, sampling, lora_request=adapter, use_tqdm=False)[0]
        found.append([next(iter(place.values())).logprob for place in result.prompt_logprobs[1:]])
    with open(sys.argv[3], "w") as file:
        json.dump(found, file)
    llm.llm_engine.engine_core.shutdown()
    os._exit(0)  # vLLM 0.30's threads sometimes abort an interpreter that ends by itself
"""


def test_an_adapter_on_the_mamba_projection_acts_in_vllm_as_in_the_learner(tmp_path: Path) -> None:
    import torch

    from rezero_ray.batch import single_sequence
    from rezero_ray.learning.policy import build_policy, encode_adapter, micro_batch_tensors

    model = make_tiny_nemotron_h(tmp_path / "model", experts=False, tokenizer_from=TOKENIZER)
    batch = micro_batch_tensors(single_sequence(PROBE), torch.device("cpu"))
    expected, unmoved, folders = [], [], []
    for targets in (IN_PROJ, ATTENTION):
        lora = {"rank": 8, "alpha": 32.0, "target_modules": targets}
        config = make_config(model__name=str(model), model__dtype="float32", trainer__model__lora=lora)
        policy = build_policy(config)
        random = torch.Generator().manual_seed(0)
        with torch.no_grad():
            unmoved.append(policy(**batch)[0])
            for name, parameter in policy.adapter_parameters():
                if ".lora_B." in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.1)
            expected.append(policy(**batch)[0])
        folders.append(tmp_path / targets[0])
        folders[-1].mkdir()
        adapter = encode_adapter(dict(policy.adapter_parameters()), config)
        (folders[-1] / "adapter_model.safetensors").write_bytes(adapter.weights)
        (folders[-1] / "adapter_config.json").write_bytes(adapter.config)

    (tmp_path / "engine.py").write_text(ENGINE)  # vLLM starts its worker from the file
    answer = tmp_path / "result.json"
    output_of(str(tmp_path / "engine.py"), str(model), json.dumps(PROBE), str(answer), *map(str, folders))
    for found, wanted, base in zip(json.loads(answer.read_text()), expected, unmoved, strict=True):
        effect = (wanted - base).abs().mean()
        assert effect > 0.1
        assert (torch.tensor(found) - wanted).abs().mean() < 0.2 * effect
