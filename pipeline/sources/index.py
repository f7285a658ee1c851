"""The index: what listings of data found, kept so that nothing is listed twice."""

import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from densecli.core import fs
from densecli.core.addresses import from_environment
from densecli.core.errors import DenseCLIError

YOUNG = 24 * 3600.0
"""Seconds for which a listing is shared that nothing can be compared with."""


@dataclass(frozen=True, kw_only=True)
class Index:
    """A folder of listings, and perhaps one more that the builds and plans of a machine share.

    Attributes:
        folder: Path or URL of the folder, in a store.
        save: Whether to add new listings to it; otherwise they are added to the shared one.
        shared: Path of the shared folder. Empty: there is none.
        relist: Whether listings are made again that nothing can be compared with.
    """

    folder: str
    save: bool
    shared: str = ""
    relist: bool = False

    def __contains__(self, name: str) -> bool:
        return name in self._names or name in self._shared_names

    def get(self, name: str) -> bytes | None:
        """The listing of this name, if there is one; one that was only shared is added to the folder."""
        with suppress(FileNotFoundError):
            if name in self._names:
                return fs.read_bytes(fs.join(self.folder, name))
            if name in self._shared_names:
                data = fs.read_bytes(fs.join(self.shared, name))
                if self.save:
                    self.put(name, data)
                return data
        return None

    def kept(self, name: str) -> bytes | None:
        """Like `get`, for a listing that nothing can be compared with: a shared one must be young."""
        if self.relist:
            return None
        if name not in self._names and name in self._shared_names:
            age = time.time() - fs.files(self.shared)[name].modified
            return self.get(name) if age < YOUNG else None
        return self.get(name)

    def put(self, name: str, data: bytes) -> None:
        """Adds or replaces a listing."""
        if self.save:
            fs.write_atomic(fs.join(self.folder, name), data)
            self._names.add(name)
        elif self.shared:
            # A home that is full or may only be read does no harm.
            with suppress(DenseCLIError, OSError):
                fs.write_atomic(fs.join(self.shared, name), data)
                self._shared_names.add(name)

    @cached_property
    def _names(self) -> set[str]:
        return set(fs.listdir(self.folder))

    @cached_property
    def _shared_names(self) -> set[str]:
        try:
            return set(fs.listdir(self.shared)) if self.shared else set()
        except OSError:
            return set()


def shared_listings() -> str:
    """The folder of listings that the commands of this machine share: it may be deleted at any time."""
    return fs.join(from_environment("DENSECLI_CACHE", fs.expanded("~/.cache/densecli")), "listings")


def listed_before(when: float) -> str:
    """A sentence about a kept listing. when: Seconds since 1970."""
    return f"The listing of the photos of {datetime.fromtimestamp(when):%Y-%m-%d %H:%M} was kept (--relist)."
