"""Digests of stored photos, by which targets find the photos that they are about."""

import hashlib
from collections.abc import Sequence

from densecli.core import fs
from densecli.core.errors import DenseCLIError

FOLDER = "photos"
"""Folder of a shared store with a file of digests for each shard."""
SIZE = hashlib.sha256().digest_size


def digest_of(jpg: bytes | memoryview) -> bytes:
    """The sha256 of a stored photo, the JPEG that teachers saw: 32 bytes."""
    return hashlib.sha256(jpg).digest()


def digests_url(shared: str, shard: str) -> str:
    """Address of the digests of a shard."""
    return fs.join(shared, FOLDER, f"{shard}.sha256")


def write_digests(shared: str, shard: str, digests: Sequence[bytes]) -> None:
    """Writes the digests of a shard's photos, in the order of its samples: 32 bytes each, nothing else."""
    fs.write_atomic(digests_url(shared, shard), b"".join(digests))


def read_digests(shared: str, shard: str, samples: int) -> list[bytes]:
    """Reads the digests of a shard's photos.

    Args:
        shared: The shared store.
        shard: Name of the shard.
        samples: Number of its samples.

    Raises:
        DenseCLIError: They are missing, or not as many as the samples.
    """
    url = digests_url(shared, shard)
    try:
        data = fs.read_range(url, 0, SIZE * samples + 1)
    except FileNotFoundError:
        raise DenseCLIError(
            f"{shared} has no digests of the photos of shard {shard}.",
            hint="Share the store again with densecli share: the copy is not whole.",
        ) from None
    if len(data) != SIZE * samples:
        raise DenseCLIError(
            f"{url} has not {samples} digests.", hint="Copy it again: it is cut off or of another store."
        )
    return [data[i : i + SIZE] for i in range(0, len(data), SIZE)]
