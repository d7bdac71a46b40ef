"""What the place of a run can do, measured: memory, folders, GPUs, and what the ranks can exchange.

- `records.py`: what is measured, and a finding on it;
- `machine.py` and below it `limits.py`, `folder.py`, `gpus.py`, `compute.py`: the measurements of one machine;
- `needs.py`: what a config wants of it; `verdicts.py`: the two side by side (both pure);
- `report.py`: all of it as `doctor.json`.

What ranks do together is measured in `actors/all_reduce.py`, because it takes Ray to place them.
"""
