"""A file elsewhere as a seekable one, of which only small parts are fetched."""

import io
from collections.abc import Callable

LEAST = 513
"""Bytes of the smallest request: a header of a tar, and the byte before it, which tarfile reads first."""
MOST = 8192
"""Bytes of the largest request that fetches more than was asked for."""


class RangedFile(io.RawIOBase):
    """A file whose bytes are fetched by requests that learn how much is read in one place.

    What is read within `MOST` bytes of the former request belongs to one place. The next place is fetched by
    one request of as many bytes: in a tar of .jpg, .json and .txt, one request has the headers of all three.

    Attributes:
        size: Bytes of the file.
    """

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        """Fetches nothing yet.

        Args:
            fetch: Fetches that many bytes from an offset: (offset, bytes).
            size: Bytes of the file.
        """
        super().__init__()
        self.size = size
        self._fetch = fetch
        self._at = 0
        self._data, self._start = b"", 0
        # Where the reading of this place began and ends.
        self._place, self._end = 0, LEAST

    def readable(self) -> bool:
        """Whether it can be read: yes."""
        return True

    def tell(self) -> int:
        """The offset of the next byte."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves to an offset from the start or, with 0, to the end."""
        self._at = self.size if whence == io.SEEK_END else offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        """The next bytes; fewer at the end of the file."""
        end = self.size if size < 0 else min(self._at + size, self.size)
        if end <= self._at:
            return b""
        if not self._start <= self._at <= end <= self._start + len(self._data):
            self._request(end)
        self._end = end
        data = self._data[self._at - self._start : end - self._start]
        self._at += len(data)
        return data

    def _request(self, end: int) -> None:
        """Fetches the bytes from here to `end`, and more where more was read in the former place."""
        window = LEAST
        if not self._start <= self._at <= self._start + len(self._data) + MOST:
            window = min(max(LEAST, self._end - self._place), MOST)
            self._place = self._at
        size = min(max(end - self._at, window), self.size - self._at)
        self._data, self._start = self._fetch(self._at, size), self._at
