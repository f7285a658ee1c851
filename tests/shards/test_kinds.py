"""What a plug-in adds to the store, with no edit of ours: a kind of target and a codec."""

import subprocess
import sys

import pytest

from densecli.core.errors import DenseCLIError
from densecli.shards.codecs import CODECS, codec_from_spec
from densecli.shards.kinds import KINDS, kind_of_spec

PLUGIN = """
from dataclasses import dataclass

import numpy as np

from densecli.shards.codecs import CODECS
from densecli.shards.kinds import KINDS, TargetKind


@CODECS.register("halves", help="Rows divided by two.")
@dataclass(frozen=True, kw_only=True)
class Halves:
    scale: float = 0.5

    @property
    def spec(self):
        return {"name": "halves", "scale": self.scale}

    def blank(self, shape):
        return {"halved": np.zeros(shape, np.float32)}

    def encode(self, x):
        arrays = {"halved": (x * self.scale).astype(np.float32)}
        return arrays, self.error(arrays, x)

    def error(self, arrays, x):
        return {"max_abs": float(np.abs(self.decode(arrays) - x).max())}

    def decode(self, arrays, rows=slice(None)):
        return arrays["halved"][rows] / self.scale


for layout in ("cells", "views", "map"):
    KINDS.add(layout, TargetKind(name=layout, prefix=f"my{layout}-", layout=layout), help="Mine.")
"""

READS = """
import sys
import numpy as np
import densecli
from densecli.core.plugins import use_plugins
from densecli.shards.writer import ShardWriter, jpg_bytes, json_bytes, npz_bytes
from densecli.train.targets import TargetReader, Visit
from PIL import Image

use_plugins(["my_plugin.py"])
from my_plugin import Halves

store = densecli.Store.create("store", {"name": "x", "split": "", "digest": "", "n": 1}, 64, [1])
regions = store.add_column("regions", "grid", {"plan": "mine"})
offsets, x = np.array([0, 2, 3]), np.arange(6, dtype=np.float32).reshape(3, 2)


def write(column, parts):
    writer = ShardWriter(column, "000000")
    writer.add("a", parts)
    writer.commit()


write(store.images, {"jpg": jpg_bytes(Image.new("RGB", (64, 64))), "json": json_bytes({})})
write(regions, {"npz": npz_bytes({"boxes": np.zeros((3, 4), np.float32), "offsets": offsets})})
beside = {"cells": {}, "views": {"views": np.array([1, 0])}, "map": {"grid": np.array([1, 3])}}
for layout, arrays in beside.items():
    about = {} if layout == "map" else {"regions": regions.key}
    spec = {"target": {"name": layout}, "codec": Halves().spec, **about}
    column = store.add_column("targets", f"my{layout}-model", spec)
    write(column, {"npz": npz_bytes({**Halves().encode(x)[0], **arrays})})
    [sample] = store.samples(column.full_name)
    assert sample.image().shape == (64, 64, 3)
    assert sorted(sample.parts) == sorted(["images", column.name, *(["regions"] if about else [])])
    visit = Visit(offsets=offsets, view=1, cells=np.array([0]))
    print(layout, TargetReader(column).read(sample.arrays(column.part), visit).tolist())
"""


def test_plug_in__kinds_of_every_layout_and_a_codec_are_read(tmp_path):
    (tmp_path / "my_plugin.py").write_text(PLUGIN)
    done = subprocess.run(
        [sys.executable, "-c", READS], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.stdout.splitlines() == [
        "cells [[4.0, 5.0]]",
        "views [[0.0, 1.0]]",
        "map [[[[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]]]",
    ], done.stderr


def test_kinds__each_is_registered_under_its_own_name():
    assert [kind.name for _, kind in KINDS.items()] == list(KINDS)
    assert {"labels", "features", "crops", "gram", "self", "refined"} <= set(KINDS)


def test_read_kind__of_what_is_relabelled_first():
    assert KINDS["features"].read_kind == "labels" == KINDS["labels"].read_kind
    assert KINDS["crops"].read_kind == "crops" and KINDS["crops"].relabelled_as == "crop-labels"
    assert KINDS["crops"].serves({"crop-labels"}) and KINDS["crops"].serves({"crops"})
    assert not KINDS["crops"].serves({"labels"}) and not KINDS["labels"].serves({"crop-labels"})


def test_about_boxes__all_but_maps():
    assert {name for name, kind in KINDS.items() if kind.about_boxes} >= {"labels", "crops", "refined"}
    assert not any(KINDS[name].about_boxes for name in ("features", "gram", "self"))


def test_unknown__kind_and_codec_suggest_the_nearest():
    with pytest.raises(DenseCLIError, match="no kind of target called 'label'") as caught:
        kind_of_spec({"target": {"name": "label"}})
    assert "labels" in caught.value.hint
    with pytest.raises(DenseCLIError, match="no codec called 'topkk'") as caught:
        codec_from_spec({"name": "topkk"})
    assert "topk" in caught.value.hint


def test_codecs__those_that_come_with_densecli():
    assert {"topk", "rows", "lowrank", "features"} <= set(CODECS)
