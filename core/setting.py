"""One setting of a configuration class: its facts, and the checks of a value."""

import difflib
import math
import os
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from numbers import Integral, Real
from typing import Any, Literal

from densecli.core.addresses import expanded

Shape = Literal["value", "fixed", "list", "mapping"]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting of a configuration class.

    Attributes:
        name: Name of the field.
        type: int, float, bool or str: the value itself, or each of several.
        shape: `value`: one. `fixed`: a tuple of `length` values. `list`: a tuple of any length. `mapping`:
            values by name.
        optional: Whether it may be None.
        default: MISSING where the setting has to be given.
        help: One line.
        group: Heading under which `--help` lists it.
        min, max, above: The range; `above` is a minimum that is itself excluded.
        choices: The only values there are; empty for any.
        registry: Kind of the registry whose names are its values, as in `densecli list KIND`.
        metavar: Placeholder for the value in `--help`.
        option: Name of its option, without the dashes.
        default_text: What leaving it out amounts to, in words.
        path: Whether it is a path, in which a leading ~ means the home folder.
        argument: Whether the command line takes it by position alone.
        by_position: Whether the command line also takes it without its option.
        named: Whether the option takes NAME=VALUE, although the setting is the value alone.
    """

    name: str
    type: type
    shape: Shape = "value"
    length: int = 1
    optional: bool = False
    default: Any = MISSING
    help: str
    group: str
    min: float | None = None
    max: float | None = None
    above: float | None = None
    choices: tuple[str | int, ...] = ()
    registry: str = ""
    metavar: str = ""
    option: str = ""
    default_text: str = ""
    path: bool = False
    argument: bool = False
    by_position: bool = False
    named: bool = False

    @property
    def flag(self) -> str:
        """Its option with the dashes, such as --batch-size."""
        return f"--{self.option}"

    @property
    def repeatable(self) -> bool:
        """Whether the option may be given several times: lists of texts and mappings; numbers take commas."""
        return self.named or self.shape == "mapping" or (self.shape == "list" and self.type is str)

    @property
    def range(self) -> str:
        """The range in words, such as "from 0 to 1"; empty if there is none."""
        low = f"above {self.above:g}" if self.above is not None else ""
        if self.min is not None:
            low = f"from {self.min:g}" if self.max is not None else f"at least {self.min:g}"
        if self.max is None:
            return low
        high = f"to {self.max:g}" if self.min is not None else f"at most {self.max:g}"
        return f"{low}{' and' if self.above is not None else ''} {high}".strip()

    @property
    def requirement(self) -> str:
        """What a value must be, such as "a number from 0 to 1"."""
        if self.choices:
            return f"one of {', '.join(map(str, self.choices))}"
        noun = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}[self.type]
        return f"{noun} {self.range}".strip()

    def shown(self) -> str:
        """The default as `--help` shows it; empty if there is none."""
        if self.default_text:
            return self.default_text
        if self.default is MISSING or self.default in (None, (), {}):
            return ""
        if self.type is bool:
            return "on" if self.default else "off"
        values = self.default if isinstance(self.default, tuple) else (self.default,)
        return (" " if self.shape == "fixed" else ",").join(
            f"{value:g}" if isinstance(value, float) else str(value) for value in values
        )

    def parse(self, text: str) -> Any:
        """Parses a word of the command line: the value, one value of several, or a (NAME, value) pair.

        Raises ValueError, whose text says what is wrong, for a word that is none.
        """
        if self.named or self.shape == "mapping":
            name, equals, value = text.partition("=")
            if not equals and self.named:
                return "", self.checked(text)
            if not (name and value):
                raise ValueError(f"{text!r} is not {self.metavar or 'NAME=VALUE'}")
            return name, self._scalar(self._parsed(value))
        if self.shape == "list" and self.type is not str:
            return tuple(self._scalar(self._parsed(word)) for word in text.split(","))
        return self._scalar(self._parsed(text))

    def checked(self, value: Any) -> Any:
        """The value in the setting's own type. Raises ValueError, whose text says what is wrong."""
        if value is None and self.optional:
            return None
        if self.shape == "mapping":
            if not isinstance(value, Mapping):
                raise ValueError(f"must give values by name, not {value!r}")
            return {str(name): self._scalar(each) for name, each in value.items()}
        if self.shape == "value":
            return self._scalar(value)
        values = (value,) if self.shape == "list" and isinstance(value, str) else value
        if not isinstance(values, list | tuple) or (self.shape == "fixed" and len(values) != self.length):
            count = f"{self.length} values" if self.shape == "fixed" else "a list"
            raise ValueError(f"must be {count}, not {value!r}")
        return tuple(self._scalar(each) for each in values)

    def _parsed(self, word: str) -> Any:
        try:
            return self.type(word)
        except ValueError:
            raise ValueError(f"must be {self.requirement}, not {word!r}") from None

    def _scalar(self, value: Any) -> Any:
        """One value, checked and converted."""
        kinds: dict[type, Any] = {int: Integral, float: Real, bool: bool, str: str | os.PathLike | int}
        if not isinstance(value, kinds[self.type]) or (isinstance(value, bool) and self.type is not bool):
            raise ValueError(f"must be {self.requirement}, not {value!r}")
        try:
            value = os.fspath(value) if isinstance(value, os.PathLike) else self.type(value)
        except OverflowError:
            raise ValueError(f"must be {self.requirement}, not a number of hundreds of digits") from None
        if self.choices and value not in self.choices:
            near = difflib.get_close_matches(str(value), [str(choice) for choice in self.choices], n=1)
            suggestion = f" (did you mean {near[0]}?)" if near else ""
            raise ValueError(f"must be {self.requirement}, not {value!r}{suggestion}")
        if isinstance(value, int | float) and self.type is not bool:
            # No setting needs a whole number that arrays and other programs have no room for.
            usable = math.isfinite(value) if isinstance(value, float) else -(2**63) <= value < 2**63
            fits = (
                usable
                and (self.min is None or value >= self.min)
                and (self.max is None or value <= self.max)
                and (self.above is None or value > self.above)
            )
            if not fits:
                limit = "" if usable else " and finite" if isinstance(value, float) else " and below 2^63"
                shown = f"{value:g}" if isinstance(value, float) else str(value)
                raise ValueError(f"must be {self.requirement}{limit}, not {shown}")
        if (self.path or self.registry) and not value:
            raise ValueError("must not be empty")
        return expanded(value) if self.path else value
