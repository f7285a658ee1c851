"""gc: what --keep may name."""

import json
from pathlib import Path

from command_line import passed, refused

from densecli.shards.store import Store


def test_gc__keeps_a_column_by_any_name_of_its_model(tmp_path: Path):
    store = Store.create(str(tmp_path / "s"), {"name": "scenes", "split": "t", "n": 1, "seed": 0}, 96, [1])
    for name, kind in (("crops-eva02-b16", "crops"), ("vitl14", "labels")):
        store.add_column("targets", name, {"target": {"name": kind}, "codec": {}}, {})

    def garbage(*keep: str) -> list[str]:
        words = [word for name in keep for word in ("--keep", name)]
        passed("gc", store.root, "--min-age", 0, *words, "--json", tmp_path / "out.json")
        items = json.loads((tmp_path / "out.json").read_text())["items"]
        return [Path(item["url"]).name.rsplit("-", 1)[0] for item in items]

    assert garbage("crops-vitb16") == garbage("crops-eva02-b16") == ["vitl14"]
    assert garbage("eva02-l14-336") == ["crops-eva02-b16"]
    assert garbage("crops-vitb16", "vitl14") == []
    assert "no targets columns named 'vitb16'" in refused("gc", store.root, "--keep", "vitb16", code=1)
