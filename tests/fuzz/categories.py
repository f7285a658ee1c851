"""Category files: json and csv."""

import csv
import io
import json
import random
from pathlib import Path

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


TARGET = Target(name="categories", try_one=try_one, quick=400)
