"""Proposed boxes before a build: do they belong to the photos that are listed?"""

from collections.abc import Callable, Collection, Iterable

from densecli.core import fs
from densecli.core.documents import parse
from densecli.core.errors import DenseCLIError
from densecli.pipeline.sources import Source
from densecli.shards.proposals import HINT, Proposals, base_name, compare_names, read_proposals
from densecli.shards.region_plans import RegionPlan
from densecli.shards.regions import ProposalPlan
from densecli.shards.store import Store
from densecli.shards.tars import read_shard

TRIED = 3
"""Number of names to look for in other splits."""


def check_proposals(plan: RegionPlan, source: Source, data: str) -> dict[str, int]:
    """Compares the boxes of a plan with the photos of a listing.

    Args:
        plan: Any region plan.
        source: The listing.
        data: Folder of the data set.

    Returns:
        How many `photos` are listed, how many of them are `matched` and have boxes, how many names of the
        file are `unmatched`, and of its `boxes` how many are `duplicates` and `left_out` by their area. Empty
        for a plan without a file.

    Raises:
        DenseCLIError: The file is malformed, or nothing in it is about these photos.
    """
    if not isinstance(plan, ProposalPlan):
        return {}

    def elsewhere(names: Collection[str]) -> str:
        if split := _other_split(data, source.split, names):
            return f"They are photos of {split}: give --split {split}, or boxes of {source.split}."
        return ""

    return _checked(plan, read_proposals(plan.file), (item.ref for item in source.items), elsewhere)


def check_stored(plan: RegionPlan, store: Store) -> None:
    """Compares the boxes of a plan with the photos of a store, up to the first that has some.

    Args:
        plan: Any region plan.
        store: Store of the photos.

    Raises:
        DenseCLIError: See `check_proposals`.
    """
    if isinstance(plan, ProposalPlan):
        proposals = read_proposals(plan.file)
        refs: list[str] = []
        for shard in store.shard_names:
            if store.images.has(shard):
                found = [parse(members["json"])["source"] for _, members in read_shard(store.images, shard)]
                if any(name in proposals.boxes for name in found):
                    return
                refs += found
        _checked(plan, proposals, refs, lambda _: "")


def _checked(
    plan: ProposalPlan,
    proposals: Proposals,
    refs: Iterable[str],
    elsewhere: Callable[[Collection[str]], str],
) -> dict[str, int]:
    if not proposals.count:
        raise DenseCLIError(f"{plan.file} has no box.", hint=HINT)
    facts = compare_names(proposals, refs, elsewhere)
    left_out = proposals.left_out(plan.areas)
    if left_out == proposals.count:
        least, most = plan.areas
        raise DenseCLIError(
            f"None of the {left_out} boxes of {plan.file} covers {least} to {most} square pixels of its "
            "photo.",
            hint="Boxes are x, y, width and height in pixels of the photo as it is, not as it was resized.",
        )
    return {**facts, "boxes": proposals.count, "duplicates": proposals.duplicates, "left_out": left_out}


def _other_split(data: str, split: str, names: Collection[str]) -> str:
    """Another folder of the data set that has photos of these names; empty if there is none."""
    tried = [base_name(name) for name in list(names)[:TRIED]]
    for folder in fs.listdir(data) if split else ():
        if folder != split and any(fs.exists(fs.join(data, folder, name)) for name in tried if name):
            return folder
    return ""
