"""The page of the papers, read row by row."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).parents[2] / "docs" / "papers.md"
# Numbers of equations, tables and figures of each paper.
ITEMS = {"DenseVLM": (5, 13, 10), "DeCLIP": (10, 14, 11), "R-SC-CLIPSelf": (15, 15, 17)}


class Row(NamedTuple):
    """A row of the page."""

    item: str
    what: str
    where: str
    command: str
    differs: str


def rows(paper: str) -> list[Row]:
    """The rows below the paper's heading."""
    sections = re.split(r"^## (.+)\n", PAGE.read_text(), flags=re.MULTILINE)
    text = sections[sections.index(paper) + 1]
    lines = re.findall(r"^\|(.*)\|$", text, re.MULTILINE)
    return [Row(*(cell.strip() for cell in line.split("|"))) for line in lines[2:]]


def code(text: str) -> list[str]:
    """Every `code` in a text."""
    return re.findall(r"`([^`]+)`", text)


def commands() -> list[tuple[str, str]]:
    """(paper, words) of the commands of the page in its order, each once: a paper's block, then its rows."""
    sections = re.split(r"^## (.+)\n", PAGE.read_text(), flags=re.MULTILINE)
    found: dict[tuple[str, str], None] = {}
    for paper in ITEMS:
        section = sections[sections.index(paper) + 1]
        block = re.findall(r"^```\n(.*?)^```", section, re.DOTALL | re.MULTILINE)[0]
        lines = block.replace("\\\n", " ").splitlines()
        lines += [code(row.command)[0] for row in rows(paper) if row.command != "none"]
        for line in lines:
            program, *words = shlex.split(line, comments=True)
            assert program == "densecli"
            found[paper, shlex.join(words)] = None
    return list(found)
