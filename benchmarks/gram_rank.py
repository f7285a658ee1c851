"""What a rank costs: RMSE of token cosines against bytes, of a VFM on real photos, as a markdown table.

    python benchmarks/gram_rank.py --photos data/coco/train2017 --weights weights/dinov2-vits14.safetensors

The RMSE is that of the entries of the Gram matrix, mean over the photos; `cut off` is the part that the rank
alone costs, the rest is int8. The last rows are the adaptive rank (build-shards --gram-rmse), and what the
tokens and their Gram matrix themselves would take in fp16.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from densecli.models.vfm_checkpoints import load_vfm
from densecli.shards.codecs import LowRank, combine_errors
from densecli.shards.geometry import Canvas


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True, help="folder of .jpg files")
    parser.add_argument("--model", default="dinov2-vits14", help="see densecli list vfms")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--limit", type=int, default=12, help="photos to read")
    parser.add_argument("--canvas", type=int, default=512)
    parser.add_argument("--student-patch", type=int, default=16)
    parser.add_argument("--ranks", type=int, nargs="+", default=[16, 32, 48, 64, 96, 128])
    parser.add_argument("--rmse", type=float, nargs="+", default=[0.01, 0.004])
    args = parser.parse_args()

    photos = sorted(args.photos.glob("*.jpg"))[: args.limit]
    maps = unit_tokens(args.model, args.weights, photos, args.canvas, args.student_patch)
    n, width = maps[0].shape
    print(f"{args.model}, {len(maps)} photos, {n} tokens of {width}\n")
    print("| codec | rank | RMSE | cut off | worst RMSE | row norm | bytes a token | KB a photo |")
    print("|---|---|---|---|---|---|---|---|")
    for rank in args.ranks:
        print(row(f"rank {rank}", LowRank(rank=rank), maps))
    for rmse in args.rmse:
        print(row(f"RMSE {rmse:g}", LowRank(rank=None, rmse=rmse), maps))
    print(f"| fp16 tokens | | | | | | {2 * width} | {2 * width * n / 1000:.1f} |")
    print(f"| fp16 Gram | | | | | | {2 * n} | {2 * n * n / 1000:.1f} |")


@torch.inference_mode()
def unit_tokens(
    name: str, weights: str, photos: list[Path], canvas_size: int, student_patch: int
) -> list[np.ndarray]:
    """(N, C) float32 unit tokens of each photo on its canvas."""
    model, canvas, maps = load_vfm(name, weights), Canvas(canvas_size), []
    for path in photos:
        image = canvas.pad(np.asarray(canvas.resize(Image.open(path))))
        batch = torch.from_numpy(image).permute(2, 0, 1)[None]
        maps.append(model(model.prepare(batch, student_patch))[0].flatten(1).T.numpy())
    return maps


def row(title: str, codec: LowRank, maps: list[np.ndarray]) -> str:
    """One codec's line of the table."""
    encoded = [codec.encode(x) for x in maps]
    error = combine_errors([errors for _, errors in encoded])
    rank = np.mean([arrays["x"].shape[1] for arrays, _ in encoded])
    size = np.mean([sum(array.nbytes for array in arrays.values()) for arrays, _ in encoded])
    figures = [error["rmse"], error["rmse_truncation"], error["max_rmse"]]
    return (
        f"| {title} | {rank:.0f} | {' | '.join(f'{figure:.4f}' for figure in figures)} "
        f"| {error['row_norm']:.3f} | {size / len(maps[0]):.0f} | {size / 1000:.1f} |"
    )


if __name__ == "__main__":
    main()
