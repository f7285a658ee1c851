"""Groups of categories that open-vocabulary detection is measured by.

OV-COCO: 48 base and 17 novel categories; the other 15 of COCO's 80 take no part. The split is that of Bansal
et al. (Zero-Shot Object Detection, ECCV 2018), which OVR-CNN (Zareian et al., CVPR 2021), F-ViT and OV-DQUO
use. The lists were compared with mscoco_seen_classes.json and mscoco_unseen_classes.json of OVR-CNN's
released code, in which "background" is the 49th entry of the former.

OV-LVIS (ViLD, Gu et al., ICLR 2022): the 337 rare categories of LVIS v1 are novel. An LVIS file says of each
category whether it is rare, common or frequent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from densecli.core.errors import DenseCLIError
from densecli.core.tables import plain

BASE = (
    *("person", "bicycle", "car", "motorcycle", "train", "truck", "boat", "bench", "bird", "horse", "sheep"),
    *("bear", "zebra", "giraffe", "backpack", "handbag", "suitcase", "frisbee", "skis", "kite", "surfboard"),
    *("bottle", "fork", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot"),
    *("pizza", "donut", "chair", "bed", "toilet", "tv", "laptop", "mouse", "remote", "microwave", "oven"),
    *("toaster", "refrigerator", "book", "clock", "vase", "toothbrush"),
)
NOVEL = (
    *("airplane", "bus", "cat", "dog", "cow", "elephant", "umbrella", "tie", "snowboard", "skateboard"),
    *("cup", "knife", "cake", "couch", "keyboard", "sink", "scissors"),
)
FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}
COCO_CATEGORIES = 80


@dataclass(frozen=True, kw_only=True)
class CategoryGroups:
    """The categories of an annotation file that boxes are classified among.

    Attributes:
        name: The split: OV-COCO, LVIS, or a description.
        ids: Their D ids in the file, in ascending order.
        names: Their names, as prompts have them.
        groups: The group of each, such as "novel"; empty strings where there are no groups.
        lvis: Whether photos are annotated as LVIS's are: each for some of the categories.
    """

    name: str
    ids: tuple[int, ...]
    names: tuple[str, ...]
    groups: tuple[str, ...]
    lvis: bool = False


def group_categories(entries: Sequence[Mapping[str, Any]], novel: Sequence[str] = ()) -> CategoryGroups:
    """Groups the categories of an annotation file.

    Args:
        entries: Its categories, with id and name, and perhaps LVIS's frequency.
        novel: Names of the novel categories: all others are base. Without them, LVIS's frequencies or COCO's
            split count, where the file has one or the other.

    Raises:
        DenseCLIError: A novel name is not in the file, or two categories have one name.
    """
    rows = sorted(entries, key=lambda entry: entry["id"])
    named = {entry["name"]: entry for entry in rows}
    if len(named) < len(rows) or len({entry["id"] for entry in rows}) < len(rows):
        raise DenseCLIError(
            "Two categories of the annotation file have the same name or the same id.",
            hint="Give each category a name and an id of its own.",
        )
    if unknown := [name for name in novel if name not in named]:
        raise DenseCLIError(
            f"The annotation file has no category {', '.join(map(repr, map(plain, unknown)))}.",
            hint=f"Its categories: {', '.join(map(plain, named))}.",
        )
    frequencies = [FREQUENCIES.get(str(entry.get("frequency")), "") for entry in rows]
    lvis = bool(rows) and all(frequencies)
    if novel:
        groups = ["novel" if entry["name"] in novel else "base" for entry in rows]
        return _grouped("base and novel as given", rows, groups, lvis=lvis)
    if lvis:
        return _grouped("LVIS", rows, frequencies, lvis=True)
    if {*BASE, *NOVEL} <= named.keys() and len(rows) <= COCO_CATEGORIES:
        kept = [entry for entry in rows if entry["name"] in (*BASE, *NOVEL)]
        return _grouped("OV-COCO", kept, ["novel" if e["name"] in NOVEL else "base" for e in kept])
    return _grouped("all categories", rows, [""] * len(rows))


def _grouped(
    name: str, rows: Sequence[Mapping[str, Any]], groups: Sequence[str], *, lvis: bool = False
) -> CategoryGroups:
    return CategoryGroups(
        name=name,
        ids=tuple(entry["id"] for entry in rows),
        names=tuple(_prompt(entry["name"]) for entry in rows),
        groups=tuple(groups),
        lvis=lvis,
    )


def _prompt(name: str) -> str:
    """ViLD's rule for LVIS's names, such as bow_(decorative_ribbons)."""
    return name.replace("_", " ").replace("/", " or ")
