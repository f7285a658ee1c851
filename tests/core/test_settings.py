"""Settings: what a value may be, and what is said of one that is refused."""

import math
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from densecli.core.errors import DenseCLIError
from densecli.core.settings import Settings, changed, setting, settings_of


@dataclass(frozen=True, kw_only=True)
class Base(Settings):
    rate: float = setting(0.5, help="A share.", group="a", min=0, max=1)
    steps: int | None = setting(None, help="A length.", group="a", min=1, default_text="all")
    kind: Literal["one", "two"] = setting("one", help="A kind.", group="a")
    names: tuple[str, ...] = setting((), help="Names.", group="a", flag="name", path=True)
    pair: tuple[float, float] = setting((0.9, 0.98), help="Two.", group="a", above=0)
    parts: Mapping[str, float] | None = setting(None, help="Weights.", group="a", above=0)
    on: bool = setting(False, help="A switch.", group="a")
    file: str | None = setting(None, help="A file.", group="a", path=True)
    plain: Any = None


@dataclass(frozen=True, kw_only=True)
class Preset(Base):
    steps: int | None = changed(Base, "steps", default=7)

    def preset(self) -> Mapping[str, Any]:
        return {"rate": 0.25, "kind": "two"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rate": 7}, "rate must be a number from 0 to 1, not 7"),
        ({"rate": math.nan}, "finite"),
        ({"pair": (math.inf, 1.0)}, "pair must be a number above 0 and finite"),
        ({"pair": (1.0,)}, "2 values"),
        ({"steps": 0}, "at least 1"),
        ({"steps": 1.5}, "a whole number"),
        ({"steps": True}, "a whole number"),
        ({"kind": "onee"}, "one of one, two, not 'onee' (did you mean one?)"),
        ({"parts": {"a": math.nan}}, "parts must"),
        ({"parts": {"a": 0}}, "above 0"),
        ({"on": "yes"}, "true or false"),
    ],
)
def test_settings__refuses_with_the_range_and_the_flag(values: dict[str, Any], message: str) -> None:
    with pytest.raises(DenseCLIError) as caught:
        Base(**values)
    assert message in str(caught.value) and f"--{next(iter(values))}" in caught.value.hint


def test_settings__take_their_own_types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    found = Base(rate=1, pair=[1, 2], names="~/a", parts={"x": 2}, file=Path("b/c"), plain=[1])
    assert repr((found.rate, found.pair, found.parts)) == "(1.0, (1.0, 2.0), {'x': 2.0})"
    assert found.names == ("/home/someone/a",) and found.file == "b/c" and found.plain == [1]
    assert Base(file="~/x").file == "/home/someone/x"


def test_settings__are_read_from_the_annotations() -> None:
    found = settings_of(Base)
    assert "plain" not in found
    assert found["kind"].choices == ("one", "two") and found["names"].flag == "--name"
    assert found["pair"].length == 2 and found["pair"].shown() == "0.9 0.98"
    assert found["on"].shown() == "off" and found["steps"].shown() == "all"


def test_preset__lies_between_what_is_given_and_the_default() -> None:
    found = Preset(kind="one")
    assert (found.kind, found.rate, found.steps) == ("one", 0.25, 7)
    assert found.from_preset == ("rate",)
    copy = replace(found, steps=1)
    assert (copy.rate, copy.from_preset) == (0.25, ())
    assert pickle.loads(pickle.dumps(found)) == found


def test_preset__of_no_setting_is_refused() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Wrong(Base):
        def preset(self) -> Mapping[str, Any]:
            return {"raet": 1}

    with pytest.raises(DenseCLIError, match="'raet'"):
        Wrong()
