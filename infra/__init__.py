"""Where the Ray cluster comes from. One folder a backend, with

- `table.py`: its `[infra]` table, a subclass of `InfraTable`;
- `bootstrap.py`: `start(table, *, gpus)`, which makes `ray.init` right where the process is (`infra.bootstrap`);
- `launcher.py`, only where machines have to be got first (`infra.launcher`).
"""

import rezero_ray.config  # noqa: F401 - it imports the tables, so they must not come first
