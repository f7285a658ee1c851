"""Reads weights from files of safetensors, torch.save and TorchScript. No code in a file is ever run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from densecli.core.errors import DenseCLIError
from densecli.models.pickles import NotPlainData, TensorRef, tensor
from densecli.models.torch_files import read_legacy, read_zip

MAX_HEADER = 2**25
"""Longest header of a safetensors file that is read, in bytes. A tensor takes about 100."""
_WRAPPERS = ("state_dict", "model", "module")
_DOWNLOAD = "Download it again, and compare its size with the page's."
_SAVE = "Save only the model's state_dict(), preferably as safetensors; objects are never unpickled."
_OTHERS = (
    (b"version https://git-lfs", "it is a Git LFS pointer, not the file", "Fetch the file: git lfs pull."),
    (b"<", "it is a web page", "Download the file itself; the page may ask you to log in or to confirm."),
    (b"\x1f\x8b", "it is compressed by gzip", "Unpack it first: gunzip or tar -xzf."),
    (b"BZh", "it is compressed by bzip2", "Unpack it first."),
    (b"\x28\xb5\x2f\xfd", "it is compressed by zstd", "Unpack it first."),
    (b"\x89HDF", "it is an HDF5 file", "Save the tensors as safetensors."),
    (b"\x93NUMPY", "it is a NumPy array", "Save the tensors as safetensors."),
)


def read_state_dict(path: str | Path) -> dict[str, Any]:
    """Reads the names and tensors of a file, without wrappers and the prefix `module.`.

    The format is recognised by the content, not by the name of the file. Other values, such as an
    optimizer's, are not read.

    Args:
        path: A file of safetensors, torch.save or torch.jit.save.

    Raises:
        DenseCLIError: There is no such file, it is damaged, or it holds no weights or more than plain data.
    """
    path = Path(path)
    if not path.is_file():
        raise DenseCLIError(f"There is no weights file {path}.", hint="Check the path given to --weights.")
    try:
        return _read(path)
    except DenseCLIError:
        raise
    except NotPlainData as error:
        raise _refused(path, str(error), _SAVE) from error
    except PermissionError as error:
        raise _refused(path, "permission denied", "Check the rights of the file.") from error
    # Readers raise errors of any kind for a damaged file.
    except Exception as error:
        raise _refused(path, f"it is cut off or damaged ({type(error).__name__})", _DOWNLOAD) from error


def _read(path: Path) -> dict[str, Any]:
    source, size = str(path), path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(512)
        file.seek(0)
        if not head:
            raise _refused(path, "it is empty", _DOWNLOAD)
        for start, cause, hint in _OTHERS:
            if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(start):
                raise _refused(path, cause, hint)
        if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MAX_HEADER:
            return unwrap(load_file(path), source)
        if head.startswith(b"PK"):
            data, values = read_zip(file, size)
        elif head.startswith(b"\x80"):
            data, values = read_legacy(file, size)
        elif head[257:262] == b"ustar":
            raise _refused(path, "it is a tar", "Unpack it first: tar -xf.")
        else:
            raise _refused(path, "it is neither a safetensors file nor one of torch.save", _DOWNLOAD)
        made: dict[str, Tensor] = {}
        return {
            key: tensor(value, values, made) if isinstance(value, TensorRef) else value
            for key, value in unwrap(data, source).items()
        }


def _refused(path: Path, cause: str, hint: str) -> DenseCLIError:
    return DenseCLIError(f"{path} cannot be read as plain weights: {cause}.", hint=hint)


def unwrap(state: Any, source: str = "The checkpoint") -> dict[str, Any]:
    """Takes the state dict out of `state_dict`, `model` or `module`, and removes the prefix `module.`.

    Raises:
        DenseCLIError: It holds no weights, a name that is not text, or itself.
    """
    hint = "Expected names and tensors, bare or as 'state_dict'."
    seen: list[Any] = []
    while isinstance(state, Mapping):
        seen.append(state)
        inner = next((state[key] for key in _WRAPPERS if isinstance(state.get(key), Mapping)), None)
        if inner is None:
            break
        if any(inner is outer for outer in seen) or len(seen) > 16:
            raise DenseCLIError(f"{source} holds no weights: a dictionary in it holds itself.", hint=hint)
        state = inner
    if not isinstance(state, Mapping):
        raise DenseCLIError(f"{source} holds no weights: it is not a dictionary.", hint=hint)
    if not any(isinstance(value, Tensor | TensorRef) for value in state.values()):
        names = ", ".join(repr(key)[:40] for key in list(state)[:5] if isinstance(key, str))
        raise DenseCLIError(f"{source} holds no weights; its entries: {names or 'none'}.", hint=hint)
    if strange := [key for key in state if not isinstance(key, str)]:
        name = repr(strange[0]) if isinstance(strange[0], int | float | bytes | None) else "an object"
        raise DenseCLIError(f"{source} has an entry whose name is not text: {name[:40]}.", hint=hint)
    if all(key.startswith("module.") for key in state):
        return {key.removeprefix("module."): value for key, value in state.items()}
    return dict(state)
