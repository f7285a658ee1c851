"""What a rank of the features column costs: labels retrieved from it against fresh ones, as a markdown table.

    python benchmarks/features_rank.py
    python benchmarks/features_rank.py --model vitl14 --weights weights/vitl14.pt --photos data/coco/val2017

Without photos: scenes of the generated world nobody trained on. With a VFM (--model dinov2-vits14), which has
no text: tokens of other photos stand for categories, which tells how fast its maps of real photos fall off.
`agree`: share of the grid-paper cells whose
most likely category is the same; `variation`: total variation of the two distributions, mean over the cells,
and the largest; `cosine`: RMSE of the cosines of cells and categories; `token`: the norm of a token's error.
The last rows are what the tokens themselves would take.
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from densecli.models.categories import load_categories
from densecli.models.checkpoints import load_model
from densecli.models.pooling import region_pool
from densecli.models.text import category_embeddings
from densecli.models.vfm_checkpoints import load_vfm
from densecli.models.vfms import VFMS
from densecli.pipeline.teachers.labels import retrieval_map
from densecli.scenes.vocabulary import IMAGE_SIZE
from densecli.scenes.world import render
from densecli.shards.codecs import Codec, Features, Rows
from densecli.shards.geometry import Canvas
from densecli.shards.regions import GridPlan


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="scenes-pvlm-unbiased")
    parser.add_argument("--weights", help="a file, else looked up")
    parser.add_argument("--photos", type=Path, help="folder of .jpg files")
    parser.add_argument("--limit", type=int, default=48, help="photos to read")
    parser.add_argument("--canvas", type=int, default=IMAGE_SIZE)
    parser.add_argument("--categories", default="scenes")
    parser.add_argument("--text-embeddings")
    parser.add_argument("--tau", type=float, default=0.01)
    parser.add_argument("--dtype", default="int8")
    parser.add_argument("--ranks", type=int, nargs="+", default=[4, 8, 12, 16, 24, 32, 64])
    args = parser.parse_args()

    canvas = Canvas(args.canvas)
    images = photos(args.photos, args.limit) if args.photos else scenes(args.limit)
    if args.model in VFMS:
        vfm = load_vfm(args.model, args.weights)
        look, text = (lambda pixels: vfm(vfm.prepare(pixels, vfm.arch.patch))), None
    else:
        model, _ = load_model(args.model, args.weights)
        look = partial(retrieval_map, model, resample=True)
        names = load_categories(args.categories).names
        text = category_embeddings(model, names, file=args.text_embeddings)
    maps, boxes = [], []
    for image in images:
        maps.append(dense(look, canvas, image))
        boxes.append(GridPlan("paper").boxes(canvas.valid_box(*image.size)).boxes)
    if text is None:
        half = len(maps) // 2
        tokens = torch.cat([x.flatten(1).T for x in maps[half:]])
        text = tokens[torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))[:133]]
        maps, boxes = maps[:half], boxes[:half]
    _, height, width = maps[0].shape
    n, c = height * width, len(maps[0])
    print(f"{args.model}, {len(maps)} photos, {n} tokens of {c}, {args.dtype}, tau {args.tau:g}\n")
    print("| rank | token | cosine | agree | variation | largest | KB a photo |")
    print("|---|---|---|---|---|---|---|")
    fresh = [cosines(x, b, text) for x, b in zip(maps, boxes, strict=True)]
    for rank in args.ranks:
        codec, kept, norms = Features(rank=rank, dtype=args.dtype), [], []
        for x, b in zip(maps, boxes, strict=True):
            arrays, error = codec.encode(x.flatten(1).T.numpy())
            decoded = torch.from_numpy(codec.decode(arrays).T.reshape(x.shape).copy())
            kept.append(cosines(decoded, b, text))
            norms.append(error["norm"])
        figures = compare(torch.cat(fresh), torch.cat(kept), args.tau)
        print(f"| {rank} | {np.mean(norms):.4f} | {figures} | {size(codec, (n, c)) / 1000:.1f} |")
    for dtype in ("int8", "fp16"):
        print(f"| {dtype} tokens | | | | | | {size(Rows(dtype=dtype), (n, c)) / 1000:.1f} |")


def scenes(limit: int) -> Iterator[Image.Image]:
    return (Image.fromarray(render(seed=0, split="test", index=i).image) for i in range(limit))


def photos(folder: Path, limit: int) -> Iterator[Image.Image]:
    return (Image.open(path) for path in sorted(folder.glob("*.jpg"))[:limit])


@torch.inference_mode()
def dense(look: Callable[[Tensor], Tensor], canvas: Canvas, image: Image.Image) -> Tensor:
    """(C, h, w), unit norm per token."""
    pixels = torch.from_numpy(canvas.pad(np.asarray(canvas.resize(image)))).permute(2, 0, 1)[None]
    return look(pixels)[0]


def cosines(x: Tensor, boxes: np.ndarray, text: Tensor) -> Tensor:
    """(C, h, w), (N, 4), (D, C) -> (N, D)."""
    return region_pool(x[None], torch.from_numpy(boxes), torch.zeros(len(boxes), dtype=torch.long)) @ text.T


def size(codec: Codec, shape: tuple[int, int]) -> int:
    """Bytes of the arrays of a map."""
    return sum(array.nbytes for array in codec.blank(shape).values())


def compare(fresh: Tensor, kept: Tensor, tau: float) -> str:
    """Two (N, D) of cosines -> four cells of the table."""
    p, q = (F.softmax(x / tau, dim=1) for x in (fresh, kept))
    variation = (p - q).abs().sum(1) / 2
    agree = (fresh.argmax(1) == kept.argmax(1)).float().mean()
    rmse = (fresh - kept).square().mean().sqrt()
    return f"{rmse:.4f} | {agree:.2%} | {variation.mean():.4f} | {variation.max():.3f}"


if __name__ == "__main__":
    main()
