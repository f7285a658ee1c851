"""What lint finds in a damaged store, and that it finds nothing in a sound one."""

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import xxhash
from click.testing import CliRunner

from densecli.cli import main
from densecli.shards import lint as linter
from densecli.shards.keys import canonical_json, keys_digest
from densecli.shards.lint import lint
from densecli.shards.manifest import manifest_url, withdraw
from densecli.shards.receipt_totals import publish
from densecli.shards.store import Store
from densecli.shards.writer import ShardWriter, npz_bytes

SIZES = (3, 2)


def fill(column, skipped=0):
    for shard, n in zip(column.shard_names, SIZES, strict=True):
        writer = ShardWriter(column, shard)
        for i in range(n - skipped):
            writer.add(f"{shard}-{i}", {"npz": npz_bytes({"x": np.arange(100)})})
        writer.commit(skipped={"empty": skipped} if skipped else {})


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    root = tmp_path_factory.mktemp("lint") / "store"
    store = Store.create(root, {"name": "x"}, 64, list(SIZES))
    regions = store.add_column("regions", "grid-paper", {})
    for column in (store.images, regions, store.add_column("targets", "v", {"regions": regions.key})):
        fill(column)
        publish(column)
    return root


@pytest.fixture
def store(pristine, tmp_path):
    return Store.open(shutil.copytree(pristine, tmp_path / "store"))


@pytest.fixture
def target(store):
    return store.find("targets", "v")


def the_one(store):
    (finding,) = lint(store)
    return finding


def test_lint__a_sound_store_has_no_findings_and_is_counted(store):
    done = []
    assert list(lint(store, done.append)) == []
    assert sum(done) == linter.count(store) == 6


def test_lint__a_flipped_bit(store, target):
    path = Path(target.tar_url("000001"))
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    path.write_bytes(data)
    finding = the_one(store)
    assert "checksum" in finding.trouble and target.receipt_url("000001") in finding.remedy


def test_lint__one_half_of_a_shard_is_gone(store, target):
    Path(target.tar_url("000001")).unlink()
    Path(store.images.receipt_url("000000")).unlink()
    troubles = [finding.trouble for finding in lint(store)]
    assert len(troubles) == 2
    assert "no receipt" in troubles[0] and "is gone" in troubles[1]


def test_lint__a_column_that_is_not_finished(store, target):
    for url in (target.tar_url("000001"), target.receipt_url("000001")):
        Path(url).unlink()
    assert "not finished: 1 of 2" in the_one(store).trouble


def test_lint__a_receipt_that_places_members_elsewhere(store, target):
    path = Path(target.receipt_url("000000"))
    receipt = json.loads(path.read_bytes())
    # As a version without digests may have written it.
    del receipt["digest"]
    name, place = receipt["members"].popitem()
    receipt["members"]["000000-7.npz"] = place
    receipt["keys_digest"] = keys_digest([f"000000-{i}" for i in (0, 1, 7)])
    assert name == "000000-2.npz"
    path.write_bytes(canonical_json(receipt))
    assert "other members" in the_one(store).trouble


def test_lint__a_damaged_receipt(store, target):
    Path(target.receipt_url("000000")).write_bytes(b"{")
    assert "damaged" in the_one(store).trouble


def test_lint__photos_not_accounted_for(store):
    fill(store.images, skipped=1)
    others = [finding for finding in lint(store) if "other samples than the photos" in finding.trouble]
    assert len(others) == 4
    receipt = json.loads(Path(store.images.receipt_url("000000")).read_bytes())
    receipt["skipped"] = {}
    del receipt["digest"]
    Path(store.images.receipt_url("000000")).write_bytes(canonical_json(receipt))
    assert any("accounts for 2 photos of 3" in finding.trouble for finding in lint(store))


@pytest.mark.parametrize(
    "stray", ["notes.txt", "images/000007.tar", "targets/v", "images/.000000.tar.77.tmp"], ids=lambda s: s
)
def test_lint__strays(store, stray):
    path = Path(store.root, stray)
    path.write_bytes(b"")
    finding = the_one(store)
    assert stray in finding.url and finding.leftover == stray.endswith(".tmp")


def test_lint__a_renamed_column_and_one_without_its_description(store, target):
    Path(target.url).rename(Path(target.url).with_name("w-0123456789ab"))
    assert "does not hash" in the_one(store).trouble
    Path(store.root, "targets", "w-0123456789ab", "column.json").unlink()
    assert "no column.json" in the_one(store).trouble


def test_lint__regions_that_a_target_needs(store):
    (regions,) = store.columns("regions")
    shutil.rmtree(regions.url)
    assert "lacks the regions" in the_one(store).trouble


def test_lint__a_leftover_is_no_damage_and_its_hint_removes_it(store):
    stray = Path(store.images.url, ".000000.tar.77.tmp")
    stray.write_bytes(b"half")
    done = CliRunner().invoke(main, ["lint", "--store", store.root])
    assert done.exit_code == 0 and "no findings, 1 left by killed writers" in done.output
    [hint] = re.findall(r"run densecli (gc .*)\.$", done.output, re.MULTILINE)
    cleared = CliRunner().invoke(main, shlex.split(hint))
    assert cleared.exit_code == 0 and not stray.exists()
    assert list(lint(store)) == []


def test_lint__a_column_without_a_manifest_is_advice_and_no_damage(store, target):
    withdraw(target)
    finding = the_one(store)
    assert "has no manifest" in finding.trouble and finding.advice and not finding.wrong
    done = CliRunner().invoke(main, ["lint", "--store", store.root])
    assert done.exit_code == 0 and "has no manifest" in done.output and "no findings" in done.output


def test_lint__a_manifest_that_does_not_fit_its_receipts(store, target):
    old = Path(manifest_url(target)).read_bytes()
    fill(target, skipped=1)
    fill(store.images, skipped=1)
    fill(store.columns("regions")[0], skipped=1)
    for column in (store.images, *store.columns()):
        publish(column)
    assert list(lint(store)) == []
    Path(manifest_url(target)).write_bytes(old)
    finding = the_one(store)
    assert "does not fit the receipts of 2 shards, the first is 000000" in finding.trouble and finding.wrong
    assert f"Delete {manifest_url(target)} and run the build" in finding.remedy


def test_lint__totals_of_a_manifest(store, target):
    writer = ShardWriter(target, "000001")
    for i in range(SIZES[1]):
        writer.add(f"000001-{i}", {"npz": npz_bytes({"x": np.arange(100)})})
    writer.commit(error={"max_tv": 0.5})
    assert "does not fit the receipts in total" in the_one(store).trouble


@pytest.mark.parametrize("damage", ["gone", "other"])
def test_lint__the_index_of_the_keys(store, damage):
    path = Path(store.images.url, "keys.npy")
    data = path.read_bytes()
    path.unlink()
    if damage == "other":
        path.write_bytes(data[:-1] + b"x")
    finding = the_one(store)
    assert finding.url == str(path) and finding.wrong
    assert manifest_url(store.images) in finding.remedy


def test_lint__a_damaged_manifest(store, target):
    Path(manifest_url(target)).write_bytes(b"PAR1")
    assert "is damaged" in the_one(store).trouble


def test_lint__a_tar_with_more_than_its_receipt_lists(store, target):
    """One that a stranger's writer made, with right checksums."""
    path, receipt_path = Path(target.tar_url("000001")), Path(target.receipt_url("000001"))
    data = bytearray(path.read_bytes())
    receipt = json.loads(receipt_path.read_bytes())
    last = max(first + size for first, size in receipt["members"].values())
    end = -(-last // 512) * 512
    header = bytes(data[:512])
    data[end : end + 512] = header
    path.write_bytes(data)
    receipt["xxh3"] = xxhash.xxh3_64_hexdigest(bytes(data))
    del receipt["digest"]
    receipt_path.write_bytes(canonical_json(receipt))
    publish(target)
    assert "other members than its tar has" in the_one(store).trouble


def test_lint__a_sample_reads_the_same_few_shards_of_each_column(tmp_path, monkeypatch):
    store = Store.create(tmp_path, {"name": "x"}, 64, [1] * 20)
    for column in (store.images, store.add_column("targets", "v", {})):
        for shard in column.shard_names:
            writer = ShardWriter(column, shard)
            writer.add(shard, {"npz": b"x"})
            writer.commit()
        publish(column)
    read, real = [], linter.read_tar
    monkeypatch.setattr(
        linter, "read_tar", lambda column, shard: (read.append((column.kind, shard)), real(column, shard))[1]
    )
    done = []
    assert list(lint(store, done.append, sample=5, seed=3)) == []
    assert sum(done) == linter.count(store, 5) == 10
    shards = [{shard for kind, shard in read if kind == of} for of in ("images", "targets")]
    assert shards[0] == shards[1] and len(shards[0]) == 5
    assert shards[0] != {store.shard_names[i] for i in linter.chosen(store, 5, 4)}
    read.clear()
    assert list(lint(store, sample=100)) == [] and len(read) == 40
    report = CliRunner().invoke(main, ["lint", "--store", store.root, "--sample", "5"])
    assert "no findings in 10 of 40 shards" in report.output
