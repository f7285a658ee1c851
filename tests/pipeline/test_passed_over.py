"""Odd names and files in a listing: read, or passed over with a count, a reason and the first of them."""

import io
import json
import os
import tarfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from building import build_here
from PIL import Image
from tars import jpg, tar, write_tar

from densecli.core.errors import DenseCLIError
from densecli.core.passed_over import PassedOver, in_words
from densecli.pipeline.build_shards import build_shards
from densecli.pipeline.config import BuildConfig
from densecli.pipeline.plan import PlanConfig, plan
from densecli.pipeline.plan_report import report as plan_report
from densecli.pipeline.sources import Index, Source, open_source
from densecli.shards.geometry import Canvas
from densecli.shards.info import describe, passed_over, remember_passed_over, report
from densecli.shards.store import Store
from densecli.shards.tars import read_shard

CANVAS = Canvas(48)


def write(path: Path, data: bytes = jpg()) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def of_folder(config: BuildConfig, data: Path) -> BuildConfig:
    return replace(config, dataset="folder", data=str(data), split=None, teachers=(), weights={})


def counts(source: Source) -> dict[str, int]:
    return {reason: facts["count"] for reason, facts in source.passed.document().items()}


def names(source: Source) -> list[str]:
    assert all(source.load(item, CANVAS).image.size for item in source.items)
    return [item.ref for item in source.items]


def test_coco__photos_of_every_extension_and_in_subfolders(tmp_path):
    for name, kind in (("1.jpg", "JPEG"), ("2.JPG", "JPEG"), ("3.jpeg", "JPEG"), ("4.png", "PNG")):
        write(tmp_path / "train2017" / name, jpg(kind=kind))
    write(tmp_path / "train2017" / "sub" / "5.jpg")
    write(tmp_path / "train2017" / "labels.txt", b"-")
    source = open_source("coco", str(tmp_path))
    assert names(source) == ["1.jpg", "2.JPG", "3.jpeg", "4.png", "sub/5.jpg"]
    assert source.passed.document() == {"not named as a photo": {"count": 1, "first": ["labels.txt"]}}


def test_folder__links_are_followed_inside_the_folder_alone(tmp_path):
    photos, outside = tmp_path / "photos", write(tmp_path / "mine.jpg")
    write(photos / "real" / "a.jpg")
    os.link(photos / "real" / "a.jpg", photos / "hard.jpg")
    (photos / "soft.jpg").symlink_to("real/a.jpg")
    (photos / "out.jpg").symlink_to(outside)
    (photos / "secret.jpg").symlink_to("/etc/hostname")
    (photos / "nothing.jpg").symlink_to("gone.jpg")
    (photos / "again").symlink_to("real")
    os.mkfifo(photos / "pipe.jpg")
    write(photos / ".hidden.jpg")
    source = open_source("folder", str(photos))
    assert names(source) == ["hard.jpg", "real/a.jpg", "soft.jpg"]
    assert counts(source) == {
        "a link out of the folder": 2,
        "a link to nothing": 1,
        "a link to a folder": 1,
        "neither a file nor a folder": 1,
        "hidden": 1,
    }


def test_coco__a_split_that_is_a_link_is_read(tmp_path):
    write(tmp_path / "elsewhere" / "1.jpg")
    (tmp_path / "elsewhere" / "2.jpg").symlink_to("1.jpg")
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "val").symlink_to(tmp_path / "elsewhere")
    source = open_source("coco", str(tmp_path / "coco"), "val")
    assert names(source) == ["1.jpg", "2.jpg"] and not counts(source)


def test_folder__that_holds_no_photo_says_what_it_holds(tmp_path):
    write(tmp_path / "photos" / "read.me")
    (tmp_path / "photos" / "a.jpg").symlink_to(write(tmp_path / "a.jpg"))
    with pytest.raises(DenseCLIError, match="no photo") as caught:
        open_source("folder", str(tmp_path / "photos"))
    assert "1 a link out of the folder (a.jpg); 1 not named as a photo (read.me)" in caught.value.hint


def test_build__a_name_that_is_not_utf8_is_stored_as_text(tiny, tmp_path):
    write(tmp_path / "photos" / "a.jpg")
    for odd in (b"caf\xe9.jpg", b"caf\xe8.jpg"):
        Path(os.fsdecode(os.path.join(os.fsencode(tmp_path / "photos"), odd))).write_bytes(jpg())
    Path(os.fsdecode(os.path.join(os.fsencode(tmp_path / "photos"), b"\xff.txt"))).write_bytes(b"-")
    config = replace(
        tiny, dataset="folder", data=str(tmp_path / "photos"), split=None, teachers=(), weights={}
    )
    request, (report,) = build_here(config)
    samples = read_shard(request.store.images, "000000")
    assert report.samples == 3
    sources = [json.loads(members["json"])["source"] for _, members in samples]
    assert sorted(sources) == ["a.jpg", "caf\\xe8.jpg", "caf\\xe9.jpg"]


@pytest.mark.parametrize(
    ("members", "photos", "left"),
    [
        ([f"img.{i}.jpg" for i in range(4)] + ["a.jpg"], 5, {}),
        (
            [name for i in range(3) for name in (f"{i}.image.jpg", f"{i}.json")],
            3,
            {"not named as a photo": 3},
        ),
        (
            [name for i in range(3) for name in (f"{i}.image.jpg", f"{i}.mask.png")],
            3,
            {"beside the photo of its sample": 3},
        ),
        (
            [name for i in range(3) for name in (f"{i}.left.jpg", f"{i}.right.jpg")],
            0,
            {"one of several pictures of a sample": 6},
        ),
        (["7.jpg", "7.mask.png", "8.PNG"], 2, {"beside the photo of its sample": 1}),
        (["v1.2.final.jpg", "a.jpg.jpg", "._a.jpg", "d/.x.jpg"], 2, {"hidden": 2}),
    ],
)
def test_webdataset__names_with_several_dots(tmp_path, members, photos, left):
    write_tar(tmp_path / "0.tar", {name: jpg() for name in ["0000.jpg", *members]})
    source = open_source("webdataset", str(tmp_path))
    assert len(names(source)) == photos + 1
    assert counts(source) == left
    assert len({item.key for item in source.items}) == photos + 1


def test_webdataset__compressed_tars_are_counted_and_named_in_the_error(tmp_path):
    write(tmp_path / "1.tar.gz", b"-")
    with pytest.raises(DenseCLIError, match=r"no \.tar") as caught:
        open_source("webdataset", str(tmp_path))
    assert "gunzip" in caught.value.hint and "1 compressed, not a plain .tar (1.tar.gz)" in caught.value.hint
    with pytest.raises(DenseCLIError, match=r"no \.tar") as caught:
        open_source("webdataset", str(tmp_path / "1.tar.gz"))
    assert "1.tar.gz" in caught.value.hint
    write_tar(tmp_path / "0.TAR", {"a.jpg": jpg()})
    write(tmp_path / "list.json", b"{}")
    source = open_source("webdataset", str(tmp_path))
    assert names(source) == ["0.TAR/a.jpg"]
    assert counts(source) == {"compressed, not a plain .tar": 1, "not named as a tar": 1}


def linked_tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for name, kind, target in (
            ("d/a.jpg", tarfile.REGTYPE, ""),
            ("hard.jpg", tarfile.LNKTYPE, "d/a.jpg"),
            ("d/soft.jpg", tarfile.SYMTYPE, "a.jpg"),
            ("chain.jpg", tarfile.SYMTYPE, "./d/soft.jpg"),
            ("round.jpg", tarfile.SYMTYPE, "round.jpg"),
            ("out.jpg", tarfile.SYMTYPE, "../../etc/passwd"),
            ("device.jpg", tarfile.CHRTYPE, ""),
            ("d", tarfile.DIRTYPE, ""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            member.size = len(jpg()) if kind == tarfile.REGTYPE else 0
            file.addfile(member, io.BytesIO(jpg()))
    return buffer.getvalue()


def test_webdataset__a_pipe_that_is_named_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.tar")
    with pytest.raises(DenseCLIError, match=r"There is no \.tar") as caught:
        open_source("webdataset", str(tmp_path / "a.tar"))
    assert "1 neither a file nor a folder (a.tar)" in caught.value.hint


@pytest.mark.parametrize("pattern", ["{0..", "{{a,b}.tar"])
def test_webdataset__braces_that_do_not_match_are_named(tmp_path, pattern):
    with pytest.raises(DenseCLIError, match="braces in the pattern"):
        open_source("webdataset", f"{tmp_path}/{pattern}")


def test_tar__links_lead_to_members_of_the_tar_alone(tmp_path):
    write(tmp_path / "0.tar", linked_tar())
    source = open_source("webdataset", str(tmp_path))
    assert names(source) == [f"0.tar/{name}" for name in ("d/a.jpg", "hard.jpg", "d/soft.jpg", "chain.jpg")]
    assert counts(source) == {"neither a whole file nor a link": 1, "a link to nothing in its tar": 2}


def test_tar__a_member_that_comes_twice_is_read_as_the_later_one(tmp_path):
    first = tar({"a.jpg": jpg(seed=1)})
    write(tmp_path / "0.tar", first[: 512 + -(-len(jpg(seed=1)) // 512) * 512] + tar({"a.jpg": jpg(80)}))
    source = open_source("webdataset", str(tmp_path))
    assert source.load(source.items[0], CANVAS).width == 80
    assert counts(source) == {"replaced by a later member of the same name": 1}


def with_size(data: bytes, size: bytes) -> bytes:
    """The tar whose first header claims another size, with the right checksum."""
    header = bytearray(data[:512])
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data[512:]


@pytest.mark.parametrize(
    "size",
    [
        b"\x80" + bytes(3) + (2**63).to_bytes(8, "big"),
        b"\x80" + bytes(3) + (2**63 - 1).to_bytes(8, "big"),
        b"\xff" * 10 + b"\xfe\0",  # -512: tarfile would read the same header for ever
        b"\xff" * 12,  # -1, which leads on to the next block
        b"77777777777\0",
        b"-0000001000\0",
    ],
)
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_tar__a_size_that_cannot_be_is_one_sentence(tmp_path, size, kind):
    data = bytearray(tar({"a.jpg": jpg()}))
    data[156:157] = kind
    write(tmp_path / "0.tar", with_size(bytes(data), size))
    with pytest.raises(DenseCLIError, match=r"not a whole tar|hold no photo"):
        open_source("webdataset", str(tmp_path))


@pytest.mark.parametrize(
    "lie", [b"21 size=9999999999999\n", b"12 size=-1\n", b"13 size=abc\n", b"999 path=\n", b"x"]
)
def test_tar__a_pax_header_that_lies(tmp_path, lie):
    header = with_size(bytes(bytearray(tar({"x": lie}))), b"%011o\0" % len(lie))
    pax = bytearray(header[:1024])
    pax[156:157] = tarfile.XHDTYPE
    pax[148:156] = b" " * 8
    pax[148:156] = b"%06o\0 " % sum(pax[:512])
    write(tmp_path / "0.tar", bytes(pax) + tar({"a.jpg": jpg()}))
    with suppress(DenseCLIError):
        assert names(open_source("webdataset", str(tmp_path))) == ["0.tar/a.jpg"]


def test_index__remembers_what_was_passed_over(tmp_path):
    write_tar(tmp_path / "t" / "0.tar", {"a.jpg": jpg(), "a.txt": b"-"})
    index = Index(folder=str(tmp_path / "index"), save=True)
    first, again = (open_source("webdataset", str(tmp_path / "t"), index=index) for _ in range(2))
    assert counts(first) == counts(again) == {"not named as a photo": 1}
    assert again.passed.document()["not named as a photo"]["first"] == ["0.tar/a.txt"]
    assert sum(path.stat().st_size for path in (tmp_path / "index").iterdir()) == first.index_bytes


def test_summary__plan_and_info_say_what_was_passed_over(tiny, tmp_path):
    write(tmp_path / "photos" / "a.jpg")
    write(tmp_path / "photos" / "b.txt")
    config = replace(
        tiny, dataset="folder", data=str(tmp_path / "photos"), split=None, teachers=(), weights={}
    )
    document = {"not named as a photo": {"count": 1, "first": ["b.txt"]}}
    words = "Passed over in the listing: 1 not named as a photo (b.txt)"
    assert build_shards(replace(config, dry_run=True))["passed_over"] == document
    planned = plan(PlanConfig(build=config, epochs=1, student="scenes-s"))
    assert planned["passed_over"] == document and words in plan_report(planned)
    build_here(config)
    assert build_shards(config)["passed_over"] == document
    described = describe(Store.open(config.store))
    assert described["passed_over"] == document and words in report(described)


def test_info__follows_the_last_build(tiny, tmp_path):
    store = build_here(replace(tiny, teachers=(), weights={}))[0].store
    remember_passed_over(store, {})
    assert not (Path(store.root) / "index").exists()
    for document in ({"hidden": {"count": 1, "first": [".x"]}}, {}):
        remember_passed_over(store, document)
        assert passed_over(store) == document
    (Path(store.root) / "index" / "passed-over.json").write_text("[1")
    assert "damaged" in in_words(passed_over(store))


def test_passed_over__names_three_of_each_reason():
    found, below = PassedOver(), PassedOver()
    for i in range(2):
        found.add("hidden", f"{i}")
        below.add("hidden", f"\x1b[31m{i}")
    found.update(below, "folder")
    assert found.document() == {"hidden": {"count": 4, "first": ["0", "1", "folder/\x1b[31m0"]}}
    assert in_words(found.document()) == "4 hidden (0, 1, folder/0, ...)"
    assert PassedOver.from_json(found.to_json()).document() == found.document()


def test_photo__an_odd_format_under_a_photos_name_is_skipped(tiny, tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10)).save(buffer, "EPS")
    write(tmp_path / "photos" / "a.jpg", buffer.getvalue())
    write(tmp_path / "photos" / "b.jpg")
    config = replace(
        tiny, dataset="folder", data=str(tmp_path / "photos"), split=None, teachers=(), weights={}
    )
    _, (report,) = build_here(config)
    assert (report.samples, report.skipped) == (1, {"not-an-image": 1})
