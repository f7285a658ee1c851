"""Category files, and files of names and captions."""

import csv
import io
import json
import random
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from densecli.commands.text_files import read_texts
from densecli.models.categories import load_categories

from .frame import Target
from .inputs import mutated, mutated_value, odd_text

ROWS = [
    {"name": "bus", "thing": True},
    {"name": "sky", "thing": False},
    {"name": "traffic light", "thing": True},
]


def try_one(rng: random.Random, folder: Path) -> None:
    """A mutated file of ROWS, of names that are odd, or of bytes that are."""
    rows = [{**row, "name": odd_text(rng)} if rng.random() < 0.3 else row for row in ROWS]
    kind = rng.choice(("json", "csv"))
    if kind == "json":
        text = json.dumps(mutated_value(rng, rows, rng.randrange(3)))
    else:
        table = io.StringIO()
        writer = csv.DictWriter(table, ["name", "thing"], delimiter=rng.choice(",,,;\t"))
        writer.writeheader()
        writer.writerows(rows)
        text = table.getvalue()
    data = text.encode(rng.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16")), "surrogatepass")
    path = folder / f"{rng.choice(('set', 'se.t', 's é t'))}.{kind}"
    path.write_bytes(mutated(rng, data) if rng.random() < 0.7 else data)
    found = load_categories(str(path))
    assert len(found) == len(set(found.names)) > 0
    assert found.thing is None or len(found.thing) == len(found)


def try_texts(rng: random.Random, folder: Path) -> None:
    """A mutated file of texts."""
    rows = [{"name": odd_text(rng), "count": 3} for _ in range(rng.randrange(4))]
    kind = rng.choice(tuple(TEXTS))
    data = TEXTS[kind](rows)
    path = folder / f"names.{kind}"
    path.write_bytes(mutated(rng, data) if rng.random() < 0.7 else data)
    texts = read_texts(str(path), rng.choice(("name", "name", "count", "none")))
    assert all(isinstance(text, str) for text in texts)


def _csv(rows: list[dict]) -> bytes:
    table = io.StringIO()
    writer = csv.DictWriter(table, ["name", "count"])
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue().encode("utf-8", "surrogatepass")


def _parquet(rows: list[dict]) -> bytes:
    names = [row["name"].encode("utf-8", "replace").decode() for row in rows]
    file = io.BytesIO()
    parquet.write_table(pa.table({"name": names, "count": [row["count"] for row in rows]}), file)
    return file.getvalue()


TEXTS = {
    "txt": lambda rows: "\n".join(row["name"] for row in rows).encode("utf-8", "surrogatepass"),
    "csv": _csv,
    "json": lambda rows: json.dumps(rows).encode(),
    "parquet": _parquet,
}


TARGETS = (
    Target(name="categories", try_one=try_one, quick=400),
    Target(name="texts", try_one=try_texts, quick=300),
)
