"""The conditions of a measurement, which are printed and stored with its numbers."""

from dataclasses import dataclass

from densecli.core.tables import counted


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """The conditions of a measurement.

    Attributes:
        data: Folder and split of the photos.
        photos: Number of photos.
        categories: Category set and the number of its names; empty if there is none.
        crowds: What became of crowds, where regions were measured.
        prompts: Prompt templates, or the file of the text embeddings; empty if no text is read.
        canvas: Side in pixels of the canvas, or what is seen of a photo in words.
        mode: How the last block was read out; empty if it was run as it is.
        weights: Where the model's weights are from.
    """

    data: str
    photos: int
    categories: str = ""
    crowds: str = ""
    prompts: str = ""
    canvas: int | str
    mode: str = ""
    weights: str

    def text(self) -> str:
        """One line for people."""
        canvas = f"canvas {self.canvas} px" if isinstance(self.canvas, int) else self.canvas
        parts = [f"{counted(self.photos, 'photo')} of {self.data}"]
        parts += [f"categories {self.categories}"] if self.categories else []
        parts += [f"crowds: {self.crowds}"] if self.crowds else []
        parts += [f"prompts {self.prompts}"] if self.prompts else []
        parts += [canvas]
        parts += [f"mode {self.mode}"] if self.mode else []
        return f"{'; '.join(parts)}; weights {self.weights}"
