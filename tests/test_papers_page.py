"""The page of the papers: every item has a row, and the code and the names that a row gives exist.

`test_readme` parses the commands of the page.
"""

import re
from collections.abc import Callable
from itertools import pairwise
from pkgutil import resolve_name

import pytest
from papers_page import ITEMS, PAGE, Row, code, rows

from densecli.ablation.spec import shipped
from densecli.evaluation.benchmarks import BENCHMARKS
from densecli.models.dense import parse_mode
from densecli.models.transformer import OPTIONS, DenseTransformer
from densecli.models.vfms import architecture_of
from densecli.pipeline.teachers import find_teacher
from densecli.shards.datasets import DATASETS
from densecli.shards.regions import PAIRS
from densecli.train.exports import EXPORTS
from densecli.train.methods import METHODS
from densecli.train.terms import term_and_kind


def is_mode(mode: str) -> bool:
    name, options = parse_mode(mode)
    return name in DenseTransformer.modes and options <= OPTIONS


# What a value of each option names: a falsy value or an error if there is nothing of the name.
NAMES: dict[str, Callable[[str], object]] = {
    "--dataset": lambda name: name in BENCHMARKS or name in DATASETS or name == "panoptic",
    "--layout": lambda name: name in EXPORTS,
    "--loss": lambda loss: term_and_kind(loss.partition("=")[0]),
    "--method": lambda name: name in METHODS,
    "--mode": is_mode,
    "--regions": lambda plan: plan == "proposals" or plan.removeprefix("grid-") in PAIRS,
    "--student": architecture_of,
    "--teacher": find_teacher,
}
ROWS = [pytest.param(row, id=f"{paper} {row.item}") for paper in ITEMS for row in rows(paper)]


@pytest.mark.parametrize("paper", ITEMS)
def test_papers_page__has_a_row_for_each_item(paper: str) -> None:
    expected = [
        f"{kind} {number}"
        for kind, count in zip(("Eq.", "Table", "Fig."), ITEMS[paper], strict=True)
        for number in range(1, count + 1)
    ]
    assert [row.item for row in rows(paper)] == expected


@pytest.mark.parametrize("row", ROWS)
def test_papers_page__a_row_names_code_that_exists(row: Row) -> None:
    places = code(row.where)
    assert places or row.where == "none"
    for place in places:
        module, _, name = place.partition(": ")
        assert resolve_name(f"densecli.{module}:{name}") is not None


@pytest.mark.parametrize("row", ROWS)
def test_papers_page__a_row_has_a_command_or_says_what_is_missing(row: Row) -> None:
    if row.command == "none":
        assert row.differs
    else:
        (command,) = code(row.command)
        assert command.startswith("densecli ")


def test_papers_page__its_specs_exist() -> None:
    named = set(re.findall(r"densecli ablate ([a-z-]+)", PAGE.read_text()))
    assert len(named) > 5
    assert {f"coco/{name}" for name in named} <= set(shipped())
    assert {name for name in named if f"scenes/{name}" not in shipped()} == {"temperature-teacher"}


def test_papers_page__the_values_of_its_options_exist() -> None:
    page = PAGE.read_text()
    blocks = "".join(re.findall(r"^```\n(.*?)^```", page, re.DOTALL | re.MULTILINE))
    texts = [*blocks.splitlines(), *code(re.sub(r"^```.*?^```", "", page, flags=re.DOTALL | re.MULTILINE))]
    values = {
        (option, value) for text in texts for option, value in pairwise(text.split()) if option in NAMES
    }
    assert {option for option, _ in values} == set(NAMES)
    assert not [(option, value) for option, value in sorted(values) if not NAMES[option](value)]
