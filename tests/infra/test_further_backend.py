"""A backend is one folder: the example of docs/infra.md, put into `infra/` and used, with nothing else touched.

`ssh` is a stand-in that carries the command out on this machine; there is no second one here.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.config.run_request import write_right
from tests.run.train_process import ROOT

PAGE = ROOT / "docs/infra.md"
SSH = '#!/bin/sh\nexport HOME="$HOME_OVER_THERE"\nexec sh -c "$2"\n'

pytestmark = pytest.mark.slow


def files_of_the_page() -> dict[str, str]:
    """Path -> text, of every file that the page shows."""
    return dict(re.findall(r"^`(infra/\S+)`\n\n```python\n(.*?)```", PAGE.read_text("utf-8"), re.S | re.M))


class Place:
    """The repository by links, `infra/ssh` of the page in it, and a machine `over_there`."""

    def __init__(self, folder: Path) -> None:
        self.folder, over_there = folder / "project", folder / "over_there"
        for path in (self.folder / "infra/ssh", folder / "bin", over_there):
            path.mkdir(parents=True)
        for room in ("rezero_ray", "actors", "environments"):
            (self.folder / room).symlink_to(ROOT / room)
        for part in (ROOT / "infra").iterdir():
            (self.folder / "infra" / part.name).symlink_to(part)
        for name, text in files_of_the_page().items():
            (self.folder / name).write_text(text, "utf-8")
        ssh = folder / "bin/ssh"
        ssh.write_text(SSH, "utf-8")
        ssh.chmod(0o755)
        self.environment = os.environ | {
            "PATH": f"{ssh.parent}:{os.environ['PATH']}",
            "HOME_OVER_THERE": str(over_there),
            "REZERO_SSH_HOST": "box",
            "PYTHONPATH": "",
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "rezero_ray.cli", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def rezero(self, *arguments: str) -> tuple[int, str]:
        process = self.start(*arguments)
        printed = process.communicate(timeout=120)[0]
        return process.returncode, printed


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_the_example_is_three_files_and_hardly_more_than_fifty_statements() -> None:
    files = files_of_the_page()
    assert sorted(files) == [f"infra/ssh/{name}.py" for name in ("bootstrap", "launcher", "table")]
    lines = [line for line in files["infra/ssh/launcher.py"].splitlines() if line.strip()]
    assert len(lines) <= 55


def test_a_folder_in_infra_is_a_kind_with_its_keys_launches_runs_logs_and_stops(
    place: Place, tmp_path: Path
) -> None:
    request = str(write_right(tmp_path))
    flags = ["--infra.kind", "ssh", "--infra.folder", str(place.folder)]
    status, printed = place.rezero("train", request, *flags, "--infra.python", sys.executable)
    assert (status, "infra.host" in printed) == (2, True), printed

    flags += ["--infra.host", "box"]
    lasting = tmp_path / "lasting"
    lasting.write_text('#!/bin/sh\necho "with $*"\nexec sleep 60\n', "utf-8")
    lasting.chmod(0o755)
    first = place.start("train", request, *flags, "--infra.python", str(lasting))
    assert first.stdout is not None
    lines = iter(first.stdout)
    name = next(match[1] for line in lines if (match := re.match(r"launched (ssh-\w+): box:", line)))
    assert next(line for line in lines if line.startswith("with ")).split()[1:3] == ["-m", "rezero_ray.train"]
    first.send_signal(signal.SIGINT)
    assert f"rezero logs {name}" in "".join(lines)
    assert first.wait(60) == 0

    status, printed = place.rezero("train", request, *flags, "--infra.python", sys.executable)
    assert status == 2 and f"{name} goes on there" in printed, printed
    assert re.search(rf"^{name} +running  box:", place.rezero("runs")[1], re.M)
    assert place.rezero("stop", name)[0] == 0
    assert place.rezero("logs", name)[0] == 128 + signal.SIGTERM

    wrong = ["--model.name", str(tmp_path / "over_there/no_model")]
    status, printed = place.rezero("train", request, *flags, *wrong, "--infra.python", sys.executable)
    assert status == 2, printed
    assert "following ssh-" in printed and "model.name" in printed and "nothing was started" in printed
