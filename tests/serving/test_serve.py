"""One server on the CPU: an OpenAI client talks to the base model and to two runs' adapters of different ranks."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import openai
import pytest

from rezero_ray.models.tiny import make_tiny_llama
from tests.record_builders import SMOLLM2
from tests.run.train_process import ROOT, descendants
from tests.trained_runs import write_trained_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MODELS = ("tiny", "first", "second")
PROMPT = [504, 3575, 282, 4649, 314, 7042, 30, 378, 314, 253, 2250]
MESSAGES = [{"role": "user", "content": "Is this mail phishing?"}]


@dataclass
class Serving:
    """`rezero serve` as a person starts it, and what it has printed."""

    process: subprocess.Popen[str]
    log: Path

    @property
    def text(self) -> str:
        return self.log.read_text("utf-8")

    def found(self, pattern: str) -> str:
        match = re.search(pattern, self.text, re.MULTILINE)
        assert match, self.text
        return match[1]

    @property
    def address(self) -> str:
        return self.found(r"^serving at (\S+)/v1 until")

    @property
    def key(self) -> str:
        return self.found(r"^export OPENAI_API_KEY=(\S+)$")

    def client(self, key: str | None = None) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.address}/v1", api_key=key or self.key, max_retries=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serving")
    model = make_tiny_llama(folder / "tiny", tokenizer_from=SMOLLM2)
    targets = "trainer__model__lora__target_modules"
    write_trained_run(
        folder / "first", model=model, size=0.05, seq_len=128, **{targets: ["q_proj", "o_proj"]}
    )
    rank_8 = {targets: ["v_proj", "down_proj"], "trainer__model__lora__rank": 8}
    write_trained_run(folder / "second", model=model, size=0.05, seq_len=128, **rank_8)
    return folder


@pytest.fixture(scope="module")
def serving(folder: Path) -> Iterator[Serving]:
    words = ["serve", str(folder / "first"), str(folder / "second"), "--serve.port", "0"]
    words += ["--serve.host", "127.0.0.2", "--serve.arguments.max_logprobs", "3"]
    environment = {name: value for name, value in os.environ.items() if name != "VLLM_API_KEY"}
    log = folder / "serve.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "rezero_ray.cli", *words],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**environment, "HF_HUB_OFFLINE": "1"},
            text=True,
        )
    found = Serving(process, log)
    try:
        deadline = time.monotonic() + 400
        while "curl" not in found.text:
            assert process.poll() is None and time.monotonic() < deadline, found.text
            time.sleep(0.2)
        yield found
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


def logprobs(client: openai.OpenAI, model: str) -> list[float]:
    """Of PROMPT[1:], each given those before it."""
    extra = {"prompt_logprobs": 0}
    answer = client.completions.create(
        model=model, prompt=PROMPT, max_tokens=1, temperature=0, extra_body=extra
    )
    places = answer.choices[0].model_extra["prompt_logprobs"][1:]  # type: ignore[index]
    return [place[str(token)]["logprob"] for token, place in zip(PROMPT[1:], places, strict=True)]


def logprobs_by_transformers(folder: Path, model: str) -> list[float]:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    policy = AutoModelForCausalLM.from_pretrained(folder / "tiny", dtype=torch.float32)
    if model != "tiny":
        policy = PeftModel.from_pretrained(policy, str(folder / model / "checkpoints/step_000004/adapter"))
    with torch.inference_mode():
        found = policy(torch.tensor([PROMPT])).logits[0, :-1].log_softmax(-1)
    return [float(found[i, token]) for i, token in enumerate(PROMPT[1:])]


def test_it_listens_on_the_host_and_hands_vllm_the_further_arguments(serving: Serving) -> None:
    assert re.fullmatch(r"http://127\.0\.0\.2:\d+", serving.address) and not serving.address.endswith(":8000")
    request = {"model": "tiny", "prompt": PROMPT, "max_tokens": 1}
    serving.client().completions.create(**request, logprobs=3)  # type: ignore[call-overload]
    with pytest.raises(openai.BadRequestError):
        serving.client().completions.create(**request, logprobs=4)  # type: ignore[call-overload]


def test_base_and_adapters_are_listed_side_by_side(serving: Serving) -> None:
    listed = {model.id: model.model_extra["parent"] for model in serving.client().models.list()}  # type: ignore[index]
    assert listed == {"tiny": None, "first": "tiny", "second": "tiny"}
    assert re.search(r"^first: step 4, rank 16; moves logprobs by 0\.\d+ nats$", serving.text, re.MULTILINE)
    assert re.search(r"^second: step 4, rank 8; moves logprobs by 0\.\d+ nats$", serving.text, re.MULTILINE)


def test_each_model_has_the_logprobs_that_peft_computes(serving: Serving, folder: Path) -> None:
    found = {model: logprobs(serving.client(), model) for model in MODELS}
    for model in MODELS:
        assert found[model] == pytest.approx(logprobs_by_transformers(folder, model), abs=2e-3)
    for one, other in (("tiny", "first"), ("tiny", "second"), ("first", "second")):
        assert max(abs(a - b) for a, b in zip(found[one], found[other], strict=True)) > 0.05


def test_models_that_are_asked_at_one_time_do_not_mix(serving: Serving) -> None:
    """vLLM 0.30's own CPU operation gives tokens without an adapter the last one's."""
    client = serving.client()
    alone = {model: logprobs(client, model) for model in MODELS}
    with ThreadPoolExecutor(12) as threads:
        together = list(threads.map(lambda model: (model, logprobs(client, model)), MODELS * 6))
    for model, found in together:
        assert found == pytest.approx(alone[model], abs=1e-4)


def test_the_client_chats_and_streams_with_every_model(serving: Serving) -> None:
    client = serving.client()
    texts = set()
    for model in MODELS:
        request = {"model": model, "messages": MESSAGES, "max_tokens": 12, "temperature": 0}
        whole = client.chat.completions.create(**request, logprobs=True)
        pieces = [
            piece.choices[0].delta.content or ""
            for piece in client.chat.completions.create(**request, stream=True)
        ]
        assert len(pieces) > 3
        assert "".join(pieces) == whole.choices[0].message.content
        assert len(whole.choices[0].logprobs.content) == whole.usage.completion_tokens
        texts.add("".join(pieces))
    assert len(texts) == 3


def test_a_client_without_the_key_gets_401_wherever_it_asks(serving: Serving) -> None:
    for key in ("none", serving.key[:-1]):
        with pytest.raises(openai.AuthenticationError):
            serving.client(key).chat.completions.create(model="tiny", messages=MESSAGES)
    for path in ("invocations", "tokenize", "v1/completions", "metrics", "openapi.json"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(
                urllib.request.Request(f"{serving.address}/{path}", data=b"{}"), timeout=30
            )
        assert refused.value.code == 401, path


def test_no_process_shows_the_key_on_its_command_line(serving: Serving) -> None:
    family = [serving.process.pid, *descendants(serving.process.pid)]
    lines = [Path(f"/proc/{pid}/cmdline").read_text("utf-8") for pid in family]
    assert any("vllm" in line for line in lines)
    assert not [line for line in lines if serving.key in line]


def test_the_printed_line_works_as_it_is(serving: Serving) -> None:
    line = serving.text[serving.text.index("export OPENAI_API_KEY") :]
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=True)
    answer = json.loads(done.stdout)
    assert (answer["model"], answer["object"]) == ("second", "chat.completion")


def test_ctrl_c_ends_it_and_everything_it_started(serving: Serving) -> None:
    family = descendants(serving.process.pid)
    folder = Path(serving.found(r"^log: (\S+)/server.log$"))
    assert len(family) >= 2 and folder.is_dir()
    serving.process.send_signal(signal.SIGINT)
    assert serving.process.wait(60) == 130
    deadline = time.monotonic() + 5
    while [pid for pid in family if is_alive(pid)] and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in family if is_alive(pid)]
    assert not folder.exists()
    assert "Traceback" not in serving.text


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_an_argument_that_vllm_does_not_know_is_a_wrong_request(folder: Path) -> None:
    words = [str(folder / "first"), "--serve.port", "0", "--serve.arguments.max_modle_len", "64"]
    told = subprocess.run(
        [sys.executable, "-m", "rezero_ray.cli", "serve", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert told.returncode == 2, told.stdout
    assert "serve.arguments" in told.stderr and "unrecognized arguments: --max-modle-len" in told.stderr
