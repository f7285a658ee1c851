"""Arrays: `.npz` members of a store, and `.npy` files of text embeddings."""

import io
import random
import zipfile
from pathlib import Path

import numpy as np

from densecli.models.text import load_text_embeddings
from densecli.shards.npz import decode_npz, npz_bytes

from .frame import Target
from .inputs import mutated

ARRAYS = {
    "boxes": np.linspace(0, 1, 24, dtype=np.float32).reshape(6, 4),
    "names": np.array(["ä", "bc"]),
    "photos": np.array([(b"1.jpg", 512, 70)], [("name", "S8"), ("offset", "<i8"), ("size", "<u4")]),
    "thing": np.array([True, False]),
}
DESCRS = ("'<f8'", "'|S0'", "'<U0'", "'|S99999999999'", "'<f3'", "'|O'", "[('a', '<f8'), ('a', '<i2')]")
SHAPES = ("()", "(0,)", "(3, 1)", "(99999999999,)", "(9223372036854775808, 0)", "(65536, 65536, 65536)")


def saved(array: np.ndarray) -> bytes:
    """A .npy file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def headed(rng: random.Random) -> bytes:
    """A .npy file with a header of any types and shapes."""
    text = f"{{'descr': {rng.choice(DESCRS)}, 'fortran_order': False, 'shape': {rng.choice(SHAPES)}, }}\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + rng.randbytes(24)


def try_npz(rng: random.Random, folder: Path) -> None:
    """A mutated member; what is read of it is no more than what it holds."""
    data = mutated(rng, npz_bytes(ARRAYS)) if rng.random() < 0.8 else stored(headed(rng))
    try:
        arrays = decode_npz(data)
    except ValueError:
        return
    else:
        assert sum(array.nbytes for array in arrays.values()) <= len(data)
        assert all(array.size <= len(data) for array in arrays.values())


def stored(npy: bytes) -> bytes:
    """A member of one array, whose header is what a writer of ours would never write."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo("x.npy"), npy)
    return file.getvalue()


def try_text(rng: random.Random, folder: Path) -> None:
    """Mutated text embeddings."""
    table = saved(np.ones((3, 8), rng.choice((np.float16, np.float32, np.float64, np.int8))))
    path = folder / "text.npy"
    path.write_bytes(mutated(rng, table) if rng.random() < 0.7 else headed(rng))
    rows = load_text_embeddings(path, 3, 8)
    assert rows.shape == (3, 8)
    # A comparison that NaN fails.
    assert ((rows.norm(dim=1) - 1).abs() < 1e-3).all()


TARGETS = (
    Target(name="npz", try_one=try_npz, quick=1000),
    Target(name="text embeddings", try_one=try_text, quick=300),
)
