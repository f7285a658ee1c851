"""Text embeddings of category names, from a text tower with prompt templates or from a file."""

import hashlib
import io
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from filelock import FileLock
from torch import Tensor

from densecli.core import fs
from densecli.core.addresses import from_environment
from densecli.core.errors import DenseCLIError
from densecli.core.progress import Progress, listener
from densecli.models.checkpoints import values_sha256
from densecli.models.dense import DenseCLIP
from densecli.models.prompts import default_templates, prompt
from densecli.shards.keys import canonical_json

# Part of the name of a cached file. Raise it when the same model and prompts should give other numbers.
VERSION = 1
# Seconds before progress is shown.
SILENCE = 3.0


def category_embeddings(
    model: DenseCLIP,
    names: Sequence[str],
    *,
    file: str | None = None,
    templates: Sequence[str] | None = None,
) -> Tensor:
    """Loads the embeddings of category names from a file, or computes them with the model's text tower.

    Computed embeddings are cached in $DENSECLI_CACHE (else ~/.cache/densecli), by the tower's weights and the
    prompts. So they are computed once on each machine, for all commands and processes.

    Args:
        model: The CLIP.
        names: D category names.
        file: A .npy file with one row for each name.
        templates: Prompt templates, by default the model's.

    Returns:
        (D, C) unit embeddings on the model's device.

    Raises:
        DenseCLIError: The file has another number of rows or another width.
    """
    if file is not None:
        return load_text_embeddings(file, len(names), model.embed_dim).to(model.device)
    templates = templates or default_templates(model.arch)
    kept = _kept(model, names, templates)
    shape = len(names), model.embed_dim
    if (rows := _read_kept(kept, shape)) is None:
        with _alone(kept):
            # Another process may just have done it.
            if (rows := _read_kept(kept, shape)) is None:
                rows = text_embeddings(model, names, templates).cpu()
                _keep(kept, rows)
    return rows.to(model.device)


def _read_kept(kept: Path, shape: tuple[int, int]) -> Tensor | None:
    """The cached embeddings; None if there are none, or the file was damaged."""
    try:
        rows = np.load(io.BytesIO(kept.read_bytes()), allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if not isinstance(rows, np.ndarray) or (rows.shape, rows.dtype) != (shape, np.float32):
        return None
    return torch.from_numpy(rows) if np.isfinite(rows).all() else None


@contextmanager
def _alone(kept: Path) -> Iterator[None]:
    """Lets one process at a time into the block, where files can be locked there."""
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{kept}.lock")
        lock.acquire()
    except (OSError, NotImplementedError):
        # Some users have no home folder that can be written to.
        lock = None
    try:
        yield
    finally:
        if lock:
            lock.release()


def _keep(kept: Path, rows: Tensor) -> None:
    """Keeps the embeddings, or says that they cannot be kept."""
    buffer = io.BytesIO()
    np.save(buffer, rows.numpy())
    try:
        fs.write_atomic(str(kept), buffer.getvalue())
    except DenseCLIError as error:
        listener.get()(f"The text embeddings are not kept for the next time. {error}")


def _kept(model: DenseCLIP, names: Sequence[str], templates: Sequence[str]) -> Path:
    """The cache file for this text tower and these prompts, on a device of this kind."""
    about = {
        "version": VERSION,
        "architecture": model.arch.name,
        "tower": values_sha256(model.clip, without="visual"),
        "arithmetic": [model.device.type, torch.backends.cuda.matmul.allow_tf32],
        "names": list(names),
        "templates": list(templates),
    }
    folder = Path(from_environment("DENSECLI_CACHE", "~/.cache/densecli"))
    return folder / "text" / f"{hashlib.sha256(canonical_json(about)).hexdigest()[:24]}.npy"


@torch.no_grad()
def text_embeddings(
    model: DenseCLIP, names: Sequence[str], templates: Sequence[str] | None = None, *, batch_size: int = 256
) -> Tensor:
    """Computes the embeddings of names by prompt ensembling, and shows its progress.

    The embeddings of a name's prompts are normalised and averaged, and the mean is normalised again (Radford
    et al. 2021, section 3.1.4).

    Args:
        model: The CLIP.
        names: N names.
        templates: Prompt templates, by default the model's.
        batch_size: Prompts in a batch.

    Returns:
        (N, D) float32 of unit norm on the model's device.
    """
    templates = templates or default_templates(model.arch)
    prompts = [prompt(template, name) for name in names for template in templates]
    rows, note = [], f"text embeddings by {model.arch.name}"
    with closing(Progress(len(prompts), "prompts", silence=SILENCE)) as progress:
        for i in range(0, len(prompts), batch_size):
            batch = prompts[i : i + batch_size]
            tokens = model.tokenize(batch).to(model.device)
            rows.append(F.normalize(model.encode_text(tokens).float(), dim=1))
            progress.advance(len(batch), note)
    return F.normalize(torch.cat(rows).unflatten(0, (len(names), len(templates))).mean(dim=1), dim=1)


def load_text_embeddings(path: str | Path, n: int, dim: int | None = None) -> Tensor:
    """Reads text embeddings from a .npy file and normalises them, which the published files are not.

    Args:
        path: A file with one row for each category, in their order.
        n: Number of categories.
        dim: Width D of the model's embeddings, if it is known.

    Returns:
        (n, D) float32 of unit norm.

    Raises:
        DenseCLIError: The file is not such an array, or has another number of rows or another width, or a row
            has no direction.
    """
    try:
        # Mapped: a header that promises more rows than the file has takes no memory.
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged header makes numpy raise anything
        cause = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
        raise DenseCLIError(
            f"{path} cannot be read as text embeddings ({cause}).",
            hint="Expected a .npy with one row for each category.",
        ) from error
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or not np.issubdtype(rows.dtype, np.floating):
        raise DenseCLIError(
            f"{path} is not a table of numbers.", hint="Expected a .npy with one row for each category."
        )
    if len(rows) != n:
        raise DenseCLIError(
            f"{path} has {len(rows)} rows for {n} categories.",
            hint="Give the category set that the file was made for.",
        )
    if dim is not None and rows.shape[1] != dim:
        raise DenseCLIError(
            f"{path} has embeddings of {rows.shape[1]} numbers, but the model's have {dim}.",
            hint="Text and image embeddings must come from the same model.",
        )
    with np.errstate(over="ignore", invalid="ignore"):
        rows = rows.astype(np.float32)
    if not np.isfinite(rows).all():
        raise DenseCLIError(
            f"{path} holds numbers that are not finite in float32.", hint="Make the file again."
        )
    unit = F.normalize(torch.from_numpy(rows), dim=1)
    # Squares may overflow or vanish where the numbers themselves do not.
    if wrong := torch.nonzero(~torch.isclose(unit.norm(dim=1), torch.ones(n), atol=1e-3)).flatten().tolist():
        raise DenseCLIError(
            f"Row {wrong[0] + 1} of {path} has no direction: its numbers are 0, or too small or too large.",
            hint="Make the file again with a text embedding for each category.",
        )
    return unit
