"""The description of a CLIP's network, without weights. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from densecli.core.errors import DenseCLIError
from densecli.models.published import Published

if TYPE_CHECKING:
    from torch import Tensor

    Tokenizer = Callable[[list[str]], Tensor]

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A CLIP's network without weights.

    Attributes:
        name: Its name in the specs of columns and in model cards.
        family: Name in `FAMILIES` of the class that reads it out.
        config: Name of an open_clip configuration, or the configuration itself, which may also use EVA-CLIP's
            keys (`eva_model_name` in `vision_cfg`).
        size: "base" or "large" for a ViT of that size; the papers have settings for each.
        aliases: Other names of the same network with the same weights. Each is registered too.
        weights: Path of a weights file that ships with the package that registered the architecture.
        published: Where its weights are published, for those who have no file of them.
        tokenizer: Makes the tokenizer; None for open_clip's tokenizer of the configuration.
        templates: Name in `densecli.models.prompts.TEMPLATES` of the default prompt templates.
        mean: Channel means of pixels in 0..1.
        std: Channel standard deviations of pixels in 0..1.
        canvas: Side in pixels of the canvas that it is measured on where nothing else is said.
    """

    name: str
    family: str
    config: str | Mapping[str, Any]
    size: Literal["", "base", "large"] = ""
    aliases: tuple[str, ...] = ()
    weights: str | None = None
    published: Published | None = None
    tokenizer: Callable[[], Tokenizer] | None = None
    templates: str = "imagenet"
    mean: tuple[float, ...] = OPENAI_MEAN
    std: tuple[float, ...] = OPENAI_STD
    canvas: int = 512

    def clip_config(self) -> dict[str, Any]:
        """The configuration as a dict."""
        if not isinstance(self.config, str):
            return dict(self.config)
        import open_clip

        return dict(open_clip.get_model_config(self.config))

    @property
    def native_side(self) -> int:
        """Side in pixels of the square images of pre-training."""
        return int(self.clip_config()["vision_cfg"]["image_size"])

    def make_tokenizer(self) -> Tokenizer:
        """Makes the tokenizer: a list of N texts -> (N, context length) token ids.

        Raises:
            DenseCLIError: It needs files from Hugging Face that cannot be loaded.
        """
        if self.tokenizer is not None:
            return self.tokenizer()
        import open_clip

        text = self.clip_config()["text_cfg"]
        options = {"context_length": text["context_length"], **text.get("tokenizer_kwargs", {})}
        if "hf_tokenizer_name" not in text:
            found: Tokenizer = open_clip.SimpleTokenizer(**options)
            return found
        try:
            found = open_clip.tokenizer.HFTokenizer(text["hf_tokenizer_name"], **options)
            return found
        except (ImportError, OSError) as error:
            raise DenseCLIError(
                f"{self.name} needs the tokenizer {text['hf_tokenizer_name']}, which cannot be loaded.",
                hint="Install transformers and let it download the tokenizer from Hugging Face once, or give "
                "the embeddings of the categories with --text-embeddings FILE.",
            ) from error
