"""Files of texts, such as names and captions: .txt, .csv, .json and .parquet."""

import csv
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from densecli.core.documents import parse_foreign
from densecli.core.errors import DenseCLIError, damage_is_a_value_error
from densecli.core.registry import unknown_name
from densecli.core.tables import csv_text, plain


def read_texts(path: str, column: str) -> list[str]:
    """Reads the texts of a file.

    Args:
        path: A .txt with a text on each line; a .json with a list of texts or of rows, or COCO's captions; a
            .csv or .parquet.
        column: Which column, or which entry of the rows, holds the texts. An empty one is an empty text.

    Raises:
        DenseCLIError: The file is missing, damaged or of another type, or has no such column of texts.
    """
    file = Path(path)
    if file.suffix not in _READERS:
        raise DenseCLIError(
            f"{path} is not a .txt, .json, .csv or .parquet file.", hint="Give a file of one of these types."
        )
    try:
        texts = _READERS[file.suffix](file, column)
    except FileNotFoundError:
        raise DenseCLIError(f"There is no file {path}.", hint="Check the path.") from None
    except OSError as error:
        raise DenseCLIError(
            f"Could not read {path}: {error.strerror}.", hint="Check the path and its permissions."
        ) from error
    except UnicodeDecodeError as error:
        raise DenseCLIError(f"{path} is no text in UTF-8.", hint="Save it as UTF-8.") from error
    except (ValueError, csv.Error) as error:
        raise DenseCLIError(f"{path} is damaged: {error}.", hint="Make or copy it again.") from error
    texts = ["" if text is None else text for text in texts]
    if wrong := [text for text in texts if not isinstance(text, str)]:
        raise DenseCLIError(
            f"{path} holds {plain(repr(wrong[0]), 40)} where a text called {column!r} is expected.",
            hint="Name the column or the entry of texts with --column.",
        )
    return texts


def _txt(file: Path, _: str) -> list[Any]:
    return file.read_text(encoding="utf-8-sig").splitlines()


def _csv(file: Path, column: str) -> list[Any]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        rows = csv.DictReader(lines)
        _require(column, rows.fieldnames or (), file)
        return [csv_text(row[column] or "") for row in rows]


def _json(file: Path, column: str) -> list[Any]:
    found = parse_foreign(file.read_bytes())
    rows = found.get("annotations") if isinstance(found, dict) else found
    if not isinstance(rows, list):
        raise ValueError("it has no list of texts, and no list of annotations")
    for row in rows:
        if isinstance(row, dict):
            _require(column, row, file)
    return [row[column] if isinstance(row, dict) else row for row in rows]


def _parquet(file: Path, column: str) -> list[Any]:
    from pyarrow import parquet

    with damage_is_a_value_error():
        table = parquet.ParquetFile(file)
        _require(column, table.schema_arrow.names, file)
        texts: list[Any] = table.read(columns=[column])[column].to_pylist()
    return texts


def _require(column: str, columns: Iterable[str], file: Path) -> None:
    columns = list(columns)
    if column not in columns:
        error = unknown_name(f"column in {file}", column, map(plain, columns))
        raise DenseCLIError(str(error), hint=f"{error.hint} Name the column of texts with --column.")


_READERS: dict[str, Callable[[Path, str], list[Any]]] = {
    ".txt": _txt,
    ".csv": _csv,
    ".json": _json,
    ".parquet": _parquet,
}
