import ast
import gc
import io
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays, floating_dtypes, integer_dtypes

from densecli.shards.npz import decode_npz, npz_bytes

ARRAYS = {
    "boxes": np.linspace(0, 1, 24, dtype=np.float32).reshape(6, 4),
    "clé": np.array(["ä", "bc"]),
    "photos": np.array([(b"sa_1.jpg", 512, 70)], [("name", "S8"), ("offset", "<i8"), ("size", "<u4")]),
    "thing": np.array([True, False]),
}
plain = arrays(
    integer_dtypes() | floating_dtypes() | st.just(np.dtype(bool)),
    st.sampled_from([(), (0,), (7,), (3, 2), (2, 0, 5)]),
)


def of_zipfile(content):
    """The same arrays by Python's and numpy's own libraries."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in sorted(content.items()):
            npy = io.BytesIO()
            np.lib.format.write_array(npy, np.asarray(array, order="C"), version=(1, 0))
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            archive.writestr(entry, npy.getvalue())
    return buffer.getvalue()


def saved(**content):
    buffer = io.BytesIO()
    np.savez(buffer, **content)
    return buffer.getvalue()


def same(decoded, content):
    assert list(decoded) == sorted(content)
    for name, array in content.items():
        assert (decoded[name].dtype, decoded[name].shape) == (array.dtype, array.shape)
        assert decoded[name].flags.aligned and decoded[name].flags.writeable
        np.testing.assert_array_equal(decoded[name], array)


@given(plain)
def test_npz__round_trips_and_numpy_reads_it(array):
    content = {"a": array.T, "b": array}
    data = npz_bytes(content)
    assert data == npz_bytes(dict(reversed(content.items())))
    same(decode_npz(data), content)
    same(dict(np.load(io.BytesIO(data), allow_pickle=False)), content)


@given(plain)
def test_npz__what_numpy_saves_is_read(array):
    content = {"a": array.T, "b": array}
    same(decode_npz(saved(**content)), content)


@pytest.mark.parametrize("content", [{}, ARRAYS])
def test_npz__the_bytes_are_those_of_a_zip_without_clock_or_compression(content):
    assert npz_bytes(content) == of_zipfile(content)
    same(decode_npz(npz_bytes(content)), content)


def test_npz__no_pickles_out_or_in():
    with pytest.raises(ValueError, match="'a' holds objects"):
        npz_bytes({"a": np.array([{}])})
    for dtype in (object, [("x", object)]):
        with pytest.raises(ValueError, match="neither numbers"):
            decode_npz(saved(a=np.zeros(1, dtype)))


def test_npz__a_compressed_one_is_refused():
    buffer = io.BytesIO()
    np.savez_compressed(buffer, a=np.zeros(100))
    with pytest.raises(ValueError, match=r"'a\.npy' is compressed"):
        decode_npz(buffer.getvalue())


def test_npz__one_that_was_cut_is_refused():
    data = npz_bytes(ARRAYS)
    for end in range(len(data)):
        with pytest.raises(ValueError):
            decode_npz(data[:end])


def test_npz__a_flipped_bit_is_refused_or_says_nothing():
    data = npz_bytes(ARRAYS)
    harmless = 0
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 1
        try:
            same(decode_npz(bytes(damaged)), ARRAYS)
            harmless += 1
        except ValueError:
            pass
    # Dates, versions and modes; what is said twice, once in front and once in the directory.
    assert harmless < 60 * len(ARRAYS)


@contextmanager
def busy_collector():
    """Threads are switched, and garbage collected, at almost every step."""
    interval, threshold = sys.getswitchinterval(), gc.get_threshold()

    def pause(phase, info):
        time.sleep(1e-5)

    sys.setswitchinterval(1e-6)
    gc.set_threshold(1)
    gc.callbacks.append(pause)
    try:
        yield
    finally:
        gc.callbacks.remove(pause)
        gc.set_threshold(*threshold)
        sys.setswitchinterval(interval)


def test_npz__many_threads_decode_at_once():
    content = [{"x": np.full((16, 1 + i, 4), i, np.float32), "y": np.arange(i)} for i in range(200)]
    data = [npz_bytes(each) for each in content]
    with busy_collector(), ThreadPoolExecutor(8) as pool:
        decoded = list(pool.map(decode_npz, data * 5))
    for found, expected in zip(decoded, content * 5, strict=True):
        same(found, expected)


def test_npz__no_header_is_evaluated(monkeypatch):
    """Two threads of Python 3.11 must not do that at once; they get it wrong once in thousands of times."""
    data = npz_bytes({"x": np.zeros((11, 13, 17))})

    def evaluated(*what):
        raise AssertionError

    monkeypatch.setattr(ast, "literal_eval", evaluated)
    assert decode_npz(data)["x"].shape == (11, 13, 17)


def with_header(header: str, content: bytes = b"") -> bytes:
    """A member whose one array has this header."""
    text = header.encode() + b"\n"
    npy = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("a.npy"), npy)
    return buffer.getvalue()


@pytest.mark.parametrize(("header", "word"), [
    ("{'descr': '|S0', 'fortran_order': False, 'shape': (1000000000000,), }", "without a width"),
    ("{'descr': '<U0', 'fortran_order': False, 'shape': (7,), }", "without a width"),
    ("{'descr': [('x', '|S0')], 'fortran_order': False, 'shape': (7,), }", "without a width"),
    ("{'descr': '<f3', 'fortran_order': False, 'shape': (7,), }", "there is not"),
    ("{'descr': '|S99999999999999999999', 'fortran_order': False, 'shape': (7,), }", "."),
    ("{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999999999, 0), }", "."),
    ("{'descr': '<f8', 'fortran_order': False, 'shape': (" + "9" * 3000 + ",), }", "."),
    ("{'descr': '<f8', 'fortran_order': False, 'shape': (7,), }" + " " * 9000, "longer than any"),
    ("{'descr': [('x', '<f8'), ('x', '<f8')], 'fortran_order': False, 'shape': (7,), }", "."),
    ("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000,), }", "does not have the size"),
])  # fmt: skip
def test_npz__headers_that_no_array_has(header, word):
    with pytest.raises(ValueError, match=word):
        decode_npz(with_header(header))


def test_npz__arrays_that_lie_over_each_other():
    data = bytearray(npz_bytes({"a": np.zeros(100), "b": np.zeros(100)}))
    at = data.rindex(b"PK\1\2")
    first = data.index(b"PK\1\2")
    # The entry of b says that its bytes are those of a, under a's name.
    data[at : at + 46] = data[first : first + 46]
    data[at + 46] = ord("a")
    with pytest.raises(ValueError, match="over each other"):
        decode_npz(bytes(data))
