"""Data sets: where photos come from, and the defaults of commands that work with them.

A plug-in registers a data set of its own as the built-in ones are registered below:

    from densecli.shards.datasets import DATASETS, Dataset

    DATASETS.add("mine", Dataset(source="my_package.photos:my_source"), help="My photos.")

This module loads neither torch nor the build: a training reads defaults here without either.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from densecli.core.registry import Registry, registry


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set that `build-shards` reads, and what commands use with it where the user names nothing else.

    Attributes:
        source: Function that lists the photos: it takes a `densecli.pipeline.sources.SourceRequest` and
            returns a `densecli.pipeline.sources.Source`. Either the function or "module:function", which is
            imported when photos are first listed.
        split: Split to read. Empty: all photos, or whatever `source` reads without a split.
        generated: Whether the photos are computed, so that they need no --data.
        canvas: Side of the canvas in pixels.
        student: Model to train.
        student_patch: Patch in pixels of the students for which a VFM's tokens are stored.
        pvlm: P-VLM whose labels a student learns from.
        vfm: Vision foundation model whose correlations a student learns from.
        categories: Category set of labels.
        features_rank: Rank of a stored dense map.
        ablations: Folder of ablation specs (.toml) for this data set. Empty: those for COCO are used.
        annotated: Function that writes photos with panoptic annotations in COCO's layout, with which `ablate`
            measures students: it takes a folder (Path), `split` and `count`. Either the function or
            "module:function". Empty: there is none, and a spec must name its data.
        test_split: Split that `annotated` writes.
    """

    source: Callable[[Any], Any] | str
    split: str = ""
    generated: bool = False
    canvas: int = 512
    student: str = "eva02-b16"
    student_patch: int = 16
    pvlm: str = "vitb16"
    vfm: str = "dinov2-vitb14"
    categories: str = "coco_stuff_ade_316"
    features_rank: int = 96
    ablations: str = ""
    annotated: Callable[..., None] | str = ""
    test_split: str = "test"


DATASETS: Registry[Dataset] = registry("datasets", noun="data set")
"""Data sets by name."""


def defaults_for(name: str) -> Dataset:
    """The defaults of a data set.

    Args:
        name: Of the data set. A store may be made of one whose plug-in is not loaded here; the defaults are
            then those for photos.
    """
    return DATASETS[name] if name in DATASETS else Dataset(source="")


def function_of(target: Callable[..., Any] | str) -> Callable[..., Any]:
    """The function that "module:function" names; a function itself is returned as it is."""
    if not isinstance(target, str):
        return target
    module, _, attribute = target.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), attribute)
    return found


_SOURCES = "densecli.pipeline.sources"
for _name, _dataset, _help in (
    (
        "coco",
        Dataset(source=f"{_SOURCES}.coco:coco_source", split="train2017"),
        "COCO's layout: DIR/SPLIT/*.jpg, no annotations needed.",
    ),
    (
        "folder",
        Dataset(source=f"{_SOURCES}.folder:folder_source"),
        "Any folder of photos with its subfolders; a split is a subfolder.",
    ),
    (
        "sa1b",
        Dataset(source=f"{_SOURCES}.sa1b:sa1b_source"),
        "SA-1B as released: tars or the folders that they extract to, with masks.",
    ),
    (
        "urls",
        Dataset(source=f"{_SOURCES}.urls:urls_source"),
        "A list of addresses: .parquet or .csv with a column url, or a text file.",
    ),
    (
        "webdataset",
        Dataset(source=f"{_SOURCES}.webdataset:webdataset_source"),
        "A WebDataset: a folder of tars, or a pattern of their names.",
    ),
):
    DATASETS.add(_name, _dataset, help=_help)
