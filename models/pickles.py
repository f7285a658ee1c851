"""Reads pickles as plain data. Nothing that a pickle names is ever imported or called."""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

import torch

MAX_BYTES = 64 * 2**20
"""Size of the largest pickle that is read, in bytes. The values of tensors are stored outside of it."""
MAX_OPCODES = 1_000_000
"""Longest pickle that is read, in opcodes, which bounds time and memory. A tensor takes about 40."""

# Objects of these names become `Inert`. Trainers store such objects beside the weights.
_INERT_ROOTS = ("torch", "numpy")
_INERT = {
    "argparse.Namespace", "_codecs.encode", "collections.OrderedDict", "collections.defaultdict",
    "collections.Counter", "pathlib.Path", "pathlib.PosixPath", "pathlib.PurePosixPath",
    "pathlib.WindowsPath", "pathlib._local.PosixPath", "pathlib._local.WindowsPath",
    "builtins.set", "builtins.frozenset", "builtins.complex", "builtins.bytearray", "builtins.slice",
    "__builtin__.set", "__builtin__.frozenset", "__builtin__.complex", "__builtin__.bytearray",
}  # fmt: skip
_DICTS = {"collections.OrderedDict", "collections.defaultdict", "collections.Counter"}
_TENSORS = {"torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"}
_PARAMETERS = {"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"}
_STORAGES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool, "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128, "UntypedStorage": torch.uint8,
}  # fmt: skip
_VALUES = {
    "NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT",
    "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "BYTEARRAY8", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
}  # fmt: skip
_LONGEST_NAME = 500
_TOO_MANY = "it describes far more objects than any model has"
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


class NotPlainData(Exception):
    """A pickle that is refused. Its text is the cause, which continues the sentence of an error."""


class GlobalName(NamedTuple):
    """A class or function that a pickle names."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Inert:
    """Stands for an object that is never made: the name of its class, and its state if it has one."""

    name: GlobalName
    state: Any = None


@dataclass(eq=False)
class StorageRef:
    """The values of one or more tensors, before they are read.

    Attributes:
        key: Name of the values in the file.
        dtype: Type of the values.
        numel: Number of values.
    """

    key: str
    dtype: torch.dtype
    numel: int


@dataclass(eq=False)
class TensorRef:
    """A tensor before its values are read; offset and strides count values, as in `torch.as_strided`."""

    storage: StorageRef
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_pickle(
    stream: BinaryIO, *, storages: dict[str, StorageRef] | None = None, scripted: bool = False
) -> Any:
    """Reads one pickle up to its end: dicts, lists, tuples, numbers, texts, `TensorRef` and `Inert`.

    Args:
        stream: The pickle, of at most `MAX_BYTES`.
        storages: Filled with the storages that the pickle refers to, by key.
        scripted: Whether classes of TorchScript (`__torch__.*`) are allowed; they become `Inert`.

    Raises:
        NotPlainData: The pickle names another class or function, or is too long.
        Exception: Of any kind, if the pickle is damaged.
    """
    stack: list[Any] = []
    marks: list[list[Any]] = []
    memo: dict[int, Any] = {}
    found = {} if storages is None else storages

    def since_mark() -> list[Any]:
        nonlocal stack
        items, stack = stack, marks.pop()
        return items

    work = 0
    for opcode, arg, _ in pickletools.genops(stream):
        work += 1
        if work > MAX_OPCODES:
            raise NotPlainData(_TOO_MANY)
        op = opcode.name
        if op in _VALUES:
            stack.append(_CONSTANTS.get(op, arg))
        elif op in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[int(arg or 0)] = stack[-1]
        elif op == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif op in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[int(arg or 0)])
        elif op == "MARK":
            marks.append(stack)
            stack = []
        elif op in ("TUPLE", "FROZENSET", "LIST"):
            items = since_mark()
            stack.append(items if op == "LIST" else tuple(items))
        elif op in ("TUPLE1", "TUPLE2", "TUPLE3"):
            size = int(op[-1])
            if len(stack) < size:
                raise IndexError("stack")
            stack[-size:] = [tuple(stack[-size:])]
        elif op == "EMPTY_TUPLE":
            stack.append(())
        elif op in ("EMPTY_LIST", "EMPTY_SET"):
            stack.append([])
        elif op == "EMPTY_DICT":
            stack.append({})
        elif op == "DICT":
            items = since_mark()
            stack.append(_fill({}, items))
        elif op in ("APPEND", "APPENDS", "ADDITEMS"):
            items = [stack.pop()] if op == "APPEND" else since_mark()
            if isinstance(stack[-1], list):
                stack[-1].extend(items)
        elif op in ("SETITEM", "SETITEMS"):
            items = [stack.pop(), stack.pop()][::-1] if op == "SETITEM" else since_mark()
            _fill(stack[-1], items)
        elif op in ("GLOBAL", "STACK_GLOBAL"):
            parts = str(arg).split(" ", 1) if op == "GLOBAL" else [stack.pop(), stack.pop()][::-1]
            stack.append(_allowed(GlobalName(*parts), scripted))
        elif op in ("REDUCE", "NEWOBJ"):
            args = stack.pop()
            # A call may walk and copy long lists, and may be repeated.
            work += len(args)
            if work <= MAX_OPCODES:
                work += sum(len(arg) for arg in args if isinstance(arg, list | tuple))
            if work > MAX_OPCODES:
                raise NotPlainData(_TOO_MANY)
            stack.append(_made(stack.pop(), args))
        elif op == "BUILD":
            state = stack.pop()
            if isinstance(stack[-1], Inert):
                stack[-1].state = state
        elif op == "BINPERSID":
            storage = _storage(stack.pop())
            found.setdefault(storage.key, storage)
            stack.append(storage)
        elif op == "POP":
            stack.pop() if stack else since_mark()
        elif op == "POP_MARK":
            since_mark()
        elif op == "DUP":
            stack.append(stack[-1])
        elif op == "STOP":
            return stack.pop()
        elif op not in ("PROTO", "FRAME"):
            raise NotPlainData(f"it has the pickle opcode {op}, which plain data does not need")
    raise EOFError("no STOP")


def _fill(target: Any, items: list[Any]) -> Any:
    """Adds alternating keys and values to a dict."""
    if len(items) % 2:
        raise ValueError("a key without a value")
    if isinstance(target, dict):
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[key if _hashes_well(key) else Inert(GlobalName("", "key"))] = value
    return target


def _hashes_well(key: Any) -> bool:
    """Whether a key is safe to hash: such keys cannot be crafted to collide or to nest endlessly."""
    return isinstance(key, str | bytes | None) or (isinstance(key, int) and -(2**31) < key < 2**31)


def _allowed(name: GlobalName, scripted: bool) -> GlobalName:
    if not (isinstance(name.module, str) and isinstance(name.name, str)):
        raise TypeError("names are texts")
    if len(name.module) + len(name.name) > _LONGEST_NAME:
        raise NotPlainData("it names an object by a text that is too long")
    full = str(name)
    if full in _INERT or name.module.split(".")[0] in _INERT_ROOTS:
        return name
    if scripted and full.startswith("__torch__."):
        return name
    raise NotPlainData(f"it holds an object of {full[:80]!r}, and objects are never unpickled")


def _made(function: Any, args: Any) -> Any:
    """What stands for the result of a call; nothing is called."""
    if not isinstance(function, GlobalName) or not isinstance(args, tuple):
        raise TypeError("a call of what is no name")
    full = str(function)
    if full in _DICTS:
        pairs = args[0] if args and isinstance(args[0], list | tuple) else ()
        return _fill({}, [part for key, value in pairs for part in (key, value)])
    if full in _TENSORS:
        storage, offset, shape, strides = args[:4]
        return TensorRef(storage, storage.dtype, offset, _numbers(shape), _numbers(strides))
    if full == "torch._utils._rebuild_tensor_v3":
        storage, offset, shape, strides, _, _, name = args[:7]
        dtype = getattr(torch, name.name)
        if name.module != "torch" or not isinstance(dtype, torch.dtype):
            raise TypeError("no number format")
        return TensorRef(storage, dtype, offset, _numbers(shape), _numbers(strides))
    if full in _PARAMETERS:
        return args[0]
    if full == "torch.Size":
        return _numbers(args[0])
    return Inert(function)


def _numbers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple) or len(values) > 32:
        raise ValueError("no shape")
    if not all(type(value) is int and 0 <= value < 2**48 for value in values):
        raise ValueError("no shape")
    return values


def _storage(persistent_id: Any) -> StorageRef:
    kind, type_name, key, _, numel = persistent_id[:5]
    if kind != "storage" or type(numel) is not int or numel < 0 or not isinstance(key, str):
        raise ValueError("no storage")
    if len(persistent_id) > 5 and persistent_id[5] is not None:
        raise NotPlainData("it was written by a torch older than 0.4")
    return StorageRef(key, _STORAGES[type_name.name], numel)


def tensor(
    ref: TensorRef, values: Callable[[StorageRef], bytearray], made: dict[str, torch.Tensor]
) -> torch.Tensor:
    """Makes a tensor.

    Args:
        ref: The tensor.
        values: Reads the bytes of a storage.
        made: Storages read so far by key, as uint8 (bytes,); this one is added.

    Raises:
        ValueError: The tensor reaches beyond its values.
    """
    if not isinstance(ref.storage, StorageRef) or type(ref.offset) is not int or ref.offset < 0:
        raise ValueError("no storage")
    if len(ref.shape) != len(ref.strides):
        raise ValueError("no shape")
    size = 1
    for length in ref.shape:
        size *= max(length, 1)
    if size >= 2**48:
        raise ValueError("too many values")
    if 0 in ref.shape:
        return torch.empty(ref.shape, dtype=ref.dtype)
    key = ref.storage.key
    if key not in made:
        buffer = values(ref.storage)
        made[key] = (
            torch.frombuffer(buffer, dtype=torch.uint8) if buffer else torch.empty(0, dtype=torch.uint8)
        )
    count = made[key].numel() // ref.dtype.itemsize
    last = ref.offset + sum((n - 1) * stride for n, stride in zip(ref.shape, ref.strides, strict=True))
    if last >= count:
        raise ValueError("a tensor reaches beyond its values")
    flat = made[key][: count * ref.dtype.itemsize].view(ref.dtype)
    return flat.as_strided(ref.shape, ref.strides, ref.offset)
