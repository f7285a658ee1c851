"""A writer of tiny panoptic datasets in both layouts."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from densecli.models.checkpoints import load_model

Writer = Callable[..., Path]


@pytest.fixture
def write_panoptic(tmp_path: Path) -> Writer:
    """write(layout, names, thing, [(photo, [(category, mask, crowd)])]) -> root; the split is `val`."""

    def write(layout, names, thing, photos) -> Path:
        root = tmp_path / layout
        if layout == "coco":
            pngs, images = root / "annotations" / "panoptic_val", root / "val"
        else:
            pngs, images = root / "ade20k_panoptic_val", root / "images" / "validation"
        for folder in (pngs, images):
            folder.mkdir(parents=True)
        # Ids with holes, as COCO's, and not in the order of the names.
        ids = [7 * (c + 1) for c in range(len(names))]
        content: dict = {"images": [], "annotations": []}
        content["categories"] = [
            {"id": ids[c], "name": name, "isthing": int(thing[c])} for c, name in enumerate(names)
        ]
        for n, (photo, segments) in enumerate(photos):
            height, width = photo.shape[:2]
            image_id: int | str = f"photo_{n}" if layout == "ade" else 100 + n
            Image.fromarray(photo).save(images / f"{n:04d}.png")
            png = np.zeros((height, width, 3), np.uint8)
            infos = []
            for s, (category, mask, crowd) in enumerate(segments):
                segment = 65536 * (s + 1) + 256 * (3 * s) + 200 - s
                png[mask] = (segment % 256, segment // 256 % 256, segment // 65536)
                ys, xs = np.nonzero(mask)
                bbox = [xs.min(), ys.min(), xs.max() + 1 - xs.min(), ys.max() + 1 - ys.min()]
                info = {"id": segment, "category_id": ids[category], "iscrowd": int(crowd), "area": len(xs)}
                infos.append(info | {"bbox": [int(v) for v in bbox]})
            Image.fromarray(png).save(pngs / f"{n:04d}.png")
            content["images"].append(
                {"id": image_id, "file_name": f"{n:04d}.png", "width": width, "height": height}
            )
            content["annotations"].append(
                {"image_id": image_id, "file_name": f"{n:04d}.png", "segments_info": infos}
            )
        pngs.with_suffix(".json").write_text(json.dumps(content))
        return root

    return write


def _moved(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor read backwards, so that the mean is moved by just what is added: 0.01."""
    return tensor.flatten().flip(0).view_as(tensor) + 0.01


@pytest.fixture
def exported(tmp_path: Path) -> Callable[[float], Path]:
    """export(alpha) -> a run whose student began as scenes-s and went far; exported at that alpha."""

    def export(alpha: float) -> Path:
        model, info = load_model("scenes-s")
        folder = tmp_path / f"run-{alpha}" / "export"
        folder.mkdir(parents=True)
        moved = {name: torch.lerp(t, _moved(t), alpha) for name, t in model.clip.state_dict().items()}
        safetensors.torch.save_file(moved, folder / "student.safetensors")
        card = {
            "student": "scenes-s",
            "canvas": 96,
            "image_size": 96,
            "mode": "value",
            "alpha": alpha,
            "random_weights": False,
            "initial_weights": {"source": info.source, "sha256": info.sha256},
        }
        (folder / "card.json").write_text(json.dumps(card))
        return folder.parent

    return export


@pytest.fixture
def moved_run(exported: Callable[[float], Path]) -> Path:
    """The run exported at alpha 0.7."""
    return exported(0.7)
