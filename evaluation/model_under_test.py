"""Region classification of a named model or of a run's student: what has to be loaded, and from where."""

from dataclasses import dataclass
from typing import Any

import torch

from densecli.core.device import pick_device
from densecli.core.distributed import Distributed
from densecli.evaluation.classify import Classification, ClassifyConfig, classify
from densecli.evaluation.panoptic import PanopticDataset
from densecli.models.affinity import TokenMap, token_map
from densecli.models.categories import load_categories
from densecli.models.checkpoints import load_model
from densecli.models.dense import DenseCLIP
from densecli.models.model_card import run_export
from densecli.models.student import load_student
from densecli.models.text import category_embeddings


@dataclass(frozen=True, kw_only=True)
class ModelUnderTest:
    """The model under test.

    origin: where a trained student's weights began, None for a model as it comes.
    """

    model: str
    weights: str | None = None
    origin: str | None = None
    settings: dict[str, Any] | None = None

    @classmethod
    def of_run(cls, run: str) -> "ModelUnderTest":
        """The exported student of a run; it is read out at the size and in the mode it was trained with."""
        weights, about = run_export(run)
        origin = about["initial_weights"]["source"]
        if about["random_weights"] and not origin.startswith("random:"):
            origin += " and a teacher from random: weights"
        return cls(
            model=about["student"],
            weights=str(weights),
            origin=origin,
            settings={"canvas": about["image_size"], "mode": about["mode"]},
        )

    @classmethod
    def before_run(cls, run: str, weights: str | None = None) -> "ModelUnderTest":
        """What the student of a run was before, read out as `of_run`; weights: where they are now."""
        after = cls.of_run(run)
        _, about = run_export(run)
        source = weights or about["initial_weights"]["source"]
        return cls(model=after.model, weights=source, settings=after.settings)

    @property
    def title(self) -> str:
        return f"{self.model} (trained)" if self.origin else self.model

    def load(self, device: torch.device) -> tuple[DenseCLIP, str]:
        """The model and where its weights are from, down to where a trained student's began."""
        model, info = load_model(self.model, self.weights, device)
        return model, self.began(info.source)

    def token_map(self, mode: str, device: torch.device) -> TokenMap:
        """The dense map of the model, a CLIP or a VFM, for pictures of its affinities."""
        model, _ = load_student(self.model, self.weights, device)
        return token_map(model, mode)

    def began(self, source: str) -> str:
        """Where weights are from, down to where a trained student's began."""
        return f"{source} from {self.origin}" if self.origin else source


def evaluate_regions(
    subject: ModelUnderTest,
    *,
    data: str,
    split: str,
    categories: str,
    limit: int | None = None,
    text_embeddings_file: str | None = None,
    device: str = "auto",
    config: ClassifyConfig,
    ranks: Distributed | None = None,
) -> Classification:
    """Region classification of a subject on a split in the COCO or ADE20K panoptic layout; see `classify`.

    device: of the one process that there is without `ranks`.
    """
    ranks = ranks or Distributed(device=pick_device(device))
    known = load_categories(categories)
    dataset = PanopticDataset(data, split, known, limit)
    model, source = subject.load(ranks.device)
    text = category_embeddings(model, known.names, file=text_embeddings_file)
    return classify(model, dataset, text, source, config, ranks)
