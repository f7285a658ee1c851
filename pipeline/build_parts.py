"""Builds a store of parts: groups of a data set's tars, listed and built one after another."""

from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import islice
from typing import Any

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.core.find import Entry
from densecli.core.passed_over import NAMED, PassedOver
from densecli.core.progress import listener
from densecli.pipeline.build_request import BuildRequest, data_url, list_photos, prepare
from densecli.pipeline.build_shards import build_shards
from densecli.pipeline.cluster import Connect, connected_once
from densecli.pipeline.cluster_lister import lister_of
from densecli.pipeline.computed_boxes import computes_boxes
from densecli.pipeline.config import BuildConfig
from densecli.pipeline.failures import SetAside
from densecli.pipeline.sources import find_tars
from densecli.pipeline.summary import ShardsSetAside, Summary, describe
from densecli.shards.datasets import DATASETS
from densecli.shards.keys import canonical_json
from densecli.shards.manifest import lacks_manifest
from densecli.shards.parted_store import PartsDocument, part_url, read_parts, write_parts
from densecli.shards.store import Store

_SUMS = ("shards", "samples", "skipped", "seconds")


def in_parts(config: BuildConfig) -> bool:
    """Whether a build is one of a store of parts: it is asked for, or there is one."""
    return bool(config.tars_per_part) or read_parts(fs.absolute(config.store_url)) is not None


def build_parts(config: BuildConfig) -> Summary:
    """Builds whatever the parts of a store lack; finished parts are not listed again.

    While a part is built, the tars of the next one are listed. What is kept here does not grow with the
    number of photos, only with that of tars.

    Args:
        config: What to build.

    Returns:
        See `build_shards`: all counts are those of all parts, and columns have no id, as each part's have
        their own. Also `parts`, and `unlisted`, how many of them a dry run knows nothing of.

    Raises:
        DenseCLIError: See `build_shards`; or the store has no parts, or other ones.
        ShardsSetAside: Some shards of any part failed too often: PART/SHARD. All other parts are finished,
            unless there are too many.
    """
    with connected_once() as connect:
        return _build_parts(config, connect)


def _build_parts(config: BuildConfig, connect: Connect) -> Summary:
    root = fs.absolute(config.store_url)
    tars = find_tars(config.dataset, data_url(config), config.split)
    document = _document(config, root, len(tars))
    if not config.dry_run:
        write_parts(root, document)
    parts, total, failed = document["parts"], _Total(), list[SetAside]()
    ahead = _groups(tars, document["tars_per_part"])
    group, request, left = next(ahead), None, config.limit
    for part in range(parts):
        following = next(ahead, {})
        here = replace(
            config,
            store=part_url(root, part),
            tars_per_part=None,
            limit=left,
            max_failed_shards=config.max_failed_shards - len(failed),
        )
        known = fs.exists(fs.join(here.store_url, "store.json"))
        if config.dry_run and part and not known:
            total.unlisted += 1
        else:
            if request is None:
                request, _ = prepare(here, group, lister_of(config, connect))
            found = _up_to_date(request, here.store_url) if known else None
            if found is None:
                listener.get()(f"Part {part + 1} of {parts}.")
                beyond = replace(here, store=part_url(root, part + 1))
                try:
                    with _listing(beyond, following if left is None and not config.dry_run else {}, connect):
                        found = build_shards(here, group, connect)
                except ShardsSetAside as error:
                    # The other parts do not need them.
                    failed += [replace(each, shard=f"{part}/{each.shard}") for each in error.shards]
                    if error.too_many:
                        break
            if found:
                total.add(found)
        if left is not None:
            left -= Store.open(here.store_url).dataset["n"] if known or not config.dry_run else left
            if left <= 0:
                break
        group = following
    if failed:
        raise ShardsSetAside(failed, config.max_failed_shards)
    return {**total.summary(), "store": fs.shown(root), "parts": parts}


def _document(config: BuildConfig, root: str, tars: int) -> PartsDocument:
    """What parts.json says, or will say. Raises DenseCLIError if the store has other parts."""
    kept = read_parts(root)
    if kept is None and fs.exists(fs.join(root, "store.json")):
        raise DenseCLIError(
            f"The store at {fs.shown(root)} has no parts.",
            hint="Leave out --tars-per-part to continue it, or write to another store (--store).",
        )
    size = config.tars_per_part or (kept["tars_per_part"] if kept else 1)
    split = config.split or DATASETS[config.dataset].split
    document = PartsDocument(
        format=1,
        dataset={"name": config.dataset, "split": split},
        tars_per_part=size,
        parts=-(-tars // size),
    )
    if kept is None:
        return document
    for name in ("dataset", "tars_per_part"):
        if kept[name] != document[name]:
            raise DenseCLIError(
                f"The store at {root} has another {name}: {kept[name]}, not {document[name]}.",
                hint="Give the settings that it was made with, or write to another store (--store).",
            )
    if kept["parts"] > document["parts"]:
        raise DenseCLIError(
            f"The store at {root} has {kept['parts']} parts, and there are tars for {document['parts']}.",
            hint="Check --data: tars are missing that were there.",
        )
    return document


def _groups(tars: Mapping[str, Entry], size: int) -> Iterator[dict[str, Entry]]:
    rest = iter(tars.items())
    while group := dict(islice(rest, size)):
        yield group


def _up_to_date(request: BuildRequest, root: str) -> Summary | None:
    """The summary of a part that lacks nothing, without a look at its tars; None for another.

    Args:
        request: The request of any part: it has the columns that all parts must have.
        root: The part's store.
    """
    store = Store.open(root)
    # Earlier parts may store what later ones compute.
    computed = computes_boxes(store, request.plan)
    columns = replace(request, store=store, computed_boxes=computed).columns()
    missing = [column.missing() for column in columns]
    if any(missing) or any(map(lacks_manifest, columns)):
        return None
    return describe(store, columns, missing, status="up to date")


@contextmanager
def _listing(config: BuildConfig, tars: Mapping[str, Entry], connect: Connect) -> Iterator[None]:
    """Lists the tars of a part in a thread while the block runs, so that its build finds them listed."""
    with ThreadPoolExecutor(1, "next-part") as pool:
        lister = lister_of(config, connect)
        done = pool.submit(list_photos, config, tars, lister) if tars else None
        try:
            yield
        finally:
            # Whatever was wrong, the build of that part will meet it again.
            if done and not done.cancel():
                with suppress(Exception):
                    done.result()


class _Total:
    """The summaries of parts, added up."""

    def __init__(self) -> None:
        self.unlisted = 0
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
        found = {
            "status": "planned" if self.unlisted else status,
            "columns": list(self._columns.values()),
            "unlisted": self.unlisted,
            "passed_over": self._passed.document(),
            "proposals": dict(self._proposals),
            "listed": None,
        }
        if "samples" in self._sums:
            sums = {n: dict(v) if isinstance(v, Counter) else v for n, v in self._sums.items()}
            seconds = self._sums["seconds"]["total"]
            rate = round(self._sums["samples"] / seconds, 2) if seconds else 0.0
            found |= {**sums, "skipped_first": self._skipped_first, "images_per_second": rate}
        return found
