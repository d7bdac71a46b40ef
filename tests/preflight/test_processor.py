"""Claims about what the preflight says of the processor and of vLLM's plug-ins."""

from pathlib import Path

import pytest

from rezero_ray.preflight.processor import examine_processor, on_cpu
from rezero_ray.vllm_cpu import plugin
from tests.record_builders import make_config

AVX2 = frozenset({"avx2", "fma"})


def test_a_processor_that_the_engine_cannot_run_on_is_a_problem() -> None:
    (problem,) = on_cpu(make_config(), frozenset({"sse4_2", "fma"}), "x86_64").problems
    assert problem.key == "device"
    assert "no avx2" in problem.what


@pytest.mark.parametrize(
    ("flags", "noted"), [(AVX2, True), (AVX2 | {"avx512_bf16"}, False), (frozenset(), False)]
)
def test_bfloat16_is_noted_where_the_processor_does_not_multiply_it(
    flags: frozenset[str], noted: bool
) -> None:
    notes = on_cpu(make_config(model__dtype="bfloat16"), flags, "x86_64").notes
    assert [("float32" in note) for note in notes] == [True] * noted
    assert not on_cpu(make_config(model__dtype="float32"), flags, "x86_64").notes


@pytest.mark.parametrize(
    ("plugins", "noted"), [(None, False), ("rezero_cpu,other", False), ("", True), ("other", True)]
)
def test_a_list_of_plugins_without_ours_is_noted(
    plugins: str | None, noted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    if plugins is not None:
        monkeypatch.setenv("VLLM_PLUGINS", plugins)
    config = make_config(model__dtype="float32")
    notes = examine_processor(config, "cpu").notes
    assert [note for note in notes if "VLLM_PLUGINS" in note] == notes
    assert len(notes) == noted
    assert not examine_processor(config, "cuda").notes


def test_sources_without_the_plugin_are_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    config = make_config(model__dtype="float32")
    assert not examine_processor(config, "cpu").problems
    monkeypatch.setattr(plugin, "DISCOVERY", tmp_path)
    (problem,) = examine_processor(config, "cpu").problems
    assert str(tmp_path) in problem.what
    monkeypatch.setenv("VLLM_PLUGINS", "")
    assert not examine_processor(config, "cpu").problems, "it is not wanted"
