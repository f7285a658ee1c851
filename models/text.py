"""Text embeddings of category names: from a text tower with prompt templates, or from a file."""

import hashlib
import io
import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from filelock import FileLock
from torch import Tensor

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.core.progress import Progress
from densecli.models.architecture import Architecture
from densecli.models.checkpoints import values_sha256
from densecli.models.dense import DenseCLIP
from densecli.shards.keys import canonical_json

# Enters the name of what is kept: to be raised when the same model and prompts shall give other numbers.
VERSION = 1
# Seconds that embedding may take before anything is said of it.
SILENCE = 3.0

TEMPLATES: dict[str, tuple[str, ...]] = {
    "plain": ("a photo of a {}",),
    # open_clip holds CLIP's 80 as functions; each is a format string of its own argument.
    "imagenet": tuple(template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES),
}


def default_templates(arch: Architecture) -> tuple[str, ...]:
    """The templates that a model's prompts use by default."""
    return TEMPLATES[arch.templates]


def category_embeddings(
    model: DenseCLIP,
    names: Sequence[str],
    *,
    file: str | None = None,
    templates: Sequence[str] | None = None,
) -> Tensor:
    """(D, C) unit embeddings of D names on the model's device: from a file, else from its own text tower.

    What the text tower says is kept in $DENSECLI_CACHE (else ~/.cache/densecli) by the tower's weights and
    the prompts: it is asked once a machine, whatever verb or process asks first. Raises DenseCLIError for a
    file of other categories or another width.
    """
    if file is not None:
        return load_text_embeddings(file, len(names), model.embed_dim).to(model.device)
    templates = templates or default_templates(model.arch)
    kept = _kept(model, names, templates)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{kept}.lock")
        lock.acquire()
    except OSError:
        # Not everybody has a home to write to.
        return text_embeddings(model, names, templates)
    try:
        if not kept.exists():
            buffer = io.BytesIO()
            np.save(buffer, text_embeddings(model, names, templates).cpu().numpy())
            fs.write_atomic(str(kept), buffer.getvalue())
    finally:
        lock.release()
    return torch.from_numpy(np.load(kept, allow_pickle=False)).to(model.device)


def _kept(model: DenseCLIP, names: Sequence[str], templates: Sequence[str]) -> Path:
    """The file of what this text tower says of these prompts, on a device of this kind."""
    about = {
        "version": VERSION,
        "architecture": model.arch.name,
        "tower": values_sha256(model.clip, without="visual"),
        "arithmetic": [model.device.type, torch.backends.cuda.matmul.allow_tf32],
        "names": list(names),
        "templates": list(templates),
    }
    folder = Path(os.environ.get("DENSECLI_CACHE", "~/.cache/densecli")).expanduser()
    return folder / "text" / f"{hashlib.sha256(canonical_json(about)).hexdigest()[:24]}.npy"


@torch.no_grad()
def text_embeddings(
    model: DenseCLIP, names: Sequence[str], templates: Sequence[str] | None = None, *, batch_size: int = 256
) -> Tensor:
    """Names -> float32 (len(names), D) of unit norm on the model's device; says how far it is.

    Each prompt's embedding is normalised, a name's prompts are averaged, the mean is normalised again (prompt
    ensembling, Radford et al. 2021, section 3.1.4).
    """
    templates = templates or default_templates(model.arch)
    prompts = [template.format(name) for name in names for template in templates]
    rows, note = [], f"text embeddings by {model.arch.name}"
    with closing(Progress(len(prompts), "prompts", silence=SILENCE)) as progress:
        for i in range(0, len(prompts), batch_size):
            batch = prompts[i : i + batch_size]
            tokens = model.tokenize(batch).to(model.device)
            rows.append(F.normalize(model.encode_text(tokens).float(), dim=1))
            progress.advance(len(batch), note)
    return F.normalize(torch.cat(rows).unflatten(0, (len(names), len(templates))).mean(dim=1), dim=1)


def load_text_embeddings(path: str | Path, n: int, dim: int | None = None) -> Tensor:
    """A .npy of (n, D) rows in the order of the categories -> float32 (n, D) of unit norm.

    The published files for 316 categories are not of unit norm. Raises DenseCLIError where the file is no
    such array, has another number of rows, or another width than `dim`.
    """
    try:
        rows = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DenseCLIError(
            f"{path} cannot be read as text embeddings ({error}).",
            hint="Expected a .npy of one row a category.",
        ) from error
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or not np.issubdtype(rows.dtype, np.floating):
        raise DenseCLIError(f"{path} is no table of numbers.", hint="Expected a .npy of one row a category.")
    if len(rows) != n:
        raise DenseCLIError(
            f"{path} has {len(rows)} rows for {n} categories.", hint="Name the category set it was made for."
        )
    if dim is not None and rows.shape[1] != dim:
        raise DenseCLIError(
            f"{path} has embeddings of {rows.shape[1]} numbers, the model's have {dim}.",
            hint="Text and image embeddings must come from the same model.",
        )
    if not np.isfinite(rows).all():
        raise DenseCLIError(f"{path} holds numbers that are not finite.", hint="Make the file again.")
    return F.normalize(torch.from_numpy(rows.astype(np.float32)), dim=1)
