"""Text embeddings of category names, from a text tower with prompt templates or from a file."""

import hashlib
import io
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
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
# Prompts in a batch.
BATCH_SIZE = 256
# What is done is kept as often.
KEEP_SECONDS = 5.0


def category_embeddings(
    model: DenseCLIP,
    names: Sequence[str],
    *,
    file: str | None = None,
    templates: Sequence[str] | None = None,
) -> Tensor:
    """Loads the embeddings of category names from a file, or computes them with the model's text tower.

    Computed embeddings are cached in $DENSECLI_CACHE (else ~/.cache/densecli), by the tower's weights and the
    prompts. So they are computed once on each machine, for all commands and processes; and after an
    interruption, only those that are left.

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
    if (rows := _read(kept, shape, np.float32)) is None:
        with _alone(kept):
            # Another process may just have done it.
            if (rows := _read(kept, shape, np.float32)) is None:
                part = kept.with_suffix(".part")
                rows = _Ensemble(model, names, templates, BATCH_SIZE).mean(part).cpu()
                _keep(kept, rows)
                with suppress(OSError):
                    part.unlink()
    return rows.to(model.device)


def _read(file: Path, shape: tuple[int, ...], dtype: type) -> Tensor | None:
    """A cached array; None if there is none, or the file was damaged."""
    try:
        array = np.load(io.BytesIO(file.read_bytes()), allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if not isinstance(array, np.ndarray) or (array.shape, array.dtype) != (shape, dtype):
        return None
    return torch.from_numpy(array) if np.isfinite(array).all() else None


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


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
    try:
        fs.write_atomic(str(kept), _npy(rows.numpy()))
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


def text_embeddings(
    model: DenseCLIP,
    names: Sequence[str],
    templates: Sequence[str] | None = None,
    *,
    batch_size: int = BATCH_SIZE,
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
    return _Ensemble(model, names, templates or default_templates(model.arch), batch_size).mean()


class _Ensemble:
    """The prompts of names, and the sums of the embeddings of those that are done."""

    def __init__(
        self, model: DenseCLIP, names: Sequence[str], templates: Sequence[str], batch_size: int
    ) -> None:
        self._model = model
        self._templates = len(templates)
        self._batch_size = batch_size
        self._tokens = model.tokenize([prompt(template, name) for name in names for template in templates])
        # A batch is as long as its longest prompt, so prompts of one length share batches.
        self._order = torch.argsort((self._tokens != 0).sum(dim=1), stable=True)
        self._done = 0
        # Their float64 sums do not depend on where a run was interrupted.
        self._sums = torch.zeros(len(names), model.embed_dim, dtype=torch.float64)

    @torch.no_grad()
    def mean(self, part: Path | None = None) -> Tensor:
        """Computes what is left of the embeddings and shows the progress.

        Args:
            part: A file that keeps what is done, every few seconds and at an interruption.

        Returns:
            See `text_embeddings`.
        """
        self._resume(part)
        note, kept = f"text embeddings by {self._model.arch.name}", time.monotonic()
        try:
            with closing(Progress(len(self._order), "prompts", silence=SILENCE)) as progress:
                progress.advance(self._done, note)
                while self._done < len(self._order):
                    progress.advance(self._add_batch(), note)
                    if time.monotonic() - kept > KEEP_SECONDS:
                        self._keep(part)
                        kept = time.monotonic()
        except BaseException:
            self._keep(part)
            raise
        mean = (self._sums / self._templates).float().to(self._model.device)
        return F.normalize(mean, dim=1)

    def _add_batch(self) -> int:
        places = self._order[self._done : self._done + self._batch_size]
        embedded = self._model.encode_text(self._tokens[places].to(self._model.device))
        rows = F.normalize(embedded.float(), dim=1).cpu().double()
        self._sums.index_add_(0, places // self._templates, rows)
        self._done += len(places)
        return len(places)

    def _keep(self, part: Path | None) -> None:
        """Keeps the sums. Where nothing can be kept, the end of the computation says so."""
        if part and self._done:
            array = np.concatenate([[self._done], self._sums.numpy().ravel()])
            with suppress(DenseCLIError):
                fs.write_atomic(str(part), _npy(array))

    def _resume(self, part: Path | None) -> None:
        """Continues from a file, if there is one and it is whole."""
        size = 1 + self._sums.numel()
        if part and (found := _read(part, (size,), np.float64)) is not None:
            done = int(found[0])
            if 0 < done <= len(self._order):
                self._done, self._sums = done, found[1:].view_as(self._sums)


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
