"""`modal run infra/modal/train.py --config redteam.toml [--resume]`: the same launch, by Modal's own command.

`--config` may be given several times, and every key is a flag, as for `python -m rezero_ray.train`, which this
starts.
"""

import os
import subprocess
import sys
from pathlib import Path

import modal

ROOT = Path(__file__).resolve().parents[2]

app = modal.App("re-zero-launch", include_source=False)  # has no function: the run gets an App of its own


@app.local_entrypoint()
def main(*arguments: str) -> None:
    """Hands everything to the trainer's command, and ends as it does."""
    files, rest = [], list(arguments)
    while "--config" in rest:
        at = rest.index("--config")
        files += [recipe(name) for name in rest[at + 1 : at + 2]]
        del rest[at : at + 2]
    command = [sys.executable, "-m", "rezero_ray.train", *files, *rest, "--infra.kind", "modal"]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    sys.exit(subprocess.call(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)}))


def recipe(name: str) -> str:
    """A file here, or else one of `configs/`."""
    ours = ROOT / "configs" / name
    return str(ours if not Path(name).exists() and ours.exists() else name)
