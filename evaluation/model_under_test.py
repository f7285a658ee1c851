"""The model under test, by name or from a run, and its region classification."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from densecli.core.device import pick_device
from densecli.core.distributed import Distributed
from densecli.evaluation.classify import classify
from densecli.evaluation.conditions import Conditions
from densecli.evaluation.config import ClassifyConfig
from densecli.evaluation.panoptic import PanopticDataset
from densecli.evaluation.region_counts import Classification
from densecli.models.affinity import TokenMap, token_map
from densecli.models.categories import load_categories
from densecli.models.checkpoints import WeightsInfo, load_model
from densecli.models.dense import DenseCLIP
from densecli.models.model_card import read_card, run_export
from densecli.models.prompts import find_templates
from densecli.models.student import Student, load_student
from densecli.models.text import category_embeddings
from densecli.models.vfms import architecture_of
from densecli.shards.config import DeviceSettings


@dataclass(frozen=True, kw_only=True)
class ModelUnderTest:
    """The model that is measured: one by name, or the student of a run.

    Attributes:
        model: Name of the architecture.
        weights: Path or random:SEED; None finds the file by the model's name.
        origin: The initial weights of a trained student; None for a model that no run has trained.
        random_weights: Whether a trained student, or one of its teachers, began with random weights.
        settings: Canvas and mode in which it is read out where nothing else is said.
    """

    model: str
    weights: str | None = None
    origin: str | None = None
    random_weights: bool = False
    settings: dict[str, Any] | None = None

    @classmethod
    def named(cls, model: str, weights: str | None = None) -> "ModelUnderTest":
        """A model by name, as the card beside its weights says, else on the model's own canvas.

        Args:
            model: Name of a CLIP or a VFM.
            weights: See `ModelUnderTest.weights`.
        """
        arch = architecture_of(model)
        card = read_card(weights) if weights and Path(weights).is_file() else None
        settings = {"canvas": (card or {}).get("image_size", arch.canvas)}
        if mode := (card or {}).get("mode"):
            settings["mode"] = mode
        return cls(model=model, weights=weights, settings=settings)

    @classmethod
    def of_run(cls, run: str) -> "ModelUnderTest":
        """The student that a run exported, on the canvas and in the mode of its training."""
        weights, card = run_export(run)
        return cls(
            model=card["student"],
            weights=str(weights),
            origin=card["initial_weights"]["source"],
            random_weights=card["random_weights"],
            settings={"canvas": card["image_size"], "mode": card["mode"]},
        )

    @classmethod
    def before_run(cls, run: str, weights: str | None = None) -> "ModelUnderTest":
        """The student of a run before training, read out as in `of_run`.

        Args:
            run: Folder of the run.
            weights: Path of the initial weights, if the file has moved.
        """
        after = cls.of_run(run)
        return cls(model=after.model, weights=weights or after.origin, settings=after.settings)

    @property
    def title(self) -> str:
        """The model's name in tables."""
        return f"{self.model} (trained)" if self.origin else self.model

    def load(self, device: torch.device) -> tuple[DenseCLIP, WeightsInfo]:
        """Loads the CLIP. Returns it with the source of its weights; see `describe`."""
        model, info = load_model(self.model, self.weights, device)
        return model, self.describe(info)

    def load_student(self, device: torch.device) -> tuple[Student, WeightsInfo]:
        """Loads the CLIP or VFM. Returns it with the source of its weights; see `describe`."""
        model, info = load_student(self.model, self.weights, device)
        return model, self.describe(info)

    def token_map(self, mode: str, device: torch.device) -> TokenMap:
        """The dense map of the CLIP or VFM, for pictures of its affinities."""
        return token_map(self.load_student(device)[0], mode)

    def describe(self, info: WeightsInfo) -> WeightsInfo:
        """Adds to information on loaded weights a trained student's origin and what the model card says."""
        card = {} if info.random else read_card(info.source) or {}
        return replace(
            info,
            source=f"{info.source} from {self.origin}" if self.origin else info.source,
            random=info.random or self.random_weights or bool(card.get("random_weights")),
        )


def evaluate_regions(
    under_test: ModelUnderTest,
    *,
    data: str,
    split: str,
    categories: str,
    limit: int | None = None,
    text_embeddings_file: str | None = None,
    templates: str | None = None,
    device: str = DeviceSettings.device,
    config: ClassifyConfig,
    processes: Distributed | None = None,
) -> Classification:
    """Measures region classification; see `classify`.

    Args:
        under_test: The model under test.
        data: Folder of a data set in the COCO or ADE20K panoptic layout.
        split: Split of the data set.
        categories: Name or file of the category set.
        limit: Number of photos, by default all.
        text_embeddings_file: A .npy with one row for each category, in place of the model's text tower.
        templates: Prompt templates, see `find_templates`; None for the model's.
        device: Used if no `processes` are given.
        config: Canvas, mode and box limits.
        processes: The processes that share the photos.
    """
    processes = processes or Distributed(device=pick_device(device))
    known = load_categories(categories)
    dataset = PanopticDataset(data, split, known, limit, crowds=config.crowds)
    model, info = under_test.load(processes.device)
    chosen = find_templates(templates) if templates else None
    text = category_embeddings(model, known.names, file=text_embeddings_file, templates=chosen)
    found = classify(model, dataset, text, info.source, config, processes, random_weights=info.random)
    measured = Conditions(
        data=f"{data}, {split}",
        photos=len(dataset),
        categories=f"{known.name} ({len(known.names)})",
        crowds=f"{dataset.crowd_segments} {'among' if config.crowds else 'left out of'} the segments",
        prompts=text_embeddings_file or templates or model.arch.templates,
        canvas=config.canvas,
        mode=config.mode,
        weights=info.source,
    )
    return replace(found, measured=measured)
