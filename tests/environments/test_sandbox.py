"""What a program in the sandbox cannot do, in every tier that this machine has, and what it leaves: nothing."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from secrets import token_hex

import pytest

from environments.sandbox import landlock
from environments.sandbox.local_tiers import FIRST_STAND_IN, tiers, why_not
from environments.sandbox.paths import anybody_may_run
from environments.sandbox.process_tree import marked
from environments.sandbox.records import Limits, Outcome, SandboxError, Tier
from environments.sandbox.sandbox import Sandbox, isolation

LIMITS = Limits(wall_seconds=10, cpu_seconds=3, memory_mib=256, processes=8, file_mib=2, output_kib=4)

OWN = {"REZERO_TEST": token_hex(8)}
"""Tells the programs of these tests from those of others on this machine."""

TIERS: tuple[Tier, ...] = ("bubblewrap", "namespaces", "plain")


@pytest.fixture(params=TIERS)
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    if request.param not in tiers():
        pytest.skip(f"no {request.param} on this machine: {why_not(request.param)}")
    return Sandbox(request.param)


def run(sandbox: Sandbox, program: str, limits: Limits = LIMITS, *arguments: str) -> Outcome:
    """Runs a Python program; fails the test if any of its processes is alive afterwards."""
    command = [sys.executable, "-I", "program.py", *arguments]
    outcome = sandbox.run({"program.py": program}, command, limits=limits, environment=OWN)
    assert not left_running()
    return outcome


def left_running() -> list[int]:
    return marked("".join(f"{name}={value}" for name, value in OWN.items()))


def skip_if_lost(sandbox: Sandbox, what: str) -> None:
    for loss in isolation(sandbox.tier).losses:
        if what in loss:
            pytest.skip(f"{sandbox.tier} says so itself: {loss}")


def test_the_plain_tier_is_always_there() -> None:
    assert tiers()[-1] == "plain"
    assert isolation().tier == tiers()[0]


def test_a_program_gets_files_arguments_variables_and_input_and_its_output_comes_back(
    sandbox: Sandbox,
) -> None:
    program = "import os, sys; print(open('sub/a.txt').read(), sys.argv[1], os.environ['X'], input())"
    outcome = sandbox.run(
        {"p.py": program + "\nprint('bad', file=sys.stderr); sys.exit(3)", "sub/a.txt": "one"},
        [sys.executable, "-I", "p.py", "two"],
        environment={"X": "three"},
        stdin="four\n",
        limits=LIMITS,
    )
    assert (outcome.status, outcome.exit_code) == ("finished", 3)
    assert (outcome.stdout, outcome.stderr) == ("one two three four\n", "bad\n")


def test_installed_packages_can_be_imported(sandbox: Sandbox) -> None:
    assert run(sandbox, "import yaml; print(yaml.safe_load('[1]'))").stdout == "[1]\n"


def test_a_fork_bomb_is_contained(sandbox: Sandbox) -> None:
    bomb = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    outcome = run(sandbox, bomb, Limits(wall_seconds=3, cpu_seconds=2, processes=8))
    assert outcome.status != "finished"
    assert outcome.seconds < 8


def test_an_endless_loop_is_ended_by_either_clock(sandbox: Sandbox) -> None:
    waiting = run(sandbox, "import time; time.sleep(60)", Limits(wall_seconds=0.4))
    assert (waiting.status, waiting.reason) == ("timed out", "wall time")
    busy = run(sandbox, "while True: pass", Limits(wall_seconds=30, cpu_seconds=1))
    assert (busy.status, busy.reason) == ("killed", "CPU time")


def test_ten_gigabytes_are_not_to_be_had(sandbox: Sandbox) -> None:
    assert "MemoryError" in run(sandbox, "block = bytearray(10 << 30)").stderr


def test_nor_in_small_pieces_by_many_processes(sandbox: Sandbox) -> None:
    program = "import os, time\nfor _ in range(3): os.fork()\nblock = bytearray(100 << 20); time.sleep(30)"
    outcome = run(sandbox, program, Limits(wall_seconds=20, memory_mib=256, processes=16))
    assert (outcome.status, outcome.reason) == ("killed", "memory")


def test_writing_outside_its_directory_is_refused(sandbox: Sandbox, tmp_path: Path) -> None:
    skip_if_lost(sandbox, "file system")
    target = tmp_path / "written"
    program = f"""
for path in ({str(target)!r}, '/etc/written', '/usr/written', '/written', '../written'):
    try: open(path, 'w')
    except OSError: print('refused')
open('inside', 'w').write('fine'); print('done')
"""
    assert run(sandbox, program).stdout.split() == ["refused"] * 5 + ["done"]
    assert not target.exists()


def test_reading_the_home_directory_is_refused(sandbox: Sandbox, tmp_path: Path) -> None:
    skip_if_lost(sandbox, "file system")
    secret = tmp_path / "secret"
    secret.write_text("secret")
    program = f"""
import os, pwd
for path in ({str(secret)!r}, '/etc/passwd', {str(Path.home() / ".bashrc")!r}, {__file__!r}):
    try: print(open(path).read())
    except OSError: print('refused')
print(os.path.expanduser('~') == os.getcwd())
"""
    assert run(sandbox, program).stdout.split() == ["refused"] * 4 + ["True"]


def test_a_tcp_connection_is_refused(sandbox: Sandbox) -> None:
    skip_if_lost(sandbox, "TCP is not")
    with socket.create_server(("127.0.0.1", 0)) as server:
        program = f"""
import socket
try: socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 2); print('connected')
except OSError: print('refused')
"""
        assert run(sandbox, program).stdout == "refused\n"


def test_no_datagram_and_no_unix_socket_gets_out(sandbox: Sandbox, tmp_path: Path) -> None:
    skip_if_lost(sandbox, "network is not cut off")
    path = str(tmp_path / "socket")
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        socket.socket(socket.AF_UNIX) as local,
    ):
        datagrams.bind(("127.0.0.1", 0))
        datagrams.settimeout(0.2)
        local.bind(path)
        local.listen()
        program = f"""
import socket
try:
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.sendto(b'x', ('127.0.0.1', {datagrams.getsockname()[1]}))
except OSError: pass
try: socket.socket(socket.AF_UNIX).connect({path!r}); print('connected')
except OSError: print('refused')
"""
        assert run(sandbox, program).stdout == "refused\n"
        with pytest.raises(TimeoutError):
            datagrams.recv(1)


def test_signals_to_the_parent_and_to_others_are_refused(sandbox: Sandbox) -> None:
    skip_if_lost(sandbox, "signals")
    with subprocess.Popen(["/bin/sleep", "60"]) as bystander:
        program = f"""
import os
for process in (os.getppid(), {os.getpid()}, {bystander.pid}):
    try: os.kill(process, 9); print('sent')
    except OSError: print('refused')
"""
        outcome = run(sandbox, program)
        alive = bystander.poll() is None
        bystander.kill()
    assert outcome.stdout.split() == ["refused"] * 3
    assert outcome.status == "finished"
    assert alive


def test_a_daemon_that_clears_its_environment_does_not_outlive_the_program(sandbox: Sandbox) -> None:
    program = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve('/bin/sleep', ['sleep', '61.25'], {})
    os._exit(0)
time.sleep(0.1)
"""
    assert run(sandbox, program).status == "finished"
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert b"sleep\x0061.25\x00" not in commands


def test_a_flood_of_output_is_cut_and_one_of_files_is_ended(sandbox: Sandbox) -> None:
    flood = run(sandbox, "print('x' * 100_000)")
    assert len(flood.stdout) == LIMITS.output_kib << 10
    large = run(sandbox, "open('large', 'wb').write(bytes(50 << 20))")
    assert (large.status, large.exit_code) != ("finished", 0)
    many = "import time\nfor i in range(20):\n    open(str(i), 'wb').write(bytes(1 << 20)); time.sleep(0.05)"
    assert run(sandbox, many).reason == "files"


def test_a_program_does_not_outlive_the_process_that_asked_for_it(sandbox: Sandbox, tmp_path: Path) -> None:
    asker = f"""
import sys
from environments.sandbox.sandbox import Sandbox
Sandbox({sandbox.tier!r}).run({{}}, ['/bin/sleep', '60'], environment={OWN!r})
"""
    folder = {"TMPDIR": str(tmp_path)}
    command, root = [sys.executable, "-c", asker], Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, env={**os.environ, **folder}) as process:
        wait_until(lambda: bool(left_running()))
        process.kill()
    wait_until(lambda: not left_running())
    wait_until(lambda: not list(tmp_path.glob("rezero-sandbox-*")))


def wait_until(holds: object, seconds: float = 10.0) -> None:
    assert callable(holds)
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", ""])
def test_a_file_name_that_leads_outside_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="inside"):
        Sandbox("plain").run({name: ""}, ["/bin/true"])


@pytest.mark.parametrize("tier", [tier for tier in tiers() if tier != "bubblewrap"])
def test_what_cannot_be_started_is_a_fault_of_the_sandbox_and_no_outcome(tier: Tier) -> None:
    with pytest.raises(SandboxError, match="FileNotFoundError"):
        Sandbox(tier).run({}, ["/no/such/program"])


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_a_program_of_roots_is_nobodys_where_anybody_may_start_it() -> None:
    assert int(Sandbox("plain").run({}, ["/usr/bin/id", "-u"]).stdout) >= FIRST_STAND_IN
    assert int(Sandbox("plain").run({}, ["/usr/bin/id", "-g"]).stdout) >= FIRST_STAND_IN


def test_what_only_root_can_reach_is_not_for_anybody(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.touch(0o755)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o711)
    assert anybody_may_run(str(program))
    tmp_path.chmod(0o700)
    assert not anybody_may_run(str(program))


def test_many_runs_go_on_at_once_and_the_event_loop_with_them() -> None:
    sandbox = Sandbox()

    async def both() -> tuple[list[Outcome], int]:
        runs = asyncio.gather(*(sandbox.run_async({}, ["/bin/sleep", "0.5"]) for _ in range(4)))
        beats = 0
        while not runs.done():
            await asyncio.sleep(0.02)
            beats += 1
        return await runs, beats

    started = time.monotonic()
    outcomes, beats = asyncio.run(both())
    assert [outcome.exit_code for outcome in outcomes] == [0] * 4
    assert time.monotonic() - started < sum(outcome.seconds for outcome in outcomes)
    assert beats > 5


def test_what_a_kernel_does_not_cut_off_is_named() -> None:
    assert landlock.losses(7) == ()
    assert [len(landlock.losses(abi)) for abi in (0, 1, 3, 4, 5, 6)] == [3, 2, 2, 1, 1, 0]
    assert "no namespaces" in str(isolation("plain"))
