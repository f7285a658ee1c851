"""What a receipt says of itself, and what no receipt can say."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from densecli.core.errors import DenseCLIError
from densecli.shards.joined import read_joined
from densecli.shards.keys import canonical_json
from densecli.shards.receipts import Receipt
from densecli.shards.store import Store
from densecli.shards.tars import read_shard
from densecli.shards.writer import ShardWriter, npz_bytes

MEMBERS = {"a.jpg": (512, 700), "a.json": (2048, 30), "b.jpg": (3072, 0), "b.json": (3584, 512)}
PLAIN = Receipt(
    shard="000000", column="c" * 64, samples=2, keys_digest="d" * 64, bytes=10240, xxh3="0123456789abcdef",
    members=MEMBERS, skipped={"empty": 1}, error={"max_tv": 0.25}, seconds={"write": 0.5}, gpu_seconds=1.5,
)  # fmt: skip


def changed(**facts):
    """The receipt as a version without digests may have written it, with other facts."""
    document = json.loads(PLAIN.to_json()) | facts
    del document["digest"]
    return json.dumps(document).encode()


@given(
    st.dictionaries(st.text(st.characters(codec="utf-8")), st.integers(0, 2**40)),
    st.floats(0, 1e6),
)
def test_receipt__json_round_trips(skipped, seconds):
    receipt = Receipt(**{**vars(PLAIN), "skipped": skipped, "gpu_seconds": seconds})
    assert Receipt.from_json(receipt.to_json()) == receipt


def test_receipt__one_without_a_digest_is_an_older_one():
    assert Receipt.from_json(changed()) == PLAIN


def test_receipt__a_flipped_bit_is_noticed_or_is_in_the_time_it_took():
    data = PLAIN.to_json()
    run = data.index(b'"run"')
    for place in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[place] ^= 1 << bit
            try:
                receipt = Receipt.from_json(bytes(flipped))
            except ValueError:
                continue
            assert place > run and vars(receipt) == {
                **vars(PLAIN), "seconds": receipt.seconds, "gpu_seconds": receipt.gpu_seconds
            }  # fmt: skip


@pytest.mark.parametrize(("members", "word"), [
    ({"a.jpg": [512, 700], "b.jpg": [1024, 10]}, "over each other"),
    ({"a.jpg": [512, 700], "b.jpg": [512, 700]}, "over each other"),
    ({"a.jpg": [512, 700], "b.jpg": [1536, 10]}, "over each other"),
    ({"a.jpg": [512, 700], "b.jpg": [2049, 10]}, "over each other"),
    ({"a.jpg": [0, 700], "b.jpg": [2048, 10]}, "outside"),
    ({"a.jpg": [-512, 700], "b.jpg": [2048, 10]}, "outside"),
    ({"a.jpg": [512, -1], "b.jpg": [2048, 10]}, "outside"),
    ({"a.jpg": [512, 700], "b.jpg": [9216, 10]}, "outside"),
    ({"a.jpg": [512, 2**62], "b.jpg": [2048, 10]}, "outside"),
    ({"a.jpg": [512, 2**70], "b.jpg": [2048, 10]}, "outside"),
    ({"a": [512, 700], "b.jpg": [2048, 10]}, "no key or no extension"),
    ({".jpg": [512, 700], "b.jpg": [2048, 10]}, "no key or no extension"),
    ({"a.jpg": [512, 700], "b.": [2048, 10]}, "no key or no extension"),
    ({"a.jpg": [512, 7.5], "b.jpg": [2048, 10]}, "offset and size"),
    ({"a.jpg": [512, True], "b.jpg": [2048, 10]}, "offset and size"),
    ({"a.jpg": [512], "b.jpg": [2048, 10]}, "offset and size"),
    ({"a.jpg": "no", "b.jpg": [2048, 10]}, "offset and size"),
    ([["a.jpg", 512, 700]], "members is not an object"),
    (None, "members is not an object"),
    ({"a.jpg": [512, 700]}, "other samples"),
])  # fmt: skip
def test_receipt__members_that_no_tar_can_have(members, word):
    with pytest.raises(ValueError, match=word):
        Receipt.from_json(changed(members=members))


@pytest.mark.parametrize("facts", [
    {"samples": -1}, {"samples": 5}, {"samples": "2"}, {"samples": 2.0}, {"samples": None},
    {"samples": True}, {"bytes": 1e30}, {"bytes": 2**70}, {"shard": 0}, {"column": None}, {"xxh3": "../../x"},
    {"xxh3": ""}, {"skipped": []}, {"skipped": {"empty": 0.5}}, {"error": {"max_tv": "low"}}, {"error": 1},
    {"run": {"seconds": {"write": "long"}}}, {"run": {"gpu_seconds": {}}}, {"run": []}, {"other": 1},
    {"run": {"weights": 1}},
])  # fmt: skip
def test_receipt__facts_of_other_types(facts):
    with pytest.raises(ValueError):
        Receipt.from_json(changed(**facts))


@pytest.mark.parametrize("data", [
    b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b"1" * 10_000, b"{}",
    PLAIN.to_json().replace(b"0.25", b"NaN"), PLAIN.to_json().replace(b"0.25", b"1e999"),
    PLAIN.to_json().replace(b"000000", b"\\ud800"), PLAIN.to_json().replace(b"000000", b"\xed\xa0\x80"),
    PLAIN.to_json().replace(b'"a.jpg"', b'"a.json"'),
])  # fmt: skip
def test_receipt__what_is_none(data):
    with pytest.raises(ValueError) as caught:
        Receipt.from_json(data)
    assert "\n" not in str(caught.value)


@pytest.fixture
def store(tmp_path):
    """Two photos with boxes of their own."""
    store = Store.create(tmp_path / "store", {"name": "x"}, 64, [2])
    writer = ShardWriter(store.images, "000000")
    for i in range(2):
        writer.add(f"{i}", {"json": b"{}", "npz": npz_bytes({"x": np.full(3, i)})})
    writer.commit()
    return store


def test_read_shard__no_sample_gets_the_bytes_of_another(store):
    """Neither under a receipt without a digest: each member's place is compared with the tar."""
    path = Path(store.images.receipt_url("000000"))
    document = json.loads(path.read_bytes())
    del document["digest"]
    whole = {key: bytes(members["npz"]) for key, members in read_shard(store.images, "000000")}
    chance, refused = random.Random(0), 0
    for _ in range(300):
        data = bytearray(canonical_json(document))
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        try:
            found = {key: bytes(members["npz"]) for key, members in read_shard(store.images, "000000")}
        except DenseCLIError:
            refused += 1
        else:
            assert found == whole
    assert refused > 200


def test_record__a_member_that_is_damaged_names_tar_and_sample(store):
    writer = ShardWriter(store.images, "000000")
    writer.add("a", {"npz": b"no zip", "jpg": b"no photo"})
    writer.commit()
    (record,) = read_joined([store.images], "000000")
    with pytest.raises(DenseCLIError, match=r"sample a in .*images/000000\.tar is damaged: it is not an npz"):
        record.arrays("images")
    with pytest.raises(DenseCLIError, match=r"sample a in .*images/000000\.tar is damaged"):
        record.image()
