"""An engine that dies is reported with the cause that its core logged, and with the log's place."""

import socket
from pathlib import Path

import pytest

from actors import engine_faults
from actors.engine_faults import EngineFailed, explained, own_logs, root_cause

CORE = "(RolloutEngine pid=41) (EngineCore pid=97) ERROR 11-28 07:01:12 [core.py:1368] "
LOG = "\n".join(
    [
        "INFO 11-28 07:01:10 [core.py:90] Initializing a V1 LLM engine",
        f"{CORE}EngineCore encountered a fatal error.",
        f"{CORE}Traceback (most recent call last):",
        f'{CORE}  File "core.py", line 1340, in run_engine_core',
        f"{CORE}    engine_core.run_busy_loop()",
        f"{CORE}KeyError: 'x'",
        f"{CORE}",
        f"{CORE}During handling of the above exception, another exception occurred:",
        f"{CORE}",
        f"{CORE}Traceback (most recent call last):",
        f'{CORE}  File "cpu_attn.py", line 77, in forward',
        f"{CORE}    raise ValueError(",
        f"{CORE}ValueError: Unsupported CPU attention head size 36",
        "Process EngineCore:",
        "Traceback (most recent call last):",
        '  File "async_llm.py", line 700, in output_handler',
        "    raise EngineDeadError() from self.error",
        "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the "
        "root cause.",
    ]
)


class EngineDeadError(Exception):
    """As vLLM's."""


def test_the_cause_is_the_last_traceback_that_does_not_point_to_another() -> None:
    assert root_cause(LOG) == "ValueError: Unsupported CPU attention head size 36"
    assert root_cause("no traceback here\nValueError: said in passing") is None
    assert root_cause("Traceback (most recent call last):\n  File x\nMemoryError") == "MemoryError"


def test_an_error_that_names_no_cause_is_raised_with_it_and_with_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, other = tmp_path / "worker-1.out", tmp_path / "worker-1.err"
    log.write_text(LOG)
    other.write_text("nothing of use")
    monkeypatch.setattr(engine_faults, "own_logs", lambda: [other, log])
    with pytest.raises(EngineFailed) as raised, explained():
        raise EngineDeadError("EngineCore encountered an issue. See stack trace (above) for the root cause.")
    assert "EngineDeadError: ValueError: Unsupported CPU attention head size 36" in str(raised.value)
    assert f"{socket.gethostname()}:{log}" in str(raised.value) and "\n" not in str(raised.value)
    with pytest.raises(EngineFailed, match="Unsupported CPU attention"), explained():
        raise RuntimeError("Engine core initialization failed. See root cause above. Failed core proc(s): {}")


def test_without_a_readable_log_the_process_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_faults, "own_logs", list)
    with pytest.raises(EngineFailed, match="the log of the engine's process"), explained():
        raise EngineDeadError("EngineCore encountered an issue. See stack trace (above) for the root cause.")


def test_an_error_that_names_its_cause_stays_as_it_is() -> None:
    with pytest.raises(KeyError, match="no adapter"), explained():
        raise KeyError("no adapter policy-v3 in this engine")


def test_the_logs_of_this_process_are_the_files_that_its_streams_go_to(tmp_path: Path) -> None:
    log, stream, other = tmp_path / "out", tmp_path / "1", tmp_path / "2"
    log.touch()
    stream.symlink_to(log)
    other.symlink_to("pipe:[123]")
    assert own_logs([stream, other, tmp_path / "nothing"]) == [log]
