"""Prompt templates for category names: named sets, and files with one template on each line.

A template holds {} for the name as it is, or {name} for the name as ViLD writes it: small letters, `_` as a
space, `/` as "or", without a full stop at the end. {article} is "an" before a, e, i, o and u, else "a".
"""

from collections.abc import Iterable
from pathlib import Path
from string import Formatter

import open_clip

from densecli.core.errors import DenseCLIError
from densecli.core.registry import suggestion
from densecli.models.architecture import Architecture

BOTH = ("{article}", "the")


def _vild() -> Iterable[str]:
    """The 63 templates of ViLD (Gu et al. 2022), with "This is" before those that begin with a or the."""
    scene = [f"There is {x} {{name}} in the scene." for x in BOTH]
    scene += [f"a photo of {x} {{name}} in the scene." for x in (*BOTH, "one")]
    taken = [f"itap of {x} {{name}}." for x in ("{article}", "my", "the")]
    taken += [f"a photo of {x} {{name}}." for x in ("{article}", "my", "the", "one", "many")]
    kinds = ["good", "bad", "bright", "dark", "low resolution", "cropped", "close-up", "jpeg corrupted"]
    kinds += ["blurry", "pixelated", "black and white"]
    photos = [f"a {kind} photo of {x} {{name}}." for kind in kinds for x in BOTH]
    looks = ("nice", "cool", "weird", "small", "large", "clean", "dirty", "hard to see")
    things = [f"a photo of {x} {look} {{name}}." for look in looks for x in ("a", "the")]
    made = [f"{x} {of} {{name}}." for of in ("plastic", "toy", "plushie", "cartoon") for x in ("a", "the")]
    made += ["an embroidered {name}.", "the embroidered {name}."]
    made += ["a painting of the {name}.", "a painting of a {name}."]
    for template in (*scene, *taken, *photos, *things, *made):
        yield f"This is {template}" if template.startswith(("a", "the", "{article}")) else template


# open_clip has CLIP's 80 templates as functions; calling one with "{}" gives the format string.
_IMAGENET = tuple(template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES)
TEMPLATES: dict[str, tuple[str, ...]] = {
    "plain": ("a photo of a {}",),
    "imagenet": _IMAGENET,
    "imagenet80": _IMAGENET,
    "vild63": tuple(_vild()),
    # The paper prints it without "is".
    "densevlm": ("This is a photo of the {name} in the scene.",),
}
"""Sets of templates by name: CLIP's own, those of ViLD, with which CLIPSelf and DenseVLM make their published
text embeddings, and the one that DenseVLM's text names."""


def default_templates(arch: Architecture) -> tuple[str, ...]:
    """The default prompt templates of a model."""
    return TEMPLATES[arch.templates]


def find_templates(name: str) -> tuple[str, ...]:
    """The templates of a set or a file.

    Args:
        name: Name of a set, or path of a file with one template on each line.

    Raises:
        DenseCLIError: There is no such set or file, or a line is no template.
    """
    if name in TEMPLATES:
        return TEMPLATES[name]
    path = Path(name)
    if not path.is_file():
        raise DenseCLIError(
            f"There are no prompt templates called {name!r}.",
            hint=f"{suggestion(name, TEMPLATES)} Or give a file with one template on each line.",
        )
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DenseCLIError(f"{path} cannot be read: {error}.", hint="It is a text file in UTF-8.") from None
    templates = tuple(line for line in lines if line)
    if not templates:
        raise DenseCLIError(f"{path} has no prompt template.", hint=_HINT)
    for template in templates:
        if not _is_template(template):
            raise DenseCLIError(
                f"{path} has a line that is no prompt template: {template!r}.",
                hint=_HINT,
            )
    return templates


_FIELDS = ("", "name", "article")
_HINT = "Write {} or {name} for the category, and {article} for a or an."


def prompt(template: str, name: str) -> str:
    """A prompt of a category name."""
    published = name.replace("_", " ").replace("/", " or ").lower().rstrip(".")
    return template.format(name, name=published, article="an" if name[:1] in tuple("aeiou") else "a")


def _is_template(line: str) -> bool:
    """Whether a line has a category, and no field that could do more than name one."""
    try:
        fields = [parts[1:] for parts in Formatter().parse(line) if parts[1] is not None]
    except ValueError:
        return False
    plain = all(name in _FIELDS and not form and not conversion for name, form, conversion in fields)
    return plain and any(name != "article" for name, _, _ in fields)
