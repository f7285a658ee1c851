"""Settings: a configuration class says once what each of its values may be and what it means.

    @dataclass(frozen=True, kw_only=True)
    class LossConfig(Settings):
        theta: float = setting(0.3, help="Leaves out regions less probable.", group="method", min=0)

Everything else is made from these fields: the checks of a value, the command-line option with its help, the
keys of a configuration file and the reference page.
"""

import difflib
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from numbers import Integral, Real
from types import UnionType
from typing import Any, Literal, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from densecli.core.errors import DenseCLIError

KEY = "setting"
"""Key of a field's metadata under which `setting` keeps its facts."""
Shape = Literal["value", "fixed", "list", "mapping"]
S = TypeVar("S", bound="Settings")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting of a configuration class.

    Attributes:
        name: Of the field.
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
        argument: Whether the command line takes it by position.
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
        """In words, such as "from 0 to 1"; empty where every value will do."""
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
        """The default as `--help` shows it; empty where there is neither a default nor words for it."""
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
        """What a word of the command line means: the value, one value of several, or a (NAME, value) pair.

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
        if self.path and value.startswith("~"):
            return os.path.expanduser(value)
        return value


def setting(
    default: Any = MISSING,
    *,
    help: str,
    group: str,
    default_factory: Callable[[], Any] | None = None,
    min: float | None = None,
    max: float | None = None,
    above: float | None = None,
    choices: tuple[str | int, ...] = (),
    registry: str = "",
    metavar: str = "",
    flag: str = "",
    default_text: str = "",
    path: bool = False,
    argument: bool = False,
    named: bool = False,
) -> Any:
    """A field of a `Settings` class; see `Setting` for the facts.

    Its type is the field's annotation: int, float, bool, str, a Literal of texts, any of these or None,
    tuple[str, ...] for what may be given several times, Mapping[str, T] for NAME=VALUE.

    flag: The option's name, without the dashes, where it is not the field's.
    """
    facts = {
        "help": help,
        "group": group,
        "min": min,
        "max": max,
        "above": above,
        "choices": choices,
        "registry": registry,
        "metavar": metavar,
        "option": flag,
        "default_text": default_text,
        "path": path,
        "argument": argument,
        "named": named,
    }
    if default_factory is not None:
        return field(default_factory=default_factory, metadata={KEY: facts})
    return field(default=default, metadata={KEY: facts})


def changed(base: "type[Settings]", name: str, default: Any = MISSING, **facts: Any) -> Any:
    """The field of a base class with another default or other facts, for a subclass to redefine it."""
    old = base.__dataclass_fields__[name]
    facts = {**old.metadata[KEY], **facts}
    if default is MISSING and old.default_factory is not MISSING:
        return field(default_factory=old.default_factory, metadata={KEY: facts})
    return field(default=old.default if default is MISSING else default, metadata={KEY: facts})


class Settings:
    """Base of the configuration classes: refuses every value that its `setting` does not allow."""

    # Stands for the generated one of the dataclass, which each subclass is.
    __dataclass_fields__: Any

    def __new__(cls, **given: Any) -> Self:
        """Remembers which settings were given: the others may come from a preset."""
        self = super().__new__(cls)
        object.__setattr__(self, "_given", frozenset(given))
        return self

    def __post_init__(self) -> None:
        """Fills in the preset, checks and converts. Raises DenseCLIError for a value that is not allowed."""
        known = settings_of(type(self))
        for name, value in self._not_given().items():
            if name not in known:
                raise DenseCLIError(
                    f"The preset sets {name!r}, which is no setting of {type(self).__name__}.",
                    hint=f"Settings: {', '.join(known)}.",
                )
            object.__setattr__(self, name, value)
        for name, each in known.items():
            try:
                object.__setattr__(self, name, each.checked(getattr(self, name)))
            except ValueError as error:
                hint = f"Change {name if each.argument else each.flag}."
                raise DenseCLIError(f"{name} {error}.", hint=hint) from None

    def preset(self) -> Mapping[str, Any]:
        """Values for settings that are not given, in place of the fields' defaults."""
        return {}

    @property
    def from_preset(self) -> tuple[str, ...]:
        """Names of the settings whose value is the preset's."""
        return tuple(self._not_given())

    def _not_given(self) -> dict[str, Any]:
        given: frozenset[str] = self.__dict__["_given"]
        return {name: value for name, value in self.preset().items() if name not in given}


_FOUND: dict[type[Settings], Mapping[str, Setting]] = {}


def settings_of(cls: type[Settings]) -> Mapping[str, Setting]:
    """The settings of a configuration class by name, in the order of its fields."""
    if cls in _FOUND:
        return _FOUND[cls]
    hints = get_type_hints(cls)
    found = {}
    for each in fields(cls):  # type: ignore[arg-type]
        if KEY not in each.metadata:
            continue
        facts = dict(each.metadata[KEY])
        facts["option"] = facts["option"] or each.name.replace("_", "-")
        default = each.default if each.default_factory is MISSING else each.default_factory()
        shape = _annotated(hints[each.name])
        facts["choices"] = facts["choices"] or shape.pop("choices", ())
        found[each.name] = Setting(name=each.name, default=default, **{**shape, **facts})
    _FOUND[cls] = found
    return found


def _annotated(annotation: Any) -> dict[str, Any]:
    """What an annotation says of a setting: type, shape, length, optional, choices."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        (inner,) = (arg for arg in args if arg is not type(None))
        return {**_annotated(inner), "optional": True}
    if origin is Literal:
        return {"type": type(args[0]), "choices": args}
    if origin is tuple:
        if args[1:] == (Ellipsis,):
            return {**_annotated(args[0]), "shape": "list"}
        return {**_annotated(args[0]), "shape": "fixed", "length": len(args)}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {**_annotated(args[1]), "shape": "mapping"}
    return {"type": annotation}
