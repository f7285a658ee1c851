"""Pictures of a training for the loggers: the similarity of a student's tokens, before and after."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from densecli.core.drawing import GAP, column
from densecli.models.affinity import TokenMap, affinity_row, token_map
from densecli.models.student import Student
from densecli.shards.geometry import Canvas
from densecli.shards.joined import decode_image
from densecli.shards.store import Store
from densecli.shards.tars import read_shard

PHOTOS = 3
CENTRE = (0.5, 0.5)


class AffinityPictures:
    """Affinities to the centre of a store's first photos, as `densecli preview --run` draws them."""

    def __init__(self, model: Student, mode: str, store: Store, initial: Mapping[str, Tensor]) -> None:
        """Reads the photos and runs the student with its initial weights on them.

        Args:
            model: The student.
            mode: Its read-out mode.
            store: The store of the photos.
            initial: State dict of the student's network before the first step.
        """
        self._canvas = Canvas(store.canvas)
        self._after = token_map(model, mode)
        samples = read_shard(store.images, store.shard_names[0])[:PHOTOS]
        self._photos = [decode_image(members["jpg"]) for _, members in samples]
        trained = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
        model.network.load_state_dict(initial)
        self._before = [self._run(photo) for photo in self._photos]
        model.network.load_state_dict(trained)

    def _run(self, photo: np.ndarray) -> np.ndarray:
        # Compilation would take longer than these few photos.
        with torch.compiler.set_stance("force_eager"):
            return self._after(self._canvas.pad(photo))

    def draw(self) -> np.ndarray:
        """Draws (H, W, 3) uint8: a row for each photo with affinities before the first step and now."""
        rows = [
            affinity_row(
                {"before": _always(before), "after": _always(self._run(photo))}, photo, CENTRE, self._canvas
            )
            for photo, before in zip(self._photos, self._before, strict=True)
        ]
        return np.asarray(column(rows, gap=GAP))


def _always(tokens: np.ndarray) -> TokenMap:
    """A token map that is already computed."""
    return lambda canvas: tokens
