"""Files of torch.save and archives of TorchScript, read without torch's unpickler or interpreter."""

import io
import re
import zipfile
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from densecli.models.pickles import MAX_BYTES, Inert, NotPlainData, StorageRef, TensorRef, read_pickle

Values = Callable[[StorageRef], bytearray]
"""Reads the bytes of a storage."""

_MAGIC = 0x1950A86A20F9469CFC6C
_MEMBERS = re.compile(r"__(?:parameters|buffers)__ = \[(.*?)\]", re.DOTALL)
_MAX_CODE = 2**20


def read_zip(file: BinaryIO, size: int) -> tuple[Any, Values]:
    """Reads a file that torch.save or torch.jit.save wrote.

    Args:
        file: The file.
        size: Its size in bytes, which limits the size of all values.

    Returns:
        The data with tensors as `TensorRef`, and a function that reads their values while the file is open.
        For an archive of TorchScript, the data are the names and tensors of its parameters and buffers.

    Raises:
        NotPlainData: The file holds anything but plain data.
        Exception: Of any kind, if the file is damaged.
    """
    archive = zipfile.ZipFile(file)
    names = archive.namelist()
    pickles = [name for name in names if PurePosixPath(name).name == "data.pkl" and name.count("/") == 1]
    if len(pickles) != 1:
        raise NotPlainData("it is a zip file, but not one of torch.save")
    root = pickles[0].removesuffix("data.pkl")
    scripted = f"{root}constants.pkl" in names
    if f"{root}byteorder" in names and _record(archive, f"{root}byteorder", 16) != b"little":
        raise NotPlainData("it was written on a big-endian machine")
    data = read_pickle(io.BytesIO(_record(archive, pickles[0], MAX_BYTES)), scripted=scripted)
    left = size

    def values(storage: StorageRef) -> bytearray:
        nonlocal left
        info = archive.getinfo(f"{root}data/{storage.key}")
        left -= info.file_size
        if info.compress_type != zipfile.ZIP_STORED or left < 0:
            raise NotPlainData("its tensors are compressed or overlap")
        buffer = bytearray(info.file_size)
        with archive.open(info) as record:
            # The checksum is compared at the end of a record.
            if record.readinto(buffer) != len(buffer) or record.read(1):  # type: ignore[attr-defined]
                raise EOFError(storage.key)
        return buffer

    return (_parameters(archive, root, data) if scripted else data), values


def read_legacy(file: BinaryIO, size: int) -> tuple[Any, Values]:
    """Reads a file that torch.save wrote before torch 1.6: pickles, then values. See `read_zip`."""
    head = io.BytesIO(file.read(MAX_BYTES))
    if read_pickle(head) != _MAGIC:
        raise NotPlainData("it is a pickle, but not one of torch.save")
    read_pickle(head)
    if read_pickle(head).get("little_endian") is not True:
        raise NotPlainData("it was written on a big-endian machine")
    storages: dict[str, StorageRef] = {}
    data = read_pickle(head, storages=storages)
    places: dict[str, tuple[int, int]] = {}
    keys = read_pickle(head)
    start = head.tell()
    for key in keys:
        file.seek(start)
        length = int.from_bytes(file.read(8), "little") * storages[key].dtype.itemsize
        places[key] = start + 8, length
        start += 8 + length
        if start > size:
            raise EOFError(key)

    def values(storage: StorageRef) -> bytearray:
        offset, length = places[storage.key]
        file.seek(offset)
        return bytearray(file.read(length))

    return data, values


def _record(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    with archive.open(name) as record:
        data = record.read(limit + 1)
    if len(data) > limit:
        raise NotPlainData(f"its {PurePosixPath(name).name} is larger than that of any model")
    return data


def _parameters(archive: zipfile.ZipFile, root: str, module: Any) -> dict[str, Any]:
    """Names and tensors of a TorchScript module. Its code is searched for their names and never run."""
    found: dict[str, Any] = {}
    listed: dict[str, set[str] | None] = {}
    seen: set[int] = set()
    left = [("", module)]
    while left:
        prefix, module = left.pop()
        if not isinstance(module, Inert) or not isinstance(module.state, dict) or id(module) in seen:
            continue
        seen.add(id(module))
        kind = str(module.name)
        if kind not in listed:
            listed[kind] = _listed(archive, root, module)
        names = listed[kind]
        for key, value in module.state.items():
            if isinstance(value, TensorRef) and (names is None or key in names):
                found[f"{prefix}{key}"] = value
            elif isinstance(value, Inert):
                left.append((f"{prefix}{key}.", value))
    return found


def _listed(archive: zipfile.ZipFile, root: str, module: Inert) -> set[str] | None:
    """Names that a module's class lists as parameters and buffers; None if its code is missing."""
    name = f"{root}code/{module.name.module.replace('.', '/')}.py"
    if name not in archive.NameToInfo:
        return None
    code = _record(archive, name, _MAX_CODE).decode()
    _, _, body = code.partition(f"class {module.name.name}(")
    lists = _MEMBERS.findall(body.split("\nclass ")[0])
    return {name for found in lists for name in re.findall(r'"([^"]+)"', found)}
