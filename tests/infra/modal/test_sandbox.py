"""Claims about the tier `modal`: the real client against the fake, whose Sandboxes run the real launcher."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import pytest

from environments.code_vulnerability.environment import generate_tasks, reference_answer, repair
from environments.sandbox import modal_tier
from environments.sandbox.modal_tier import SHARED, ModalSandbox
from environments.sandbox.records import Limits, Outcome, Program, SandboxError
from environments.sandbox.sandbox import Sandbox, isolation, tier_at
from infra.modal.bootstrap import RUN_NAME
from tests.infra.modal.fake_control_plane import ROOT, FakeControlPlane
from tests.infra.modal.fake_sandboxes import FakeSandbox

LIMITS = Limits(wall_seconds=20, cpu_seconds=5, memory_mib=256, processes=8, file_mib=2, output_kib=4)


@pytest.fixture
def sandbox(plane: FakeControlPlane) -> Iterator[Sandbox]:
    """The tier as a process has it that has run nothing yet; what a test makes is ended."""
    yield Sandbox("modal")
    SHARED.close()


def made(plane: FakeControlPlane) -> list[FakeSandbox]:
    return list(plane.sandboxes.values())


def run(sandbox: Sandbox, program: str, limits: Limits = LIMITS) -> Outcome:
    return sandbox.run({"program.py": program}, [sys.executable, "-I", "program.py"], limits=limits)


def test_one_sandbox_without_network_and_secrets_serves_many_programs(
    plane: FakeControlPlane, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert not made(plane)
    program = "import os, sys; print(open('a.txt').read(), os.environ['X'], input()); sys.exit(3)"
    outcome = sandbox.run(
        {"p.py": program, "a.txt": "one"},
        [sys.executable, "-I", "p.py"],
        environment={"X": "two"},
        stdin="three\n",
        limits=LIMITS,
    )
    assert (outcome.status, outcome.exit_code, outcome.stdout) == ("finished", 3, "one two three\n")
    assert run(sandbox, "import yaml; print(yaml.safe_load('[1]'))").stdout == "[1]\n"

    (there,) = made(plane)
    definition = there.request.definition
    assert definition.network_access.network_access_type == definition.network_access.BLOCKED
    assert list(there.request.secret_sources) == list(definition.secret_ids) == []
    assert not definition.volume_mounts
    assert (definition.timeout_secs, definition.idle_timeout_secs) == (4 * 3600, 600)
    assert (definition.resources.milli_cpu, definition.resources.milli_cpu_max) == (1000, 8000)
    assert (definition.resources.memory_mb, definition.resources.memory_mb_max) == (1024, 16384)
    assert there.request.app_id == plane.apps["re-zero-sandboxes"]
    image = "\n".join(plane.dockerfile_of(definition.image_id))
    assert "bubblewrap" in image
    assert f"pyyaml=={version('pyyaml')}" in image
    assert len(there.commands) == 3  # it is asked what it has, and runs two programs
    assert "what keeps its programs apart is" in caplog.text


def test_it_is_asked_for_by_name_and_chosen_in_a_container_of_modals(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tier_at("auto") == tier_at("local") != "modal"
    assert tier_at("modal") == "modal"
    monkeypatch.setenv("MODAL_TASK_ID", "ta-1")
    assert Sandbox().tier == isolation().tier == "modal"
    assert tier_at("local") != "modal"
    with pytest.raises(ValueError, match=r"auto, local, modal.*'cloud'"):
        tier_at("cloud")


def test_a_file_name_that_leads_outside_is_refused_before_modal_is_asked(
    plane: FakeControlPlane, sandbox: Sandbox
) -> None:
    with pytest.raises(ValueError, match="inside"):
        sandbox.run({"../x": ""}, ["/bin/true"])
    assert not plane.asked


def test_when_modal_refuses_it_is_an_error_of_the_sandbox(plane: FakeControlPlane, sandbox: Sandbox) -> None:
    plane.refused = "SandboxCreateV2"
    with pytest.raises(SandboxError, match=r"ResourceExhausted.*SandboxCreateV2 is refused"):
        run(sandbox, "")
    assert plane.asked["SandboxCreateV2"] == 2


def test_sandboxes_of_a_run_on_modal_belong_to_its_app(
    plane: FakeControlPlane, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert modal_tier.RUN_NAME == RUN_NAME
    monkeypatch.setenv(RUN_NAME, "re-zero-1234")
    plane.refused = "SandboxCreateV2"
    with pytest.raises(SandboxError):
        run(sandbox, "")
    assert set(plane.apps) == {"re-zero-1234"}


@pytest.mark.slow
def test_a_sandbox_that_dies_under_a_program_is_replaced_and_the_program_run_again(
    plane: FakeControlPlane, sandbox: Sandbox
) -> None:
    assert run(sandbox, "print(1)").stdout == "1\n"
    (first,) = made(plane)

    def die() -> None:
        while len(first.commands) < 3:
            time.sleep(0.02)
        first.end()

    threading.Thread(target=die).start()
    assert run(sandbox, "import time; time.sleep(2); print(2)").stdout == "2\n"
    assert [there.alive for there in made(plane)] == [False, True]


@pytest.mark.slow
def test_patches_of_a_group_share_one_sandbox_and_are_judged_as_elsewhere(
    plane: FakeControlPlane, sandbox: Sandbox
) -> None:
    program = next(
        task.program for task in generate_tasks(seed=0, num_train=1, num_eval=50)[1] if task.program.cwe
    )
    info = asdict(program)
    right = reference_answer(info)
    gutted = f"CWE-{program.cwe} line {program.line}\n    return None"

    async def rewards() -> list[float]:
        return await asyncio.gather(*(repair(answer, info, sandbox) for answer in (right, gutted, right)))

    first, second, third = asyncio.run(rewards())
    assert first == third == 1 > 0 > second
    assert len(made(plane)) == 1


@pytest.mark.slow
def test_a_program_over_its_time_is_an_outcome_and_the_sandbox_stays(
    plane: FakeControlPlane, sandbox: Sandbox
) -> None:
    outcome = run(sandbox, "import time; time.sleep(60)", Limits(wall_seconds=0.5))
    assert (outcome.status, outcome.reason) == ("timed out", "wall time")
    assert [there.alive for there in made(plane)] == [True]


@pytest.mark.slow
def test_a_sandbox_that_does_not_answer_is_waited_for_and_replaced_once(
    plane: FakeControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modal_tier, "GRACE_SECONDS", 0.0)
    monkeypatch.setattr(modal_tier, "TRANSPORT_SECONDS", 0.3)
    monkeypatch.setattr(FakeSandbox, "deaf", True)
    modal = ModalSandbox()
    with pytest.raises(SandboxError, match=r"waited 0\.3 s for the Sandbox sb-2"):
        modal.run(Program({}, ["/bin/true"]))
    assert [there.alive for there in made(plane)] == [False, False]


@pytest.mark.slow
def test_a_process_in_a_container_of_a_run_makes_one_without_credentials_and_ends_it(
    plane: FakeControlPlane,
) -> None:
    program = """
from environments.sandbox.sandbox import Sandbox
print(Sandbox().run({}, ["/bin/echo", "done"]).stdout)
"""
    container = {"MODAL_IS_REMOTE": "1", "MODAL_TASK_ID": "ta-1", RUN_NAME: "re-zero-1234"}
    variables = {name: value for name, value in os.environ.items() if not name.startswith("MODAL_TOKEN")}
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, cwd=ROOT, env=variables | container, capture_output=True, text=True, check=False
    )
    assert done.stdout == "done\n\n", done.stderr
    (there,) = made(plane)
    assert there.request.app_id == plane.apps["re-zero-1234"]
    assert not there.alive


def test_a_process_that_is_killed_leaves_no_sandbox_behind(plane: FakeControlPlane) -> None:
    """Ray ends an actor so: no exit handler runs, and its direct children are killed with it."""
    program = """
import os, time
from environments.sandbox.modal_tier import _make_room
room = _make_room()
print(room.sandbox.object_id, flush=True)
time.sleep(600)
"""
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, env=variables, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline().decode().strip()
    (there,) = made(plane)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 60
    while there.alive and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not there.alive


def test_a_sandbox_that_was_ended_is_not_ended_again(plane: FakeControlPlane, sandbox: Sandbox) -> None:
    run(sandbox, "print(1)")
    SHARED.close()
    watches = [
        cmdline
        for cmdline in Path("/proc").glob("[0-9]*/cmdline")
        if b"modal_watch.py\0sb-" in _read(cmdline)
    ]
    deadline = time.monotonic() + 10
    while any(b"modal_watch.py" in _read(cmdline) for cmdline in watches) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [cmdline for cmdline in watches if b"modal_watch.py" in _read(cmdline)]


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:  # the process has ended
        return b""
