"""What a command uses with a data set where the user names nothing else."""

from dataclasses import dataclass

from densecli.core.registry import Registry, registry


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """The default models and settings for photos, and for a data set that registers others.

    Attributes:
        student: Model to train.
        pvlm: P-VLM whose labels it learns from.
        vfm: Vision foundation model whose correlations it learns from.
        categories: Category set of labels.
        canvas: Side of the canvas in pixels.
        student_patch: Patch in pixels of the students for which a VFM's tokens are stored.
        features_rank: Rank of a stored dense map.
    """

    student: str = "eva02-b16"
    pvlm: str = "vitb16"
    vfm: str = "dinov2-vitb14"
    categories: str = "coco_stuff_ade_316"
    canvas: int = 512
    student_patch: int = 16
    features_rank: int = 96


DEFAULTS: Registry[Defaults] = registry("defaults", noun="data set with defaults of its own")
"""Defaults by the data set's name, for those that do not hold photos of the everyday world."""


def defaults_for(dataset: str) -> Defaults:
    """The defaults of a data set, by its name."""
    return DEFAULTS[dataset] if dataset in DEFAULTS else Defaults()
