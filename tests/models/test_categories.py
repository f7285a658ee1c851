import json

import pytest

from densecli.core.errors import DenseCLIError
from densecli.models.categories import load_categories


@pytest.mark.parametrize(
    ("name", "count", "things"),
    [("133", 133, 80), ("171", 171, 80), ("273", 273, 160), ("316", 316, 204), ("ade150", 150, 100),
     ("cityscapes_19", 19, 8), ("scenes", 20, 12)],
)  # fmt: skip
def test_load_categories__shipped_sets(name: str, count: int, things: int) -> None:
    categories = load_categories(name)
    assert len(categories.names) == len(categories) == count
    assert int(categories.thing_flags().sum()) == things


def test_load_categories__a_set_without_flags_fails_only_where_they_are_needed() -> None:
    categories = load_categories("pascal_context_59")
    assert len(categories) == 59 and categories.thing is None
    with pytest.raises(DenseCLIError, match="which of its names are things"):
        categories.thing_flags()


def test_load_categories__json_and_csv_say_the_same(tmp_path) -> None:
    rows = [{"name": "cat", "thing": True}, {"name": "sky", "thing": False}]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "a.csv").write_text("name,thing\ncat,true\nsky,0\n")
    for file in ("a.json", "a.csv"):
        categories = load_categories(str(tmp_path / file))
        assert categories.names == ("cat", "sky")
        assert categories.thing_flags().tolist() == [True, False]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "a.json",
            '[{"name": "cat", "thing": true}, {"name": "cat", "thing": true}]',
            "'cat' more than once",
        ),
        ("a.csv", "name,thing\ncat,1\n ,0\n", "Category 2 .* empty name"),
        ("a.csv", "name,thing\ncat,1\nsky,\n", "'sky' .* no thing flag"),
        ("a.csv", "name,thing\ncat,maybe\n", "'cat' .* no thing flag"),
        ("a.csv", "title\ncat\n", "not a list of names"),
        ("a.json", '{"name": "cat"}', "not a list of names"),
        ("a.json", "[", "cannot be read"),
        ("a.csv", "", "not a list of names"),
    ],
)
def test_load_categories__bad_files_are_a_sentence(tmp_path, file: str, text: str, message: str) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(DenseCLIError, match=message) as error:
        load_categories(str(tmp_path / file))
    assert error.value.hint


def test_load_categories__unknown_sets_and_missing_files(tmp_path) -> None:
    with pytest.raises(DenseCLIError, match="no category set called 'coco'") as error:
        load_categories("coco")
    assert "coco_panoptic_133" in error.value.hint and "133" in error.value.hint
    with pytest.raises(DenseCLIError, match="no category file"):
        load_categories(str(tmp_path / "none.json"))


def test_load_categories__nested_without_end(tmp_path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(DenseCLIError, match=r"deep\.json cannot be read"):
        load_categories(str(tmp_path / "deep.json"))
