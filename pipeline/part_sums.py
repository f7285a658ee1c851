"""What is done to each part of a store of parts, and the sum of what is said of it."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from densecli.core import fs
from densecli.core.passed_over import NAMED, PassedOver
from densecli.core.progress import listener
from densecli.pipeline.summary import Summary
from densecli.shards.keys import canonical_json
from densecli.shards.parted_store import part_url, read_parts

_SUMS = ("shards", "samples", "skipped", "seconds")


def in_each_part(store: str, do: Callable[[str], Summary]) -> Summary:
    """Does something to a store, or to each part of a store of parts, one after another.

    Args:
        store: Folder or address of the store.
        do: Is given the address of a store without parts, and returns a summary like that of `build_shards`.

    Returns:
        The summary. That of parts has the sums of all, columns without an id, as each part's have their own,
        and `parts`.
    """
    root = fs.absolute(store)
    document = None if fs.exists(fs.join(root, "store.json")) else read_parts(root)
    if document is None:
        return do(root)
    sums = PartSums()
    for part in range(document["parts"]):
        listener.get()(f"Part {part + 1} of {document['parts']}.")
        sums.add(do(part_url(root, part)))
    return {**sums.summary(), "store": fs.shown(root), "parts": document["parts"]}


class PartSums:
    """The summaries of parts, added up."""

    def __init__(self) -> None:
        self._status: Counter[str] = Counter()
        self._columns: dict[str, dict[str, Any]] = {}
        self._sums: dict[str, Any] = {}
        self._skipped_first: dict[str, list[str]] = {}
        self._passed = PassedOver()
        self._proposals: Counter[str] = Counter()

    def add(self, summary: Summary) -> None:
        """Adds the summary of a part."""
        self._status[summary["status"]] += 1
        for column in summary["columns"]:
            name = f"{column['kind']}/{column['name']}"
            sums = self._columns.setdefault(name, {**column, "id": "", "shards": 0, "missing": 0})
            sums["shards"] += column["shards"]
            sums["missing"] += column["missing"]
        for name in _SUMS:
            if isinstance(value := summary.get(name), dict):
                self._sums[name] = Counter(self._sums.get(name, {})) + Counter(value)
            elif value is not None:
                self._sums[name] = self._sums.get(name, 0) + value
        for reason, photos in summary.get("skipped_first", {}).items():
            first = self._skipped_first.setdefault(reason, [])
            first += photos[: NAMED - len(first)]
        self._passed.update(PassedOver.from_json(canonical_json(summary.get("passed_over", {}))))
        self._proposals.update(summary.get("proposals", {}))

    def summary(self) -> Summary:
        """The sums."""
        status = next((s for s in ("built", "planned", "up to date") if self._status[s]), "planned")
        found: Summary = {"status": status, "columns": list(self._columns.values())}
        if "samples" in self._sums:
            sums = {n: dict(v) if isinstance(v, Counter) else v for n, v in self._sums.items()}
            seconds = self._sums["seconds"]["total"]
            rate = round(self._sums["samples"] / seconds, 2) if seconds else 0.0
            found |= {**sums, "skipped_first": self._skipped_first, "images_per_second": rate}
        return found

    def listing(self) -> Summary:
        """What was found where photos were listed."""
        return {"passed_over": self._passed.document(), "proposals": dict(self._proposals)}
