"""The fields of the commands' results, for the reference pages and for checks."""

from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    NamedTuple,
    NotRequired,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

WORDS: dict[Any, str] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "true or false",
    NoneType: "null",
    Any: "any",
}
"""The words of JSON for types that have no parts."""


class Field(NamedTuple):
    """A field of a result: its name, its type, what it means, and whether it is always there."""

    name: str
    type: Any
    help: str
    always: bool


def fields_of(form: Any) -> list[Field]:
    """The fields of a TypedDict in their order; none of another type."""
    if not is_typeddict(form):
        return []
    found = []
    for name, annotated in get_type_hints(form, include_extras=True).items():
        required = name in form.__required_keys__
        while get_origin(annotated) is not Annotated:
            (annotated,) = get_args(annotated)
        # Of nested annotations the outermost meaning is the last.
        inner, *_, help = get_args(annotated)
        if get_origin(inner) is NotRequired:
            (inner,) = get_args(inner)
        found.append(Field(name, inner, help, required))
    return found


def type_text(of: Any) -> str:
    """A type in the words of JSON."""
    names = {
        str: "string",
        int: "integer",
        float: "number",
        bool: "true or false",
        NoneType: "null",
        Any: "any",
    }
    if of in names:
        return names[of]
    if isinstance(of, UnionType):
        return " or ".join(map(type_text, get_args(of)))
    for container, word in ((list, "list"), (dict, "object")):
        if get_origin(of) is container:
            inner = type_text(get_args(of)[-1])
            return word if inner == "any" else f"{word} of {inner}{'' if ' ' in inner else 's'}"
    return "object"
