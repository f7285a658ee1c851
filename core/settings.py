"""Settings: a configuration class says once what each of its values may be and what it means.

    @dataclass(frozen=True, kw_only=True)
    class LossConfig(Settings):
        theta: float = setting(0.3, help="Leaves out regions less probable.", group="method", min=0)

Everything else is made from these fields: the checks of a value, the command-line option with its help, the
keys of a configuration file and the reference page.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, field, fields
from types import UnionType
from typing import Any, Literal, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from densecli.core.errors import DenseCLIError
from densecli.core.setting import Setting

KEY = "setting"
"""Key of a field's metadata under which `setting` keeps its facts."""
S = TypeVar("S", bound="Settings")


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
    by_position: bool = False,
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
        "by_position": by_position,
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
    """Base of the configuration classes: refuses every value that its `setting` does not allow.

    `dataclasses.replace` gives a copy all values of the old one. So the copy takes nothing from a preset,
    even where the change is the choice of another preset: make a new configuration for that.
    """

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
    """The settings of a configuration class by name, its own before those that it inherits."""
    if cls in _FOUND:
        return _FOUND[cls]
    hints = get_type_hints(cls)
    found = {}
    known = {each.name: each for each in fields(cls)}  # type: ignore[arg-type]
    for name in dict.fromkeys(name for base in cls.__mro__ for name in inspect.get_annotations(base)):
        each = known.get(name)
        if each is None or KEY not in each.metadata:
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
