"""Claims about the pipe to a child, and about the child's small parts. The child runs in this interpreter."""

import ast
import asyncio
import io
import math
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rezero_ray.foreign.process import ChildDied, ChildFailed, ChildProcess
from rezero_ray.foreign.rezero_child import frames
from rezero_ray.foreign.rezero_child.adaptation import messages_are_dicts, numbers
from rezero_ray.foreign.rezero_child.dict_messages import as_dicts, source_tests_for_dicts
from rezero_ray.foreign.rezero_child.model_call import Answer

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=30)
@given(st.lists(st.dictionaries(st.text(), JSON), max_size=4))
def test_records_come_out_of_the_pipe_as_they_went_in(records: list[dict[str, Any]]) -> None:
    pipe = io.BytesIO(b"".join(frames.pack(record) for record in records))
    assert [frames.read_record(pipe) for _ in records] == records
    assert frames.read_record(pipe) is None


def test_a_reward_that_is_no_number_crosses_as_such_and_a_torn_record_is_the_end() -> None:
    record = frames.read_record(io.BytesIO(frames.pack({"reward": math.nan})))
    assert record is not None and math.isnan(record["reward"])
    assert frames.read_record(io.BytesIO(frames.pack({"a": 1})[:-1])) is None


def test_what_is_no_record_is_refused() -> None:
    with pytest.raises(ValueError, match="no record"):
        frames.read_record(io.BytesIO(b"print"))


@pytest.mark.parametrize(
    ("version", "dicts"), [("0.1.9.post3", True), ("0.1.10", True), ("0.1.11", False), ("0.3.1.dev1", False)]
)
def test_messages_are_dicts_until_0_1_10(version: str, dicts: bool) -> None:
    assert messages_are_dicts(version) == dicts
    assert numbers("0.4.0rc1") < numbers("0.4.0") == (0, 4, 0)


@pytest.mark.parametrize(
    ("source", "asks"),
    [
        ("isinstance(m, dict)", True),
        ("isinstance(m, (str, Mapping))", True),
        ("isinstance(m, collections.abc.Mapping)", True),
        ("type(m) is dict", True),
        ("isinstance(m, list)", False),
        ("dict(m)", False),
        ("m['content']", False),
        ("not python at all (", False),
    ],
)
def test_code_that_asks_for_dicts_is_recognised(source: str, asks: bool) -> None:
    assert source_tests_for_dicts(source) == asks


def test_messages_of_every_name_become_dicts_and_the_rest_stays() -> None:
    class Message:
        def model_dump(self, *, exclude_none: bool) -> dict[str, str]:
            return {"role": "user", "content": "hello"}

    plain = {"role": "user", "content": "hello"}
    state = {"completion": [Message()]}
    given_arguments = {"completion": [Message()], "prompts": [[Message()], "text"], "state": state}
    assert as_dicts(given_arguments) == {"completion": [plain], "prompts": [[plain], "text"], "state": state}


@pytest.mark.parametrize(
    ("cut", "reason"), [("stop", "tool_calls"), ("length", "length")], ids=["ended", "cut off"]
)
def test_an_answer_with_tool_calls_is_one_of_the_chat_completions_api(cut: str, reason: str) -> None:
    """What verifiers 0.1.10 and v1 are answered."""
    from openai.types.chat import ChatCompletion

    from rezero_ray.foreign.rezero_child.openai_client import completion

    call = {"id": "c1", "name": "look", "arguments": '{"where": "here"}'}
    (choice,) = ChatCompletion.model_validate(completion(Answer(7, "", cut, tool_calls=[call]))).choices
    (read,) = choice.message.tool_calls or []
    assert read.type == "function" and read.id == "c1"
    assert (read.function.name, read.function.arguments) == ("look", '{"where": "here"}')
    assert choice.message.content is None and choice.finish_reason == reason


def with_child(use: Any, python: Path = Path(sys.executable)) -> None:
    async def session() -> None:
        child = await ChildProcess.start(python)
        try:
            await use(child)
        finally:
            await child.kill()

    asyncio.run(session())


LOAD: dict[str, Any] = {"args": {}, "max_turns": None, "dict_messages": None, "limits": {}}


def test_what_goes_wrong_in_a_child_is_told_and_it_goes_on() -> None:
    async def use(child: ChildProcess) -> None:
        with pytest.raises(ChildFailed, match="there is no request 'dance'"):
            await child.ask("dance")
        with pytest.raises(ChildFailed, match="ModuleNotFoundError: No module named 'nobody_has_this'"):
            await child.ask("load", id="nobody-has-this", module="nobody_has_this", loader="x", **LOAD)
        assert child.alive

    with_child(use)


def test_a_child_that_is_ended_fails_its_requests_and_takes_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "never_loads.py").write_text("import time\ntime.sleep(600)\n", "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    async def use(child: ChildProcess) -> None:
        _, loading = child.begin("load", id="never-loads", module="never_loads", loader="x", **LOAD)
        await child.kill()
        with pytest.raises(ChildDied, match="ended with signal 9"):
            await loading
        with pytest.raises(ChildDied):
            await child.ask("load")

    with_child(use)


def test_an_interpreter_that_cannot_be_started_is_told() -> None:
    async def use(child: ChildProcess) -> None:
        raise AssertionError

    with pytest.raises(ChildDied, match="cannot be started"):
        with_child(use, Path("/nowhere/python"))


def test_what_runs_in_the_child_imports_nothing_of_ours_by_its_full_name() -> None:
    """There `rezero_ray` is not installed."""
    files = list(Path(frames.__file__).parent.glob("*.py"))
    assert len(files) > 5
    for file in files:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            assert not any(name.partition(".")[0] in ("rezero_ray", "actors") for name in names), file.name


def fake_interpreter(folder: Path, script: str) -> Path:
    """Our interpreter behind a shell script that does something first."""
    path = folder / "python"
    path.write_text(f'#!/bin/sh\n{script}\nexec {sys.executable} "$@"\n', "utf-8")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("size", [20, 200_000], ids=["a line", "more than a buffer"])
def test_what_an_interpreter_prints_before_it_is_ready_is_no_record(
    tmp_path: Path, size: int, capsys: pytest.CaptureFixture[str]
) -> None:
    noisy = fake_interpreter(tmp_path, f"head -c {size} /dev/zero | tr '\\0' x; echo welcome")

    async def use(child: ChildProcess) -> None:
        with pytest.raises(ChildFailed, match="there is no request 'dance'"):
            await child.ask("dance")

    with_child(use, noisy)
    assert "welcome" in capsys.readouterr().err


def test_a_child_that_exits_or_spoils_its_pipe_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "verifiers.py").write_text(
        "", "utf-8"
    )  # the real one takes seconds, and nothing gets that far
    (tmp_path / "leaves.py").write_text("import os\nos._exit(7)\n", "utf-8")
    (tmp_path / "quits.py").write_text("import sys\nsys.exit(3)\n", "utf-8")
    (tmp_path / "spoils.py").write_text(
        "import os\nfor number in range(3, 30):\n    try: os.write(number, b'x' * 64)\n    except OSError: pass\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def loaded(module: str) -> Any:
        async def use(child: ChildProcess) -> None:
            with pytest.raises(ChildFailed) as found:
                await child.ask("load", id=module, module=module, loader="x", **LOAD)
            said.append(str(found.value))

        return use

    said: list[str] = []
    for module in ("leaves", "quits", "spoils"):
        with_child(loaded(module))
    assert "ended with status 7" in said[0]
    assert "loading quits called sys.exit(3)" in said[1]
    assert "its pipe of records had other data" in said[2]
