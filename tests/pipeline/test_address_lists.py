"""Lists of addresses in whatever state they come: read, or refused with the columns that are there."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from densecli.core.errors import DenseCLIError
from densecli.pipeline.sources import open_source
from densecli.pipeline.sources.address_lists import LONGEST, read_addresses
from densecli.pipeline.sources.urls import Addresses

URLS = ["s3://b/1.jpg", "http://h/2.jpg"]


def read(path: Path) -> list[str]:
    with path.open("rb") as stream:
        return list(read_addresses(str(path), stream))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("plain.txt", b"s3://b/1.jpg\nhttp://h/2.jpg\n"),
        ("no-end.txt", b"s3://b/1.jpg\nhttp://h/2.jpg"),
        ("crlf.txt", b"s3://b/1.jpg\r\nhttp://h/2.jpg\r\n"),
        ("cr.txt", b"s3://b/1.jpg\rhttp://h/2.jpg\r"),
        ("bom.txt", b"\xef\xbb\xbfs3://b/1.jpg\nhttp://h/2.jpg\n"),
        ("utf-16.txt", "s3://b/1.jpg\nhttp://h/2.jpg\n".encode("utf-16")),
        ("blank.txt", b"\n\n  s3://b/1.jpg  \n\t\n \x0chttp://h/2.jpg\t\n\n"),
        ("bom.csv", b"\xef\xbb\xbfurl,text\r\ns3://b/1.jpg,a\r\nhttp://h/2.jpg,b\r\n"),
        ("lines.csv", b'text,url\n"two\nlines",s3://b/1.jpg\n"a ""b"", c", http://h/2.jpg \n'),
        ("other.csv", b"\xff,url\n\xff,s3://b/1.jpg\n\x00,http://h/2.jpg\n"),
        ("plain.TSV", b"text\turl\na, b\ts3://b/1.jpg\nc\thttp://h/2.jpg\n"),
        ("plain.jsonl", b'{"url": "s3://b/1.jpg"}\n\n{"a": 1, "url": "http://h/2.jpg"}\n'),
        ("bom.ndjson", b'\xef\xbb\xbf{"url": "s3://b/1.jpg"}\r\n{"url": "http://h/2.jpg"}'),
    ],
)
def test_read__texts_of_every_kind(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    assert read(tmp_path / name) == URLS


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.dictionary(pa.int32(), pa.string())],
)
def test_read__parquet_of_every_type_of_text(tmp_path: Path, kind: pa.DataType) -> None:
    column = pa.array(URLS).cast(kind) if kind != pa.binary() else pa.array([u.encode() for u in URLS])
    parquet.write_table(pa.table({"n": [1, 2], "url": column}), tmp_path / "list.parquet")
    assert read(tmp_path / "list.parquet") == URLS


@pytest.mark.parametrize(
    ("name", "data", "columns"),
    [
        ("a.csv", b"URL,text\nx,y\n", "'URL', 'text'"),
        ("a.tsv", b"a\tb\nx\ty\n", "'a', 'b'"),
        ("semicolon.csv", b"url;text\nx;y\n", "'url;text'"),
        ("a.jsonl", b'{"URL": "x", "n": 1}\n{"m": 2}\n', "'URL', 'n'"),
        ("a.json", b'[\n"x"\n]', "none"),
        ("empty.csv", b"", "none"),
        ("a.tsv", b"\n\n", "none"),
    ],
)
def test_read__without_the_column_names_those_there(
    tmp_path: Path, name: str, data: bytes, columns: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DenseCLIError, match=rf"has no column 'url'; its columns: {columns}\.") as caught:
        open_source("urls", str(tmp_path / name))
    assert "url" in caught.value.hint


def test_read__parquet_without_the_column_or_with_another_type(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"URL": URLS, "TEXT": ["a", "b"]}), tmp_path / "upper.parquet")
    with pytest.raises(DenseCLIError, match="no column 'url'; its columns: 'URL', 'TEXT'"):
        read(tmp_path / "upper.parquet")
    parquet.write_table(pa.table({"url": [[1], [2]]}), tmp_path / "list.parquet")
    with pytest.raises(DenseCLIError, match=r"holds list<.*not texts"):
        read(tmp_path / "list.parquet")


def test_read__rows_without_an_address_are_empty(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"url": pa.array([None, "", " ", *URLS])}), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("url,text\n,a\nx\na,b,c\ns3://b/1.jpg,\nhttp://h/2.jpg,\n")
    (tmp_path / "a.jsonl").write_text(
        '{"url": null}\n[1]\nno json\n{"url": 3}\n{"n": 1}\n' + "[" * 10**5 + "\n"
    )
    with (tmp_path / "a.jsonl").open("a") as file:
        file.writelines(json.dumps({"url": url}) + "\n" for url in URLS)
    for name, empty in (("a.parquet", 3), ("a.csv", 3), ("a.jsonl", 6)):
        items = Addresses(iter(read(tmp_path / name)), None)
        assert [item.ref for item in items[:]] == URLS
        passed = items.passed.document()
        assert passed["without an address"]["count"] == empty and len(passed) == 1


def test_addresses__repetitions_are_counted() -> None:
    items = Addresses(iter([*URLS, "", *URLS, "http://user:a@h/2.jpg?b=c", "http://h/3.jpg"]), 3)
    assert [item.ref for item in items[:]] == [*URLS, "http://h/3.jpg"]
    assert items.passed.document() == {
        "without an address": {"count": 1, "first": ["row 3"]},
        "repeated": {"count": 2, "first": URLS},
        "repeated but for a query or a password": {"count": 1, "first": [URLS[1]]},
    }


def test_read__a_parquet_with_a_damaged_page_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"url": URLS}), path, use_dictionary=False, compression="none")
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + b"\xff" * 8 + whole[12:])
    with pytest.raises(DenseCLIError, match=r"a\.parquet is not a list of addresses"):
        read(path)


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl", "a.parquet"])
def test_read__odd_and_huge_entries_stay_apart_from_the_others(tmp_path: Path, name: str) -> None:
    odd = ["x" * 3_000_000, "data:;base64," + "A" * 200_000, "a\x00b", "\udc80", "caf\xe9"]
    path = tmp_path / name
    texts = [text.encode("utf-8", "surrogatepass") for text in [*odd, *URLS]]
    if name == "a.parquet":
        parquet.write_table(pa.table({"url": texts}), path)
    elif name == "a.jsonl":
        path.write_text("".join(json.dumps({"url": text}) + "\n" for text in [*odd, *URLS]))
    else:
        quoted = [b"url", *(b'"' + text + b'"' for text in texts)]
        path.write_bytes(b"\n".join(quoted if name == "a.csv" else texts))
    items = Addresses(iter(read(path)), None)
    found = [item.photo.file for item in items[:]]
    assert len(found) == 7 and found[5:] == URLS
    assert found[0] == "x" * (LONGEST + 1) and len(found[1]) == LONGEST + 1
    assert found[2] == "a\ufffdb" and found[4] == "caf\xe9"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.parquet", b"text"),
        ("a.parquet", b"PAR1" + bytes(100) + b"PAR1"),
        ("a.csv", b"url\n" + b'"' + b"x\n" * 10_000_000),
    ],
)
def test_read__a_damaged_file_is_one_sentence(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DenseCLIError, match=rf"a\.{name[2:]} is not a list of addresses \("):
        read(tmp_path / name)
