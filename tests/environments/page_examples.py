"""Reading the worked examples of a page in `docs/environments/`.

A page names its task ("Held-out task 2 of seed 0"). An example is a `###` section with one text block per
message and a table whose last row holds the components and the reward.
"""

import re
from dataclasses import dataclass
from pathlib import Path

PAGES = Path(__file__).parents[2] / "docs" / "environments"


@dataclass(frozen=True)
class PageExample:
    """One worked example: the assistant's texts and the scores that the page quotes, by name."""

    title: str
    texts: list[str]
    scores: dict[str, float]


def task_number(page: str) -> int:
    """Index in the held-out set of the task that the page's examples answer."""
    found = re.search(r"Held-out task (\d+) of seed 0", page)
    assert found, "the page does not say which task it shows"
    return int(found.group(1))


def examples(page: str) -> list[PageExample]:
    """All worked examples of a page, in order."""
    found = []
    for section in page.split("\n### ")[1:]:
        texts = [block.strip("\n") for block in re.findall(r"```text\n(.*?)```", section, re.DOTALL)]
        rows = [line.strip("| ").split("|") for line in section.splitlines() if line.startswith("|")]
        names, values = rows[0], rows[2]
        scores = {name.strip(): float(value) for name, value in zip(names, values, strict=True)}
        found.append(PageExample(section.splitlines()[0], texts, scores))
    return found
