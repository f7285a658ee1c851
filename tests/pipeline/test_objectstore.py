"""Photos and stores in an object store: what a local disk would give, and no secret anywhere."""

import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import command_line
import fsspec
import numpy as np
import pytest
from building import build_here, missing_shards
from click.testing import CliRunner
from PIL import Image
from tars import jpg, tar

from densecli.cli import main
from densecli.core import fs
from densecli.core.errors import DenseCLIError, Unreachable
from densecli.pipeline.build_request import prepare
from densecli.pipeline.plan import PlanConfig, plan
from densecli.pipeline.sources import Unreadable, open_source
from densecli.shards.geometry import Canvas
from densecli.shards.reader import StoreReader
from densecli.shards.receipt_totals import publish

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def objects(s3: str, *below: str) -> dict[str, bytes]:
    """What is in the bucket, by name in it."""
    client = fsspec.filesystem("s3")
    client.invalidate_cache()
    found = client.find("/".join([s3, *below]))
    return {path.split("/", 1)[1]: client.cat_file(path) for path in found}


@pytest.fixture
def photos(s3: str, tmp_path: Path) -> tuple[str, str]:
    """The same COCO-like folder on the disk and in the bucket."""
    split = tmp_path / "coco" / "train2017"
    split.mkdir(parents=True)
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 255, (60, 90, 3), np.uint8)
        Image.fromarray(pixels).save(split / f"{i}.jpg")
    (split / "broken.jpg").write_bytes(b"\xff\xd8 no photo")
    fsspec.filesystem("s3").put(str(tmp_path / "coco"), f"{s3}/coco", recursive=True)
    return str(tmp_path / "coco"), f"{s3}/coco"


@pytest.mark.parametrize("dataset", ["coco", "folder"])
def test_source__is_the_same_data_wherever_it_lies(photos, dataset):
    here, there = (open_source(dataset, place, "train2017") for place in photos)
    assert here.identity == there.identity
    assert here.items == there.items
    item = here.items[1]
    loaded = [source.load(item, Canvas(48)).image for source in (here, there)]
    assert np.array_equal(*loaded)
    for place in photos:
        with pytest.raises(DenseCLIError, match="no split val2017") as caught:
            open_source(dataset, place, "val2017")
        assert "train2017" in caught.value.hint
    with pytest.raises(DenseCLIError, match=r"no folder s3://.*/nowhere"):
        open_source(dataset, photos[1].replace("/coco", "/nowhere"), "train2017")


def test_store__in_a_bucket_has_the_bytes_of_a_local_one(photos, s3, tiny, files_of):
    config = replace(tiny, dataset="coco", split="train2017", canvas=48, categories="scenes", shard_size=2)
    here, _ = build_here(replace(config, data=photos[0]))
    there, _ = build_here(replace(config, data=photos[1], store=f"{s3}/store"))
    local = {f"store/{name}": data for name, (_, _, data) in files_of(here.store.root).items()}
    remote = objects(s3, "store")
    # The flat folder in the bucket is listed once; the one on the disk each time.
    assert local.keys() == {name for name in remote if not name.startswith("store/index/")}
    assert all(remote[name] == local[name] for name in local if name.endswith("r") or "column" in name)
    orders = [StoreReader(request.columns(), seed=3).iter(1) for request in (here, there)]
    assert list(orders[0]) == list(orders[1])

    request, _ = prepare(replace(config, data=photos[1], store=f"{s3}/store"))
    assert missing_shards(request.columns()) == []
    fs.remove(there.columns()[2].receipt_url("000001"))
    assert missing_shards(request.columns()) == ["000001"]


@pytest.mark.ray
def test_commands__leave_no_credential_anywhere(photos, s3, s3_server, tmp_path, monkeypatch, capfd):
    # Ray's sockets need a short path.
    with tempfile.TemporaryDirectory(prefix="r") as logs:
        monkeypatch.setenv("RAY_TMPDIR", logs)
        monkeypatch.setenv("PYTHONUNBUFFERED", "1")

        def run(*words: object, code: int = 0) -> str:
            done = command_line.run(*words)
            assert done.exit_code == code, done.output
            return done.output + "".join(capfd.readouterr())

        build = (
            "build-shards", "--dataset", "coco", "--data", photos[1], "--teacher", "scenes-l",
            "--weights", "scenes-l=random:0", "--categories", "scenes", "--canvas", 96,
        )  # fmt: skip
        train = ("train", "--student", "scenes-s", "--weights", "scenes-s=random:1", "--max-steps", 1)
        user = f"{os.environ['AWS_ACCESS_KEY_ID']}:{os.environ['AWS_SECRET_ACCESS_KEY']}@"
        outputs = [
            run(*build, "--store", f"{s3}/store", "--json", tmp_path / "run" / "build.json"),
            run(*train, "--store", f"{s3}/store", "--run", tmp_path / "run", "--batch-size", 2),
            run(*build, "--store", f"{s3.replace('//', f'//{user}')}/store", code=1),
            run(*train, "--store", f"{s3.replace('//', f'//{user}')}/store", code=1),
            run(*train, "--store", f"{s3}/elsewhere", code=1),
        ]
        assert "3 photos; skipped 1 " in outputs[0]
        assert "random weights" in outputs[1]
        assert all("Error: " in text and "Hint: " in text for text in outputs[2:])
        files = [path for top in (logs, tmp_path / "run") for path in Path(top).rglob("*") if path.is_file()]
        written = {
            **{f"output {i}": text.encode() for i, text in enumerate(outputs)},
            **{str(path): path.read_bytes() for path in files},
            **objects(s3),
        }
    assert any("worker" in name for name in written)
    assert any(name.endswith("config.json") for name in written)
    assert any(name.endswith("store.json") for name in written)
    secrets = (os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"], s3_server)
    found = [(name, s) for name, data in written.items() for s in secrets if s.encode() in data]
    assert found == []


def test_commands__look_after_a_store_in_a_bucket(s3, tiny, tmp_path):
    fs.write_atomic(f"{s3}/photos/0.tar", tar({f"{i}.jpg": jpg(90, 60, seed=i) for i in range(3)}))
    config = replace(
        tiny, dataset="webdataset", data=f"{s3}/photos", split=None, limit=None, canvas=48, shard_size=2,
        categories="scenes", store=f"{s3}/store", teachers=("scenes-s", "features-scenes-s"),
    )  # fmt: skip
    planned = plan(PlanConfig(epochs=6, build=config))
    request, _ = build_here(config)
    for column in request.columns():
        if not column.computed:
            publish(column)
    before = objects(s3, "store")
    assert [name for name in before if name.startswith("store/index/webdataset/")]

    def told(*words: object, code: int = 0) -> dict:
        out = tmp_path / "out.json"
        result = CliRunner().invoke(main, [*map(str, words), "--store", config.store, "--json", str(out)])
        assert result.exit_code == code, result.output
        return json.loads(out.read_text())

    described = told("info")
    assert described["complete"] and described["index_bytes"] > 0
    assert described["bytes"] == sum(map(len, before.values()))
    derived = sum(len(data) for name, data in before.items() if name.endswith((".parquet", "/keys.npy")))
    assert described["bytes"] - derived == pytest.approx(planned["bytes"], rel=0.02)
    assert told("lint")["findings"] == []
    assert told("verify", "--device", "cpu")["verified"]
    picture = tmp_path / "1.png"
    told("preview", "0+1", "--out", picture)
    assert Image.open(picture).format == "PNG"
    gc = ("gc", "--runs", tmp_path / "runs", "--min-age", 0)
    assert told(*gc, "--keep", "grid-paper")["items"] == []
    assert objects(s3, "store") == before

    fs.write_atomic(f"{s3}/store/targets/stray", b"1")
    fs.write_atomic(f"{s3}/store/images/.000000.tar.7.tmp", b"1")
    fs.remove(f"{s3}/store/images/000001.json")
    troubles = [finding["trouble"] for finding in told("lint", code=1)["findings"]]
    assert len(troubles) == 3
    assert not [trouble for trouble in troubles if "index" in trouble]
    build_here(config)
    relabelled = told("relabel", "--tau", 0.5, "--categories", "scenes", "--weights", "scenes-s=random:0")
    assert (relabelled["status"], relabelled["samples"]) == ("built", 3)
    items = told(*gc, "--keep", "scenes-s", "--keep", "features-scenes-s", "--delete")["items"]
    assert sorted(item["column"] for item in items) == [False, True]
    fs.remove(f"{s3}/store/targets/stray")
    assert told("lint")["findings"] == []
    assert objects(s3, "store").keys() == before.keys()


def test_photo__that_one_may_not_read_is_unreadable_and_an_unreachable_one_is_not(photos, monkeypatch):
    source = open_source("folder", photos[1], "train2017")

    def fail(error: Exception) -> None:
        async def client(*_: object, **__: object) -> None:
            raise error

        s3fs = fsspec.get_filesystem_class("s3")
        monkeypatch.setattr(s3fs, "_cat_file", client)
        s3fs.clear_instance_cache()

    fail(PermissionError("Access Denied"))
    with pytest.raises(Unreadable, match=r"^forbidden$"):
        source.load(source.items[0], Canvas(48))
    fail(TimeoutError())
    with pytest.raises(Unreachable, match=r"Could not read s3://.*/0\.jpg: FSTimeoutError\."):
        source.load(source.items[0], Canvas(48))
