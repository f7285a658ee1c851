"""Builds a store of parts: groups of a data set's tars, listed and built one after another."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import islice

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.core.find import Entry
from densecli.core.progress import listener
from densecli.pipeline.build_request import BuildRequest, data_url, list_photos, prepare
from densecli.pipeline.build_shards import build_shards
from densecli.pipeline.cluster import Connect, connected_once
from densecli.pipeline.cluster_lister import lister_of
from densecli.pipeline.computed_boxes import computes_boxes
from densecli.pipeline.config import BuildConfig
from densecli.pipeline.failures import SetAside
from densecli.pipeline.part_sums import PartSums
from densecli.pipeline.sources import find_tars
from densecli.pipeline.summary import ShardsSetAside, Summary, describe
from densecli.shards.datasets import DATASETS
from densecli.shards.manifest import lacks_manifest
from densecli.shards.parted_store import PartsDocument, part_url, read_parts, write_parts
from densecli.shards.store import Store


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
    parts, total, failed = document["parts"], PartSums(), list[SetAside]()
    ahead = _groups(tars, document["tars_per_part"])
    group, request, left, unlisted = next(ahead), None, config.limit, 0
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
            unlisted += 1
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
    found = {**total.summary(), **total.listing(), "store": fs.shown(root), "parts": parts}
    return {
        **found,
        "listed": None,
        "unlisted": unlisted,
        "status": "planned" if unlisted else found["status"],
    }


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
