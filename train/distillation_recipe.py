"""The recipe of distillation: a student and the weighted sum of its loss terms on stored targets."""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densecli.core.distributed import whole
from densecli.core.errors import DenseCLIError
from densecli.models.dense import DenseCLIP
from densecli.models.prompts import TEMPLATES, find_templates
from densecli.models.student import DenseVFM, Student
from densecli.models.text import category_embeddings
from densecli.models.transformer import DenseTransformer
from densecli.shards.parted_column import PartedColumn
from densecli.shards.store import Column, Store
from densecli.train.averaging import average, export_student
from densecli.train.batch import Batch
from densecli.train.config import TrainConfig
from densecli.train.heads import StudentWithHeads
from densecli.train.initial_student import initial_student
from densecli.train.method_notes import method_notes
from densecli.train.optimizer import freeze
from densecli.train.pictures import AffinityPictures
from densecli.train.recipe import Recipe
from densecli.train.static_batch import filled, without_filling
from densecli.train.terms import TERMS, StudentOutput, Term, TermSetup, options_by_term, term_and_kind
from densecli.train.terms.base import term_options, weighted_sum

# Fields of the resolved configuration that are copied into the model card.
CARD = (
    "student",
    "canvas",
    "image_size",
    "mode",
    "store",
    "columns",
    "losses",
    "total_steps",
    "init",
    "initial_weights",
    "random_weights",
)


class Outputs(NamedTuple):
    """The output of a student and of its terms' heads.

    Attributes:
        dense: The dense map (B, C, h, w).
        context: The context features by name.
        heads: The maps of the terms' heads by loss.
        image: (B, C) image embeddings, if a term reads them.
    """

    dense: Tensor
    context: dict[str, Tensor]
    heads: dict[str, Tensor]
    image: Tensor | None


class Distillation(Recipe[Outputs]):
    """A student and the weighted sum of its loss terms.

    Attributes:
        student: The student.
        model: The student, with the heads of the terms if they have any.
        terms: Loss terms by loss, TERM or TERM:KIND.
        loss_weights: Weights by loss.
        mode: The student's read-out mode.
        reads_image: Whether a term reads the student's image embedding.
        initial_mode: That of the run that the student starts from; None if it starts from no run.
        stride: Pixels of its input along each side of a token.
        initial: State dict of the student's network before the first step.
    """

    model: Student | StudentWithHeads

    def __init__(
        self,
        config: TrainConfig,
        store: Store,
        regions: Column,
        targets: Mapping[str, Column],
        device: torch.device,
    ) -> None:
        """Loads the student and builds its loss terms.

        Args:
            config: The configuration.
            store: The store.
            regions: Column of the region plan.
            targets: Target columns by kind.
            device: The device of the student.

        Raises:
            DenseCLIError: Weights are missing, or a loss term does not fit the student.
        """
        self.config, self.store, self.regions, self.targets = config, store, regions, dict(targets)
        # The encoder stays in eval mode: no dropout, and batch statistics do not drift.
        model, self.initial_weights, self.initial_mode = initial_student(config, device)
        preset_mode = "mode" in config.from_preset
        self.mode = "value" if preset_mode and not model.has_mode(config.mode) else config.mode
        model.check_mode(self.mode)
        self.loss_weights = dict(config.losses or config.method_preset.losses)
        frozen = model.frozen_names(self.mode)
        freeze(model, frozen | model.names_outside(config.blocks) if config.blocks else frozen)
        convolutional = isinstance(model, DenseCLIP) and not isinstance(model, DenseTransformer)
        if device.type == "cuda" and convolutional:
            model.to(memory_format=torch.channels_last)
        recompute = config.activation_checkpointing
        model.activation_checkpointing = config.fsdp if recompute is None else recompute
        self.student = model
        self.initial = {
            # On the CPU: a GPU needs its memory for the training.
            name: tensor.to("cpu", copy=True)
            for name, tensor in model.network.state_dict().items()
        }
        self.reads_image = any(TERMS[term_and_kind(loss)[0]].reads_image for loss in self.loss_weights)
        if self.reads_image and not isinstance(model, DenseCLIP):
            raise DenseCLIError(
                f"{config.student} has no image embedding in the space of a CLIP.",
                hint="Leave the loss image_cosine out.",
            )
        self.terms = self._terms()
        heads = {loss: term.head for loss, term in self.terms.items() if term.head is not None}
        self.model = StudentWithHeads(model, heads).to(device) if heads else model
        self.unread = self._unread()
        freeze(self.model, self.unread)
        self.units = self._units() if config.fsdp else ()
        self._pictures: AffinityPictures | None = None

    def _terms(self) -> dict[str, Term]:
        """Builds the loss terms."""
        reads = {loss: term_and_kind(loss) for loss in self.loss_weights}
        options = options_by_term(self.config.loss_options, [term for term, _ in reads.values()])
        return {
            loss: TERMS[term].build(
                TermSetup(
                    kind=kind,
                    column=self.targets[kind],
                    config=self.config,
                    text=self._text,
                    width=self.student.embed_dim,
                    options=term_options(term, TERMS[term], options[term]),
                )
            )
            for loss, (term, kind) in reads.items()
        }

    def _units(self) -> list[nn.Module]:
        """The blocks that run by their own forward pass; and the text tower, which does not run."""
        student = self.student
        if not isinstance(student, DenseTransformer | DenseVFM):
            raise DenseCLIError(
                f"{self.config.student} has no transformer blocks to divide among processes.",
                hint="Leave --fsdp out.",
            )
        if isinstance(student, DenseVFM):
            return list(student.blocks())
        parts = (getattr(student.clip, name, None) for name in ("text", "transformer", "token_embedding"))
        # The last block is read out in another way.
        return [*student.blocks()[:-1], *(part for part in parts if isinstance(part, nn.Module))]

    def _unread(self) -> list[str]:
        """Names of the parameters that would be trained, but that no loss depends on."""
        parameters = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        # The smallest photo will do: what reaches the loss does not depend on its size.
        side = self.student.input_side(2 * self.student.patch_size)
        pixels = torch.zeros(1, 3, side, side, device=next(self.model.parameters()).device)
        dense, context, heads, image = self._outputs(self.model, pixels)
        student = StudentOutput(dense, dense.new_empty(0), context, image=image)
        maps = {
            id(each): each
            for loss, term in self.terms.items()
            for each in term.outputs_read(student._replace(head=heads.get(loss)))
        }
        self.stride = side // dense.shape[-1]
        total = torch.stack([each.float().sum() for each in maps.values()]).sum()
        gradients = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
        return [name for name, gradient in zip(parameters, gradients, strict=True) if gradient is None]

    def _text(self, column: Column) -> Tensor:
        """(D, C) the student's text embeddings of the categories of a labels column."""
        if not isinstance(self.student, DenseCLIP):
            raise DenseCLIError(
                f"{self.config.student} has no text tower and cannot learn from the labels of {column.name}.",
                hint="Train it on tokens alone: --method r-sc-v, or --loss spatial:gram=1.",
            )
        names = column.spec["target"]["categories"]
        templates = find_templates(self.config.templates) if self.config.templates else None
        return category_embeddings(self.student, names, file=self.config.text_embeddings, templates=templates)

    @property
    def random_weights(self) -> bool:
        """Whether the student or a teacher began with random weights, so that results mean nothing."""
        teachers = (column.random_weights for column in self.targets.values())
        return self.initial_weights.random or any(teachers)

    @property
    def tokens(self) -> tuple[int, int]:
        """h and w of the student's token grid."""
        side = self.student.input_side(self.config.image_size or self.store.canvas) // self.stride
        return side, side

    def resolved(self) -> dict[str, Any]:
        """See `Recipe.resolved`."""
        columns = {"images": self.store.images, "regions": self.regions, **self.targets}
        return {
            "canvas": self.store.canvas,
            "initial_weights": asdict(self.initial_weights),
            "random_weights": self.random_weights,
            "image_size": self.config.image_size or self.store.canvas,
            "losses": self.loss_weights,
            "preset": [*(() if self.config.losses else ("losses",)), *self.config.from_preset],
            "mode": self.mode,
            "teachers": list(self.config.teachers),
            **({"unread": self.unread} if self.unread else {}),
            "columns": {kind: column.key for kind, column in columns.items()},
            **_part_columns(columns.values()),
            **({"files": files} if (files := self._files()) else {}),
        }

    def _files(self) -> dict[str, str]:
        """sha256 of the files that settings name by path, so that a run notices another content."""
        files = {"text_embeddings": self.config.text_embeddings}
        if self.config.templates not in TEMPLATES:
            files["templates"] = self.config.templates
        found = {
            name: hashlib.sha256(Path(file).read_bytes()).hexdigest()
            for name, file in files.items()
            if file and Path(file).is_file()
        }
        for loss, term in self.terms.items():
            found |= {f"{term_and_kind(loss)[0]}.{option}": digest for option, digest in term.files.items()}
        return found

    def notes(self, samples_per_step: int) -> list[str]:
        """See `Recipe.notes`."""
        notes = method_notes(self.config, self.store, self.regions, samples_per_step)
        notes += [note for term in self.terms.values() for note in term.notes]
        if self.config.fsdp:
            notes.append("Pictures are not drawn: with --fsdp no process has a whole student.")
        if self.unread:
            notes.append(
                f"No loss depends on these parameters, which stay as they are: {', '.join(self.unread)}."
            )
        if self.initial_mode not in (None, self.mode):
            notes.append(
                f"{self.config.init} read its student out as {self.initial_mode}, this training reads it as "
                f"{self.mode}; --mode {self.initial_mode} keeps it."
            )
        return notes

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """See `Recipe.counts`; the names are the losses."""
        return {loss: term.counts(batch) for loss, term in self.terms.items()}

    def learns_from(self, counts: dict[str, Tensor]) -> dict[str, Tensor]:
        """See `Recipe.learns_from`; the names are the losses."""
        return {loss: term.learns_from(counts[loss]) for loss, term in self.terms.items()}

    def nothing_to_learn(self, name: str, steps: int) -> DenseCLIError:
        """See `Recipe.nothing_to_learn`."""
        column = self.targets[term_and_kind(name)[1]]
        theta = self.terms[name].theta
        kept, lower = "", ""
        if theta is not None:
            kept = f" more probable than theta {theta:g}"
            lower = "Lower --theta if the teacher is unsure of all regions. "
        return DenseCLIError(
            f"The loss {name} had no region{kept} to learn from in the last {steps} steps; it reads the "
            f"column {column.full_name}, of the regions {self.regions.name}.",
            hint=f"{lower}If the photos have no regions, build again with --proposals of these photos.",
        )

    def forward(self, model: nn.Module, batch: Batch) -> Outputs:
        """See `Outputs`."""
        images = self.student.prepare(filled(batch.images, self.filled_to), side=self.config.image_size)
        return without_filling(self._outputs(model, images), len(batch.images))

    def _outputs(self, model: nn.Module, images: Tensor) -> Outputs:
        """(B, 3, H, W) normalised pixels -> what the model makes of them."""
        words = {"image": True} if self.reads_image else {}
        dense, context, *others = model(images, self.mode, context=True, **words)
        image = others.pop(0) if self.reads_image else None
        return Outputs(dense, context, others[0] if others else {}, image)

    def loss(
        self, outputs: Outputs, batch: Batch, counts: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of the terms; logs each term before its weight."""
        student = _student_output(outputs, batch)
        return weighted_sum(self.terms, self.loss_weights, student, batch, counts, outputs.heads)

    def measured(self) -> dict[str, bool]:
        """See `Recipe.measured`; the loss, each term, and how far the student agrees with its teachers."""
        agreements = {term.agreement: True for term in self.terms.values() if term.agreement}
        return {"loss": False, **dict.fromkeys(self.terms, False), **agreements}

    def agreement(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """See `Recipe.agreement`; terms that measure the same are added up."""
        student = _student_output(outputs, batch)
        found: dict[str, Tensor] = {}
        for loss, term in self.terms.items():
            if term.agreement:
                pair = term.agrees(student._replace(head=outputs.heads.get(loss)), batch)
                found[term.agreement] = found.get(term.agreement, 0) + pair.cpu().double()
        return found

    @contextmanager
    def exported(self) -> Iterator[None]:
        """See `Recipe.exported`; the student's weights are interpolated with its initial ones."""
        alpha, network = self.config.alpha, self.student.network
        if alpha == 1:
            yield
            return
        parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
        # On the CPU, as in an export: the very same weights.
        trained = {name: p.detach().to("cpu", copy=True) for name, p in parameters.items()}
        averaged = average(trained, {name: self.initial[name] for name in trained}, alpha)
        try:
            _fill(parameters, averaged)
            yield
        finally:
            _fill(parameters, trained)

    def checkpoint_activations(self, on: bool) -> None:
        """See `Recipe.checkpoint_activations`."""
        self.student.activation_checkpointing = on

    def saving_memory(self) -> list[str]:
        """See `Recipe.saving_memory`."""
        if self.student.activation_checkpointing:
            return ["a smaller --image-size, which changes the result"]
        return ["--activation-checkpointing, which is slower and changes nothing else"]

    def moved(self) -> float | None:
        """See `Recipe.moved`; of the student's own parameters that are not frozen."""
        change, norm = 0.0, 0.0
        for name, parameter in self.student.network.named_parameters():
            if parameter.requires_grad:
                before = self.initial[name].double()
                change += float((whole(parameter.detach()).cpu().double() - before).square().sum())
                norm += float(before.square().sum())
        return math.sqrt(change / norm) if norm else None

    def picture(self) -> np.ndarray:
        """Draws affinities on a few fixed photos, before the first step and now."""
        if self._pictures is None:
            self._pictures = AffinityPictures(self.student, self.mode, self.store, self.initial)
        return self._pictures.draw()

    def export(self, folder: str, resolved: dict[str, Any], **about: Any) -> str:
        """Writes the student, interpolated with its initial weights; see `export_student`."""
        card = {**{name: resolved[name] for name in CARD}, **about}
        return export_student(
            self.student.network, self.initial, alpha=self.config.alpha, folder=folder, card=card
        )


def _student_output(outputs: Outputs, batch: Batch) -> StudentOutput:
    """What the terms read, but for their heads."""
    dense = outputs.dense.float()
    return StudentOutput(
        dense,
        batch.pool(dense),
        outputs.context,
        image=None if outputs.image is None else F.normalize(outputs.image.float(), dim=1),
    )


def _fill(parameters: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> None:
    """Sets parameters in place: optimiser and compiled code hold these very tensors."""
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(values[name])


def _part_columns(columns: Iterable[Column]) -> dict[str, list[str]]:
    """The keys of the columns that parted ones consist of, for gc; nothing of others."""
    parted = [column for column in columns if isinstance(column, PartedColumn)]
    keys = [part.key for column in parted for part in column.parts]
    return {"part_columns": keys} if parted else {}
