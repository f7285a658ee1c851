"""Exports a student in the checkpoint format of another project, with a model card beside it."""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.core.leftovers import sweep_behind
from densecli.models.checkpoint_formats import mode_means
from densecli.models.checkpoints import WeightsInfo
from densecli.models.model_card import card_path, read_card, run_export
from densecli.models.student import DenseVFM, Student, load_student
from densecli.models.weights import weights_sha256
from densecli.train.averaging import average, cloned
from densecli.train.checkpoints import latest_checkpoint, load_checkpoint
from densecli.train.distillation_recipe import CARD as CARD_FIELDS
from densecli.train.export_config import ExportConfig
from densecli.train.exports import EXPORTS, FOLDER_WEIGHTS, ExportFormat, export_weights
from densecli.train.heads import student_state
from densecli.train.run_folder import RunFolder

_SUFFIXES = {".safetensors": "safetensors", ".pt": "pt", ".pth": "pt", ".bin": "pt", ".onnx": "onnx"}


@dataclass(frozen=True, kw_only=True)
class _Source:
    """What is exported: a model, the source of its weights, fields of its card, and the folder for files."""

    model: Student
    file: Path
    info: WeightsInfo
    about: dict[str, Any]
    folder: Path | None = None


def export(config: ExportConfig) -> dict[str, Any]:
    """Writes a student's weights in an export format, and a model card beside them.

    Args:
        config: The configuration; a dry run writes nothing.

    Returns:
        The card with `path`, `bytes`, `tensors`, and as `load` the Python code that loads the file.

    Raises:
        DenseCLIError: There is no such student, or the format cannot hold it.
    """
    source = _source(config)
    model, about = source.model, source.about
    about["mode"] = config.mode or about.get("mode", "value")
    model.check_mode(about["mode"])
    tensors = export_weights(model, config.layout)
    file, format = _target(config, source.folder)
    layout = EXPORTS[config.layout]
    if layout.graph:
        # It is of one size.
        native = model.native_side if isinstance(model, DenseVFM) else model.arch.native_side
        about.setdefault("image_size", native)
    data = layout.graph(model, about) if layout.graph else _serialised(tensors, format, layout)
    card = {
        **about,
        "mode_means": mode_means(model, about["mode"]),
        "patch": model.patch_size,
        "mean": list(model.arch.mean),
        "std": list(model.arch.std),
        "layout": config.layout,
        "load": EXPORTS[config.layout].load(model, file.name),
        "sha256": hashlib.sha256(data).hexdigest(),
        "source": {"file": str(source.file), "sha256": source.info.sha256},
        "densecli": version("densecli"),
    }
    if not config.dry_run:
        sweep_behind(file)
        fs.write_atomic(str(file), data)
        fs.write_atomic(str(card_path(file)), json.dumps(card, indent=2).encode())
        if files_of := EXPORTS[config.layout].files:
            for name, content in files_of(model, card).items():
                fs.write_atomic(str(file.with_name(name)), content)
        if own := EXPORTS[config.layout].config(model):
            fs.write_atomic(
                str(file.with_name(f"{model.arch.name}.json")), json.dumps(own, indent=2).encode()
            )
    load = EXPORTS[config.layout].load(model, str(file))
    return {**card, "load": load, "path": str(file), "bytes": len(data), "tensors": len(tensors)}


def _source(config: ExportConfig) -> _Source:
    if bool(config.run) == bool(config.checkpoint):
        raise DenseCLIError(
            "There must be exactly one thing to export.",
            hint="Give either --run DIR or --checkpoint FILE.",
        )
    if config.run and config.alpha is None:
        file, card = run_export(config.run)
        return _of_weights(str(file), card["student"], card, file.parent)
    if config.run:
        newest = latest_checkpoint(RunFolder(config.run).checkpoints)
        if newest is None:
            raise DenseCLIError(f"There is no checkpoint in {config.run}.", hint="Leave --alpha out.")
        return _of_checkpoint(Path(newest), config.alpha)
    file = Path(str(config.checkpoint))
    if (file.parent.parent / "config.json").is_file() and file.parent.name == "checkpoints":
        return _of_checkpoint(file, config.alpha)
    if config.alpha is not None:
        raise DenseCLIError(
            f"{file} is not a checkpoint of a run, so its initial weights are not known.",
            hint="Leave --alpha out.",
        )
    card = read_card(file) or {}
    student = config.student or card.get("student")
    if student is None:
        raise DenseCLIError(f"Nothing says which model {file} belongs to.", hint="Name it with --student.")
    return _of_weights(str(file), student, card)


def _of_weights(weights: str, student: str, card: Mapping[str, Any], folder: Path | None = None) -> _Source:
    model, info = load_student(student, weights)
    began = {"initial_weights": asdict(info), "random_weights": info.random}
    about = {**began, **card, "student": student}
    return _Source(model=model, file=Path(weights), info=info, about=about, folder=folder)


def _of_checkpoint(file: Path, alpha: float | None) -> _Source:
    """A checkpoint of a run, interpolated with the initial weights of the run."""
    root = file.parent.parent
    try:
        settings = RunFolder(root).read_config()
    except FileNotFoundError:
        raise DenseCLIError(
            f"There is no {root / 'config.json'} that says what {file} is a checkpoint of.",
            hint="Name a checkpoint in the folder of its run, or other weights with --student.",
        ) from None
    if "alpha" not in settings:
        raise DenseCLIError(
            f"The run in {root} trained no student.",
            hint="A Refiner cannot be exported: only densecli reads it.",
        )
    began = settings["initial_weights"]
    model, info = load_student(settings["student"], began["source"])
    if info.sha256 != began["sha256"]:
        raise DenseCLIError(
            f"{began['source']} does not hold the initial weights of the run in {root}.",
            hint="Put the initial weights back at this path.",
        )
    initial = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    state = load_checkpoint(str(file))
    model.load_state_dict(student_state(state["model"]))
    alpha = settings["alpha"] if alpha is None else alpha
    model.network.load_state_dict(average(model.network.state_dict(), initial, alpha))
    about = {name: settings[name] for name in CARD_FIELDS}
    return _Source(
        model=model,
        file=file,
        info=WeightsInfo(source=str(file), sha256=weights_sha256(file), random=info.random),
        about={**about, "alpha": alpha, "step": state["step"]},
        folder=root / "export",
    )


def _target(config: ExportConfig, folder: Path | None) -> tuple[Path, str]:
    """The file to write, and its file format."""
    if EXPORTS[config.layout].files is not None:
        return _target_folder(config, folder) / FOLDER_WEIGHTS, "safetensors"
    possible = ("onnx",) if EXPORTS[config.layout].graph else ("safetensors", "pt")
    if config.format not in (None, *possible):
        raise DenseCLIError(
            f"The format {config.layout} has no files of the kind {config.format}.",
            hint="Leave --format out.",
        )
    if config.out is None:
        format = config.format or EXPORTS[config.layout].file_format
        if folder is None:
            raise DenseCLIError(
                "Nothing says where to write the file.", hint=f"Add --out {config.layout}.{format}."
            )
        return folder / f"{config.layout}.{format}", format
    ends = _SUFFIXES.get(Path(config.out).suffix)
    if ends is None or ends not in possible or "://" in config.out or config.format not in (None, ends):
        raise DenseCLIError(
            f"{config.out} is not a name for a file in the format {config.format or ' or '.join(possible)}.",
            hint=f"Give a local file with the ending of its format, .{' or .'.join(possible)}.",
        )
    return Path(config.out), ends


def _target_folder(config: ExportConfig, folder: Path | None) -> Path:
    """The folder to write."""
    if config.format == "pt":
        raise DenseCLIError(
            f"The format {config.layout} is a folder with {FOLDER_WEIGHTS}.", hint="Leave --format out."
        )
    if config.out is None and folder is None:
        raise DenseCLIError(
            "Nothing says where to write the folder.", hint=f"Add --out {config.layout}, a folder."
        )
    target = Path(config.out) if config.out else Path(str(folder)) / config.layout
    if "://" in str(config.out) or target.is_file() or target.suffix in _SUFFIXES:
        raise DenseCLIError(
            f"{config.out} is not a name for a folder, which the format {config.layout} is.",
            hint="Give a local folder with --out.",
        )
    return target


def _serialised(tensors: Mapping[str, Tensor], format: str, layout: ExportFormat) -> bytes:
    if format == "safetensors":
        return safetensors.torch.save(cloned(tensors), metadata={"format": "pt"})
    if layout.serialise is not None:
        return layout.serialise(cloned(tensors))
    buffer = io.BytesIO()
    torch.save(cloned(tensors), buffer)
    return buffer.getvalue()
