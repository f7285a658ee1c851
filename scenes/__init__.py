"""The generated world: small scenes with exact annotations and captions, and models trained on them.

This is a plug-in: everything is registered here by name and imported only when it is used.
"""

from pathlib import Path

from densecli.core.registry import registry

registry("datasets").add_lazy(
    "scenes", "densecli.scenes.dataset:SCENES", help="Generated scenes of 96 px; needs no --data."
)
registry("commands").add_lazy(
    "demo", "densecli.scenes.demo:demo", help="The whole chain on generated scenes, on a CPU."
)
for _name, _attribute, _help in (
    ("scenes-s", "STUDENT", "Student of the generated world; its weights ship."),
    ("scenes-l", "LARGE", "Larger CLIP of the generated world; its weights ship."),
    (
        "scenes-pvlm",
        "PVLM",
        "scenes-l tuned by CLIPSelf, the P-VLM: it calls nearly half of the stuff a thing; its weights ship.",
    ),
    (
        "scenes-pvlm-unbiased",
        "UNBIASED_PVLM",
        "scenes-l tuned by CLIPSelf on square cells: hardly calls stuff a thing; its weights ship.",
    ),
    ("scenes-s-clipself", "TUNED_STUDENT", "scenes-s tuned by CLIPSelf; its weights ship."),
):
    registry("models").add_lazy(_name, f"densecli.scenes.models:{_attribute}", help=_help)
registry("vfms").add_lazy(
    "scenes-vfm",
    "densecli.scenes.models:VFM",
    help="Self-supervised ViT of the generated world; its weights ship.",
)
registry("categories").add_lazy(
    "scenes", "densecli.scenes.models:CATEGORIES", help="The 20 categories of the generated world."
)
registry("ablations").add(
    "scenes",
    Path(__file__).parent / "ablations",
    help="The papers' grids and what goes beyond them, on the generated world.",
)
