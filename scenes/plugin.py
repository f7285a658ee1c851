"""Registers the generated world, as any plug-in would."""

from densecli.core.registry import registry

MODELS = "densecli.scenes.models"

for name, attribute, help in (
    ("scenes-s", "STUDENT", "Student of the generated world; its weights ship."),
    ("scenes-l", "LARGE", "Larger CLIP of the generated world; its weights ship."),
    ("scenes-pvlm", "PVLM", "scenes-l tuned by CLIPSelf, the generated world's P-VLM; its weights ship."),
):
    registry("models").add_lazy(name, f"{MODELS}:{attribute}", help=help)
registry("vfms").add_lazy(
    "scenes-vfm", f"{MODELS}:VFM", help="Self-supervised ViT of the generated world; its weights ship."
)
registry("categories").add_lazy(
    "scenes", f"{MODELS}:CATEGORIES", help="The 20 categories of the generated world."
)
registry("defaults").add_lazy("scenes", f"{MODELS}:DEFAULTS", help="The generated world's own models.")
