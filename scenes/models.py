"""Describes the generated world's models for densecli's registries."""

from dataclasses import replace
from pathlib import Path

from densecli.models.architecture import Architecture
from densecli.models.categories import Categories
from densecli.models.vfm_architecture import VFMArchitecture
from densecli.scenes.tokenizer import WordTokenizer
from densecli.scenes.vocabulary import IMAGE_SIZE, SCENES_CONFIGS, STUFF, THINGS, VFM_CONFIG

_WEIGHTS = Path(__file__).parent / "weights"


def _clip(name: str) -> Architecture:
    return Architecture(
        name=name,
        family="vit",
        config=SCENES_CONFIGS[name],
        weights=str(_WEIGHTS / f"{name}.safetensors"),
        tokenizer=WordTokenizer,
        templates="plain",
        canvas=IMAGE_SIZE,
    )


STUDENT = _clip("scenes-s")
LARGE = _clip("scenes-l")


def _tuned(name: str, start: Architecture) -> Architecture:
    return replace(start, weights=str(_WEIGHTS / f"{name}.safetensors"))


PVLM = _tuned("scenes-pvlm", LARGE)
UNBIASED_PVLM = _tuned("scenes-pvlm-unbiased", LARGE)
TUNED_STUDENT = _tuned("scenes-s-clipself", STUDENT)
VFM = VFMArchitecture(
    name="scenes-vfm",
    timm="vit_tiny_patch16_224",
    patch=12,
    options=VFM_CONFIG,
    weights=str(_WEIGHTS / "scenes-vfm.safetensors"),
    canvas=IMAGE_SIZE,
)
CATEGORIES = Categories.of(
    "scenes",
    things=THINGS,
    stuff=STUFF,
    note="Numbers on the generated world are real accuracies of small models on scenes they have not seen."
    " They show the foreground bias and how it is reduced, but not how large either effect is on photos.",
)
