import argparse
import io
import pickle
import random
import resource
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file
from torch import nn

from densecli.core.errors import DenseCLIError
from densecli.models.pickles import MAX_OPCODES
from densecli.models.state_dict import read_state_dict, unwrap


@pytest.mark.parametrize("file", ["w.safetensors", "w.pt"])
def test_read_state_dict__safetensors_and_torch(tmp_path, tiny, file: str) -> None:
    state = tiny("vit").clip.state_dict()
    if file.endswith(".pt"):
        torch.save({"epoch": 1, "state_dict": state}, tmp_path / file)
    else:
        save_file(state, tmp_path / file)
    read = read_state_dict(tmp_path / file)
    assert read.keys() == state.keys() and all(torch.equal(read[key], state[key]) for key in state)


class Bomb:
    """Unpickled, it creates the file it was made for."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_read_state_dict__never_unpickles_objects(tmp_path) -> None:
    torch.save({"state_dict": {"a": torch.zeros(1)}, "args": Bomb(tmp_path / "boom")}, tmp_path / "w.pt")
    (tmp_path / "p.pt").write_bytes(pickle.dumps(Bomb(tmp_path / "boom"), protocol=2))
    for file in ("w.pt", "p.pt"):
        with pytest.raises(DenseCLIError, match="cannot be read as plain weights"):
            read_state_dict(tmp_path / file)
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize(
    ("file", "content"), [("w.safetensors", b"x" * 64), ("w.pt", b""), ("w.pt", b"not torch")]
)
def test_read_state_dict__a_broken_file_is_a_sentence(tmp_path, file: str, content: bytes) -> None:
    (tmp_path / file).write_bytes(content)
    with pytest.raises(DenseCLIError, match="cannot be read as plain weights"):
        read_state_dict(tmp_path / file)


def written(data: object, **options: object) -> bytes:
    file = io.BytesIO()
    torch.save(data, file, **options)
    return file.getvalue()


def weights() -> dict[str, torch.Tensor]:
    values = torch.arange(24.0)
    return {
        "a": values.view(4, 6),
        "tied": values[6:12],
        "turned": values.view(4, 6).T,
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(3),
        "half": torch.tensor([1.5, -2.0]).half(),
        "brain": torch.tensor([1.5, -2.0]).bfloat16(),
        "truth": torch.tensor([True, False]),
        "spread": torch.zeros(1, 3).expand(2, 3),
    }


def of_trainer() -> dict[str, object]:
    """As trainers of the open_clip family write."""
    rate = {
        "state": {0: {"exp_avg": torch.ones(3)}},
        "param_groups": [{"lr": np.float64(1e-5), "params": [0]}],
    }
    arguments = argparse.Namespace(lr=np.float32(1), folder=Path("logs"), array=np.zeros(3))
    return {"epoch": 6, "name": "run", "args": arguments, "state_dict": weights(), "optimizer": rate}


def same(state: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return list(state) == list(expected) and all(
        torch.equal(state[key], value) and state[key].dtype == value.dtype for key, value in expected.items()
    )


@pytest.mark.parametrize("options", [
    {}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}, {"pickle_protocol": 5},
    {"_use_new_zipfile_serialization": False, "pickle_protocol": 4},
])  # fmt: skip
@pytest.mark.parametrize("content", [of_trainer, weights, lambda: {"module": {"model": weights()}}])
def test_read_state_dict__whatever_torch_saves_beside_the_weights(tmp_path, options, content) -> None:
    (tmp_path / "w.pt").write_bytes(written(content(), **options))
    assert same(read_state_dict(tmp_path / "w.pt"), weights())


def test_read_state_dict__parameters_and_every_number_format(tmp_path) -> None:
    state = {
        str(dtype): torch.ones(3).to(dtype)
        for dtype in (torch.float64, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8,
                      torch.complex64, torch.uint16, torch.float8_e4m3fn)
    }  # fmt: skip
    state["parameter"] = nn.Parameter(torch.ones(2))
    torch.save(state, tmp_path / "w.pt")
    assert same(read_state_dict(tmp_path / "w.pt"), state)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 3)
        self.second = nn.Linear(2, 3)
        self.register_buffer("mean", torch.ones(3))
        self.mask = torch.zeros(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.first(x) + self.second(x) * self.mean + self.mask


@pytest.mark.parametrize("how", ["trace", "script"])
def test_read_state_dict__an_archive_of_torchscript(tmp_path, how: str) -> None:
    model = Block()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive = torch.jit.trace(model, torch.zeros(1, 2)) if how == "trace" else torch.jit.script(model)
        archive.save(tmp_path / "w.pt")
    read = read_state_dict(tmp_path / "w.pt")
    expected = model.state_dict()
    assert read.keys() == expected.keys()
    assert all(torch.equal(read[key], value) for key, value in expected.items())


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


@pytest.mark.parametrize(("name", "content", "cause"), [
    ("w.pt", LFS, "a Git LFS pointer"),
    ("w.safetensors", LFS, "a Git LFS pointer"),
    ("w.bin", b"\n<!DOCTYPE html><html>Sign in</html>", "a web page"),
    ("w.safetensors", b"", "it is empty"),
    ("w.safetensors", (2**26).to_bytes(8, "little") + b"{" + b" " * 99, "neither a safetensors file"),
    ("w.pth", b"\x1f\x8b\x08" + bytes(64), "compressed by gzip"),
    ("w.pt", written(weights())[:-400], "cut off or damaged"),
    ("w.pt", written(weights(), _use_new_zipfile_serialization=False)[:-9], "cut off or damaged"),
    ("w.safetensors", save({"a": torch.zeros(9)})[:-4], "cut off or damaged"),
    ("w.pt", pickle.dumps({"a": [1.0]}), "a pickle, but not one of torch.save"),
    ("w.pt", written({"model": nn.Linear(2, 2)}), "holds no weights"),
    ("w.pt", written([torch.zeros(2)]), "holds no weights"),
    ("w.pt", written({"args": argparse.Namespace(), "epoch": 3}), "entries: 'args', 'epoch'"),
    ("w.pt", written({0: torch.zeros(2)}), "name is not text: 0"),
    ("w.pt", written({("a", "b"): torch.zeros(2)}), "name is not text: an object"),
])  # fmt: skip
def test_read_state_dict__names_the_cause(tmp_path, name: str, content: bytes, cause: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DenseCLIError, match=cause) as caught:
        read_state_dict(tmp_path / name)
    assert "\n" not in str(caught.value) and caught.value.hint


@pytest.mark.parametrize(
    ("content", "name"), [(written(weights()), "w.safetensors"), (save({"a": torch.zeros(2)}), "w.pt")]
)
def test_read_state_dict__goes_by_the_content(tmp_path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert "a" in read_state_dict(tmp_path / name)


def test_unwrap__dictionaries_that_hold_themselves(tmp_path) -> None:
    itself: dict = {}
    itself["model"] = {"state_dict": itself}
    torch.save(itself, tmp_path / "w.pt")
    with pytest.raises(DenseCLIError, match="holds itself"):
        read_state_dict(tmp_path / "w.pt")
    with pytest.raises(DenseCLIError, match="holds itself"):
        unwrap(itself)


def with_pickle(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", data)
    return file.getvalue()


NEST = b"\x80\x02" + b")" + b"\x85" * 900_000


@pytest.mark.parametrize("data", [
    b"\x80\x02}" + NEST[2:] + b"K\x01s.",                      # a key whose hash would overflow the stack
    b"\x80\x02r\xff\xff\xff\x7f.",                            # a memo of two thousand million places
    b"\x80\x02N" + b"r\xff\xff\xff\x7f" + b".",
    b"\x80\x05\x96\xff\xff\xff\xff\x7f\x00\x00\x00.",          # a byte array of 549 GB
    b"\x80\x04\x8d\xff\xff\xff\xff\x7f\x00\x00\x00.",
    b"\x80\x02" + b"]" * (MAX_OPCODES + 9) + b".",
    b"\x80\x02(" + b"".join(b"\x8a\x0a" + ((2**61 - 1) * k).to_bytes(10, "little") + b"N"
                            for k in range(200_000)) + b"d.",  # keys of one hash
    b"\x80\x02ccollections\nOrderedDict\nq\x00](" + b"K\x01K\x02\x86" * 200_000 + b"eq\x01"
    + b"h\x00h\x01\x85R" * 150_000 + b".",                    # one long list, copied again and again
    b"\x80\x02ccollections\nOrderedDict\nq\x00(" + b"K\x01" * 100_000 + b"tq\x01"
    + b"h\x00h\x01R" * 100_000 + b".",                        # one long tuple, walked again and again
    b"\x80\x04X" + (10**7).to_bytes(4, "little") + b"a" * 10**7 + b"q\x00h\x00h\x00\x93.",  # a long name
    b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R.",
    b"\x80\x02c__torch__\nM\n)\x81.",
])  # fmt: skip
def test_read_state_dict__hostile_pickles_end_soon(tmp_path, data: bytes) -> None:
    (tmp_path / "w.pt").write_bytes(with_pickle(data))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DenseCLIError, match=r"cannot be read as plain weights|holds no weights"):
        read_state_dict(tmp_path / "w.pt")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20


@pytest.mark.parametrize(("size", "offset"), [((2**40,), 0), ((3,), 2**40), ((3,), -1), ((2**30, 2**30), 0)])
def test_read_state_dict__a_tensor_beyond_its_values_is_refused(tmp_path, size, offset) -> None:
    body = (
        b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storage"
        b"ctorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x03tQ"
    )
    unpacked = b"".join(pickle.dumps(part, 2)[2:-1] for part in (offset, size, tuple(1 for _ in size)))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", body + unpacked + b"\x89NtRs.")
        archive.writestr("archive/data/0", bytes(12))
    (tmp_path / "w.pt").write_bytes(file.getvalue())
    with pytest.raises(DenseCLIError, match="cut off or damaged"):
        read_state_dict(tmp_path / "w.pt")


def mutated(data: bytes, chance: random.Random) -> bytes:
    """A file with bytes flipped, cut out, doubled or exchanged."""
    changed = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 4, 16])):
        at, length = chance.randrange(len(changed)), chance.choice([1, 1, 4, 64])
        kind = chance.randrange(5)
        if kind == 0:
            changed[at] = chance.randrange(256)
        elif kind == 1:
            del changed[at : at + length]
        elif kind == 2:
            changed[at:at] = changed[at : at + length]
        elif kind == 3:
            changed[at : at + length] = bytes([chance.choice([0, 255, 127])]) * length
        else:
            del changed[max(1, at) :]
        if not changed:
            break
    return bytes(changed)


@pytest.mark.parametrize("kind", ["zip", "pickle", "legacy", "safetensors", "torchscript"])
def test_read_state_dict__mutations_are_read_or_refused(tmp_path, kind: str) -> None:
    chance = random.Random(kind)
    plain = {key: value.contiguous().clone() for key, value in weights().items()}
    if kind == "torchscript":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            whole = scripted()
    else:
        whole = {
            "zip": lambda: written(of_trainer()),
            "pickle": lambda: zipfile.ZipFile(io.BytesIO(written(of_trainer()))).read("archive/data.pkl"),
            "legacy": lambda: written(of_trainer(), _use_new_zipfile_serialization=False),
            "safetensors": lambda: save(plain),
        }[kind]()
    file = tmp_path / "w.pt"
    before, read, refused = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0, []
    for _ in range(1000):
        data = mutated(whole, chance)
        file.write_bytes(with_pickle(data) if kind == "pickle" else data)
        try:
            state = read_state_dict(file)
        except DenseCLIError as error:
            refused.append(str(error))
        else:
            read += 1
            assert all(isinstance(key, str) for key in state)
    # Some of the mutations touch nothing that is read: the fuzzer is not refused at the door.
    assert kind == "pickle" or read > 0
    assert not any("\n" in sentence for sentence in refused)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**19


def scripted() -> bytes:
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(Block()), file)
    return file.getvalue()
