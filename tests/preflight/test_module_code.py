"""A module that ends the process, or prints, is reported as that module's error; the command continues."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rezero_ray.config.environment import EnvConfig
from rezero_ray.foreign.rezero_child.contained import ModuleExited
from rezero_ray.preflight.environments import _built_here
from rezero_ray.preflight.module_code import module_code


def exits() -> Any:
    print("a licence is missing", flush=True)
    sys.exit(2)


def interrupts() -> Any:
    raise KeyboardInterrupt


def pokes_the_descriptor() -> Any:
    os.write(1, b"raw bytes on descriptor 1\n")
    subprocess.run(["sh", "-c", "echo a child of its own >&2"], check=True)
    raise RuntimeError("no data")


@pytest.mark.parametrize(
    ("loader", "told"),
    [
        (exits, ["loading odd_env called sys.exit(2)", "a licence is missing"]),
        (interrupts, ["loading odd_env raised KeyboardInterrupt"]),
        (pokes_the_descriptor, ["RuntimeError: no data", "a child of its own"]),
    ],
)
def test_what_a_module_does_while_it_is_loaded_is_its_problem_and_is_not_printed(
    loader: Callable[[], Any],
    told: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    module = ModuleType("odd_env")
    module.load_environment = loader  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "odd_env", module)
    problem = _built_here(0, EnvConfig(id="odd-env"))
    what = getattr(problem, "what", "")
    assert what.startswith("odd-env cannot be built") and all(words in what for words in told), what
    assert capfd.readouterr() == ("", "")


def test_a_real_ctrl_c_while_a_module_is_loaded_ends_the_command() -> None:
    with pytest.raises(KeyboardInterrupt), module_code("loading it"):
        os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(ModuleExited, match="loading it raised KeyboardInterrupt"), module_code("loading it"):
        raise KeyboardInterrupt


def test_the_command_train_ends_with_2_and_names_a_module_that_exits(tmp_path: Path) -> None:
    (tmp_path / "odd_env.py").write_text("import sys\n\ndef load_environment():\n    sys.exit(0)\n", "utf-8")
    from tests.config.run_request import write_right

    request = write_right(tmp_path)
    request.write_text(request.read_text().replace("phishing-detection", "odd-env"))
    done = subprocess.run(
        [sys.executable, "-m", "rezero_ray.train", str(request)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])},
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "loading odd_env called sys.exit(0)" in done.stderr and "orchestrator.env.0.id" in done.stderr
    assert "Traceback" not in done.stderr
