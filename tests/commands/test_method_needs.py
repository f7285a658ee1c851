"""What build-shards and plan take from a method."""

import pytest

from densecli.commands.build_shards import build_shards
from densecli.commands.method_needs import build_for


@pytest.mark.parametrize(
    ("words", "canvas", "regions", "teachers"),
    [
        ("--method densevlm", 512, "grid-paper", ("vitl14",)),
        ("--method clipself", 1024, "grid-clipself", ("crops-vitb16",)),
        ("--method clipself --student eva02-l14-336", 896, "grid-clipself", ("crops-vitl14",)),
        ("--method declip", 1024, "grid-declip", ("crops-vitb16", "dinov2-vitb14")),
        ("--method declip-released", 560, "grid-clipself", ("crops-vitb16", "dinov2-vitb14")),
        ("--method sc-clipself --canvas 640", 640, "proposals", ("crops-vitb16", "self-vitb16")),
        ("--method sc-clipself --regions masks", 1024, "masks", ("crops-vitb16", "self-vitb16")),
        ("--method feature-kd", 512, "grid-paper", ("crops-vitl14",)),
        ("--method logit-kd", 512, "grid-paper", ("crops-vitl14",)),
        ("--method logit-kd --teacher crops-vitl14", 512, "grid-paper", ("crops-vitl14",)),
        ("--teacher vitb16", None, "grid-paper", ("vitb16",)),
        ("--method densevlm --teacher vitb16", 512, "grid-paper", ("vitb16",)),
    ],
)
def test_build__on_the_canvas_and_regions_of_the_method(words, canvas, regions, teachers) -> None:
    build = build_for(build_shards.parse(["--dataset", "coco", *words.split()]))
    assert (build.canvas, build.regions, build.teachers) == (canvas, regions, teachers)


def test_build__a_vfms_tokens_for_the_students_patch() -> None:
    words = ["--dataset", "coco", "--method", "declip", "--student", "eva02-l14-336"]
    assert build_for(build_shards.parse(words)).student_patch == 14
    assert build_for(build_shards.parse([*words, "--student-patch", "16"])).student_patch == 16


def test_build__a_generated_world_keeps_its_own_canvas() -> None:
    build = build_for(build_shards.parse(["--dataset", "scenes", "--method", "clipself"]))
    assert (build.canvas, build.regions, build.teachers) == (None, "grid-paper", ("crops-scenes-s",))


def test_build__says_what_the_method_adds(capsys: pytest.CaptureFixture) -> None:
    build_for(build_shards.parse(["--dataset", "coco", "--method", "clipself"]))
    said = capsys.readouterr().err
    assert said == "clipself: --teacher crops-vitb16 --canvas 1024 --regions grid-clipself\n"


def test_build__says_what_is_left_to_relabel(capsys: pytest.CaptureFixture) -> None:
    build_for(build_shards.parse(["--dataset", "coco", "--method", "logit-kd"]))
    said = capsys.readouterr().err
    assert said.startswith("logit-kd: --teacher crops-vitl14 --canvas 512 --regions grid-paper\n")
    assert said.endswith("Then: densecli relabel --teacher crops-vitl14\n")


def test_build__says_only_what_is_new(capsys: pytest.CaptureFixture) -> None:
    words = ["--dataset", "coco", "--method", "declip", "--student", "eva02-l14-336"]
    build = build_for(build_shards.parse([*words, "--teacher", "crops-vitb16", "--canvas", "560"]))
    assert build.teachers == ("crops-vitb16", "dinov2-vitb14") and build.canvas == 560
    said = capsys.readouterr().err
    assert said == "declip: --teacher dinov2-vitb14 --student-patch 14 --regions grid-declip\n"


def test_build__features_are_the_labels_that_a_method_reads(capsys: pytest.CaptureFixture) -> None:
    words = ["--dataset", "coco", "--method", "densevlm", "--teacher", "features-vitl14"]
    assert build_for(build_shards.parse(words)).teachers == ("features-vitl14",)
    assert "--teacher" not in capsys.readouterr().err
