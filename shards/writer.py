"""Writes shards: byte-identical tars that plain webdataset reads, published whole or not at all."""

import io
import os
import re
import sys
import tarfile
import time
from collections.abc import Mapping
from typing import Any

import xxhash
from PIL import Image

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.shards.column import Column
from densecli.shards.keys import canonical_json, keys_digest
from densecli.shards.npz import npz_bytes as npz_bytes
from densecli.shards.receipts import BLOCK, NAME_BYTES, SIZE_FIELD, Receipt
from densecli.shards.store import PHOTOS

# The header of an empty file without a name, and its checksum without the digits of the size.
_BLANK = tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)
_SUM = slice(148, 154)
_BLANK_SUM = int(_BLANK[_SUM], 8) - sum(_BLANK[SIZE_FIELD])
_KEY = re.compile(r"[^\s./]+")


class ShardWriter:
    """Collects one shard of one column in memory. Nothing is on disk before `commit`."""

    def __init__(self, column: Column, shard: str) -> None:
        self.column = column
        self.shard = shard
        self.keys: dict[str, None] = {}
        self._chunks: list[bytes] = []
        self._bytes = 0
        self._members: dict[str, tuple[int, int]] = {}

    def add(self, key: str, parts: Mapping[str, bytes]) -> None:
        """Adds a sample.

        Args:
            key: Key of the sample.
            parts: Its members by extension ("jpg", "json", "npz"). They are written in sorted order.

        Raises:
            DenseCLIError: Webdataset would read back another key, the key is too long, or it is a duplicate.
        """
        if not _KEY.fullmatch(key) or not key.isprintable():
            raise DenseCLIError(
                f"The sample key {key!r} is empty or has a dot, a slash or a space.",
                hint="Rename the sample in its source: webdataset would read another key back.",
            )
        if key in self.keys:
            raise DenseCLIError(
                f"The sample key {key!r} occurs twice in shard {self.shard}.",
                hint="Give every sample of the source a key of its own.",
            )
        for extension in sorted(parts):
            name = f"{key}.{extension}"
            if len(name.encode()) > NAME_BYTES:
                raise DenseCLIError(
                    f"The sample key {key!r} is too long for a tar.",
                    hint=f"Keep it under {NAME_BYTES - 10} bytes.",
                )
            data = parts[extension]
            self._members[name] = (self._bytes + BLOCK, len(data))
            self._append(_header(name, len(data)), data, bytes(-len(data) % BLOCK))
        self.keys[key] = None

    def _append(self, *chunks: bytes) -> None:
        self._chunks += chunks
        self._bytes += sum(map(len, chunks))

    def commit(
        self,
        *,
        seconds: dict[str, float] | None = None,
        gpu_seconds: float = 0.0,
        skipped: dict[str, int] | None = None,
        error: dict[str, float] | None = None,
    ) -> Receipt:
        """Publishes the tar, then its receipt. Without the receipt, readers and resumed builds see no shard.

        Args:
            seconds: Seconds that the caller spent, by stage. The receipt adds `write`, the time to publish
                the tar.
            gpu_seconds: Of them, seconds on a GPU.
            skipped: Number of skipped samples by reason.
            error: The codec's error on this shard.

        Raises:
            DenseCLIError: The store is full or cannot be written.
        """
        start = time.perf_counter()
        end = 2 * BLOCK
        self._append(bytes(end + -(self._bytes + end) % tarfile.RECORDSIZE))
        digest = xxhash.xxh3_64()
        for chunk in self._chunks:
            digest.update(chunk)
        fs.write_atomic(self.column.tar_url(self.shard), self._chunks)
        write = time.perf_counter() - start
        receipt = Receipt(
            shard=self.shard,
            column=self.column.key,
            samples=len(self.keys),
            keys_digest=keys_digest(list(self.keys)),
            bytes=self._bytes,
            xxh3=digest.hexdigest(),
            members=self._members,
            skipped=skipped or {},
            error=error or {},
            seconds={**(seconds or {}), "write": write},
            gpu_seconds=gpu_seconds,
        )
        fs.write_atomic(self.column.receipt_url(self.shard), receipt.to_json())
        return receipt


def _header(name: str, size: int) -> bytes:
    """The USTAR header of a regular file, as `tarfile` writes it in ten times the time."""
    header = bytearray(_BLANK)
    header[: len(name.encode())] = name.encode()
    header[SIZE_FIELD] = b"%011o" % size
    header[_SUM] = b"%06o" % (_BLANK_SUM + sum(name.encode()) + sum(header[SIZE_FIELD]))
    return bytes(header)


def jpg_bytes(photo: Image.Image) -> bytes:
    """A `.jpg` member, encoded as `PHOTOS` says."""
    # Pillow releases the GIL while it encodes into a real file, but not into a buffer.
    linux = sys.platform == "linux"
    with open(os.memfd_create("jpg"), "w+b", buffering=0) if linux else io.BytesIO() as file:
        photo.save(file, PHOTOS["codec"], quality=PHOTOS["quality"])
        file.seek(0)
        return file.read()


def json_bytes(value: Any) -> bytes:
    """A `.json` member: canonical JSON."""
    return canonical_json(value)
