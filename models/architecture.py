"""A network's name and shape, without its weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import open_clip
from torch import Tensor

from densecli.scenes.tokenizer import WordTokenizer


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network without weights. `config` is the name of an open_clip configuration, or one written out.

    A written-out configuration may also be in EVA-CLIP's vocabulary (`eva_model_name` in `vision_cfg`).
    `mean` and `std` are of pixels in 0..1, per channel.
    """

    name: str
    family: str
    config: str | Mapping[str, Any]
    words: bool = False
    mean: tuple[float, ...] = open_clip.OPENAI_DATASET_MEAN
    std: tuple[float, ...] = open_clip.OPENAI_DATASET_STD

    def clip_config(self) -> dict[str, Any]:
        """The configuration written out."""
        return dict(open_clip.get_model_config(self.config) if isinstance(self.config, str) else self.config)

    @property
    def native_side(self) -> int:
        """Pixels of the square images it was pre-trained on."""
        return self.clip_config()["vision_cfg"]["image_size"]

    def tokenizer(self) -> Callable[[list[str]], Tensor]:
        """list of texts -> (N, context length) token ids."""
        if self.words:
            return WordTokenizer()
        return open_clip.SimpleTokenizer(context_length=self.clip_config()["text_cfg"]["context_length"])
