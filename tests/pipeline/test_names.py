import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from densecli.cli import main
from densecli.core.errors import DenseCLIError
from densecli.models.vfms import VFMS
from densecli.pipeline.build_request import prepare
from densecli.pipeline.teachers import teacher_config, weights_names


@pytest.mark.parametrize(
    ("name", "kind", "model"),
    [
        ("scenes-s", "labels", "scenes-s"),
        ("crops-vitb16", "crops", "vitb16"),
        ("crops-scenes-s", "crops", "scenes-s"),
        ("self-vitb16", "self", "vitb16"),
        ("features-vitb16", "features", "vitb16"),
        ("dinov2-vits14", "gram", "dinov2-vits14"),
        ("sam-b", "gram", "sam-b"),
    ],
)
def test_name__says_what_a_teacher_is_asked_for(tiny, name, kind, model):
    config = teacher_config(name, replace(tiny, weights={model: "random:0"}))
    assert (config.name, config.spec()["target"]["name"]) == (name, kind)
    assert weights_names(name) == {"weights": model}
    assert config.info()["random_weights"] is True


@pytest.mark.parametrize("name", ["crops-vitl41", "self-dinov2-vits14", "dinov2-vitg14", "vitg14"])
def test_name__unknown_ones_suggest_the_nearest(tiny, name):
    with pytest.raises(DenseCLIError, match=f"no teacher called '{name}'") as caught:
        teacher_config(name, tiny)
    assert "Did you mean" in caught.value.hint and len(caught.value.hint) < 200


def test_name__an_unknown_one_with_no_near_one_lists_the_known(tiny):
    with pytest.raises(DenseCLIError, match="no teacher called 'xyz99'") as caught:
        teacher_config("xyz99", tiny)
    assert all(
        word in caught.value.hint for word in ("vitl14", "crops-MODEL", "features-MODEL", "self-MODEL", *VFMS)
    )


def test_weights__go_by_the_model_and_serve_every_teacher_of_it(tiny, tmp_path, monkeypatch):
    request, _ = prepare(replace(tiny, teachers=("scenes-s", "crops-scenes-s", "self-scenes-s")))
    assert [spec["weights"] for _, spec in request.targets] == ["random:0"] * 3
    with pytest.raises(DenseCLIError, match="crops-scenes-s, which no teacher") as caught:
        prepare(replace(tiny, teachers=("crops-scenes-s",), weights={"crops-scenes-s": "random:0"}))
    assert "scenes-s" in caught.value.hint
    monkeypatch.setenv("DENSECLI_WEIGHTS", str(tmp_path))
    with pytest.raises(DenseCLIError, match=r"no weights for dinov2-vitb14: no dinov2-vitb14\.safetensors"):
        prepare(replace(tiny, teachers=("dinov2-vitb14",), weights={}))
    (tmp_path / "dinov2-vitb14.pth").write_bytes(b"weights")
    request, _ = prepare(replace(tiny, teachers=("dinov2-vitb14",), weights={}))
    assert request.targets[0][0].weights == str(tmp_path / "dinov2-vitb14.pth")


def test_student_patch__is_that_of_the_worlds_own_students_or_16(tiny):
    weights = {"dinov2-vits14": "random:0"}
    patches = [
        teacher_config("dinov2-vits14", replace(tiny, weights=weights, **change)).student_patch
        for change in ({}, {"dataset": "coco"}, {"dataset": "coco", "student_patch": 32})
    ]
    assert patches == [12, 16, 32]


def test_rank__what_each_kind_needs(tiny):
    def ranks(**change):
        teachers = ("features-scenes-s", "self-scenes-s", "scenes-vfm")
        return [teacher_config(name, replace(tiny, **change)).codec.rank for name in teachers]

    assert (ranks(), ranks(dataset="coco"), ranks(rank=7)) == ([16, 96, 64], [96, 96, 64], [7, 7, 7])


def test_flags__reach_the_column(tiny):
    def planned(*flags):
        teachers = ["--teacher", "crops-scenes-s", "--teacher", "self-scenes-s"]
        random = ["--weights", "scenes-s=random:0"]
        words = ["build-shards", "--dataset", "scenes", *teachers, *random, "--limit", "4"]
        result = CliRunner().invoke(main, [*words, *flags, "--store", tiny.store, "--dry-run", "--json", "-"])
        assert result.exit_code == 0, result.output
        return [column["id"] for column in json.JSONDecoder().raw_decode(result.stdout)[0]["columns"][2:]]

    crops, factors = planned()
    changed = {
        flags: [a != b for a, b in zip(planned(*flags), (crops, factors), strict=True)]
        for flags in (("--views", "3"), ("--codec", "fp16"), ("--rank", "32"), ("--gram-rmse", "0.004"))
    }
    assert list(changed.values()) == [[True, False], [True, True], [False, True], [False, True]]
