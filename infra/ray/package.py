"""What travels with a submitted job: the project's own rooms and the resolved configuration, and nothing else."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from rezero_ray.config import Config, ConfigError, Problem, dump_toml
from rezero_ray.config.problems import shown

ROOT = Path(__file__).parents[2]
ROOMS = ("rezero_ray", "actors", "infra", "environments")
CONFIG = "config.toml"

LARGEST_MIB = 20.0
"""The rooms have 2 MiB. The package lies in the memory of the cluster's head for as long as the job goes on."""


@contextmanager
def packed(config: Config, root: Path = ROOT) -> Iterator[Path]:
    """A folder for `working_dir`; gone at the end of the context.

    Raises:
        ConfigError: it would be larger than LARGEST_MIB; the largest file is named.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        for room in ROOMS:
            shutil.copytree(root / room, folder / room, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        (folder / CONFIG).write_text(dump_toml(config), "utf-8")
        _check_size(folder)
        yield folder


def _check_size(folder: Path) -> None:
    sizes = {path.relative_to(folder): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    mib = sum(sizes.values()) / 2**20
    if mib > LARGEST_MIB:
        largest = max(sizes, key=lambda path: sizes[path])
        what = f"the code to send has {mib:.0f} MiB, {largest} the most of it; at most {LARGEST_MIB:.0f} are sent"
        remedy = "models, runs and data do not belong beside the code: move them"
        raise ConfigError([Problem("infra.submit", what, remedy, shown(True))])
