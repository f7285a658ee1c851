"""The training loop: optimiser steps, metrics and checkpoints; a killed run resumes exactly."""

import json
import math
import signal
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import asdict
from typing import Any, Generic, TypeVar

import torch

from densecli.core.compilation import compiler_lacks
from densecli.core.device import lacks_memory, pick_device, set_precision
from densecli.core.distributed import Distributed
from densecli.core.errors import DenseCLIError
from densecli.core.prefetch import prefetch
from densecli.core.progress import say
from densecli.core.signals import Stop, heeding_signals
from densecli.train.batch import Batch
from densecli.train.best import export_best
from densecli.train.checkpoints import CheckpointWriter, load_checkpoint, rng_state, set_rng_state
from densecli.train.early_warnings import EarlyWarnings
from densecli.train.gradient import Gradient
from densecli.train.health import Health, NonFiniteStep, check_weights
from densecli.train.loggers import Logger, RunLog, make_loggers, open_log
from densecli.train.optimizer import adamw, set_learning_rate
from densecli.train.placement import placement_of
from densecli.train.recipe import Recipe
from densecli.train.room import Room
from densecli.train.run_config import FREE, defaults
from densecli.train.run_folder import RunFolder
from densecli.train.schedules import SCHEDULES
from densecli.train.steps import Steps
from densecli.train.stream import Stream
from densecli.train.trainer_config import TrainerConfig
from densecli.train.watch import Measure, Watch

R = TypeVar("R", bound=Recipe[Any])


class Trainer(Generic[R]):
    """Trains a recipe on the batches of a loader.

    Attributes:
        recipe: The model and its loss.
        loader: Batches of this process.
        config: The configuration.
        distributed: This process among the others.
        model: The recipe's model.
        compiled: Whether it is compiled.
        placement: Where its weights are: whether each process has a copy or a part of them.
        forward: The model as a step calls it; its gradients are averaged over the processes.
        gradient: That of a step.
        steps: The steps of the training.
        notes: What a user should read before the first step.
        step: Steps taken.
        health: What has gone wrong so far.
        warnings: What the steps so far tell about the rest.
        watch: What is measured while it trains.
    """

    def __init__(
        self,
        recipe: R,
        loader: Stream,
        config: TrainerConfig,
        distributed: Distributed | None = None,
        measures: Sequence[Measure] = (),
    ) -> None:
        """Builds the optimiser and the schedule.

        Args:
            recipe: The model and its loss.
            loader: Batches of this process.
            config: The configuration.
            distributed: The processes that train together; by default this one alone.
            measures: What is measured while it trains.

        Raises:
            DenseCLIError: The store has too few samples for a batch, or the schedule is unknown, or nothing
                is measured that is asked for.
        """
        self.recipe, self.loader, self.config = recipe, loader, config
        self.distributed = distributed or Distributed(device=pick_device(config.device))
        self.device = self.distributed.device
        self.precision = set_precision(config.precision, self.device)
        loader.pinned = self.device.type == "cuda"
        self.schedule = SCHEDULES[config.schedule]
        self.steps = Steps(loader, config, self.distributed.world_size)
        self.notes = [*recipe.notes(self.steps.samples_per_step), *self.steps.notes]
        self.notes += [note for measure in measures for note in measure.notes]
        self.step = 0
        self.health = Health()
        self.warnings = EarlyWarnings(warmup=self.steps.warmup, total=self.steps.total, moved=recipe.moved)
        self.watch = Watch(config, recipe, measures)
        self._stop, self._ending = Stop(), False
        self._loggers: list[Logger] = []
        self.model = recipe.model
        self.room = Room(recipe, config, self.distributed, self.precision)
        self.compiled = self._compiles()
        if self.compiled:
            recipe.filled_to = config.batch_size
        self.placement = placement_of(self.model, recipe.units, self.distributed, watched=bool(self.watch))
        self.forward = self.placement.place(compiled=self.compiled)
        self.gradient = Gradient(recipe, self.forward, self.precision, self.distributed)
        fused = self.device.type == "cuda"
        self.optimizer = adamw(self.model, weight_decay=config.weight_decay, betas=config.betas, fused=fused)

    def _compiles(self) -> bool:
        """Whether the model is compiled; says so where it was not asked for, or why it is not."""
        asked = self.config.compile
        if asked is not None or self.device.type != "cuda":
            return bool(asked)
        lacks = compiler_lacks(self.device)
        self.notes.append(
            f"The network is not compiled, which would be faster: {lacks} is not installed."
            if lacks
            else "The network is compiled in the first step, which takes about a minute; --no-compile leaves "
            "it out."
        )
        return lacks is None

    def resolved(self) -> dict[str, Any]:
        """The resolved configuration as JSON values: no defaults or look-ups are left."""
        return {
            **{k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self.config).items()},
            "lanes": self.loader.lanes,
            "compile": self.compiled,
            "precision": self.precision.name,
            "ranks": self.distributed.world_size,
            "samples_per_step": self.steps.samples_per_step,
            "warmup_steps": self.steps.warmup,
            "total_steps": self.steps.total,
            **self.watch.about,
            **self.recipe.resolved(),
        }

    def fit(self, start: float | None = None) -> dict[str, Any]:
        """Trains from the run folder's last checkpoint to the last step, then exports.

        SIGTERM and Ctrl-C end the training with a checkpoint after the step at hand.

        Args:
            start: Start of the command, by `time.monotonic`; by default now.

        Returns:
            The last row of metrics with `run`, `export` (None if a signal ended the training), `signal` (its
            number, or None), `random_weights`, `seconds_to_first_step` (None without a step), `warnings`, and
            once it has ended `moved` (see `Recipe.moved`); if there is something to measure `measured`, the
            values `before` the first step and those measured `last`, and `best` (see `Best`) with its
            `export`, or None. A dry run returns `planned`, `run`, the `step` to continue from, `total_steps`
            and `random_weights`.

        Raises:
            NonFiniteStep: More than `max_nonfinite_steps` steps are not finite, or the weights are not.
            DenseCLIError: The run folder is in use or holds a different run.
        """
        start = time.monotonic() if start is None else start
        folder = RunFolder(self.config.run)
        checkpoint = self.distributed.on_rank_zero(lambda: self._open(folder))
        if self.config.dry_run:
            return {
                "planned": True,
                "run": self.config.run,
                "step": self._read(folder, checkpoint)["step"] if checkpoint else 0,
                "total_steps": self.steps.total,
                "random_weights": self.recipe.random_weights,
            }
        with closing(folder):
            torch.manual_seed(self.config.seed)
            if checkpoint:
                self._load(folder, checkpoint)
            result = self._run(folder, start)
            if self.step == self.steps.total:
                result["moved"] = self.recipe.moved()
                self.placement.unite()
                result["export"] = self.distributed.on_rank_zero(
                    lambda: self.recipe.export(folder.export, self.resolved())
                )
                if best := self.watch.best:
                    result["best"]["export"] = self.distributed.on_rank_zero(
                        lambda: export_best(self.recipe, self.model, folder, best, self.resolved())
                    )
        return result

    def _open(self, folder: RunFolder) -> str | None:
        config = self.config
        # Before anything is written: a logger may be unknown or lack its package.
        self._loggers = make_loggers(config.loggers, folder)
        return folder.open(
            self.resolved(), config.resume, free=FREE, defaults=defaults(config), dry_run=config.dry_run
        )

    def _run(self, folder: RunFolder, start: float) -> dict[str, Any]:
        """Takes the remaining steps."""
        first_step: float | None = None
        ended_by = 0
        with (
            closing(self._open_log(folder)) as log,
            closing(CheckpointWriter(folder.checkpoints, keep=self.config.keep_checkpoints)) as writer,
            closing(self._batches()) as steps,
            heeding_signals(forwarded=self.distributed.world_size > 1) as self._stop,
        ):
            if self.watch and not self.step:
                # Whatever is wrong with what it reads is told before the first step.
                self._say(self.watch.measure(self.step))
            step_start = time.perf_counter()
            for batches in steps:
                waited = time.perf_counter() - step_start
                if first_step is None:
                    self.room.make(batches[0], self.optimizer, compiled=self.compiled)
                before = rng_state()
                try:
                    row = self.train_step(batches)
                except NonFiniteStep:
                    check_weights(self.model.state_dict().values(), self.step, self.distributed)
                    self._save(writer, log, before)
                    writer.wait()
                    raise
                now = time.perf_counter()
                seconds = now - step_start
                row["images_per_s"] = row.pop("samples") / seconds
                step_start = now
                if measured := self.watch.due(self.step, self.steps.total):
                    row |= self._measure()
                    step_start = time.perf_counter()
                log.row(row)
                if first_step is not None:
                    # The first step compiles, and waits for the first shards.
                    for sentence in self.warnings.after(row, seconds=seconds, waited=waited):
                        self._say(f"Warning: {sentence}")
                writer.check()
                if first_step is None:
                    first_step = time.monotonic() - start
                    log.first_step(first_step)
                # torchrun passes a signal on to all its processes; a scheduler may send it to one of them.
                if self._ending or self.distributed.world_size == 1:
                    ended_by = self.distributed.max(self._stop.signal or 0)
                best = measured and self.watch.improved
                if ended_by or best or self._due(self.config.checkpoint_every):
                    check_weights(self.model.state_dict().values(), self.step, self.distributed)
                    self._save(writer, log, rng_state())
                pictures = self.distributed.first and self.placement.whole
                if pictures and self._due(self.config.picture_every or self.config.checkpoint_every):
                    log.picture(self._picture, self.step)
                if ended_by:
                    break
            writer.wait()
            # One that came while the last step was saved.
            ended_by = ended_by or self.distributed.max(self._stop.signal or 0)
        return {
            **log.last,
            "run": self.config.run,
            "export": None,
            "signal": signal.Signals(ended_by) if ended_by else None,
            "random_weights": self.recipe.random_weights,
            "seconds_to_first_step": first_step,
            "warnings": list(self.warnings.said.values()),
            **self.watch.result(),
        }

    def _measure(self) -> dict[str, float]:
        """What is measured after this step."""
        check_weights(self.model.state_dict().values(), self.step, self.distributed)
        self._say(self.watch.measure(self.step))
        return self.watch.last

    def train_step(self, batches: Sequence[Batch]) -> dict[str, Any]:
        """Takes one optimiser step on the batches of all processes, as if they were one batch.

        Args:
            batches: This process's batches, one for each gradient accumulation.

        Returns:
            The step's row of metrics: `step` counted from 1, `epoch`, `loss` and its parts, `grad_norm`, `lr`
            and `samples` of all processes. A step whose loss or gradient is not finite changes no weights.

        Raises:
            NonFiniteStep: The step is not finite, after `max_nonfinite_steps` others.
            DenseCLIError: The device has too little memory. Or a loss had nothing to learn from for too
                long; see `Health.count_empty`.
        """
        rate = self.schedule(
            self.step, peak=self.config.lr, warmup_steps=self.steps.warmup, total_steps=self.steps.total
        )
        set_learning_rate(self.optimizer, rate)
        self.optimizer.zero_grad(set_to_none=True)
        counts = self.gradient.count(batches)
        try:
            parts = [
                self.gradient.add(batch, counts, last=number == len(batches))
                for number, batch in enumerate(batches, start=1)
            ]
        except RuntimeError as error:
            if not lacks_memory(error):
                raise
            raise self.room.error() from error
        values, empty = self.gradient.values(parts, self.recipe.learns_from(counts), self._stop.signal or 0)
        self._ending = bool(values.pop("signals"))
        if math.isfinite(values["loss"]) and math.isfinite(values["grad_norm"]):
            self.optimizer.step()
        else:
            self.health.skip(
                self.step + 1, values, lambda: self._keys(batches), self.config.max_nonfinite_steps
            )
        self.step += 1
        self.health.count_empty(empty, self.step, self.steps.total, self.recipe.nothing_to_learn)
        return {"step": self.step, "epoch": batches[0].epoch, **values, "lr": rate}

    def _say(self, sentence: str) -> None:
        if self.distributed.first:
            say(sentence)

    def _keys(self, batches: Sequence[Batch]) -> list[str]:
        """The samples of a step, of all processes."""
        own = [key for batch in batches for key in batch.keys]
        return [key for part in self.distributed.gather(own) for key in part]

    def _due(self, every: int) -> bool:
        """Whether something that happens every `every` steps and after the last one is due now."""
        return self.step % every == 0 or self.step == self.steps.total

    def _picture(self) -> Any:
        with torch.no_grad(), self.precision.autocast():
            return self.recipe.picture()

    def _open_log(self, folder: RunFolder) -> RunLog:
        logs = [RunLog()]

        def open_on_first() -> None:
            config = self.resolved()
            for note in self.notes:
                say(note)
            logs.append(open_log(self._loggers, folder, config, step=self.step, total=self.steps.total))

        self.distributed.on_rank_zero(open_on_first)
        return logs[-1]

    def _batches(self) -> Generator[list[Batch]]:
        """Yields the batches of each step, on the device."""
        steps = self.steps.batches(self.step)

        def load(_: int) -> list[Batch]:
            return [batch.to(self.device) for batch in next(steps)]

        # A thread prepares the next step's batches while the GPU computes.
        return prefetch(load, range(self.steps.total - self.step), threads=1, window=2)

    def _save(self, writer: CheckpointWriter, log: RunLog, rng: dict[str, Any]) -> None:
        def state() -> dict[str, Any]:
            return {
                "step": self.step,
                **self.health.state(),
                **self.watch.state(),
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "rng": rng,
                "config": json.loads(json.dumps(self.resolved())),
            }

        if found := self.placement.gathered(state):
            log.sync()
            writer.write(found, also=self.watch.keeps)

    def _read(self, folder: RunFolder, checkpoint: str) -> dict[str, Any]:
        """A checkpoint, if it belongs to the run."""
        state = load_checkpoint(checkpoint)
        folder.check_checkpoint(checkpoint, state, self.resolved(), free=FREE, defaults=defaults(self.config))
        return state

    def _load(self, folder: RunFolder, checkpoint: str) -> None:
        state = self.placement.spread(lambda: self._read(folder, checkpoint), self.optimizer)
        try:
            self.model.load_state_dict(state["model"])
            # The moments only: how AdamW computes depends on the device, which may be another now.
            groups = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict({**state["optimizer"], "param_groups": groups})
            set_rng_state(state["rng"])
            self.health = Health.of_state(state)
            self.notes += self.watch.load(state, folder.checkpoints)
        # Torch raises anything for a state that is another model's.
        except Exception as error:
            raise DenseCLIError(
                f"The checkpoint {checkpoint} does not fit this model ({type(error).__name__}).",
                hint="Remove it to continue from the one before, or start again with --resume overwrite.",
            ) from error
        self.step = state["step"]
