from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from densecli.core.errors import DenseCLIError
from densecli.models.categories import load_categories
from densecli.models.dense import DenseCLIP
from densecli.models.prompts import TEMPLATES, default_templates
from densecli.models.registry import build, resolve
from densecli.models.text import category_embeddings, load_text_embeddings, text_embeddings


def test_text_embeddings__mean_of_unit_prompts_made_unit_again() -> None:
    model = build(resolve("scenes-s"))
    templates = ("a photo of a {}", "the {}")
    rows = text_embeddings(model, ("boat", "water", "sky"), templates, batch_size=4)
    assert rows.shape == (3, model.embed_dim)
    with torch.no_grad():
        prompts = F.normalize(model.encode_text(model.tokenize(["a photo of a water", "the water"])), dim=1)
    torch.testing.assert_close(rows[1], F.normalize(prompts.mean(dim=0), dim=0))


def test_encode_text__is_open_clips_however_long_the_others_are(model: DenseCLIP) -> None:
    end = 63
    tokens = torch.zeros(3, 16, dtype=torch.long)
    for row, length in enumerate((3, 9, 5)):
        tokens[row, :length] = torch.randint(1, end, (length,))
        tokens[row, length] = end
    with torch.no_grad():
        own, library = model.encode_text(tokens), model.clip.encode_text(tokens)
        torch.testing.assert_close(own, library, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model.encode_text(tokens[:1]), own[:1], atol=1e-5, rtol=1e-5)


def test_default_templates__the_worlds_words_or_clips_80() -> None:
    model = build(resolve("scenes-s"))
    assert default_templates(model.arch) == TEMPLATES["plain"]
    assert default_templates(resolve("vitb16")) == TEMPLATES["imagenet"]
    assert text_embeddings(model, load_categories("scenes").names).shape == (20, model.embed_dim)
    assert len(set(TEMPLATES["imagenet"])) == 80
    assert all(template.format("cat") != template for template in TEMPLATES["imagenet"])


def test_category_embeddings__a_file_takes_the_place_of_the_text_tower(tmp_path: Path) -> None:
    model = build(resolve("scenes-s"))
    own = category_embeddings(model, ("boat", "sky"))
    torch.testing.assert_close(own, text_embeddings(model, ("boat", "sky")))
    np.save(tmp_path / "t.npy", 3 * own.flip(0).numpy())
    torch.testing.assert_close(
        category_embeddings(model, ("boat", "sky"), file=str(tmp_path / "t.npy")), own.flip(0)
    )
    with pytest.raises(DenseCLIError, match="2 rows for 1"):
        category_embeddings(model, ("boat",), file=str(tmp_path / "t.npy"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """How many prompts each pass of a text tower had, with an empty folder of what is kept."""
    monkeypatch.setenv("DENSECLI_CACHE", str(tmp_path / "cache"))
    sizes: list[int] = []
    encode = DenseCLIP.encode_text
    monkeypatch.setattr(
        DenseCLIP, "encode_text", lambda self, tokens: [sizes.append(len(tokens)), encode(self, tokens)][1]
    )
    return sizes


def test_category_embeddings__the_tower_is_asked_once(asked: list[int]) -> None:
    first, again = (category_embeddings(build(resolve("scenes-s")), ("boat", "sky")) for _ in range(2))
    assert asked == [2, 2]  # other random weights
    model = build(resolve("scenes-s"))
    rows = [category_embeddings(model, ("boat", "sky")) for _ in range(2)]
    assert asked == [2, 2, 2]
    assert torch.equal(rows[0], rows[1]) and not torch.equal(first, again)
    torch.nn.init.zeros_(model.clip.visual.class_embedding)
    category_embeddings(model, ("boat", "sky"))
    assert len(asked) == 3
    category_embeddings(model, ("sky", "boat"))
    category_embeddings(model, ("boat", "sky"), templates=("the {}",))
    assert len(asked) == 5


def test_category_embeddings__of_several_processes_one_asks(asked: list[int]) -> None:
    model = build(resolve("scenes-s"))
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(lambda _: category_embeddings(model, ("boat", "sky")), range(4)))
    assert asked == [2]
    assert all(torch.equal(rows[0], other) for other in rows)


def test_category_embeddings__without_a_place_to_keep_them(
    asked: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DENSECLI_CACHE", str(tmp_path / "file" / "below"))
    model = build(resolve("scenes-s"))
    torch.testing.assert_close(category_embeddings(model, ("boat",)), text_embeddings(model, ("boat",)))


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"junk", b"other", b"nan"])
def test_category_embeddings__what_is_kept_and_damaged_is_made_again(
    asked: list[int], tmp_path: Path, content: bytes
) -> None:
    model = build(resolve("scenes-s"))
    rows = category_embeddings(model, ("boat", "sky"))
    [kept] = (tmp_path / "cache" / "text").glob("*.npy")
    whole = kept.read_bytes()
    if content in (b"other", b"nan"):
        np.save(kept, np.zeros((3, 2), np.float32) if content == b"other" else np.full(rows.shape, np.nan))
    else:
        kept.write_bytes(content)
    assert torch.equal(category_embeddings(model, ("boat", "sky")), rows)
    assert asked == [2, 2] and kept.read_bytes() == whole


@pytest.mark.parametrize("damaged", [False, True])
def test_category_embeddings__an_interruption_keeps_what_is_done(
    asked: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: bool
) -> None:
    model, names, templates = (
        build(resolve("scenes-s")),
        ("boat", "sky", "water"),
        ("the {}", "a photo of a {}"),
    )
    expected = text_embeddings(model, names, templates, batch_size=1)
    monkeypatch.setattr("densecli.models.text.BATCH_SIZE", 1)
    encode = DenseCLIP.encode_text

    def interrupted(self: DenseCLIP, tokens: torch.Tensor) -> torch.Tensor:
        if len(asked) == 10:
            raise KeyboardInterrupt
        return encode(self, tokens)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(DenseCLIP, "encode_text", interrupted)
        category_embeddings(model, names, templates=templates)
    assert len(asked) == 10
    [part] = (tmp_path / "cache" / "text").glob("*.part")
    if damaged:
        part.write_bytes(part.read_bytes()[:-8])
    assert torch.equal(category_embeddings(model, names, templates=templates), expected)
    # Six alone, four before the interruption; then the other two, or all again.
    assert len(asked) == (16 if damaged else 12)
    assert not part.exists()


def test_text_embeddings__prompts_of_one_length_share_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = []
    encode = DenseCLIP.encode_text

    def noting(self: DenseCLIP, tokens: torch.Tensor) -> torch.Tensor:
        lengths.append((tokens != 0).sum(dim=1))
        return encode(self, tokens)

    monkeypatch.setattr(DenseCLIP, "encode_text", noting)
    text_embeddings(
        build(resolve("scenes-s")), ("boat", "sky"), ("a photo of the {}", "the {}"), batch_size=2
    )
    assert [batch.unique().numel() for batch in lengths] == [1, 1]
    assert lengths[0][0] < lengths[1][0]


def test_category_embeddings__a_full_home_is_said_and_nothing_more(
    asked: list[int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise DenseCLIError("Could not write x: No space left on device.")

    model = build(resolve("scenes-s"))
    with monkeypatch.context() as patch:
        patch.setattr("densecli.core.fs.write_atomic", full)
        rows = category_embeddings(model, ("boat",))
    torch.testing.assert_close(rows, text_embeddings(model, ("boat",)))
    assert "are not kept for the next time. Could not write x: No space left" in capsys.readouterr().err


def test_tokenize__open_clips_ids_for_natural_language() -> None:
    tokens = resolve("vit-b16").make_tokenizer()(["a photo of a cat"])
    assert tokens.shape == (1, 77)
    assert tokens[0, :7].tolist() == [49406, 320, 1125, 539, 320, 2368, 49407]


def test_load_text_embeddings__normalises(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.array([[3.0, 4.0], [0.0, 2.0]]))
    rows = load_text_embeddings(tmp_path / "t.npy", 2, dim=2)
    torch.testing.assert_close(rows, torch.tensor([[0.6, 0.8], [0.0, 1.0]]))


@pytest.mark.parametrize("content", [
    b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"\x93NUMPY\x07\x00v\x00", b"<html>",
    b"\x93NUMPY\x01\x00v\x00" + b"(" * 117 + b"\n",
    b"\x93NUMPY\x01\x00v\x00"
    + b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 1000000), }".ljust(117) + b"\n",
])  # fmt: skip
def test_load_text_embeddings__what_is_no_file_of_numpys(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.npy").write_bytes(content)
    with pytest.raises(DenseCLIError, match=r"t\.npy") as caught:
        load_text_embeddings(tmp_path / "t.npy", 2, dim=2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((3, 2)), "3 rows for 2 categories"),
        (np.ones((2, 5)), "embeddings of 5 numbers, but the model's have 2"),
        (np.ones(2), "not a table"),
        (np.array([["a", "b"]] * 2), "not a table"),
        (np.array([[1.0, np.nan]] * 2), "not finite"),
        (np.array([[1.0, 1e300]] * 2), "not finite in float32"),
        (np.array([[1.0, 0.0], [0.0, 0.0]]), "Row 2 of .* has no direction"),
        (np.array([[1e-30, 0.0], [1.0, 0.0]]), "Row 1 of .* has no direction"),
        (np.array([[1e38, 1e38], [1.0, 0.0]]), "Row 1 of .* has no direction"),
        (np.array([{}, {}]), "cannot be read"),
    ],
)
def test_load_text_embeddings__wrong_tables_are_a_sentence(tmp_path: Path, array, message: str) -> None:
    np.save(tmp_path / "t.npy", array, allow_pickle=True)
    with pytest.raises(DenseCLIError, match=message):
        load_text_embeddings(tmp_path / "t.npy", 2, dim=2)


def test_load_text_embeddings__published_files_fit_their_sets(shared_data: Path) -> None:
    folder = shared_data / "text_embeddings"
    for file, categories, dim in (
        ("coco_stuff_ade316_eva_vitb16.npy", "316", 512),
        ("coco_panoptic133_eva_vitl14_336.npy", "133", 768),
        ("ade_panoptic150_eva_vitb16.npy", "ade150", 512),
    ):
        rows = load_text_embeddings(folder / file, len(load_categories(categories)), dim)
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(rows)))
