"""Where a build takes masks from, checked before it begins."""

import hashlib
from dataclasses import fields, replace

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.core.tables import plain, readable
from densecli.pipeline.config import BuildConfig
from densecli.pipeline.sources import LoadMasks, Source
from densecli.pipeline.sources.annotation_masks import HINT, FileMasks, read_mask_file
from densecli.shards.mask_plan import MaskPlan

MASK_SETTINGS = tuple(each.name for each in fields(MaskPlan) if each.name in BuildConfig.__dataclass_fields__)
"""Settings of a build that are those of its masks."""


def with_masks(plan: MaskPlan, config: BuildConfig, source: Source, data: str) -> tuple[MaskPlan, LoadMasks]:
    """The plan for the masks of these photos, and what reads them: those of `--masks`, else the data set's.

    Args:
        plan: The plan as asked for.
        config: The build.
        source: The listing.
        data: Folder of the data set.

    Raises:
        DenseCLIError: There are no masks, or those of the file are of other photos.
    """
    masks = FileMasks(fs.absolute(config.masks)) if config.masks else source.masks
    if masks is None:
        raise DenseCLIError(
            f"The data set {config.dataset} at {data} has no masks to take regions from.",
            hint="Give masks in COCO's format (--masks FILE), or take another plan: --regions grid-paper "
            "needs nothing, proposals a file of boxes.",
        )
    if not isinstance(masks, FileMasks):
        return plan, masks
    found = read_mask_file(masks.file)
    listed = {readable(item.ref) for item in source.items}
    if not any(name in listed for name in found.entries):
        known = [name for name in found.names if name in listed]
        names = f"names {len(known)} of them, but annotates none"
        if not known:
            example = f", such as {plain(found.names[0])}" if found.names else ""
            names = f"names others ({len(found.names)}{example})"
        raise DenseCLIError(
            f"{masks.file} has masks of none of the {len(listed)} photos: it {names}.",
            hint=f"Photos are named as {plain(next(iter(listed)))}: check --split and --masks. {HINT}",
        )
    digest = hashlib.sha256(fs.read_bytes(masks.file)).hexdigest()
    return replace(plan, file_sha256=digest), masks
