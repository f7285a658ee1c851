"""Pictures of a ViT's layers: what a token attends to, and which tokens it correlates with."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from densecli.core.drawing import GAP, column, side_by_side
from densecli.evaluation.proxy_tokens import proxy_score
from densecli.models.affinity import Point, affinity_panel, heat_panel, inside, photo_share, token_at
from densecli.models.attention import Layer
from densecli.models.student import DenseVFM
from densecli.models.transformer import DenseTransformer
from densecli.shards.geometry import Canvas


@dataclass(frozen=True, kw_only=True)
class LayerMaps:
    """What is drawn of one layer of one model, for a photo and some points of it.

    Attributes:
        tokens: (gh, gw, C), the patches after the layer.
        attention: By the name of each query, (gh, gw): its attention to the patches.
    """

    tokens: np.ndarray
    attention: Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class LayerReading:
    """What the layers of one model do with a photo.

    Attributes:
        maps: The layers that are drawn, by number.
        proxy_scores: See `proxy_score`, of every layer.
    """

    maps: Mapping[int, LayerMaps]
    proxy_scores: tuple[float, ...]

    @property
    def queries(self) -> list[str]:
        """The names of the queries whose attention is drawn."""
        return list(next(iter(self.maps.values())).attention)


@torch.inference_mode()
def read_layers(
    model: DenseTransformer | DenseVFM,
    image: np.ndarray,
    canvas: Canvas,
    points: Mapping[str, Point],
    drawn: Sequence[int],
) -> LayerReading:
    """Runs a model on a photo, layer by layer.

    Args:
        model: A network for which `has_layers`.
        image: (h, w, 3) uint8, the photo at canvas scale, not padded.
        canvas: The canvas.
        points: The query points by name.
        drawn: Numbers of the layers whose maps are kept; 1 is the first.
    """
    maps, scores = {}, []
    for number, layer in enumerate(_walk(model, image, canvas), start=1):
        grid = (layer.tokens.shape[2], layer.tokens.shape[3])
        patches = layer.attention[0, :, model.prefix :]
        covered = np.zeros(grid, bool)
        inside(covered, image, canvas)[:] = True
        seen = torch.from_numpy(covered.ravel()).to(patches.device)
        scores.append(proxy_score(patches[model.prefix :], seen))
        if number in drawn:
            share = photo_share(image, canvas)
            at = {name: token_at(point, share, grid) for name, point in points.items()}
            rows = {name: model.prefix + y * grid[1] + x for name, (y, x) in at.items()}
            queries = ({"[CLS]": 0} if model.prefix else {}) | rows
            maps[number] = LayerMaps(
                tokens=layer.tokens[0].permute(1, 2, 0).float().cpu().numpy(),
                attention={
                    name: patches[row].unflatten(0, grid).cpu().numpy() for name, row in queries.items()
                },
            )
    return LayerReading(maps=maps, proxy_scores=tuple(scores))


def _walk(model: DenseTransformer | DenseVFM, image: np.ndarray, canvas: Canvas) -> Iterator[Layer]:
    device = next(model.parameters()).device
    pixels: Tensor = torch.from_numpy(canvas.pad(image)).permute(2, 0, 1)[None].to(device)
    return model.walk(model.prepare(pixels))


def attention_picture(
    readings: Mapping[str, LayerReading],
    image: np.ndarray,
    canvas: Canvas,
    query: str,
    width: int,
    point: Point | None = None,
) -> Image.Image:
    """A row for each layer with the attention of one query in each model, from none to the most.

    Args:
        readings: By the title of each model.
        image: (h, w, 3) uint8, the photo at canvas scale.
        canvas: The canvas.
        query: Name of the query in `LayerMaps.attention`.
        width: Width of a panel in pixels.
        point: Its place in the photo, which is ringed.
    """

    def panel(maps: LayerMaps) -> Image.Image:
        values = maps.attention[query]
        most = float(inside(values, image, canvas).max())
        return heat_panel(image, values, (0, most), ("0", f"{100 * most:.2g} %"), canvas, width, point)

    return _rows(readings, panel)


def correlation_picture(
    readings: Mapping[str, LayerReading],
    dense: Mapping[str, np.ndarray],
    image: np.ndarray,
    canvas: Canvas,
    point: Point,
    width: int,
) -> Image.Image:
    """A row for each layer, and one for the dense map, with the cosines of all tokens with one.

    Args:
        readings: By the title of each model; may be empty.
        dense: Dense maps (gh, gw, D) by the title of each model.
        image: (h, w, 3) uint8, the photo at canvas scale.
        canvas: The canvas.
        point: The point below which that token is, ringed.
        width: Width of a panel in pixels.
    """

    def panel(tokens: np.ndarray) -> Image.Image:
        return affinity_panel(image, tokens, point, canvas, width)

    last = side_by_side({f"dense map, {title}": panel(tokens) for title, tokens in dense.items()})
    above = [_rows(readings, lambda maps: panel(maps.tokens))] if readings else []
    return column([*above, last], gap=GAP)


def _rows(readings: Mapping[str, LayerReading], panel: Callable[[LayerMaps], Image.Image]) -> Image.Image:
    numbers = sorted({number for reading in readings.values() for number in reading.maps})
    rows = [
        side_by_side({f"layer {n}, {title}": panel(reading.maps[n]) for title, reading in readings.items()})
        for n in numbers
    ]
    return column(rows, gap=GAP)
