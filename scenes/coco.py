"""Writes generated scenes to disk in the layout of COCO panoptic, with captions."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from densecli.scenes.vocabulary import NAMES, THINGS
from densecli.scenes.world import SIZE, Scene, render
from densecli.shards.keys import canonical_json


def write_coco(root: Path, *, split: str, count: int, seed: int = 0) -> None:
    """Writes annotated scenes in the layout of COCO panoptic, with captions.

    The files are ROOT/SPLIT/*.jpg, ROOT/annotations/panoptic_SPLIT/*.png and
    ROOT/annotations/{panoptic,captions}_SPLIT.json.

    Args:
        root: Folder to write to.
        split: Split of the generated world.
        count: Number of scenes, the first ones of the split.
        seed: Seed of the generated world.
    """
    pngs = root / "annotations" / f"panoptic_{split}"
    photos = root / split
    for folder in (pngs, photos):
        folder.mkdir(parents=True, exist_ok=True)
    images, annotations, captions = [], [], []
    for index in range(count):
        scene = render(seed, split, index)
        name = f"{index:06d}"
        Image.fromarray(scene.image).save(photos / f"{name}.jpg", quality=95)
        ids = np.stack([scene.panoptic, np.zeros_like(scene.panoptic), np.zeros_like(scene.panoptic)], -1)
        Image.fromarray(ids.astype(np.uint8)).save(pngs / f"{name}.png")
        images.append({"id": index, "file_name": f"{name}.jpg", "width": SIZE, "height": SIZE})
        annotations.append(
            {"image_id": index, "file_name": f"{name}.png", "segments_info": _segments_info(scene)}
        )
        captions.append({"id": index, "image_id": index, "caption": scene.caption})
    categories = [{"id": i + 1, "name": name, "isthing": int(name in THINGS)} for i, name in enumerate(NAMES)]
    panoptic = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / f"panoptic_{split}.json").write_bytes(canonical_json(panoptic))
    (root / "annotations" / f"captions_{split}.json").write_bytes(
        canonical_json({"images": images, "annotations": captions})
    )


def _segments_info(scene: Scene) -> list[dict[str, Any]]:
    infos = []
    for segment in scene.segments:
        rows, columns = np.nonzero(scene.panoptic == segment.id)
        left, top = int(columns.min()), int(rows.min())
        infos.append(
            {
                "id": segment.id,
                "category_id": segment.category + 1,
                "bbox": [left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top],
                "area": len(rows),
                "iscrowd": 0,
            }
        )
    return infos
