"""The script `rezero` finds modules in the working directory, as `python -m rezero_ray.cli` does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = "import sys\nfrom rezero_ray.cli import main\nsys.exit(main())\n"


@pytest.mark.parametrize(("flags", "found"), [((), True), (("-P",), False)])
def test_an_environment_beside_the_toml_is_found_by_the_script(
    tmp_path: Path, flags: tuple[str, ...], found: bool
) -> None:
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "rezero"
    script.write_text(SCRIPT)
    work = tmp_path / "work"
    work.mkdir()
    (work / "not_a_package_task.py").write_text("def load_environment(level=1):\n    raise SystemError\n")
    command = [sys.executable, *flags, str(script), "check", "--env", "not-a-package-task", "--args.levle=2"]
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=work, env=variables, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2, done.stderr
    wanted = "has no argument levle" if found else "no module not_a_package_task can be imported"
    assert wanted in done.stderr
