"""What lint finds in a damaged store, and that it finds nothing in a sound one."""

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from densecli.cli import main
from densecli.shards import lint as linter
from densecli.shards.keys import canonical_json, keys_digest
from densecli.shards.lint import lint
from densecli.shards.manifest import publish
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
