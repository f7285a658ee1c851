"""Finds the columns of a store that a training reads."""

import difflib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from densecli.core.errors import DenseCLIError
from densecli.models.categories import Categories, load_categories
from densecli.models.refiner_checkpoints import default_run
from densecli.models.registry import MODELS
from densecli.models.student import patch_of
from densecli.models.teacher_names import names_of
from densecli.models.vfms import architecture_of, is_vfm
from densecli.models.weights import weights_sha256
from densecli.shards.datasets import defaults_for
from densecli.shards.keys import column_key
from densecli.shards.kinds import KINDS, TargetKind
from densecli.shards.store import Column, Store
from densecli.train.refiner import refiner_file

OF_REFINERS = ("refined", "refined-map")
"""Kinds of target that a Refiner makes."""


def find_targets(
    store: Store,
    kinds: Iterable[str],
    *,
    teachers: Sequence[str] = (),
    student: str,
    regions: str | None = None,
    categories: str | None = None,
    views: int | None = None,
    refiner: str | None = None,
) -> dict[str, Column]:
    """Finds the target column of each kind.

    If the store has several of a kind, the one named in `teachers` is chosen, else that of the student's own
    teacher.

    Args:
        store: The store.
        kinds: Kinds of target, see `densecli.shards.kinds`.
        teachers: Names of columns, NAME or NAME-ID.
        student: Name of the student.
        regions: Only columns of this region plan.
        categories: Only labels of this category set or file.
        views: Only columns with at least this many views. Of columns that differ only in the number of views,
            the smallest is chosen.
        refiner: Only columns of the Refiner of this run or file.

    Returns:
        The columns by kind.

    Raises:
        DenseCLIError: There is no such column (the hint is the command that makes it), several columns fit,
            or a teacher has no column.
    """
    everything = store.columns("targets")
    strays = [t for t in teachers if not any(t in names_of(c) for c in everything)]
    fitting = _fitting(store, regions, categories, views, refiner)
    asked = {"regions": regions, "categories": categories, "views": views, "refiner": refiner}
    found: dict[str, Column] = {}
    lacking: list[DenseCLIError] = []
    wanted_kinds = list(kinds)
    for kind in wanted_kinds:
        columns = [c for c in fitting if c.target_kind == kind]
        named = [c for c in columns if names_of(c) & set(teachers)]
        own = [c for c in columns if c.name in own_teachers(kind, student)]
        choice = named or (own if len(columns) > 1 else []) or columns
        if not choice:
            of_kind = [c for c in everything if c.target_kind == kind]
            asked_for = strays if len(wanted_kinds) == 1 else [t for t in strays if _may_be(t, kind)]
            wanted = asked_for or [c.name for c in of_kind if names_of(c) & set(teachers)]
            lacking.append(_missing(store, [kind], wanted[0] if wanted else None, student, asked))
            continue
        if views:
            choice = _with_fewest_views(choice)
        if len(choice) > 1:
            none = f", none of {', '.join(strays)}" if strays else ""
            others = "".join(f", or with --{option}" for option in KINDS[kind].options)
            raise DenseCLIError(
                f"The store at {store.root} has {len(choice)} {kind} columns{none}.",
                hint=f"Choose one with --teacher: {', '.join(c.full_name for c in choice)}{others}.",
            )
        found[kind] = choice[0]
        if not (named or refiner):
            _check_refiner(store, found[kind], student, asked)
    if lacking:
        raise _all_of(lacking)
    if strays:
        raise _missing(store, list(found), strays[0], student, asked)
    return found


def find_regions(store: Store, targets: Mapping[str, Column], plan: str | None = None) -> Column:
    """Finds the column of the region plan.

    Args:
        store: The store.
        targets: Target columns by kind.
        plan: Name of the plan; needed if no target is about boxes and the store has several plans.

    Raises:
        DenseCLIError: The targets are about different plans, or several plans fit.
    """
    of_boxes = [column for column in targets.values() if column.regions_key]
    if len({column.regions_key for column in of_boxes}) > 1:
        raise DenseCLIError(
            f"The columns {', '.join(column.name for column in of_boxes)} are about different region plans.",
            hint="Build them with the same --regions, or choose others with --teacher.",
        )
    if of_boxes:
        return store.regions_of(of_boxes[0])
    columns = store.columns("regions")
    if plan is None and len(columns) > 1:
        raise DenseCLIError(
            f"The store at {store.root} has {len(columns)} columns of regions.",
            hint=f"Choose one with --regions: {', '.join(column.name for column in columns)}.",
        )
    return store.find("regions", plan or columns[0].name)


def _fitting(
    store: Store, regions: str | None, categories: str | None, views: int | None, refiner: str | None
) -> list[Column]:
    """The target columns with these regions, categories, views and Refiner; None stands for any."""
    columns = store.columns("targets")
    if regions:
        plans = {plan.key for plan in store.columns("regions") if plan.name == regions}
        columns = [c for c in columns if c.regions_key is None or c.regions_key in plans]
    if categories:
        known = load_categories(categories)
        columns = [c for c in columns if "categories" not in c.spec["target"] or _is_of(c, known)]
    if views:
        columns = [c for c in columns if c.spec["target"].get("views", views) >= views]
    if refiner:
        file = refiner_file(refiner)
        sha256 = weights_sha256(file) if file.is_file() else None
        columns = [c for c in columns if c.spec.get("refiner", sha256) == sha256]
    return columns


def _is_of(column: Column, categories: Categories) -> bool:
    """Whether a column of labels is of these categories. Names without flags fit whatever the build took."""
    names, things = column.spec["target"]["categories"], list(column.spec["codec"]["things"])
    flags = things if categories.thing is None or categories.decided else categories.thing.tolist()
    return (names, things) == (list(categories.names), flags)


def _check_refiner(store: Store, column: Column, student: str, asked: Mapping[str, str | int | None]) -> None:
    """Raises DenseCLIError if a VFM, unasked, would learn from the Refiner of a CLIP."""
    kind = column.target_kind
    if kind not in OF_REFINERS or not is_vfm(student) or is_vfm(model := _model_of(column.name, kind)):
        return
    flags = {name: value for name, value in asked.items() if value}
    own = _commands(store, default_teacher(store.dataset["name"], kind, student), student, flags)
    raise DenseCLIError(
        f"{column.name} is of the Refiner of the CLIP {model}, not of {student}.",
        hint=f"Learn from that one with --teacher {column.name}, or make its own{own.note}:",
        commands=own.lines,
    )


def _with_fewest_views(columns: Iterable[Column]) -> list[Column]:
    """Keeps the smallest of columns that differ only in the number of views, and all others."""
    found = {}
    for column in sorted(columns, key=lambda c: c.spec["target"].get("views", 0), reverse=True):
        found[column_key({**column.spec, "target": {**column.spec["target"], "views": None}})] = column
    return list(found.values())


def own_teachers(kind: str, student: str) -> list[str]:
    """Names of the column whose teacher is the untrained student, the short one first."""
    if not KINDS[kind].own_teacher:
        return []
    short = MODELS[student].aliases if student in MODELS else ()
    return [KINDS[kind].teacher_name(model) for model in (*short, student)]


def _missing(
    store: Store,
    kinds: Sequence[str],
    teacher: str | None,
    student: str,
    asked: Mapping[str, str | int | None],
) -> DenseCLIError:
    """The error for a missing column of one of `kinds`, with the commands that make it."""
    wanted = teacher or _default_teacher(store, kinds[0], student)
    flags = {
        option: value
        for option, value in asked.items()
        if value and (option == "regions" or all(option in KINDS[kind].options for kind in kinds))
    }
    commands = _commands(store, wanted, student, flags)
    columns = [column.name for column in store.columns("targets") if column.target_kind in kinds]
    near = difflib.get_close_matches(teacher or "", columns, n=1)
    of = "".join(
        [f" of {teacher}" if teacher else "", *(f", {flag} {value}" for flag, value in flags.items())]
    )
    meant = f"Did you mean {near[0]}? " if near and near[0] != teacher else ""
    return DenseCLIError(
        f"The store at {store.root} has no {' or '.join(kinds)} column{of}.",
        hint=f"{meant}Make it{commands.note}:",
        commands=commands.lines,
    )


def _may_be(teacher: str, kind: str) -> bool:
    """Whether a teacher's name is of a kind, by the longest prefix that it has."""
    prefixes = [each.prefix for _, each in KINDS.items() if teacher.startswith(each.prefix)]
    return KINDS[kind].prefix == max(prefixes, key=len)


def _all_of(errors: Sequence[DenseCLIError]) -> DenseCLIError:
    """One error for several missing columns."""
    hints = dict.fromkeys(error.hint for error in errors)
    commands = dict.fromkeys(command for error in errors for command in error.commands)
    return DenseCLIError(" ".join(map(str, errors)), hint=" ".join(hints), commands=commands)


def _default_teacher(store: Store, kind: str, student: str) -> str:
    sources = {name: source for name, source in KINDS.items() if source.relabelled_as == kind}
    for column in store.columns("targets"):
        if source := sources.get(column.target_kind):
            return f"{source.relabelled_prefix}{column.name.removeprefix(source.prefix)}"
    return default_teacher(store.dataset["name"], kind, student)


def _model_of(teacher: str, kind: str) -> str:
    return teacher.removeprefix(KINDS[kind].prefix)


def relabelled_from(name: str) -> tuple[TargetKind, str] | None:
    """The kind and the name of the column of which `relabel` makes the column `name`; None for any other."""
    kinds = [kind for _, kind in KINDS.items() if kind.relabelled_prefix]
    for kind in sorted(kinds, key=lambda kind: -len(kind.relabelled_prefix)):
        if name.startswith(kind.relabelled_prefix):
            return kind, kind.teacher_name(name.removeprefix(kind.relabelled_prefix))
    return None


class _Commands(NamedTuple):
    """Command lines that make a column, and what they leave open."""

    lines: Sequence[str]
    note: str = ""


def _commands(store: Store, teacher: str, student: str, asked: Mapping[str, str | int]) -> _Commands:
    """The command lines that make a column: others may have to be made or trained first."""
    if source := relabelled_from(teacher):
        return _relabel_commands(store, *source, student, asked)
    kind = next((kind for kind in OF_REFINERS if teacher.startswith(KINDS[kind].prefix)), "")
    if not kind:
        return _build_command(store, teacher, student, asked)
    flags = dict(asked)
    short = _model_of(teacher, kind)
    model = architecture_of(short).name
    run = str(flags.pop("refiner", default_run(model, store.root)))
    file = refiner_file(run)
    weights = f"{KINDS['refined'].teacher_name(short)}={file}"
    build = _build_command(store, teacher, student, {**flags, "weights": weights})
    if file.is_file():
        return build
    words = ["train-refiner", "--student", model, "--store", store.root]
    train = shlex.join(["densecli", *words, "--run", run])
    # A name such as runs/refiner-2 may imply a depth, which is not known here.
    depth = " (with --depth K, if the Refiner's is not the paper's)" if "refiner" in asked else ""
    return _Commands([train, *build.lines], f"{depth}{build.note}")


def _relabel_commands(
    store: Store, kind: TargetKind, source: str, student: str, asked: Mapping[str, str | int]
) -> _Commands:
    """The command lines that relabel a column, which may have to be built first."""
    # What is about boxes has the boxes and the views of the build.
    of_build = {
        flag: value for flag, value in asked.items() if kind.about_boxes and flag in ("regions", "views")
    }
    flags = {flag: value for flag, value in asked.items() if flag not in of_build}
    words = ["densecli", "relabel", "--store", store.root, "--teacher", source, *_words(flags)]
    if any(source in names_of(column) for column in store.columns("targets")):
        return _Commands([shlex.join(words)])
    build = _build_command(store, source, student, of_build)
    return _Commands([*build.lines, shlex.join(words)], build.note)


def _build_command(store: Store, teacher: str, student: str, asked: Mapping[str, str | int]) -> _Commands:
    """The command line that adds a column to a store."""
    dataset = store.dataset
    plans = {column.name for column in store.columns("regions")}
    flags = {
        "teacher": teacher,
        "dataset": dataset["name"],
        "split": dataset["split"],
        "limit": dataset["n"],
        "seed": dataset.get("seed", ""),
        "cut": dataset.get("cut", ""),
        "canvas": store.canvas,
        "shard-size": store.shard_sizes[0],
        "regions": plans.pop() if len(plans) == 1 else "",
        "store": store.root,
        "student-patch": patch_of(student) if is_vfm(teacher) else "",
        **asked,
    }
    command = shlex.join(["densecli", "build-shards", *_words(flags)])
    # A store does not record where its photos were: it may have been built on another machine.
    data = " (with --data DIR, if the photos are not in the default place)"
    return _Commands([command], "" if defaults_for(dataset["name"]).generated else data)


def default_teacher(dataset: str, kind: str, student: str) -> str:
    """Name of the teacher from which a student learns a kind of target by default."""
    defaults = defaults_for(dataset)
    if KINDS[kind].own_teacher:
        # Crops and own tokens are a CLIP's, and a VFM can learn from its tokens; a Refiner is any network's.
        other = is_vfm(student) and kind not in OF_REFINERS
        return own_teachers(kind, defaults.student if other else student)[0]
    return KINDS[kind].teacher_name(defaults.vfm if kind == "gram" else defaults.pvlm)


def _words(flags: Mapping[str, object]) -> list[str]:
    return [word for flag, value in flags.items() if value != "" for word in (f"--{flag}", str(value))]
