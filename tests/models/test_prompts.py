"""Prompt templates: the published sets, their rule for names, and files."""

from pathlib import Path

import pytest

from densecli.core.errors import DenseCLIError
from densecli.models.prompts import TEMPLATES, find_templates, prompt


def test_vild__63_sentences_of_a_name() -> None:
    prompts = {prompt(template, "Orange_tree/bush.") for template in find_templates("vild63")}
    assert len(prompts) == 63 == len(TEMPLATES["vild63"])
    assert all("orange tree or bush" in text for text in prompts)
    for text in (
        "There is a orange tree or bush in the scene.",
        "This is a photo of one orange tree or bush in the scene.",
        "itap of my orange tree or bush.",
        "This is a photo of many orange tree or bush.",
        "This is a black and white photo of the orange tree or bush.",
        "This is a photo of the hard to see orange tree or bush.",
        "This is an embroidered orange tree or bush.",
        "This is a painting of a orange tree or bush.",
        "This is the toy orange tree or bush.",
    ):
        assert text in prompts
    beginnings = {text.split()[0] for text in prompts}
    assert beginnings == {"This", "There", "itap"}


@pytest.mark.parametrize(
    ("name", "article"), [("apple", "an"), ("cat", "a"), ("Apple", "a"), ("umbrella", "an")]
)
def test_article__by_the_first_letter_as_published(name: str, article: str) -> None:
    assert prompt("There is {article} {name}.", name) == f"There is {article} {name.lower()}."


def test_sets__the_names_of_clips_are_left_as_they_are() -> None:
    assert prompt(TEMPLATES["plain"][0], "Playing_field") == "a photo of a Playing_field"
    assert TEMPLATES["imagenet80"] == TEMPLATES["imagenet"] and len(TEMPLATES["imagenet80"]) == 80
    assert [prompt(t, "sky") for t in TEMPLATES["densevlm"]] == ["This is a photo of the sky in the scene."]


def test_file__one_template_on_each_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("a {} here\n\n  {article} {name} there  \n")
    assert find_templates(str(file)) == ("a {} here", "{article} {name} there")


def test_file__as_windows_writes_it(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_bytes("a {}\r\nthe {}\r\n".encode("utf-8-sig"))
    assert find_templates(str(file)) == ("a {}", "the {}")


NO_TEMPLATES = (
    "a photo", "a {cat}", "a {", "{article}", "{0} {1}", "", "{:>999999999}", "{!r}", "{name.__class__} {}"
)  # fmt: skip


@pytest.mark.parametrize("line", NO_TEMPLATES)
def test_file__a_line_that_is_no_template(tmp_path: Path, line: str) -> None:
    file = tmp_path / "mine.txt"
    file.write_text(f"{line}\n")
    with pytest.raises(DenseCLIError, match="no prompt template") as caught:
        find_templates(str(file))
    assert "{name}" in caught.value.hint


def test_find__unknown() -> None:
    with pytest.raises(DenseCLIError, match="no prompt templates called 'vild'") as caught:
        find_templates("vild")
    assert "vild63" in caught.value.hint
