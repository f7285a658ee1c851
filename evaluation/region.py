"""Region classification of a named model or of a run's student: what has to be loaded, and from where."""

from dataclasses import dataclass
from typing import Any

from evaluation.classify import Classification, ClassifyConfig, classify
from evaluation.panoptic import PanopticDataset
from models.card import run_export
from models.categories import load_categories
from models.checkpoints import load_model
from models.device import pick_device
from models.text import category_embeddings


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The model under test.

    origin: where a trained student's weights began, None for a model as it comes.
    """

    model: str
    weights: str | None = None
    origin: str | None = None
    settings: dict[str, Any] | None = None

    @classmethod
    def of_run(cls, run: str) -> "Subject":
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

    @property
    def title(self) -> str:
        return f"{self.model} (trained)" if self.origin else self.model


def evaluate_regions(
    subject: Subject,
    *,
    data: str,
    split: str,
    categories: str,
    limit: int | None = None,
    text_embeddings_file: str | None = None,
    device: str = "auto",
    config: ClassifyConfig,
) -> Classification:
    """Region classification of a subject on a split in the COCO or ADE20K panoptic layout; see `classify`."""
    known = load_categories(categories)
    dataset = PanopticDataset(data, split, known, limit)
    model, info = load_model(subject.model, subject.weights, pick_device(device))
    text = category_embeddings(model, known.names, file=text_embeddings_file)
    source = f"{info.source} from {subject.origin}" if subject.origin else info.source
    return classify(model, dataset, text, source, config)
