"""A live step: the losses of the papers, of teachers that are asked in the step.

Written from the papers, out of plain models and torch: it shares no code with the codecs, the readers and the
loss terms.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.ops import roi_align

from densecli.models.categories import load_categories
from densecli.models.checkpoints import load_model
from densecli.models.dense import DenseCLIP
from densecli.models.refiner_checkpoints import load_refiner
from densecli.models.text import text_embeddings
from densecli.models.vfm import VFM
from densecli.models.vfm_checkpoints import load_vfm
from densecli.pipeline.config import BuildConfig
from densecli.scenes.world import render
from densecli.train.batch import Batch

TAU, THETA, SPATIAL_TAU, SIDE = 0.01, 0.3, 0.2, 5


@dataclass(frozen=True, kw_only=True, eq=False)
class World:
    """Networks and photos. weights, texts (files of text embeddings): by model, if not its own."""

    student: str
    pvlm: str
    vfm: str
    categories: str
    weights: dict[str, str]
    texts: dict[str, str]
    data: BuildConfig

    def model(self, name: str) -> DenseCLIP:
        return network(name, self.weights.get(name))


@cache
def network(name: str, weights: str | None) -> DenseCLIP:
    return load_model(name, weights)[0]


@cache
def vision_network(name: str, weights: str) -> VFM:
    return load_vfm(name, weights)


@dataclass(frozen=True, kw_only=True)
class Teachers:
    """What the live side asks, in the step."""

    world: World

    @torch.no_grad()
    def labels(self, batch: Batch) -> Tensor:
        """(R, D) softmax(cos / tau) of the P-VLM's regions and its texts."""
        model = self.world.model(self.world.pvlm)
        regions = pooled(model.dense(model.prepare(batch.images)), batch)
        return torch.softmax(regions @ self.texts(self.world.pvlm).T / TAU, dim=1)

    @torch.no_grad()
    def texts(self, name: str) -> Tensor:
        """(D, C) unit text embeddings of the categories, from a file or the model's own text tower."""
        if name in self.world.texts:
            return F.normalize(torch.from_numpy(np.load(self.world.texts[name])).float(), dim=1)
        return text_embeddings(self.world.model(name), load_categories(self.world.categories).names)

    @torch.no_grad()
    def crop_labels(self, batch: Batch) -> Tensor:
        """(R, D) softmax(cos / tau) of the P-VLM's crops and its texts."""
        crops = F.normalize(self.crops(batch, self.world.pvlm), dim=1)
        return torch.softmax(crops @ self.texts(self.world.pvlm).T / TAU, dim=1)

    @torch.no_grad()
    def crops(self, batch: Batch, name: str) -> Tensor:
        """(R, C) [CLS] of each box's own pixels, aspect kept, centred on black; of a mask, 1.5 times it."""
        model = self.world.model(name)
        side, crops = model.arch.native_side, []
        canvas = batch.images.shape[-1]
        for box, image in zip(batch.boxes.tolist(), batch.batch_index.tolist(), strict=True):
            if batch.masks is not None:
                box = around(box)
            left, top, right, bottom = (round(x * canvas) for x in box)
            crop = Image.fromarray(batch.images[image].permute(1, 2, 0).numpy()).crop(
                (left, top, max(right, left + 1), max(bottom, top + 1))
            )
            scale = side / max(crop.size)
            width, height = (max(1, round(length * scale)) for length in crop.size)
            square = Image.new("RGB", (side, side))
            square.paste(
                crop.resize((width, height), Image.BICUBIC), ((side - width) // 2, (side - height) // 2)
            )
            crops.append(torch.from_numpy(np.array(square)).permute(2, 0, 1))
        return model.encode_image(model.normalize(torch.stack(crops)))

    @torch.no_grad()
    def self(self, batch: Batch) -> Tensor:
        """(B, C, h, w) unit tokens of the student as it came."""
        model = self.world.model(self.world.student)
        return model.dense(model.prepare(batch.images))

    @torch.no_grad()
    def refined(self, batch: Batch) -> Tensor:
        """(R, SIDE * SIDE, C) unit tokens of the boxes, by the student's Refiner."""
        student = self.world.student
        model = load_refiner(
            student, self.world.weights.get(student), self.world.weights[f"refiner-{student}"], "cpu"
        )
        entry = model.entry(model.encoder.prepare(batch.images))
        return model.refine(entry, batch.boxes, batch.batch_index, SIDE)

    @torch.no_grad()
    def gram(self, batch: Batch) -> Tensor:
        """(B, C, h, w) unit tokens of the VFM, on the student's grid."""
        model = vision_network(self.world.vfm, self.world.weights[self.world.vfm])
        return model(model.prepare(batch.images, self.world.model(self.world.student).patch_size))


def around(box: list[float]) -> list[float]:
    """A box, xyxy, 1.5 times as large around its centre, within the canvas, which the photo fills."""
    reach = [0.25 * (box[2] - box[0]), 0.25 * (box[3] - box[1])]
    grown = [box[0] - reach[0], box[1] - reach[1], box[2] + reach[0], box[3] + reach[1]]
    return [min(1.0, max(0.0, x)) for x in grown]


def over_masks(dense: Tensor, batch: Batch) -> Tensor:
    """(R, C) unit regions: the segments of the scenes, drawn again, largest first, pooled token by token."""
    canvas, tokens = batch.images.shape[-1], dense.shape[-1]
    cell, regions = canvas // tokens, []
    for row, key in enumerate(batch.keys):
        split, number = key.split("-")
        panoptic = render(0, split, int(number)).panoptic
        # The pixel of the scene under the middle of each pixel of the canvas.
        under = [(2 * i + 1) * len(panoptic) // (2 * canvas) for i in range(canvas)]
        drawn = torch.from_numpy(panoptic[under][:, under])
        masks = [drawn == segment for segment in drawn.unique()]
        for mask in sorted(masks, key=lambda mask: -int(mask.sum())):
            if mask.sum() < canvas**2 / 64**2:
                continue
            total, weight = torch.zeros(dense.shape[1]), 0.0
            for i in range(tokens):
                for j in range(tokens):
                    share = mask[i * cell : (i + 1) * cell, j * cell : (j + 1) * cell].float().mean()
                    total, weight = total + share * dense[row, :, i, j].float(), weight + share
            regions.append(total / weight)
    assert len(regions) == len(batch.boxes)
    return F.normalize(torch.stack(regions), dim=1)


def pooled(dense: Tensor, batch: Batch, side: int = 1) -> Tensor:
    """(R, C) unit regions, or (R, side * side, C) tokens of them."""
    if batch.masks is not None and side == 1:
        return over_masks(dense, batch)
    height, width = dense.shape[-2:]
    scale = torch.tensor([width, height, width, height])
    rois = torch.cat([batch.batch_index[:, None].float(), batch.boxes * scale], dim=1)
    tokens = roi_align(dense.float(), rois, side, aligned=True).flatten(2).transpose(1, 2)
    return F.normalize(tokens[:, 0], dim=1) if side == 1 else tokens


def kl(student: Tensor, teacher: Tensor, thing: Tensor) -> Tensor:
    """DenseVLM, eqs 3-5: one region after the other."""
    losses = []
    for logits, p in zip(student / TAU, teacher, strict=True):
        if p.max() <= THETA:
            continue
        among = thing if thing[p.argmax()] else torch.ones_like(thing)
        p = p[among] / p[among].sum()
        losses.append((torch.xlogy(p, p) - p * torch.log_softmax(logits[among], dim=0)).sum())
    assert losses
    return torch.stack(losses).mean()


def pseudo_label(student: Tensor, teacher: Tensor) -> Tensor:
    sure = teacher.amax(dim=1) > THETA
    assert sure.any()
    return F.cross_entropy(student[sure] / TAU, teacher[sure].argmax(dim=1))


def correlations(tokens: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, N, N) cosines of tokens."""
    x = F.normalize(tokens.float().flatten(2), dim=1)
    return x.transpose(1, 2) @ x


def distance(student: Tensor, teacher: Tensor) -> Tensor:
    """DeCLIP: the mean norm of the rows of R_vfm - R_student."""
    return (correlations(teacher) - correlations(student)).norm(dim=2).mean()


def scd(student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
    """R-SC: cross entropy of correlations within a box, mean over rows and boxes."""
    theirs, ours = (
        x @ x.transpose(1, 2) / SPATIAL_TAU
        for x in (teacher, pooled(F.normalize(student, dim=1), batch, SIDE))
    )
    return -(theirs.softmax(dim=2) * ours.log_softmax(dim=2)).sum(dim=2).mean()


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A live step: what the student sees of a batch, and its terms, each of which asks its teacher.

    projection: (C_pvlm, C_student) the weights of a learnt projection to the P-VLM's embeddings.
    """

    batch: Batch
    teachers: Teachers
    dense: Tensor
    q: Tensor | None
    projection: Tensor | None = None

    @property
    def regions(self) -> Tensor:
        return pooled(self.dense, self.batch)

    @property
    def cosines(self) -> Tensor:
        return self.regions @ self.teachers.texts(self.teachers.world.student).T

    def region_kl(self) -> Tensor:
        thing = torch.from_numpy(load_categories(self.teachers.world.categories).thing_flags())
        return kl(self.cosines, self.teachers.labels(self.batch), thing)

    def region_text(self) -> Tensor:
        return pseudo_label(self.cosines, self.teachers.labels(self.batch))

    def region_cosine(self) -> Tensor:
        crops = self.teachers.crops(self.batch, self.teachers.world.student)
        return 1 - F.cosine_similarity(self.regions, crops).mean()

    def feature_distillation(self) -> Tensor:
        """DenseVLM, table 1, row 2."""
        crops = self.teachers.crops(self.batch, self.teachers.world.pvlm)
        return 1 - F.cosine_similarity(self.regions @ self.projection.T, crops).mean()

    def logits_distillation(self) -> Tensor:
        """DenseVLM, table 1, row 3."""
        p = self.teachers.crop_labels(self.batch)
        log_q = torch.log_softmax(self.cosines / TAU, dim=1)
        return (torch.xlogy(p, p) - p * log_q).sum(dim=1).mean()

    def context(self) -> Tensor:
        return distance(self.q, self.teachers.gram(self.batch))

    def spatial(self) -> Tensor:
        return scd(self.dense, pooled(self.teachers.self(self.batch), self.batch, SIDE), self.batch)

    def spatial_of_boxes(self) -> Tensor:
        return scd(self.dense, self.teachers.refined(self.batch), self.batch)

    def spatial_of_gram(self) -> Tensor:
        return scd(self.dense, pooled(self.teachers.gram(self.batch), self.batch, SIDE), self.batch)


PAPER = "qq+scale"
Live = tuple[str, Callable[[Seen], Tensor]]
LIVE: dict[str, Live] = {
    "densevlm": ("value", Seen.region_kl),
    "feature-kd": ("value", Seen.feature_distillation),
    "logit-kd": ("value", Seen.logits_distillation),
    "regiontext": ("value", Seen.region_text),
    "clipself": ("value", Seen.region_cosine),
    "declip": (PAPER, lambda seen: seen.region_cosine() + 0.25 * seen.context()),
    "declip-released": ("qq", lambda seen: seen.region_cosine() + 0.1 * seen.context()),
    "sc-clipself": ("value", lambda seen: seen.region_cosine() + 0.2 * seen.spatial()),
    "r-sc-clipself": ("value", lambda seen: seen.region_cosine() + 0.2 * seen.spatial_of_boxes()),
    "r-sc-regiontext": ("value", lambda seen: seen.region_text() + 0.2 * seen.spatial_of_boxes()),
    "r-sc-v": ("value", Seen.spatial_of_boxes),
    "sc-regiontext": ("value", lambda seen: seen.region_text() + 0.2 * seen.spatial()),
}
"""How the student is read out, and the loss."""
