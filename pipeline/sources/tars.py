"""Tars from strangers: where their members lie, found by reading headers alone."""

import io
import posixpath
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import BinaryIO, NamedTuple, cast

import numpy as np

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.core.passed_over import PassedOver
from densecli.pipeline.sources.ranged_file import RangedFile

Place = tuple[int, int]
"""Offset and bytes of a member."""
Row = tuple[bytes, int, int, int, int]
"""Name, offset and bytes of a photo, offset and bytes of its masks, of which 0 bytes are none."""
Choose = Callable[[Mapping[str, Place], PassedOver], list[Row]]
"""Chooses the photos among the members of a tar, and counts the others; the result is the rows of `table`."""
Scanned = tuple[np.ndarray, PassedOver]
"""The `table` of a tar or a folder, and what was left out of it."""


MAX_NAME = 1000
"""Longest name of a member in bytes: a listing keeps as much for every one of them."""
MAX_HEADER = 1 << 20
"""Bytes of the longest header that is read, such as a long name."""
MAX_SIZE = (1 << 32) - 1
DIRECTORY = tarfile.DIRTYPE
MAGIC = slice(257, 262)
"""Where a header has the word ustar."""
FIRST = 8
"""Members of a tar elsewhere from which the mean size of all is taken."""
SEARCH = 1 << 17
"""Most bytes that are fetched at once to find a header in the middle of a tar."""
FEWEST = 16
"""Fewest members of a part that a reader of its own is worth."""
SEARCHED = 1024
"""A part has so many members that its search costs at most about as many bytes for each."""
_HOPS = 8


def table(rows: Sequence[Row]) -> np.ndarray:
    """Packs rows into a structured array (N,): 24 bytes and the name per photo. No masks have 0 bytes."""
    width = max((len(row[0]) for row in rows), default=1)
    numbers = [("offset", "<i8"), ("size", "<u4"), ("masks_offset", "<i8"), ("masks_size", "<u4")]
    return np.array(rows, dtype=[("name", f"S{width}"), *numbers])


class TarLister:
    """Lists tars in threads of this process.

    Attributes:
        at_once: Tars elsewhere that are listed at the same time.
        requests: Requests for their headers that are under way at the same time.
    """

    at_once, requests = 32, 128

    def around(self) -> AbstractContextManager[None]:
        """What all calls of `scan` need around them."""
        return nullcontext()

    def scan(self, url: str, choose: Choose, *, size: int, readers: int) -> Scanned:
        """See `scan_tar`. Called from threads."""
        return scan_tar(url, choose, size=size, readers=readers)


def scan_tar(url: str, choose: Choose, *, size: int = 0, readers: int = 1) -> Scanned:
    """Lists the photos of a tar, in its order. Reads headers and skips the rest.

    Args:
        url: The tar.
        choose: Chooses the photos among its members.
        size: Bytes of a tar elsewhere. With 0 it is opened as a file.
        readers: Most parts of a tar elsewhere that are read at the same time.

    Returns:
        The `table` of its photos, and what was left out.

    Raises:
        DenseCLIError: The tar is not complete.
    """
    passed = PassedOver()
    try:
        if size and not fs.is_local(url):
            with fs.open_ranges(url) as fetch:
                headers = _walk_in_parts(fetch, size, 1 if fs.is_web(url) else readers)
        else:
            with fs.open_to_seek(url) as file:
                headers = _walk(file).headers
        members = _members(headers, passed)
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        raise DenseCLIError(
            f"{url} is not a whole tar: it is damaged, compressed, or ends too early.",
            hint="Download it again, or move it away to go on without its photos.",
        ) from error
    return table(choose(members, passed)), passed


class _Header(NamedTuple):
    """What the headers of a member say."""

    offset: int
    name: str
    kind: bytes
    place: Place
    link: str


class _Walk(NamedTuple):
    """The members from one offset on.

    Attributes:
        headers: Their headers.
        end: Where the next header is.
        complete: Whether the tar ends there.
        stateful: Whether headers here change what later ones mean.
    """

    headers: list[_Header]
    end: int
    complete: bool
    stateful: bool


def _walk(file: BinaryIO, start: int = 0, stop: Callable[[int], bool] = lambda offset: False) -> _Walk:
    """Reads headers from an offset to the end of the tar, or to the first offset at which to stop.

    Raises:
        TarError, ValueError, OverflowError, RecursionError: The tar is damaged.
    """
    found: list[_Header] = []
    headers = _Headers(file)
    headers.seek(start)
    with tarfile.open(fileobj=headers, mode="r:") as tar:
        end = start - 1
        while not (found and stop(tar.offset)) and (member := tar.next()):
            # TarFile keeps every member it has seen.
            tar.members.clear()  # type: ignore[attr-defined]
            if tar.offset <= end or member.size < 0:
                raise tarfile.ReadError("a member has a negative size")
            end = tar.offset
            kind = DIRECTORY if member.isdir() else member.type
            kind = tarfile.GNUTYPE_SPARSE if member.issparse() else kind
            place = member.offset_data, member.size
            found.append(_Header(member.offset, member.name, kind, place, member.linkname))
        complete = not (found and stop(tar.offset))
        if complete:
            # Zeros follow the last member, unless the tar is truncated or the next header is damaged.
            headers.seek(tar.offset)
            rest = headers.read(tarfile.RECORDSIZE)
            if len(rest) < tarfile.BLOCKSIZE or any(rest):
                raise tarfile.ReadError("it does not end with zeros")
        return _Walk(found, tar.offset, complete, bool(tar.pax_headers))


def _walk_in_parts(fetch: Callable[[int, int], bytes], size: int, readers: int) -> list[_Header]:
    """Reads the headers of a tar elsewhere, several parts of it at the same time.

    Each reader begins at a block that looks like a header. That is a guess: what it finds counts only from
    where the headers before it lead to. So the result is that of a single reader, whatever a tar holds.
    """

    def file() -> BinaryIO:
        return cast(BinaryIO, RangedFile(fetch, size))

    first = _walk(file(), stop=_after(FIRST))
    walks = [first]
    mean = first.end / max(1, len(first.headers))
    left = size - first.end
    parts = min(readers, int(left // (mean * max(FEWEST, mean / SEARCHED)))) if mean else 0
    if not first.complete and parts > 1:
        edges = [first.end + left * i // parts for i in range(parts + 1)]

        def part(start: int, stop: int) -> _Walk | None:
            try:
                if start != first.end:
                    start = _find_header(
                        fetch, start, min(stop, start + SEARCH + round(4 * mean)), round(mean / 4)
                    )
                return _walk(file(), start, lambda offset: offset >= stop)
            except (tarfile.TarError, ValueError, OverflowError, RecursionError):
                return None

        with ThreadPoolExecutor(parts, "headers") as pool:
            walks += filter(None, pool.map(part, edges[:-1], edges[1:]))
    if any(walk.stateful for walk in walks):
        return _walk(file()).headers
    places = {header.offset: (walk, i) for walk in walks[1:] for i, header in enumerate(walk.headers)}
    joined, walk = first.headers, first
    while not walk.complete:
        if walk.end in places:
            walk, known = places[walk.end]
            joined += walk.headers[known:]
        else:
            walk = _walk(file(), walk.end, places.__contains__)
            if walk.stateful:
                return _walk(file()).headers
            joined += walk.headers
    return joined


def _after(count: int) -> Callable[[int], bool]:
    """Stops after that many members."""
    seen = iter(range(1, count))
    return lambda offset: next(seen, None) is None


def _find_header(fetch: Callable[[int, int], bytes], start: int, stop: int, step: int) -> int:
    """The first offset from `start` on that holds a header, as far as its checksum tells.

    Fetches about `step` bytes at a time.

    Raises:
        ReadError: There is none before `stop`.
    """
    start -= start % -tarfile.BLOCKSIZE
    step = min(SEARCH, max(step, 8 * tarfile.BLOCKSIZE)) // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
    while start < stop:
        data = fetch(start, min(step, stop - start))
        for at in range(0, len(data) - tarfile.BLOCKSIZE + 1, tarfile.BLOCKSIZE):
            block = data[at : at + tarfile.BLOCKSIZE]
            if block[MAGIC] == b"ustar":
                with suppress(tarfile.HeaderError):
                    tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
                    return start + at
        start += step
    raise tarfile.ReadError("no header")


def _members(headers: Iterable[_Header], passed: PassedOver) -> dict[str, Place]:
    """The places of a tar's files by name; links lead to the places of what they link to."""
    found: dict[str, Place] = {}
    links: dict[str, str] = {}
    for header in headers:
        name, kind = header.name.removeprefix("./"), header.kind
        if kind == DIRECTORY:
            continue
        if len(name.encode("utf-8", "surrogateescape")) > MAX_NAME or "\0" in name:
            passed.add("with a name that is too long or holds zeros", name[:80])
            continue
        if name in found or name in links:
            passed.add("replaced by a later member of the same name", name)
            links.pop(name, None)
        if kind in (tarfile.LNKTYPE, tarfile.SYMTYPE):
            folder = "" if kind == tarfile.LNKTYPE else posixpath.dirname(name)
            links[name] = posixpath.normpath(posixpath.join(folder, header.link))
            found[name] = (0, 0)
        elif kind not in tarfile.REGULAR_TYPES or kind == tarfile.GNUTYPE_SPARSE:
            found.pop(name, None)
            passed.add("neither a whole file nor a link", name)
        elif header.place[1] > MAX_SIZE:
            found.pop(name, None)
            passed.add("larger than 4 GB", name)
        else:
            found[name] = header.place
    return _followed(found, links, passed)


def _followed(found: dict[str, Place], links: Mapping[str, str], passed: PassedOver) -> dict[str, Place]:
    """Replaces every link by its target; links to nothing are left out."""
    for name in links:
        target, hops = links[name], 0
        while target in links and hops < _HOPS:
            target, hops = links[target], hops + 1
        if target in found and target not in links:
            found[name] = found[target]
        else:
            passed.add("a link to nothing in its tar", name)
    return {name: place for name, place in found.items() if name not in links or place != (0, 0)}


class _Headers(io.RawIOBase):
    """A file for tarfile: no header claims megabytes, and no member lies outside of the file."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self._size = file.seek(0, io.SEEK_END)
        file.seek(0)

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET or not 0 <= offset <= self._size:
            raise tarfile.ReadError("a member ends behind the end of the file")
        return self._file.seek(offset)

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_HEADER:
            raise tarfile.ReadError("a header is too long")
        try:
            return self._file.read(size)
        except ValueError as error:  # of a client, not of the tar
            raise OSError(str(error)) from error
