"""The house rules: style, types, import arrows, names, start-up cost. Each holds for the whole repository."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOOLS = Path(sys.executable).parent
ROOMS = ("rezero_ray", "actors", "infra", "environments")

HEAVY = ("torch", "vllm", "deepspeed", "mlflow", "modal", "ray", "transformers", "verifiers")
"""Packages that take from half a second to half a minute to import."""

NAMELESS = {"utils.py", "helpers.py", "common.py", "manager.py"}
"""File names that say nothing about what is in the file."""

MACHINE_PATH = re.compile(
    r"""(?<![\w.:/])/(?:work|opt|home|Users|mnt)/\w|/(?:var/)?tmp/(?!ray\b)\w|:///?/\w+/pypi"""
)
"""Paths that exist on one machine only; `/tmp/ray` is Ray's own."""


def output_of(*command: str | Path) -> str:
    """Runs a tool in the repository; fails the test with what it printed unless it exits with 0."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def repository_files() -> list[Path]:
    """Every file of the repository that git does not ignore, committed or not."""
    listing = output_of("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    return [ROOT / name for name in listing.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(("ruff", "check", "."), id="lint"),
        pytest.param(("ruff", "format", "--check", "."), id="format"),
        pytest.param(("mypy", *ROOMS), id="types"),
        pytest.param(("lint-imports", "--no-cache"), id="imports"),
    ],
)
def test_tool_has_no_complaint(command: tuple[str, ...]) -> None:
    tool, *arguments = command
    output_of(TOOLS / tool, *arguments)


def test_no_file_outside_docs_names_a_path_of_one_machine() -> None:
    found = []
    for file in repository_files():
        if file.is_relative_to(ROOT / "docs"):
            continue
        try:
            lines = file.read_text().splitlines()
        except UnicodeDecodeError:
            continue  # a picture
        found += [
            f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
            for number, line in enumerate(lines, start=1)
            if MACHINE_PATH.search(line) or (len(ROOT.parts) > 2 and f"{ROOT}/" in line)
        ]
    assert not found, "\n".join(found)


def test_every_file_has_a_name_that_says_what_is_in_it() -> None:
    assert not [file for file in repository_files() if file.name in NAMELESS]


@pytest.mark.parametrize(
    "module",
    [
        "rezero_ray.config",
        "rezero_ray.preflight",
        "rezero_ray.cli",
        "rezero_ray.train",
        "rezero_ray.show",
        "rezero_ray.replay",
        "rezero_ray.evaluate",
        "rezero_ray.doctor",
        "rezero_ray.serve",
        "rezero_ray.export",
    ],
)
def test_importing_it_loads_nothing_heavy(module: str) -> None:
    program = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert output_of(sys.executable, "-c", program).strip() == "[]"


@pytest.mark.parametrize("module", ["rezero_ray.train", "rezero_ray.models.smollm2"])
def test_help_loads_nothing_heavy(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", module, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert done.returncode == 0
    assert "usage" in done.stdout.lower()
    assert not imported & set(HEAVY)
