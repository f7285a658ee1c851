"""`.npz` members: uncompressed zip files of plain arrays that numpy and webdataset read.

np.savez stores dates and the platform, but our bytes must depend on neither. np.load evaluates every header
as Python, which takes longer than everything else and is not thread-safe in Python 3.11.
"""

import io
import math
import re
import struct
import zlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

import numpy as np

# The header before each member, its entry in the directory after all members, and the end of the directory.
# See PKWARE's APPNOTE.TXT, 4.3.7, 4.3.12 and 4.3.16.
_LOCAL = struct.Struct("<4s5H3I2H")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_STORED, _UTF8 = 0, 1 << 11
# Version needed to read it; written on Unix; 1980-01-01 00:00:00; -rw-------.
_VERSION, _UNIX, _TIME, _DATE, _MODE = 20, 3 << 8, 0, 33, 0o600 << 16

_TYPE = r"[<>|=][biufcSU]\d+"
_NPY = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': (?:'(?P<type>%b)'|\[(?P<fields>(?:\('\w+', '%b'\)(?:, )?)+)\]), "
    rb"'fortran_order': (?P<fortran>True|False), 'shape': \((?P<shape>[\d, ]*)\), \} *\n"
    % (_TYPE.encode(), _TYPE.encode()),
    re.DOTALL,
)
_FIELD = re.compile(rf"\('(\w+)', '({_TYPE})'\)")
# Magic, version and the length of what follows.
_NPY_PREFIX = 10
# Bytes of the longest header of an array that is read. One with ten fields has 400.
_MAX_HEADER = 4096


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """A `.npz` member with arrays sorted by name: equal arrays give equal bytes.

    Raises:
        ValueError: An array holds objects.
    """
    files, directory, offset = [], [], 0
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        if array.dtype.hasobject:
            raise ValueError(f"the array {name!r} holds objects")
        content = _npy_header(array.dtype, array.shape) + array.tobytes()
        file = f"{name}.npy".encode()
        flags = 0 if file.isascii() else _UTF8
        size = len(content)
        same = (_VERSION, flags, _STORED, _TIME, _DATE, zlib.crc32(content), size, size, len(file), 0)
        files += [_LOCAL.pack(b"PK\3\4", *same), file, content]
        directory += [_ENTRY.pack(b"PK\1\2", _UNIX | _VERSION, *same, 0, 0, 0, _MODE, offset), file]
        offset += _LOCAL.size + len(file) + size
    entries = b"".join(directory)
    end = _END.pack(b"PK\5\6", 0, 0, len(arrays), len(arrays), len(entries), offset, 0)
    return b"".join([*files, entries, end])


def decode_npz(data: bytes | memoryview) -> dict[str, np.ndarray]:
    """The arrays of a `.npz` member by name, copied. Thread-safe.

    Reads arrays of numbers and text as npz_bytes and np.savez write them.

    Raises:
        ValueError: The member is damaged or compressed, or has arrays of objects, which would need pickle.
    """
    try:
        return _decode(memoryview(data))
    except (struct.error, UnicodeDecodeError) as error:
        raise ValueError("it is not an npz file, or damaged") from error


def _decode(data: memoryview) -> dict[str, np.ndarray]:
    signature, _, _, _, count, size, first, comment = _END.unpack_from(data, max(0, len(data) - _END.size))
    if signature != b"PK\5\6" or comment or first + size + _END.size != len(data):
        raise ValueError("it is not an npz file, or its end is missing")
    arrays: dict[str, np.ndarray] = {}
    at, after = first, 0
    for _ in range(count):
        entry = _ENTRY.unpack_from(data, at)
        method, crc, packed, size, length, extra, remark, place = (entry[i] for i in (4, *range(7, 13), 16))
        at += _ENTRY.size
        name = bytes(data[at : at + length])
        at += length + extra + remark
        local = _LOCAL.unpack_from(data, place)
        if place < after:
            raise ValueError("its arrays lie over each other")
        place += _LOCAL.size
        start = place + length + local[10]
        content, after = data[start : start + size], start + size
        file = name.decode()
        if (entry[0], local[0], bytes(data[place : place + length])) != (b"PK\1\2", b"PK\3\4", name):
            raise ValueError(f"its directory is damaged at {file!r}")
        if method != _STORED or packed != size or not file.endswith(".npy"):
            raise ValueError(f"its file {file!r} is compressed or not an array")
        if len(content) != size or zlib.crc32(content) != crc:
            raise ValueError(f"its array {file!r} is damaged")
        if after > first or file.removesuffix(".npy") in arrays:
            raise ValueError(f"it has the array {file!r} twice, or behind its directory")
        arrays[file.removesuffix(".npy")] = _array(content, file)
    return arrays


def _array(content: memoryview, file: str) -> np.ndarray:
    size = _NPY_PREFIX + int.from_bytes(content[_NPY_PREFIX - 2 : _NPY_PREFIX], "little")
    if size > _MAX_HEADER:
        raise ValueError(f"its array {file!r} has a header longer than any that is known")
    dtype, shape, order = _layout(bytes(content[:size]))
    if len(content) != size + math.prod(shape) * dtype.itemsize:
        raise ValueError(f"its array {file!r} does not have the size that its header says")
    # A copy is aligned, as numpy and torch expect.
    return np.ndarray(shape, dtype, content, size, order=order).copy(order)


@lru_cache(4096)
def _npy_header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


@lru_cache(4096)
def _layout(header: bytes) -> tuple[np.dtype, tuple[int, ...], Literal["C", "F"]]:
    found = _NPY.fullmatch(header)
    if not found:
        raise ValueError("an array in it holds neither numbers nor text")
    descr = found["type"].decode() if found["type"] else _FIELD.findall(found["fields"].decode())
    shape = tuple(int(n) for n in found["shape"].replace(b" ", b"").split(b",") if n)
    try:
        dtype = np.dtype(descr)
    except (TypeError, OverflowError) as error:
        raise ValueError("an array in it has a type that there is not") from error
    # Without a width there could be any number of them.
    if not dtype.itemsize or (dtype.fields and not all(kind.itemsize for kind, *_ in dtype.fields.values())):
        raise ValueError("an array in it holds texts without a width")
    return dtype, shape, "F" if found["fortran"] == b"True" else "C"
