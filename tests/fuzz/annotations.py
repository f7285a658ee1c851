"""Panoptic annotations and proposed boxes: numbers from what is there, or a sentence."""

import io
import json
import random
from copy import deepcopy
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from densecli.evaluation.instances import read_instances
from densecli.evaluation.panoptic import PanopticDataset
from densecli.evaluation.semantic import category_map
from densecli.evaluation.zeroshot import DominantThings
from densecli.models.categories import Categories
from densecli.shards.proposals import compare_names, read_proposals
from densecli.shards.regions import ProposalPlan

from .frame import Target
from .inputs import NUMBERS, TEXTS, mutated, mutated_value, odd_text

SET = Categories(name="two", names=("bus", "sky"), thing=(True, False))
IDS = (1007, 70000)
PANOPTIC = {
    "images": [{"id": i, "file_name": f"{i}.jpg", "width": 32, "height": 24} for i in range(2)],
    "annotations": [
        {
            "image_id": i,
            "file_name": f"{i}.png",
            "segments_info": [
                {"id": IDS[0], "category_id": 2, "iscrowd": 0, "bbox": [0, 0, 32, 12], "area": 384},
                {"id": IDS[1], "category_id": 1, "iscrowd": 0, "bbox": [8, 12, 16, 12], "area": 192},
            ],
        }
        for i in range(2)
    ],
    "categories": [{"id": 1, "name": "bus", "isthing": 1}, {"id": 2, "name": "sky", "isthing": 0}],
}
BOXES = {
    "images": [{"id": i, "file_name": f"{i}.jpg"} for i in range(3)],
    "annotations": [{"id": i, "image_id": i, "bbox": [5, 5, 60, 40], "score": 0.5} for i in range(3)],
}


@cache
def picture(kind: str, mode: str, size: tuple[int, int] = (32, 24)) -> bytes:
    """The PNG of the two segments, or a picture of another mode or size."""
    ids = np.zeros(size[::-1], np.int64)
    ids[:12], ids[12:, 8:24] = IDS
    rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)
    image = Image.fromarray(rgb[..., ::-1] if mode == "BGR" else rgb)
    if mode == "I;16":
        image = Image.fromarray((ids % 65536).astype(np.uint16))
    elif mode != "BGR":
        image = image.convert(mode)
    data = io.BytesIO()
    image.save(data, kind)
    return data.getvalue()


def document(rng: random.Random, value: dict) -> bytes:
    """The value as JSON, with other values, damaged, or in another encoding."""
    text = json.dumps(mutated_value(rng, value, rng.choice((0, 0, 0, 1, 1, 2, 3))))
    if rng.random() < 0.1:
        text = text.replace("5", rng.choice(("NaN", "1e999", "-Infinity", "1" * 5000, "[" * 3000)), 1)
    data = text.encode(rng.choice((*["utf-8"] * 8, "utf-8-sig", "utf-16")), "surrogatepass")
    return mutated(rng, data) if rng.random() < 0.2 else data


def try_panoptic(rng: random.Random, folder: Path) -> None:
    """A panoptic data set in which something is odd."""
    pngs = folder / "annotations" / "panoptic_val"
    for each in (pngs, folder / "val"):
        each.mkdir(parents=True)
    for i in range(2):
        mode = rng.choice(("RGB",) * 30 + ("RGBA", "L", "P", "I;16", "BGR", "1", "CMYK"))
        kind = "TIFF" if mode == "CMYK" else "PNG"
        png = picture(kind, mode, rng.choice(((32, 24),) * 30 + ((24, 32), (1, 1))))
        (pngs / f"{i}.png").write_bytes(mutated(rng, png) if rng.random() < 0.03 else png)
        if rng.random() < 0.98:
            (folder / "val" / f"{i}.jpg").write_bytes(picture("JPEG", "L"))
    (folder / "annotations" / "panoptic_val.json").write_bytes(document(rng, PANOPTIC))
    dataset = PanopticDataset(folder, "val", SET, limit=rng.choice((None, 1)))
    things = DominantThings(dataset)
    for i in range(len(dataset)):
        found = dataset[i]
        assert things[i][1] in (-1, 0)
        assert category_map(found).shape == found.photo.size[::-1]
        for segment in found.segments:
            assert segment.area == segment.mask.sum() > 0
            assert np.isfinite(segment.box).all() and segment.thing == SET.thing[segment.category]
    assert dataset.absent >= 0


def try_proposals(rng: random.Random, folder: Path) -> None:
    """A file of boxes, compared with names, and the regions of its photos."""
    value = deepcopy(BOXES)
    if rng.random() < 0.3:
        for image in value["images"]:
            image["file_name"] = rng.choice(
                (*TEXTS, odd_text(rng), f"http://a/{image['file_name']}", "0.jpg")
            )
    if rng.random() < 0.3:
        value["annotations"][0]["bbox"] = rng.choices((*NUMBERS, 0.5, 0.25), k=rng.choice((4, 4, 3)))
    path = folder / "boxes.json"
    path.write_bytes(document(rng, value))
    found = read_proposals(str(path))
    refs = rng.choice((["0.jpg", "1.jpg"], ["train2017/1.jpg", "0.png", odd_text(rng)]))
    facts = compare_names(found, refs, lambda _: "")
    assert 0 <= facts["matched"] <= facts["photos"]
    plan = ProposalPlan(str(path))
    for name in (*found.boxes, "no such photo"):
        about = {"source": name, "width": 100, "height": 80, "valid": [0, 0, 1, 0.8]}
        regions = plan.of_photo(about)
        assert regions.boxes.shape == (regions.offsets[-1], 4)
        assert np.isfinite(regions.boxes).all() and (regions.boxes >= 0).all() and (regions.boxes <= 1).all()
        assert (regions.boxes[:, 2:] > regions.boxes[:, :2]).all()


def try_instances(rng: random.Random, folder: Path) -> None:
    """Annotated boxes in which something is odd."""
    value = deepcopy(BOXES)
    value["categories"] = [{"id": 1, "name": "bus"}, {"id": 2, "name": odd_text(rng) or "sky"}]
    for annotation in value["annotations"]:
        annotation |= {"category_id": rng.choice((1, 2)), "iscrowd": rng.choice((0, 0, 1, "0", None))}
    (folder / "annotations").mkdir()
    (folder / "annotations" / "instances_val.json").write_bytes(document(rng, value))
    for photo in read_instances(folder, "val").photos:
        assert photo.path.is_relative_to(folder / "val") and ".." not in photo.path.parts
        assert len(photo.boxes) == len(photo.categories) == len(photo.crowds)
        assert np.isfinite(photo.boxes).all() and (photo.boxes[:, 2:] > photo.boxes[:, :2]).all()


TARGETS = (
    Target(name="instances", try_one=try_instances, quick=300),
    Target(name="panoptic", try_one=try_panoptic, quick=150),
    Target(name="proposals", try_one=try_proposals, quick=300),
)
