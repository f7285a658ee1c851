"""Tables of text from data: whatever a category or file is called, a cell stays one harmless cell."""

import csv
import io

import pytest

from densecli.core.tables import csv_table, csv_text, markdown_table, plain, printable, size, table

HOSTILE = [
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07bell",
    "two\nlines",
    "tab\tand\rreturn",
    "null\x00byte",
    "right-to-left \u202etxt.exe",
    "line\u2028separator",
    "surrogate \udcff",
    "y" * 10_000,
]


@pytest.mark.parametrize("name", HOSTILE)
def test_plain__one_short_printable_line(name: str) -> None:
    text = plain(name)
    assert text.isprintable() and 0 < len(text) <= 80
    assert text.encode("utf-8")
    assert plain(text) == text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("\x1b[31mred\x1b[0m car", "red car"),
        ("\x1b]0;title\x07bell", "bell"),
        ("two\nlines", "two lines"),
        ("null\x00byte", "null�byte"),
        ("y" * 81, "y" * 79 + "…"),
        ("y" * 80, "y" * 80),
        ("wall-other-merged", "wall-other-merged"),
        ("چراغ\u200cراهنما", "چراغ\u200cراهنما"),
        ("", ""),
    ],
)
def test_plain__keeps_what_is_readable(name: str, text: str) -> None:
    assert plain(name) == text


def test_printable__keeps_lines_and_their_length() -> None:
    text = printable(f"a  b\n\x1b[31mred\x1b[0m {'x' * 10_000}\r\n\u202eexe\n")
    assert text == f"a  b\nred {'x' * 10_000} \n�exe\n"


def test_plain__a_text_of_megabytes_is_cut_first() -> None:
    assert len(plain("\x1b[31m" * 10**6)) <= 80


@pytest.mark.parametrize("name", HOSTILE)
def test_table__a_row_is_a_line(name: str) -> None:
    lines = table([["class", "top-1"], [name, "1.0"]]).split("\n")
    assert len(lines) == 3 and all(line.isprintable() for line in lines)
    assert len(lines[2]) < 300 and lines[2].endswith("1.0")


@pytest.mark.parametrize(
    "name", [*HOSTILE, "a|b", "back\\slash|", "`code`", "<img src=x>", "[a](javascript:b)"]
)
def test_markdown__a_row_has_as_many_cells_as_the_headings(name: str) -> None:
    lines = markdown_table([["class", "top-1"], [name, "1.0"]]).splitlines()
    assert lines[1] == "| --- | --- |" and len(lines) == 3
    unescaped = lines[2].replace("\\\\", "").replace("\\|", "")
    assert unescaped.count("|") == 3
    for special in "`<[":
        assert special not in unescaped.replace(f"\\{special}", "")


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=HYPERLINK(A1)", "'=HYPERLINK(A1)"),
        ("+1+cmd", "'+1+cmd"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1+1", "' =1+1"),
        ("\uff1d1+1", "'\uff1d1+1"),
        ("-0.5", "-0.5"),
        ("+1e-3", "+1e-3"),
        (-0.5, "-0.5"),
        ("cat", "cat"),
        ("no, room", "no, room"),
        ("two\nlines", "two lines"),
    ],
)
def test_csv__a_spreadsheet_computes_nothing(value: object, cell: str) -> None:
    rows = list(csv.reader(io.StringIO(csv_table([{"name": value, "top-1": 1.0}]))))
    assert rows == [["name", "top-1"], [cell, "1.0"]]


@pytest.mark.parametrize("name", ["=1+1", "-dash", "@x", "cat", "'quoted'", "", "-5"])
def test_csv_text__is_what_was_written(name: str) -> None:
    (row,) = csv.DictReader(io.StringIO(csv_table([{"name": name, "n": 1}])))
    assert csv_text(row["name"]) == name


def test_csv__columns_of_all_rows_and_hostile_headings() -> None:
    rows = list(csv.reader(io.StringIO(csv_table([{"a": 1}, {"=b": 2}]))))
    assert rows == [["a", "'=b"], ["1", ""], ["", "2"]]


def test_size__powers_of_a_thousand() -> None:
    assert [size(n) for n in (999, 67_600, 1_000_000)] == ["999 bytes", "67.6 KB", "1.0 MB"]
