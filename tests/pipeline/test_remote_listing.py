"""Listing data elsewhere: few bytes, few requests, nothing twice, and what a local disk would give."""

import io
import random
import tarfile
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
from building import build_here
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tars import jpg, tar

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.core.passed_over import PassedOver
from densecli.core.signed_file import SignedFile, signed_file
from densecli.pipeline.build_request import prepare
from densecli.pipeline.build_shards import build_shards
from densecli.pipeline.cluster import connected, gpus_at
from densecli.pipeline.cluster_lister import ClusterLister, lister_of
from densecli.pipeline.plan import PlanConfig, plan
from densecli.pipeline.sources import Index, find_tars, open_source, tars, volumes
from densecli.pipeline.sources.ranged_file import MOST, RangedFile

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def members_of(data: bytes, readers: int) -> tuple[dict, int]:
    """The members as a remote tar's headers say, and the bytes that were fetched."""
    fetched = []

    def fetch(offset: int, size: int) -> bytes:
        assert size > 0 and offset + size <= len(data)
        fetched.append(size)
        return data[offset : offset + size]

    passed = PassedOver()
    headers = tars._walk_in_parts(fetch, len(data), readers)
    return {**tars._members(headers, passed), "passed": passed.document()}, sum(fetched)


def read_whole(data: bytes) -> dict:
    passed = PassedOver()
    return {**tars._members(tars._walk(io.BytesIO(data)).headers, passed), "passed": passed.document()}


def any_tar(seed: int, count: int, kind: int, nested: bool) -> bytes:
    """Members of any size, with long names, links, folders and, if `nested`, tars."""
    rng, buffer = random.Random(seed), io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as file:
        for i in range(count):
            name = f"{i}.jpg" if rng.random() < 0.9 else f"{'long' * rng.randrange(24, 40)}/{i}.png"
            member = tarfile.TarInfo(name[-99:] if kind == tarfile.USTAR_FORMAT else name)
            data = rng.randbytes(rng.randrange(0, 3000))
            if nested and rng.random() < 0.3:
                data = tar({f"x{k}.jpg": bytes(rng.randrange(900)) for k in range(rng.randrange(1, 9))})
            member.size = len(data)
            if rng.random() < 0.05:
                member.type, member.linkname, member.size = tarfile.SYMTYPE, "0.jpg", 0
            file.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**6), st.integers(0, 300), st.sampled_from(sorted(FORMATS)), st.booleans())
def test_walk__in_parts_finds_what_one_reader_finds(seed, count, kind, nested):
    """Tars within tars hold headers of others: a reader that begins at one is not believed."""
    data = any_tar(seed, count, FORMATS[kind], nested)
    assert members_of(data, 8)[0] == read_whole(data)


def test_walk__global_headers_are_heeded_by_all_parts():
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "x", "path": "all.jpg"}
    ) as file:
        for i in range(200):
            member = tarfile.TarInfo(f"{i}.jpg")
            member.size = 600
            file.addfile(member, io.BytesIO(bytes(600)))
    data = buffer.getvalue()
    assert members_of(data, 8)[0] == read_whole(data)


@pytest.mark.parametrize("readers", [1, 8])
@pytest.mark.parametrize("cut", [0, 1, 700, 100 * 1536 + 10, 150 * 1536, 199 * 1536 + 512, 200 * 1536])
def test_walk__a_cut_tar_is_refused(readers, cut):
    data = tar({f"{i}.jpg": bytes(900) for i in range(200)})
    with pytest.raises((tarfile.TarError, ValueError)):
        members_of(data[:cut], readers)


@pytest.mark.parametrize("readers", [1, 8])
def test_walk__a_damaged_header_anywhere_is_refused(readers):
    data = tar({f"{i}.jpg": bytes(900) for i in range(200)})
    for member in (0, 3, 90, 199):
        damaged = bytearray(data)
        damaged[member * 1536 + 130] ^= 1
        with pytest.raises((tarfile.TarError, ValueError)):
            members_of(bytes(damaged), readers)


def test_walk__of_photos_fetches_a_twentieth_of_64_kb_for_each():
    rng = random.Random(0)
    sizes = {
        f"sa_{i}.{extension}": bytes(rng.randrange(size // 2, size * 3 // 2))
        for i in range(600)
        for extension, size in (("jpg", 100_000), ("json", 40_000))
    }
    for readers in (1, 16):
        found, fetched = members_of(tar(sizes), readers)
        assert len(found) == len(sizes) + 1
        assert fetched <= 600 * 65_536 / 20


def test_ranged_file__one_request_has_the_small_members_beside_a_photo():
    requests = []

    def fetch(offset: int, size: int) -> bytes:
        requests.append(size)
        return data[offset : offset + size]

    data = tar(
        {
            f"{i}.{extension}": bytes(size)
            for i in range(100)
            for extension, size in (("jpg", 50_000), ("json", 700), ("txt", 90))
        }
    )
    tars._walk(RangedFile(fetch, len(data)))
    assert len(requests) <= 110
    assert max(requests[:-1]) <= MOST


@pytest.fixture
def bucket(s3: str) -> str:
    """Two tars of photos with captions, and a mask that is passed over."""
    for number in range(2):
        members = {}
        for i in range(40):
            members |= {f"{i}.jpg": jpg(90, 60, seed=i), f"{i}.txt": b"a caption"}
        fs.write_atomic(f"{s3}/photos/{number:03d}.tar", tar(members))
    return f"{s3}/photos"


def in_tars(gets: list[tuple[str, str, int]]) -> list[tuple[str, str, int]]:
    return [get for get in gets if get[0].endswith(".tar")]


def test_source__of_tars_in_s3_is_that_of_a_disk(bucket, tmp_path, s3_gets):
    fsspec.filesystem("s3").get(bucket, str(tmp_path / "photos"), recursive=True)
    s3_gets()
    there = open_source("webdataset", bucket)
    gets = in_tars(s3_gets())
    here = open_source("webdataset", str(tmp_path / "photos"))
    assert there.identity == here.identity
    assert there.items[:] == here.items[:]
    size = sum(path.stat().st_size for path in (tmp_path / "photos").iterdir())
    assert all(span for _, span, _ in gets)
    assert sum(n for _, _, n in gets) < size / 3


def test_source__of_many_tars_says_how_a_build_begins_earlier(bucket, monkeypatch, capsys):
    open_source("webdataset", bucket)
    assert "--tars-per-part" not in capsys.readouterr().err
    monkeypatch.setattr(volumes, "MANY_TARS", 1)
    source = open_source("webdataset", bucket)
    assert "tars are listed; with --tars-per-part 1 it begins" in capsys.readouterr().err
    open_source("webdataset", bucket, tars=find_tars("webdataset", bucket, None))
    assert "--tars-per-part" not in capsys.readouterr().err
    assert len(source.items)


def test_source__without_a_signed_address_is_the_same(bucket, monkeypatch):
    signed = open_source("webdataset", bucket)
    assert signed_file("memory://a.tar") is None
    assert open_source("webdataset", bucket).identity == signed.identity
    for file in (None, SignedFile(f"{bucket.replace('s3://', 'http://127.0.0.1:1/')}/000.tar?signed=no")):
        monkeypatch.setattr(fs, "signed_file", lambda url, file=file: file)
        assert open_source("webdataset", bucket).identity == signed.identity


@pytest.mark.ray
def test_listing__by_tasks_of_a_cluster_is_that_of_threads(bucket):
    here = open_source("webdataset", bucket)
    with connected(None, 1):
        # A part of a store asks for GPUs while the cluster is connected.
        assert gpus_at("auto", "cuda") == 0
        lister = ClusterLister(nullcontext)
        there = open_source("webdataset", bucket, lister=lister)
        assert there.identity == here.identity
        assert there.items[:] == here.items[:]
        fs.write_atomic(f"{bucket}/002.tar", fs.read_bytes(f"{bucket}/001.tar")[:9000])
        with pytest.raises(DenseCLIError, match=r"^s3://.*002\.tar is not a whole tar") as caught:
            open_source("webdataset", bucket, lister=lister)
        assert caught.value.hint.startswith("Download it again")


def test_lister__only_a_build_on_a_cluster_has_one_of_its_own(tiny):
    on_cluster = replace(tiny, ray_address="10.0.0.1:6379")
    assert isinstance(lister_of(on_cluster, connected), ClusterLister)
    assert lister_of(tiny, connected) is None
    assert lister_of(replace(on_cluster, dry_run=True), connected) is None


def test_source__a_cut_tar_in_s3_is_named(bucket):
    data = fs.read_bytes(f"{bucket}/001.tar")
    fs.write_atomic(f"{bucket}/001.tar", data[: len(data) // 2])
    with pytest.raises(DenseCLIError, match=r"001\.tar is not a whole tar"):
        open_source("webdataset", bucket)


def test_listing__is_made_once_for_plan_dry_run_and_build(bucket, s3, tiny, s3_gets, tmp_path, monkeypatch):
    monkeypatch.setenv("DENSECLI_CACHE", str(tmp_path / "cache"))
    config = replace(
        tiny, dataset="webdataset", data=bucket, split=None, limit=None, teachers=(), weights={}, canvas=48
    )
    s3_gets()
    plan(PlanConfig(epochs=1, build=config, samples=2))
    assert len(in_tars(s3_gets())) > 10
    assert not Path(config.store).exists()
    build_shards(replace(config, dry_run=True))
    prepare(config)
    assert in_tars(s3_gets()) == []
    assert len(list(Path(config.store, "index", "webdataset").iterdir())) == 2
    for path in (tmp_path / "cache" / "listings").iterdir():
        path.unlink()
    prepare(config)
    assert in_tars(s3_gets()) == []
    fs.write_atomic(f"{bucket}/001.tar", tar({"new.jpg": jpg()}))
    assert len(prepare(replace(config, store=str(tmp_path / "other")))[1].items) == 41
    assert {name for name, _, _ in in_tars(s3_gets())} == {"photos/000.tar", "photos/001.tar"}


def lists(gets: list[tuple[str, str, int]]) -> int:
    return sum(not name for name, _, _ in gets)


@pytest.fixture
def flat(s3: str, tiny, tmp_path, monkeypatch) -> Mapping:
    monkeypatch.setenv("DENSECLI_CACHE", str(tmp_path / "cache"))
    for i in range(5):
        fs.write_atomic(f"{s3}/flat/{i}.jpg", jpg(seed=i))
    fs.write_atomic(f"{s3}/flat/notes.txt", b"-")
    return replace(
        tiny, dataset="folder", data=f"{s3}/flat", split=None, limit=None, teachers=(), weights={}, canvas=48
    )


def test_listing__of_a_flat_folder_in_s3_is_made_once(flat, s3_gets, tmp_path):
    build_here(flat)
    first = lists(s3_gets())
    _, source = prepare(flat)
    assert 0 < lists(s3_gets()) < first
    assert source.listed is not None
    assert source.passed.document() == {"not named as a photo": {"count": 1, "first": ["notes.txt"]}}
    assert source.index_bytes == sum(p.stat().st_size for p in Path(flat.store, "index", "folder").iterdir())
    summary = build_shards(replace(flat, dry_run=True))
    assert summary["status"] == "up to date"
    assert summary["listed"] == source.listed


def test_listing__of_a_flat_folder_is_made_again_when_asked(flat):
    build_here(flat)
    fs.write_atomic(f"{flat.data}/6.jpg", jpg(seed=6))
    assert prepare(flat)[1].identity == prepare(flat)[1].identity
    with pytest.raises(DenseCLIError, match="another dataset"):
        prepare(replace(flat, relist=True))


def test_listing__that_is_shared_is_used_while_it_is_young(flat, tmp_path, monkeypatch):
    build_shards(replace(flat, dry_run=True))
    fs.write_atomic(f"{flat.data}/6.jpg", jpg(seed=6))
    assert len(prepare(replace(flat, dry_run=True))[1].items) == 5
    monkeypatch.setattr("densecli.pipeline.sources.index.YOUNG", -1.0)
    assert len(prepare(replace(flat, dry_run=True))[1].items) == 6


def test_index__a_shared_folder_that_cannot_be_written_does_no_harm(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    index = Index(folder=str(tmp_path / "index"), save=False, shared=str(tmp_path / "file"))
    index.put("a.npz", b"1")
    assert index.get("a.npz") is None


def test_index__a_damaged_listing_of_a_folder_is_made_again(flat):
    build_here(flat)
    (path,) = Path(flat.store, "index", "folder").iterdir()
    path.write_bytes(path.read_bytes()[:50])
    _, source = prepare(flat)
    assert (len(source.items), source.listed) == (5, None)
