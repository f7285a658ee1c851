"""Settings that several commands share."""

from dataclasses import dataclass

from densecli.core.settings import Settings, setting

ALL_THINGS = "all-things:"
"""Before a list or file of names in --categories: all of them are things."""
CATEGORIES = (
    'Category set (densecli list categories), names ("dog, sofa"), or a txt, json or csv file of names.'
)


@dataclass(frozen=True, kw_only=True)
class StoreSettings(Settings):
    """The store to read."""

    store: str = setting(
        help="Folder or address of the store.",
        group="data",
        metavar="URL",
        default_text="the newest in stores/",
        path=True,
        by_position=True,
    )


@dataclass(frozen=True, kw_only=True)
class DeviceSettings(Settings):
    """The device of networks."""

    device: str = setting(
        "auto",
        help="Device: auto (a GPU if there is one), cpu, cuda, cuda:N or mps.",
        group="speed",
        metavar="DEVICE",
    )


@dataclass(frozen=True, kw_only=True)
class DryRunSettings(Settings):
    """Whether to write anything."""

    dry_run: bool = setting(False, help="Only says what would be done, and writes nothing.", group="run")


@dataclass(frozen=True, kw_only=True)
class TextSettings(Settings):
    """The texts of categories, as a CLIP embeds them."""

    text_embeddings: str | None = setting(
        None,
        help="A .npy file with the model's text embedding of each category.",
        group="model",
        metavar="FILE",
        default_text="made by the model's text tower",
        path=True,
    )
    templates: str | None = setting(
        None,
        help="Prompt templates: plain, imagenet80, vild63, densevlm, or a file with one on each line.",
        group="model",
        metavar="SET|FILE",
        default_text="the model's own, imagenet80 for photos",
        path=True,
    )
