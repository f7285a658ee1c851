"""The kinds of names that options take: what each is for, and what of it is missing on this machine."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

from densecli.core.errors import DenseCLIError
from densecli.core.registry import registry

NO_WEIGHTS = "no weights"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of name.

    Attributes:
        help: What the names are for.
        module: Its import makes the registry of the kind.
        missing: What of a name is missing here, or nothing.
        about: More facts about a name.
        told: What a line says of these facts.
        written: What users write for a registered name, where that is not the name itself.
    """

    help: str
    module: str
    missing: Callable[[str], str] = lambda name: ""
    about: Callable[[str], Mapping[str, Any]] = lambda name: {}
    told: Callable[[Mapping[str, Any]], str] = lambda each: str(each["missing"])
    written: Callable[[str], str] = lambda name: name

    def names(self, kind: str) -> Sequence[dict[str, Any]]:
        """Describes each name of a kind."""
        import_module(self.module)
        return [
            {
                "name": self.written(each.name),
                "help": each.help,
                "needs": each.needs,
                "missing": self.missing(each.name),
                **self.about(each.name),
            }
            for each in registry(kind).entries()
        ]

    def lines(self, names: Iterable[Mapping[str, Any]]) -> Sequence[tuple[str, str]]:
        """Each name with what a reader is told of it."""
        found = []
        for each in names:
            needs = f" Needs {each['needs']}." if each["needs"] else ""
            told = self.told(each)
            found.append((each["name"], f"{each['help']}{needs}{f' [{told}]' if told else ''}"))
        return found


def weights_of(name: str) -> dict[str, Any]:
    """Where the weights of a model are: `here`, `hub cache`, `hub` or nowhere, and what would be fetched."""
    from densecli.models.published import Published
    from densecli.models.weights import in_hub_cache, published_of, weights_here

    published = published_of(name)
    facts = {"weights": "", **asdict(published or Published(address=""))}
    if weights_here(name):
        return {**facts, "weights": "here"}
    if published is None:
        return facts
    return {**facts, "weights": "hub cache" if in_hub_cache(name) else "hub"}


def weights_text(found: Mapping[str, Any]) -> str:
    """Where weights are, in words."""
    if found["weights"] == "hub":
        size = f"about {found['megabytes']} MB, " if found["megabytes"] else ""
        licence = f", licence {found['licence']}" if found["licence"] else ""
        return f"fetched when used: {size}{found['address']}{licence}"
    told = {"here": "weights here", "hub cache": "weights in the hub's cache"}
    return told.get(found["weights"], NO_WEIGHTS)


def no_weights(name: str) -> str:
    """Says that a model has no weights here, and none can be fetched; or nothing."""
    return "" if weights_of(name)["weights"] else NO_WEIGHTS


def no_teacher_weights(family: str) -> str:
    """Says for which models of a family of teachers there are weights, where not for all."""
    from densecli.pipeline.teachers import TEACHERS

    teachers = TEACHERS[family]
    models = [*teachers.models()]
    found = [model for model in models if all(map(_found, teachers.weights(model).values()))]
    if len(found) == len(models):
        return ""
    return f"weights only for {', '.join(found)}" if found else NO_WEIGHTS


def _found(weights: str) -> bool:
    from densecli.models.registry import MODELS
    from densecli.models.vfms import is_vfm
    from densecli.models.weights import find_file

    if weights in MODELS or is_vfm(weights):
        return not no_weights(weights)
    # Those of a Refiner, which belong to no model of their own.
    try:
        find_file(weights)
    except DenseCLIError:
        return False
    return True


def teacher_form(family: str) -> str:
    """How the teachers of a family are written, such as crops-MODEL."""
    from densecli.pipeline.teachers import TEACHERS

    teachers = TEACHERS[family]
    # Without `has_model` there are no others than these.
    models = [teachers.placeholder] if teachers.has_model else teachers.models()
    return ", ".join(f"{teachers.prefix}{model}" for model in models)


def photos_here(dataset: str) -> dict[str, str]:
    """The folder in which build-shards looks for a data set, if it is there."""
    from densecli.core.addresses import from_environment

    folder = Path(from_environment("DENSECLI_DATA", "data"), dataset)
    return {"here": str(folder) if folder.is_dir() else ""}


def no_package(name: str) -> str:
    """Says that a logger's package is not installed, or nothing."""
    return f"{name} is not installed" if name in ("wandb", "mlflow") and find_spec(name) is None else ""


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "teachers": Kind(
            help="What build-shards --teacher runs.",
            module="densecli.pipeline.teachers",
            missing=no_teacher_weights,
            written=teacher_form,
        ),
        "models": Kind(
            help="CLIPs: students, and models of teachers.",
            module="densecli.models.registry",
            missing=no_weights,
            about=weights_of,
            told=weights_text,
        ),
        "families": Kind(
            help="Families of networks that CLIPs are read as.", module="densecli.models.registry"
        ),
        "vfms": Kind(
            help="Vision foundation models.",
            module="densecli.models.vfms",
            missing=no_weights,
            about=weights_of,
            told=weights_text,
        ),
        "categories": Kind(
            help="Category sets for --categories, which also takes a file.",
            module="densecli.models.categories",
        ),
        "datasets": Kind(
            help="Photos for build-shards --dataset.",
            module="densecli.pipeline.sources",
            about=photos_here,
            told=lambda each: f"found in {each['here']}" if each["here"] else "",
        ),
        "kinds": Kind(help="Kinds of target that teachers write.", module="densecli.shards.kinds"),
        "codecs": Kind(help="How targets are stored.", module="densecli.shards.codecs"),
        "methods": Kind(help="Presets for train --method.", module="densecli.train.methods"),
        "losses": Kind(help="Loss terms for train --loss.", module="densecli.train.terms"),
        "schedules": Kind(
            help="Learning-rate schedules for train --schedule.", module="densecli.train.schedules"
        ),
        "loggers": Kind(
            help="Loggers for train --logger.", module="densecli.train.loggers", missing=no_package
        ),
        "exports": Kind(help="Formats for export --layout.", module="densecli.train.exports"),
        "benchmarks": Kind(
            help="Segmentation data sets for evaluate --dataset.", module="densecli.evaluation.benchmarks"
        ),
        "ablations": Kind(
            help="Folders of specs for ablate, whose --list names each spec.", module="densecli.ablation.spec"
        ),
        "commands": Kind(help="Commands of plug-ins.", module="densecli.core.registry"),
    }
)
