"""Token factors made on a teacher's device: those of the codec, at a fraction of the work."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from densecli.pipeline.teachers import factors
from densecli.pipeline.teachers.factors import array_names, encode_maps, errors_of
from densecli.shards.codecs import Features, LowRank
from densecli.shards.codecs.subspace import random_block
from densecli.shards.quantise import quantise

seeds = st.integers(0, 2**32 - 1)


def tokens(seed, maps, n, c, decay=1.0):
    """(maps, n, c) unit tokens whose spectrum falls off like that of a vision model's."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(c, c)))[0]
    x = rng.normal(size=(maps, n, c)) * np.arange(1, c + 1) ** -decay @ basis
    return (x / np.linalg.norm(x, axis=2, keepdims=True)).astype(np.float32)


def encoded(codec, x):
    """The arrays and errors of each map, as `LowRank.encode` returns them."""
    found = []
    for figures, *arrays in encode_maps(codec, torch.from_numpy(x)):
        arrays = dict(zip(array_names(codec), (a.numpy() for a in arrays), strict=True))
        found.append((arrays, errors_of(codec, figures.numpy())))
    return found


@settings(max_examples=25, deadline=None)
@given(
    seeds,
    st.integers(1, 70),
    st.integers(1, 70),
    st.sampled_from([1, 8, 24, 99]),
    st.sampled_from(["int8", "fp16", "fp32"]),
    st.sampled_from([LowRank, Features]),
)
def test_encode_maps__what_is_stored_and_its_errors_are_those_of_the_codec(seed, n, c, rank, dtype, codec):
    codec = codec(rank=rank, dtype=dtype, method="subspace")
    x = tokens(seed, 3, n, c)
    for of_map, (arrays, errors) in zip(x, encoded(codec, x), strict=True):
        theirs, their_errors = codec.encode(of_map)
        assert {k: (a.shape, a.dtype) for k, a in arrays.items()} == {
            k: (a.shape, a.dtype) for k, a in theirs.items()
        }
        assert errors.keys() == their_errors.keys()
        measured = codec.error(arrays, of_map)
        for name, value in measured.items():
            assert errors[name] == pytest.approx(value, rel=1e-3, abs=3e-6)
        assert errors["rmse_truncation"] == pytest.approx(their_errors["rmse_truncation"], rel=2e-2, abs=3e-6)
        assert errors["rmse"] == pytest.approx(their_errors["rmse"], rel=5e-2, abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(1, 40), st.integers(1, 20), st.floats(-3, 3))
def test_stored__int8_has_the_bytes_of_the_shards_own(seed, n, r, exponent):
    x = (np.random.default_rng(seed).normal(size=(1, n, r)) * 10**exponent).astype(np.float32)
    x[:, :: 1 + seed % 3] = 0
    stored = factors._stored(LowRank(), torch.from_numpy(x))
    expected = quantise(x[0], np.float16)
    assert [a[0].numpy().tobytes() for a in stored] == [expected[k].tobytes() for k in ("x", "scale")]


@pytest.mark.parametrize("decay", [0.5, 1.0, 2.0])
def test_subspace__has_the_rmse_of_a_full_decomposition(decay):
    x = tokens(0, 2, 300, 192, decay)
    full = [LowRank(rank=48).encode(of_map)[1] for of_map in x]
    ours = [errors for _, errors in encoded(LowRank(rank=48, method="subspace"), x)]
    host = [LowRank(rank=48, method="subspace").encode(of_map)[1] for of_map in x]
    for name in ("rmse", "rmse_truncation"):
        for exact, device, numpy in zip(full, ours, host, strict=True):
            # float32 alone is off by 1e-6.
            assert exact[name] * 0.999 - 1e-6 <= device[name] <= exact[name] * 1.01 + 1e-6
            assert numpy[name] == pytest.approx(device[name], rel=1e-3, abs=1e-6)


def test_random_block__is_the_same_for_good():
    # Stores outlive releases: these may never change.
    block = random_block(384, 64, 0)
    assert (block.shape, block.dtype) == ((384, 96), np.float32)
    assert hashlib.sha256(block.tobytes()).hexdigest()[:16] == "ea04f0e1ea7f8dc9"
    assert not np.array_equal(block, random_block(384, 64, 1))


def test_encode_maps__again_has_the_same_bytes():
    x, codec = tokens(3, 4, 200, 160), LowRank(rank=16, method="subspace")
    first, second = encoded(codec, x), encoded(codec, x)
    for (arrays, errors), (again, same) in zip(first, second, strict=True):
        assert all(arrays[name].tobytes() == again[name].tobytes() for name in arrays)
        assert errors == same


def test_encode_maps__of_large_grids_measures_errors_in_blocks(monkeypatch):
    x, codec = tokens(3, 5, 64, 48), LowRank(rank=8, method="subspace")
    whole = encoded(codec, x)
    # Two maps at once, in three blocks of rows.
    monkeypatch.setattr(factors, "BLOCKS", 3)
    monkeypatch.setattr(factors, "CPU_ENTRIES", 2 * 22 * 64)
    for (_, errors), (_, same) in zip(whole, encoded(codec, x), strict=True):
        assert errors == pytest.approx(same, rel=1e-5)


def test_spec__names_the_method_and_the_seed_but_for_a_full_decomposition():
    assert LowRank().spec == {"name": "lowrank", "rank": 64, "rmse": None, "dtype": "int8"}
    spec = LowRank(method="subspace", seed=3).spec
    assert spec == {**LowRank().spec, "method": "subspace", "seed": 3}
    with pytest.raises(ValueError, match="takes a rank"):
        LowRank(rank=None, rmse=0.01, method="subspace")
