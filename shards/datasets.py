"""Data sets: the sources of photos, and the defaults of commands for them.

Modules of `densecli.pipeline.sources` register the built-in ones. A plug-in registers one in the same way:

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
    """A data set that `build-shards` reads, with defaults for the commands that use it.

    Attributes:
        source: Function that lists the photos: it takes a `densecli.pipeline.sources.SourceRequest` and
            returns a `densecli.pipeline.sources.Source`. Either the function or "module:function", which is
            imported when photos are first listed.
        tars: Function that finds the tars of a data set that comes in tars, without reading them: it takes a
            `SourceRequest` and returns entries (`densecli.core.find.Entry`) by path. Either the function or
            "module:function". Empty: it does not come in tars.
        split: Split to read. Empty: all photos, or whatever `source` reads without a split.
        generated: Whether the photos are computed, so that they need no --data.
        cut: `listed`, or `shuffled` for photos that come sorted, as in folders of classes.
        canvas: Side of the canvas in pixels.
        student: Model to train.
        student_patch: Patch in pixels of the students for which a VFM's tokens are stored.
        pvlm: P-VLM whose labels a student learns from.
        vfm: Vision foundation model whose correlations a student learns from.
        categories: Category set of labels.
        features_rank: Rank of a stored dense map.
        annotated: Function that writes photos with panoptic annotations in COCO's layout, with which `ablate`
            measures students: it takes a folder (Path), `split` and `count`. Either the function or
            "module:function". Empty: there is none, and a spec must name its data.
        test_split: Split on which a student is measured: that `annotated` writes, or of annotated photos in
            the data set's own folder.
        test_categories: Category set of the annotations of that split. Empty: the data set has none.
        test_photos: How many of its photos a student is measured on.
    """

    source: Callable[[Any], Any] | str
    tars: Callable[[Any], Any] | str = ""
    split: str = ""
    generated: bool = False
    cut: str = "listed"
    canvas: int = 512
    student: str = "eva02-b16"
    student_patch: int = 16
    pvlm: str = "vitl14"
    vfm: str = "dinov2-vitb14"
    categories: str = "coco_stuff_ade_316"
    features_rank: int = 96
    annotated: Callable[..., None] | str = ""
    test_split: str = "test"
    test_categories: str = ""
    test_photos: int = 300


DATASETS: Registry[Dataset] = registry("datasets", noun="data set", of=Dataset)
"""Data sets by name. The built-in ones are there where `densecli.pipeline.sources` is imported."""


def defaults_for(name: str) -> Dataset:
    """The defaults of a data set.

    Args:
        name: Name of the data set. If nothing here has registered it, the defaults are those for photos,
            which are also those of the built-in data sets.
    """
    return DATASETS[name] if name in DATASETS else Dataset(source="")


def function_of(target: Callable[..., Any] | str) -> Callable[..., Any]:
    """The function that "module:function" names; a function itself is returned as it is."""
    if not isinstance(target, str):
        return target
    module, _, attribute = target.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), attribute)
    return found
