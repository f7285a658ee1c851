"""Tars from strangers: where their members lie, found by reading headers alone."""

import io
import posixpath
import tarfile
from collections.abc import Callable, Mapping
from typing import BinaryIO

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.core.passed_over import PassedOver

Place = tuple[int, int]
"""Offset and bytes of a member."""
Row = tuple[bytes, int, int, int, int]
"""Name, offset and bytes of a photo, offset and bytes of its masks, of which 0 bytes are none."""
Choose = Callable[[Mapping[str, Place], PassedOver], list[Row]]
"""Chooses the photos among the members of a tar, and counts the others; the result is the rows of `table`."""

MAX_NAME = 1000
"""Longest name of a member in bytes: a listing keeps as much for every one of them."""
MAX_HEADER = 1 << 20
"""Bytes of the longest header that is read, such as a long name."""
MAX_SIZE = (1 << 32) - 1
_HOPS = 8


def scan_tar(url: str, choose: Choose) -> tuple[list[Row], PassedOver]:
    """Lists the photos of a tar, in its order. Reads headers and skips the rest.

    Args:
        url: The tar.
        choose: Chooses the photos among its members.

    Returns:
        The rows of `volumes.table`, and what was left out.

    Raises:
        DenseCLIError: The tar is not complete.
    """
    passed = PassedOver()
    with fs.open_to_seek(url) as file:
        try:
            members = _members(file, passed)
        except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
            raise DenseCLIError(
                f"{url} is not a whole tar: it is damaged, compressed, or ends too early.",
                hint="Download it again, or move it away to go on without its photos.",
            ) from error
    return choose(members, passed), passed


def _members(file: BinaryIO, passed: PassedOver) -> dict[str, Place]:
    """The places of a tar's files by name; links lead to the places of what they link to."""
    found: dict[str, Place] = {}
    links: dict[str, str] = {}
    headers = _Headers(file)
    with tarfile.open(fileobj=headers, mode="r:") as tar:
        end = -1
        while member := tar.next():
            # TarFile keeps every member it has seen.
            tar.members.clear()  # type: ignore[attr-defined]
            if tar.offset <= end or member.size < 0:
                raise tarfile.ReadError("a member has a negative size")
            end = tar.offset
            name = member.name.removeprefix("./")
            if member.isdir():
                continue
            if len(name.encode("utf-8", "surrogateescape")) > MAX_NAME or "\0" in name:
                passed.add("with a name that is too long or holds zeros", name[:80])
                continue
            if name in found or name in links:
                passed.add("replaced by a later member of the same name", name)
                links.pop(name, None)
            if member.islnk() or member.issym():
                folder = "" if member.islnk() else posixpath.dirname(name)
                links[name] = posixpath.normpath(posixpath.join(folder, member.linkname))
                found[name] = (0, 0)
            elif not member.isreg() or member.issparse():
                found.pop(name, None)
                passed.add("neither a whole file nor a link", name)
            elif member.size > MAX_SIZE:
                found.pop(name, None)
                passed.add("larger than 4 GB", name)
            else:
                found[name] = member.offset_data, member.size
        # Zeros follow the last member, unless the tar is truncated or the next header is damaged.
        headers.seek(tar.offset)
        rest = headers.read(tarfile.RECORDSIZE)
        if len(rest) < tarfile.BLOCKSIZE or any(rest):
            raise tarfile.ReadError("it does not end with zeros")
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
