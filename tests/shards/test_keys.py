import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from densecli.shards.keys import canonical_json, column_key, keys_digest, short_id

utf8 = st.text(st.characters(codec="utf-8"), max_size=5)


def test_canonical_json__known_text():
    assert canonical_json({"b": [1, 2.5], "a": "é", "c": None}) == '{"a":"é","b":[1,2.5],"c":null}'.encode()


@given(st.dictionaries(utf8, st.integers() | utf8, max_size=5))
def test_column_key__does_not_depend_on_the_order_of_names(spec):
    backwards = dict(reversed(list(spec.items())))
    assert column_key(spec) == column_key(backwards) == hashlib.sha256(canonical_json(spec)).hexdigest()
    assert short_id(column_key(spec)) == column_key(spec)[:12]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_canonical_json__refuses_what_is_not_json(value):
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json({"a": value})
    with pytest.raises(TypeError):
        canonical_json({"a": {1, 2}})


@given(st.lists(utf8, max_size=4), st.lists(utf8, max_size=4))
def test_keys_digest__tells_lists_apart(a, b):
    has_newline = any("\n" in key for key in a + b)
    assert has_newline or (keys_digest(a) == keys_digest(b)) == (a == b)
