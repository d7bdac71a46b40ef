"""How many answers a built-in environment scores per second of one core.

    python benchmarks/scoring_rate.py config-verification [tasks]

Scores the generator's own solution of each task, so nothing that an environment remembers of a task helps.
CPU seconds of this process and of those that it started are counted, not the time on the clock: other work
on the machine does not change the figure. A conversation counts as one answer.
"""

import argparse
import importlib
import json
import sys
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))
from rezero_ray.environments_index import BUILT_IN, load_environment


def cpu_seconds() -> float:
    """Of this process and its living children, user and system."""
    this = psutil.Process()
    times = [process.cpu_times() for process in [this, *this.children(recursive=True)]]
    return sum(each.user + each.system for each in times)


def main() -> None:
    parser = argparse.ArgumentParser(description="Answers scored per second of one core.")
    parser.add_argument("environment", choices=sorted(BUILT_IN))
    parser.add_argument("tasks", nargs="?", type=int, default=400)
    arguments = parser.parse_args()
    module = importlib.import_module(BUILT_IN[arguments.environment])
    load_environment(arguments.environment, {"num_train": 1, "num_eval": 1})
    tasks, _ = module.generate_tasks(seed=1, num_train=arguments.tasks, num_eval=1)
    cases = []
    for task in tasks:
        info = json.dumps(task.info())
        texts = (
            module.reference_transcript(info)
            if hasattr(module, "reference_transcript")
            else [module.reference_answer(info)]
        )
        cases.append((info, [{"role": "assistant", "content": text} for text in texts]))
    started, spent = time.perf_counter(), cpu_seconds()
    for info, completion in cases:
        for component in module.COMPONENTS:
            names = component.__code__.co_varnames[: component.__code__.co_argcount]
            given = {"info": info, "completion": completion}
            component(**{name: given[name] for name in names})
    spent, elapsed = cpu_seconds() - spent, time.perf_counter() - started
    print(f"{arguments.environment}: {len(cases) / spent:.0f} answers per second of one core", end=", ")
    print(f"{1000 * spent / len(cases):.1f} ms each ({elapsed:.1f} s on the clock, {len(cases)} tasks)")


if __name__ == "__main__":
    main()
