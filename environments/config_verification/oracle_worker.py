"""The process in which checkov and Rego judge files. It runs in an interpreter of its own.

checkov 3.3.30 wants cachetools < 6, networkx < 2.7, packaging < 24 and importlib-metadata < 8, which the
trainer's set does not allow. So this file is a program, imports nothing of ours, and speaks JSON lines: it
is told `{"checks": {kind: [check id, ...]}, "policies": {kind: Rego source}}` and answers its versions;
then each `{"kind": ..., "text": ...}` is answered with `{"failed": [check id or denied rule, ...]}` or
`{"error": reason}`. It ends with its input.
"""

import json
import os
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

import hcl2
import yaml
from checkov.kubernetes.runner import Runner as KubernetesRunner
from checkov.runner_filter import RunnerFilter
from checkov.terraform.runner import Runner as TerraformRunner
from regopy import Interpreter

RUNNERS = {"kubernetes": KubernetesRunner, "terraform": TerraformRunner}
FILE_NAMES = {"kubernetes": "file.yaml", "terraform": "main.tf"}
PARSERS = {"kubernetes": lambda text: yaml.load(text, yaml.CSafeLoader), "terraform": hcl2.loads}


class OnlyChecks(RunnerFilter):
    """Lets the named checks run. checkov's own filter compares every check that it has with every name, as
    patterns, for each file: a third of the time."""

    def __init__(self, kind: str, ids: list[str]) -> None:
        super().__init__(framework=[kind], checks=ids, download_external_modules=False)
        self._ids = frozenset(ids)

    def should_run_check(self, check: Any = None, check_id: str | None = None, **_: Any) -> bool:
        return (check.id if check else check_id) in self._ids


class Oracles:
    """Judges one file at a time, written to `folder`, where checkov reads it."""

    def __init__(self, folder: Path, checks: dict[str, list[str]], policies: dict[str, str]) -> None:
        self._folder = folder
        self._filters = {kind: OnlyChecks(kind, ids) for kind, ids in checks.items()}
        self._rego = {kind: Interpreter() for kind in policies}
        for kind, source in policies.items():
            self._rego[kind].add_module(kind, source)
            self._denied(kind, {})  # a policy with a mistake in it fails here, not at the first file

    def failed(self, kind: str, text: str) -> list[str]:
        """Ids of the checks that fail and rules that the policy denies. Raises ValueError for a broken file.

        A check that the file tells checkov to skip counts as failed.
        """
        path = self._folder / FILE_NAMES[kind]
        path.write_text(text)
        report = RUNNERS[kind]().run(root_folder=None, files=[str(path)], runner_filter=self._filters[kind])
        if isinstance(report, list):
            report = report[0]
        if report.parsing_errors:
            raise ValueError(f"checkov cannot parse this {kind} file")
        checks = {record.check_id for record in [*report.failed_checks, *report.skipped_checks]}
        return sorted(checks | self._denied(kind, PARSERS[kind](text)))

    def _denied(self, kind: str, parsed: Any) -> set[str]:
        self._rego[kind].set_input(parsed)
        output = self._rego[kind].query(f"data.{kind}.deny")
        if not output.ok():
            raise ValueError(f"Rego: {output}")
        return set(output.results[0].expressions[0])


def answer(oracles: Oracles, request: dict[str, Any]) -> dict[str, Any]:
    """The reply to one request; whatever an oracle raises is the request's error, not the process's end."""
    try:
        return {"failed": oracles.failed(request["kind"], request["text"])}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:500]}


def serve(requests: TextIO, replies: TextIO) -> None:
    """Answers line by line until the input ends."""

    def reply(message: dict[str, Any]) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    with tempfile.TemporaryDirectory(prefix="config-oracle-") as folder:
        orders = json.loads(requests.readline())
        oracles = Oracles(Path(folder), orders["checks"], orders["policies"])
        reply({name: version(name) for name in ("checkov", "regopy")})
        for line in requests:
            reply(answer(oracles, json.loads(line)))


if __name__ == "__main__":
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what checkov prints must not get among the replies
    serve(sys.stdin, channel)
