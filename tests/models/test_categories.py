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


@pytest.mark.parametrize("form", ["dog, red sofa,wall", "own.txt", "list.json", "rows.json", "own.csv"])
def test_load_categories__five_forms_of_the_users_own_names_are_the_same(tmp_path, form: str) -> None:
    (tmp_path / "own.txt").write_text("dog\n\nred sofa\nwall\n")
    (tmp_path / "list.json").write_text('["dog", "red sofa", "wall"]')
    (tmp_path / "rows.json").write_text('[{"name": "dog"}, {"name": "red sofa"}, {"name": "wall"}]')
    (tmp_path / "own.csv").write_text("name\ndog\nred sofa\nwall\n")
    given = form if "," in form else str(tmp_path / form)
    found = load_categories(given)
    assert found.names == ("dog", "red sofa", "wall")
    assert found.thing_flags().tolist() == [True, True, False]
    assert load_categories(found.name).names == found.names


def test_load_categories__all_may_be_things() -> None:
    found = load_categories("all-things:wall, sky")
    assert found.thing_flags().tolist() == [True, True]
    assert load_categories(found.name).thing_flags().tolist() == [True, True]


@pytest.mark.parametrize(
    ("names", "message"), [("a,,b", "empty name"), ("a, b, a", "more than once"), (",", "empty")]
)
def test_load_categories__bad_names_are_a_sentence(names: str, message: str) -> None:
    with pytest.raises(DenseCLIError, match=message):
        load_categories(names)


def test_load_categories__a_single_name_ends_with_a_comma() -> None:
    assert load_categories("dog,").names == ("dog",)


def test_thing_flags__that_rules_decided_are_told_once_and_where_they_matter(capsys) -> None:
    found = load_categories("rug, zebra, ceiling")
    assert not capsys.readouterr().err
    assert found.thing_flags().tolist() == [True, True, False]
    assert "stuff: ceiling. Not sure of: rug." in capsys.readouterr().err
    load_categories("rug, zebra, ceiling").thing_flags()
    assert not capsys.readouterr().err
