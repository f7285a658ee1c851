from densecli.shards.datasets import DATASETS, Dataset, defaults_for, function_of


def test_defaults__a_data_set_has_its_own_and_others_those_for_photos() -> None:
    assert defaults_for("scenes").student == "scenes-s" and defaults_for("scenes").generated
    assert defaults_for("coco").student == "eva02-b16" and defaults_for("coco").canvas == 512


def test_defaults__a_store_of_a_data_set_whose_plug_in_is_missing_is_one_of_photos() -> None:
    assert "elsewhere" not in DATASETS
    assert defaults_for("elsewhere") == Dataset(source="")


def test_function__named_or_given() -> None:
    assert function_of("densecli.shards.datasets:defaults_for") is function_of(defaults_for) is defaults_for
