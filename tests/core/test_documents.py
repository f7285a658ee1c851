"""JSON as strangers and broken disks leave it."""

from typing import Any, Literal, NotRequired, TypedDict

import pytest

from densecli.core.documents import check, finite, parse, read_document
from densecli.core.errors import DenseCLIError


class Point(TypedDict):
    x: int
    y: float
    tags: NotRequired[list[str]]
    kind: Literal["a", "b"]


GOOD = {"x": 1, "y": 2, "tags": ["c"], "kind": "a", "more": {"any": [None]}}


@pytest.mark.parametrize("data", [
    b"", b" ", b"{", b"{'a': 1}", b"NaN", b"[-Infinity]", b"1e400", b'{"a": 1, "a": 1}', b'"\\ud800"',
    b'"\xed\xa0\x80"', b"\xff\xfe[\x00]\x00", b"[" * 100_000 + b"]" * 100_000, b"[" * 70 + b"]" * 70,
    b'{"a":' * 500 + b"1" + b"}" * 500, b"9" * 5000,
])  # fmt: skip
def test_parse__what_is_no_json(data):
    with pytest.raises(ValueError) as caught:
        parse(data)
    assert "\n" not in str(caught.value)


def test_parse__what_is_json():
    assert parse('{"a": [1, 2.5, true, null, "\\ud83d\\ude00é"]}'.encode()) == {
        "a": [1, 2.5, True, None, "\U0001f600é"]
    }
    assert parse(b"[" * 60 + b"]" * 60)


def test_check__values_of_their_types():
    check(GOOD, Point)
    check([{"a": None}, {}], list[dict[str, int | None]])
    check(object(), Any)


@pytest.mark.parametrize(("value", "of", "message"), [
    ({**GOOD, "x": 1.5}, Point, "x is not a whole number"),
    ({**GOOD, "x": True}, Point, "x is not a whole number"),
    ({**GOOD, "x": 2**64}, Point, "x is not a whole number"),
    ({**GOOD, "y": "2"}, Point, "y is not a number"),
    ({**GOOD, "tags": [1]}, Point, r"tags\[0\] is not a text"),
    ({**GOOD, "kind": "c"}, Point, "kind is none of a, b"),
    ({"x": 1}, Point, "it lacks y"),
    ([], Point, "it is not an object"),
    ({"p": {"x": 0}}, dict[str, Point], r"it lacks p\.y"),
    ({"p": 1}, dict[str, str | None], "p is not a text"),
])  # fmt: skip
def test_check__names_the_place(value, of, message):
    with pytest.raises(ValueError, match=message):
        check(value, of)


def test_read_document__names_the_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_document(tmp_path / "a.json", Point, noun="The point", hint="Draw it.")
    (tmp_path / "a.json").write_text('{"x": 1}')
    with pytest.raises(DenseCLIError, match=r"^The point .*/a\.json is damaged: it lacks y\.$") as caught:
        read_document(tmp_path / "a.json", Point, noun="The point", hint="Draw it.")
    assert caught.value.hint == "Draw it."


def test_finite__puts_none_for_what_json_lacks():
    found = finite({"a": float("nan"), "b": [1, 0.5, (float("inf"), "x")], "c": {"d": -float("inf")}})
    assert found == {"a": None, "b": [1, 0.5, [None, "x"]], "c": {"d": None}}
    assert finite(True) is True
