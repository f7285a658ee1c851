"""Files of texts as people have them, and damaged ones."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from densecli.commands.text_files import read_texts
from densecli.core.errors import DenseCLIError

TEXTS = ["a boat", "the sky, blue"]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "t.txt").write_text("\n".join(TEXTS))
    (tmp_path / "t.csv").write_text('id,caption\n1,a boat\n2,"the sky, blue"\n')
    (tmp_path / "t.json").write_text(json.dumps([{"caption": text} for text in TEXTS]))
    parquet.write_table(pa.table({"caption": TEXTS}), tmp_path / "t.parquet")
    return tmp_path


def refused(path: Path, column: str = "caption") -> str:
    with pytest.raises(DenseCLIError) as caught:
        read_texts(str(path), column)
    assert caught.value.hint
    return str(caught.value)


@pytest.mark.parametrize("suffix", ["txt", "csv", "json", "parquet"])
def test_read_texts__of_every_kind_of_file(files: Path, suffix: str) -> None:
    assert read_texts(str(files / f"t.{suffix}"), "caption") == TEXTS
    if suffix != "txt":
        assert f"There is no column in {files}/t.{suffix} called 'captio'" in refused(
            files / f"t.{suffix}", "captio"
        )
    assert "There is no file" in refused(files / f"none.{suffix}")
    (files / f"folder.{suffix}").mkdir()
    assert "Is a directory" in refused(files / f"folder.{suffix}") or suffix == "parquet"


def test_read_texts__coco_captions_and_a_plain_list(files: Path) -> None:
    path = files / "t.json"
    path.write_text(json.dumps({"annotations": [{"caption": text} for text in TEXTS]}))
    assert read_texts(str(path), "caption") == TEXTS
    path.write_text(json.dumps([{"caption": "a boat"}, {"caption": None}]))
    assert read_texts(str(path), "caption") == ["a boat", ""]
    path.write_text("\ufeff" + json.dumps(TEXTS), encoding="utf-8")
    assert read_texts(str(path), "caption") == TEXTS


@pytest.fixture
def python_limit() -> Iterator[None]:
    """The limit of the process on the fields of a csv, which lists of addresses raise."""
    before = csv.field_size_limit(131_072)
    yield
    csv.field_size_limit(before)


@pytest.mark.usefixtures("python_limit")
@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("t.json", b"[" * 100_000, "nested too deeply"),
        ("t.json", b'["\xff"]', "no text in UTF-8"),
        ("t.json", b'{"annotations": 3}', "no list of texts"),
        ("t.json", b"7", "no list of texts"),
        ("t.json", b'[{"caption": 7}]', "holds 7 where a text called 'caption' is expected"),
        ("t.json", b'[["a"]]', "where a text called 'caption'"),
        ("t.txt", b"\xff\xfe\x00", "no text in UTF-8"),
        ("t.csv", b"caption\n\xff\n", "no text in UTF-8"),
        ("t.csv", b"caption\n" + b"x" * 200_000 + b"\n", "field larger than field limit"),
        ("t.csv", b"", "no column"),
        ("t.parquet", b"PAR1 and nothing else PAR1", "is damaged"),
        ("t.parquet", b"", "is damaged"),
        ("t.doc", b"x", "is not a .txt"),
    ],
)
def test_read_texts__what_is_damaged_is_one_sentence(files: Path, name: str, data: bytes, told: str) -> None:
    (files / name).write_bytes(data)
    assert told in refused(files / name)


def test_read_texts__a_damaged_page_of_a_parquet(files: Path) -> None:
    path = files / "t.parquet"
    parquet.write_table(pa.table({"caption": TEXTS * 500}), path, compression="gzip")
    data = bytearray(path.read_bytes())
    data[60:100] = bytes(40)
    path.write_bytes(data)
    assert "is damaged" in refused(path)


def test_read_texts__a_parquet_of_numbers_has_no_texts(files: Path) -> None:
    parquet.write_table(pa.table({"caption": [1, 2]}), files / "t.parquet")
    assert "holds 1 where a text called 'caption'" in refused(files / "t.parquet")
