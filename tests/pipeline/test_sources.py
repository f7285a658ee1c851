import io
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from densecli.core.errors import DenseCLIError
from densecli.pipeline.sources import Unreadable, open_source
from densecli.pipeline.sources.base import MAX_KEY, safe_keys
from densecli.pipeline.sources.photos import decode
from densecli.shards.geometry import Canvas

CANVAS = Canvas(512)
EXIF_ORIENTATION = ImageOps.ExifTags.Base.Orientation


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photo(width: int = 20, height: int = 10, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8))


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_open_source__coco_lists_the_photos_of_the_split_by_key(tmp_path):
    for name in ("000000000025.jpg", "000000000009.jpg", "notes.txt"):
        write(tmp_path / "train2017" / name, encoded(photo(), "JPEG"))
    write(tmp_path / "val2017" / "1.jpg", encoded(photo(), "JPEG"))
    source = open_source("coco", str(tmp_path), "train2017")
    assert [item.key for item in source.items] == ["000000000009", "000000000025"]
    assert source.identity == {"name": "coco", "split": "train2017", "digest": source.digest, "n": 2}
    assert [i.key for i in open_source("coco", str(tmp_path), "train2017", limit=1).items] == ["000000000009"]


def test_open_source__folder_is_recursive_and_keys_are_safe(tmp_path):
    for name in ("a b/c.d.jpg", "top.PNG", ".hidden/x.jpg", "a b/._c.jpg", "read.me"):
        write(tmp_path / name, encoded(photo()))
    assert [item.key for item in open_source("folder", str(tmp_path)).items] == ["a_b_c_d", "top"]


@given(
    st.lists(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1), unique=True
    )
)
def test_safe_keys__unique_and_safe_whatever_the_names(names):
    keys = safe_keys(names)
    assert list(keys) == names
    assert len({key.casefold() for key in keys.values()}) == len(names)
    assert all(len(key) <= MAX_KEY and not set(key) & set("./\\ ") for key in keys.values())


@given(st.lists(st.text("aB.1/", min_size=1), unique=True), st.sampled_from([".jpg", ".JPG", "."]))
def test_safe_keys__the_same_whether_all_names_have_one_extension_or_not(stems, extension):
    names = [stem + extension for stem in stems]
    assert safe_keys([*names, "z.png"]) == safe_keys(names) | {"z.png": "z"}


def test_safe_keys__names_that_differ_only_in_what_is_dropped_stay_apart():
    keys = safe_keys(["a/b.jpg", "a_b.jpg", "a/b.png", "A_B.jpg", "c.jpg"])
    assert len(set(keys.values())) == 5
    assert keys["c.jpg"] == "c"


def test_source_digest__a_changed_folder_is_another_identity(tmp_path):
    write(tmp_path / "a.png", encoded(photo()))
    first = open_source("folder", str(tmp_path)).digest
    assert open_source("folder", str(tmp_path)).digest == first

    write(tmp_path / "b.png", encoded(photo()))
    added = open_source("folder", str(tmp_path)).digest
    (tmp_path / "b.png").rename(tmp_path / "c.png")
    renamed = open_source("folder", str(tmp_path)).digest
    write(tmp_path / "c.png", encoded(photo(30)))
    resized = open_source("folder", str(tmp_path)).digest
    assert len({first, added, renamed, resized}) == 4


def test_source_digest__another_place_with_the_same_files_is_the_same_data(tmp_path):
    write(tmp_path / "one" / "x" / "a.png", encoded(photo()))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert (
        open_source("folder", str(tmp_path / "one")).identity
        == open_source("folder", str(tmp_path / "two")).identity
    )


def test_exif_orientation__applied_to_folders_and_not_to_coco(tmp_path):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    write(tmp_path / "train2017" / "a.jpg", encoded(photo(20, 10), "JPEG", exif=exif))
    sizes = {}
    for dataset in ("coco", "folder"):
        source = open_source(dataset, str(tmp_path), "train2017")
        sizes[dataset] = source.load(source.items[0], CANVAS)[1:3]
    assert sizes == {"coco": (20, 10), "folder": (10, 20)}


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_decode__every_mode_becomes_rgb(mode):
    data = encoded(photo().convert(mode), "TIFF" if mode in ("CMYK", "YCbCr") else "PNG")
    image = decode(data, upright=False, canvas=CANVAS).image
    assert (image.mode, image.size) == ("RGB", (20, 10))


def test_decode__sixteen_bits_are_scaled_and_not_clipped():
    levels = np.array([[0, 257 * 100, 65535]], np.uint16)
    image = decode(encoded(Image.fromarray(levels)), upright=False, canvas=CANVAS).image
    assert np.asarray(image).tolist() == [[[0] * 3, [100] * 3, [255] * 3]]


JPEG = encoded(photo(64, 64), "JPEG")
PNG = encoded(photo(64, 64))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"<html>not found</html>", "not-an-image"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (PNG[: len(PNG) // 2], "truncated"),
        (PNG[:60] + bytes(40) + PNG[100:], "corrupt"),
        (encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), "float-pixels"),
    ],
)
def test_decode__bad_photo_is_unreadable_with_its_reason(data, reason):
    with pytest.raises(Unreadable, match=f"^{reason}$"):
        decode(data, upright=True, canvas=CANVAS)


def test_decode__a_jpeg_of_endless_scans_is_skipped_before_it_is_decoded():
    whole = encoded(photo(64, 64), "JPEG", progressive=True)
    last = whole[whole.rindex(b"\xff\xda") : -2]
    with pytest.raises(Unreadable, match=r"^too-many-scans$"):
        decode(whole[:-2] + 2000 * last + whole[-2:], upright=True, canvas=CANVAS)
    assert decode(whole, upright=True, canvas=CANVAS).width == 64


@pytest.mark.parametrize("scale", [1, 1000])
def test_decode__pixels_of_32_bits_are_not_taken_for_white(scale):
    wide = encoded(Image.fromarray(np.arange(128, dtype=np.int32).reshape(8, 16) * scale), "TIFF")
    if scale == 1:
        assert decode(wide, upright=True, canvas=CANVAS).image.mode == "RGB"
    else:
        with pytest.raises(Unreadable, match=r"^wide-pixels$"):
            decode(wide, upright=True, canvas=CANVAS)


def test_load__a_file_of_gigabytes_is_not_read(tmp_path):
    os.truncate(write(tmp_path / "a.jpg", JPEG), 1 << 40)
    source = open_source("folder", str(tmp_path))
    with pytest.raises(Unreadable, match=r"^too-many-bytes$"):
        source.load(source.items[0], CANVAS)


def test_load__a_pipe_in_the_place_of_a_listed_photo_is_not_waited_for(tmp_path):
    path = write(tmp_path / "a.jpg", JPEG)
    source = open_source("folder", str(tmp_path))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(Unreadable, match=r"^not-a-file$"):
        source.load(source.items[0], CANVAS)


def test_decode__more_pixels_than_pillow_dares_are_unreadable(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(Unreadable, match=r"^too-large$"):
        decode(PNG, upright=False, canvas=CANVAS)


def test_load__a_photo_that_went_away_is_unreadable(tmp_path):
    path = write(tmp_path / "a.png", PNG)
    source = open_source("folder", str(tmp_path))
    path.unlink()
    with pytest.raises(Unreadable, match=r"^missing$"):
        source.load(source.items[0], CANVAS)


@pytest.mark.parametrize("dataset", ["coco", "folder"])
def test_open_source__no_such_folder(tmp_path, dataset):
    with pytest.raises(DenseCLIError, match=r"no folder .*nowhere") as caught:
        open_source(dataset, str(tmp_path / "nowhere"))
    assert "--data" in caught.value.hint


@pytest.mark.parametrize("dataset", ["coco", "folder"])
def test_open_source__no_such_split_lists_those_there(tmp_path, dataset):
    write(tmp_path / "val2017" / "a.jpg", JPEG)
    with pytest.raises(DenseCLIError, match="no split test2017") as caught:
        open_source(dataset, str(tmp_path), "test2017")
    assert "val2017" in caught.value.hint


@pytest.mark.parametrize(("dataset", "split"), [("coco", "train2017"), ("folder", None)])
def test_open_source__empty_folder(tmp_path, dataset, split):
    (tmp_path / "train2017").mkdir()
    with pytest.raises(DenseCLIError, match=r"no (\.jpg )?photo"):
        open_source(dataset, str(tmp_path), split)


def test_open_source__unknown_data_set_lists_the_known():
    with pytest.raises(DenseCLIError, match="no data set called 'imagenet'") as caught:
        open_source("imagenet", ".")
    assert "coco, folder, sa1b" in caught.value.hint and "scenes" in caught.value.hint


def test_open_source__unknown_data_set_suggests_the_nearest():
    with pytest.raises(DenseCLIError, match="no data set called 'web-dataset'") as caught:
        open_source("web-dataset", ".")
    assert "Did you mean webdataset?" in caught.value.hint


def test_scenes__the_same_index_is_the_same_scene_and_splits_differ():
    few, more = open_source("scenes", "", "val", limit=2), open_source("scenes", "", "val", limit=5)
    assert [item.key for item in more.items[:2]] == [item.key for item in few.items]
    assert few.digest != more.digest
    pixels = [np.asarray(source.load(source.items[1], CANVAS).image) for source in (few, more)]
    assert np.array_equal(*pixels)
    train = open_source("scenes", "", "train", limit=2)
    assert not np.array_equal(pixels[0], np.asarray(train.load(train.items[1], CANVAS).image))


def test_scenes__unknown_split_lists_those_there():
    with pytest.raises(DenseCLIError, match="no split dev") as caught:
        open_source("scenes", "", "dev")
    assert "val" in caught.value.hint


def test_loader__travels_without_the_listing(tmp_path):
    for i in range(200):
        write(tmp_path / f"{i}.png", PNG)
    source = open_source("folder", str(tmp_path))
    assert len(pickle.dumps(source.load)) < 1000
    assert pickle.loads(pickle.dumps(source.load))(source.items[7], CANVAS)[1:3] == (64, 64)


def test_coco128__its_photos_load(shared_data):
    source = open_source("coco", str(shared_data / "coco128"), "train2017", limit=6)
    assert source.items[0].key == "000000000009"
    assert all(source.load(item, CANVAS).image.mode == "RGB" for item in source.items)
