"""Files of the Hugging Face Hub: found in its usual cache, else downloaded once, and checked.

The hub's own client does the rest, by its own environment: HF_HOME, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE and
proxies.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from tqdm import tqdm

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.core.hub_errors import errors_of
from densecli.core.hub_file import COMMIT, HUB, HubFile, page
from densecli.core.progress import Progress, say
from densecli.core.tables import size as as_size

_SHA256 = re.compile(r"[0-9a-f]{64}")
_WEIGHTS = (".safetensors", ".pt", ".pth", ".bin")
_MEGABYTE = 10**6


@dataclass(frozen=True, kw_only=True)
class Listed:
    """What the hub says of a file.

    Attributes:
        at: The file, pinned.
        bytes: Its size.
        sha256: Its digest in hex; empty for a small file, of which the hub knows another.
        licence: As the repository's card says; may be empty.
    """

    at: HubFile
    bytes: int | None
    sha256: str
    licence: str


def is_hub(address: str) -> bool:
    """Whether an address begins with hf-hub:."""
    return address.startswith(HUB)


def set_offline() -> None:
    """From now on, nothing is asked of the hub, in this process and in those that it starts."""
    from huggingface_hub import constants

    os.environ["HF_HUB_OFFLINE"] = "1"
    # The client reads the environment when it is imported.
    constants.HF_HUB_OFFLINE = True


@contextmanager
def cache_alone() -> Iterator[None]:
    """Nothing is asked of the hub within the block."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def cached(address: str, names: Sequence[str] = ()) -> HubFile | None:
    """The pinned file of an address in the cache; None if it is not there. Asks nothing of the hub.

    Args:
        address: See `HubFile.parse`.
        names: The file is the first of these that there is, where the address names none, else the only file
            of weights.
    """
    from huggingface_hub import try_to_load_from_cache

    wanted = HubFile.parse(address)
    if not wanted.file:
        here = _weights_in_cache(wanted)
        names = [*names, *(here if len(here) == 1 else ())]
    for name in [wanted.file] if wanted.file else names:
        found = try_to_load_from_cache(wanted.repo, name, revision=wanted.revision)
        if isinstance(found, str):
            commit = Path(found).parents[name.count("/")].name
            return replace(wanted, file=name, revision=commit)
    return None


# Branches and tags that stand for a pinned file which is not in the cache yet.
_revisions: dict[str, set[str]] = {}


@cache
def pin(address: str, names: tuple[str, ...] = (), licence: str = "") -> str:
    """The address of a file in one commit, and a line to the user that says which file it is.

    A file that is in the cache is taken as it is, without a question to the hub: so the same command goes on
    with the same file. Another revision has to be named.

    Args:
        address: See `HubFile.parse`.
        names: Where the address names no file, the first of these that the repository has is taken, else its
            only file of weights.
        licence: The licence where the hub cannot be asked, or its card says none.

    Raises:
        DenseCLIError: There is no such repository, file or revision, access is denied, or the hub cannot be
            asked.
    """
    if at := cached(address, names):
        say(_line(at, "from the cache", licence))
        return str(at)
    listed = _listed(address, names)
    told = as_size(listed.bytes) if listed.bytes else "of unknown size"
    say(_line(listed.at, told, listed.licence or licence, listed.sha256))
    if (revision := HubFile.parse(address).revision) != listed.at.revision:
        _revisions.setdefault(str(listed.at), set()).add(revision)
    return str(listed.at)


def _line(at: HubFile, told: str, licence: str, sha256: str = "") -> str:
    digest = f", sha256 {sha256[:16]}" if sha256 else ""
    return f"{at}: {told}{digest}, licence {licence or f'not stated, see {page(at)}'}"


def sha256_of(address: str) -> str:
    """sha256 of a pinned file, in hex: of the file in the cache, else as the hub says.

    Raises:
        DenseCLIError: As for `pin`.
    """
    at = HubFile.parse(address)
    if cached(address) is None and (found := _listed(address, ()).sha256):
        return found
    return _file_sha256(local_file(str(at)))


def local_file(address: str) -> Path:
    """The path of a file in the cache, downloaded where it is not there. Its digest is compared.

    Processes of one machine, or with one cache, wait for the one that downloads. A download that was cut off
    goes on where it stopped.

    Args:
        address: See `HubFile.parse`; with a file.

    Raises:
        DenseCLIError: As for `pin`; or the download is cut off, or has another digest than the hub says.
    """
    from huggingface_hub import constants

    at = HubFile.parse(address)
    path = _downloaded(at)
    if _is_sound(path):
        return path
    if constants.HF_HUB_OFFLINE:
        raise DenseCLIError(f"{path} is damaged.", hint="Leave out --offline: it is then downloaded again.")
    say(f"{path} is damaged and is downloaded again.")
    if _is_sound(path := _downloaded(at, again=True)):
        return path
    raise DenseCLIError(
        f"The download of {at} has another digest than the hub says, twice.",
        hint="A proxy, a mirror (HF_ENDPOINT) or the disk changes the file. Download it elsewhere and name "
        "it: --weights NAME=PATH.",
    )


def _downloaded(at: HubFile, *, again: bool = False) -> Path:
    from huggingface_hub import hf_hub_download

    with errors_of(at):
        path = hf_hub_download(at.repo, at.file, revision=at.revision, force_download=again, tqdm_class=_Bar)
    for revision in _revisions.pop(str(at), ()):
        _remember(replace(at, revision=revision), at.revision)
    return Path(path)


def _remember(at: HubFile, commit: str) -> None:
    """Notes in the cache which commit a branch or a tag stood for, as the hub's client does."""
    with suppress(OSError):
        # A cache may be for reading alone.
        fs.write_atomic(str(_folder(at) / "refs" / at.revision), commit.encode())


def _is_sound(path: Path) -> bool:
    """Whether a file of the cache has the digest by which the cache names it."""
    digest = path.resolve().name
    # Small files have a digest of git's, which is not that of their bytes.
    return not _SHA256.fullmatch(digest) or _file_sha256(path) == digest


def _file_sha256(path: Path) -> str:
    stat = path.stat()
    return _sha256(path, stat.st_size, stat.st_mtime_ns)


@cache
def _sha256(path: Path, _size: int, _changed: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def _listed(address: str, names: tuple[str, ...]) -> Listed:
    """Asks the hub about a file."""
    from huggingface_hub import HfApi

    wanted = HubFile.parse(address)
    with errors_of(wanted):
        info = HfApi().model_info(wanted.repo, revision=wanted.revision, files_metadata=True)
    files: Mapping[str, Any] = {each.rfilename: each for each in info.siblings or ()}
    name = wanted.file or _chosen(wanted, files, names)
    if name not in files:
        raise _no_file(wanted, files)
    file, commit = files[name], str(info.sha or "")
    if not COMMIT.fullmatch(commit):
        raise DenseCLIError(
            f"The hub names no commit of {wanted.repo}.", hint="Is HF_ENDPOINT the address of a hub?"
        )
    lfs, card = getattr(file, "lfs", None), getattr(info, "card_data", None)
    return Listed(
        at=replace(wanted, file=name, revision=commit),
        bytes=getattr(file, "size", None),
        sha256=str(lfs["sha256"] if lfs else ""),
        licence=str(getattr(card, "license_name", None) or getattr(card, "license", None) or ""),
    )


def _chosen(wanted: HubFile, files: Mapping[str, Any], names: Sequence[str]) -> str:
    """The file that an address without one means."""
    for name in names:
        if name in files:
            return name
    weights = [name for name in files if name.endswith(_WEIGHTS)]
    if len(weights) == 1:
        return weights[0]
    if not weights:
        raise DenseCLIError(
            f"{HUB}{wanted.repo} has no file of weights.",
            hint=f"Its page: {page(wanted)}. Files of {', '.join(_WEIGHTS)} are read.",
        )
    raise DenseCLIError(
        f"{HUB}{wanted.repo} has {len(weights)} files of weights.",
        hint=f"Name one of them, such as {HUB}{wanted.repo}/{weights[0]}: {', '.join(weights)}.",
    )


def _no_file(wanted: HubFile, files: Mapping[str, Any]) -> DenseCLIError:
    weights = [name for name in files if name.endswith(_WEIGHTS)]
    has = f"It has {', '.join(weights)}." if weights else "It has no file of weights."
    return DenseCLIError(f"{HUB}{wanted.repo} has no file {wanted.file}.", hint=has)


def _weights_in_cache(at: HubFile) -> list[str]:
    """The files of weights that the cache has of a revision."""
    folder = _folder(at)
    ref = folder / "refs" / at.revision
    snapshot = folder / "snapshots" / (ref.read_text() if ref.is_file() else at.revision)
    files = [path.relative_to(snapshot).as_posix() for path in snapshot.glob("**/*")]
    return [name for name in files if name.endswith(_WEIGHTS)]


def _folder(at: HubFile) -> Path:
    """The folder of a repository in the cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE, f"models--{at.repo.replace('/', '--')}")


class _Bar(tqdm):  # type: ignore[misc]
    """The bar of a download, for the hub's client: shows `Progress`, in megabytes."""

    def __init__(self, *args: Any, total: int | None = None, initial: int = 0, **options: Any) -> None:
        super().__init__(*args, **{**options, "total": total, "initial": initial, "disable": True})
        self._at, self._end = initial, total
        self._shown = Progress(-(-(total or 0) // _MEGABYTE), "MB", done=initial // _MEGABYTE)

    def update(self, n: float | None = 1) -> None:
        """See tqdm."""
        self._at += int(n or 0)
        done = self._shown.total if self._at == self._end else self._at // _MEGABYTE
        if more := done - self._shown.done:
            self._shown.advance(more)

    def close(self) -> None:
        """See tqdm."""
        # tqdm closes also what it could not make.
        if "_shown" in self.__dict__:
            self._shown.close()
        super().close()
