"""What a method reads from a store (teachers, canvas, region plan), for the commands that build one."""

import shlex
from collections.abc import Mapping
from typing import Any

from densecli.commands.command import only
from densecli.commands.options import Options
from densecli.core.progress import say
from densecli.core.settings import settings_of
from densecli.pipeline.config import BuildConfig
from densecli.train.config import TrainConfig

METHOD = only(
    TrainConfig,
    "method",
    default=None,
    default_text="none: as the other options say",
    help="Builds what a training by this method reads: its teachers, on the canvas and the regions of its "
    "paper.",
)
STUDENT = only(TrainConfig, "student")


def training(options: Options, build: BuildConfig) -> TrainConfig:
    """The training that options of build-shards and of train describe."""
    from densecli.shards.datasets import defaults_for

    student = options.get("student") or defaults_for(build.dataset).student
    # --batch-size is an option of both; here it is that of the training.
    given = {name: value for name, value in options.given.items() if name not in ("store", "weights")}
    # A build has neither a store to read nor a run.
    return Options(given=given).make(TrainConfig, store="unread", run="unwritten", student=student)


def kinds_read(config: TrainConfig) -> frozenset[str]:
    """Kinds of target that a training reads."""
    from densecli.train.terms import term_and_kind

    return frozenset(term_and_kind(loss)[1] for loss in config.losses or config.method_preset.losses)


def build_for(options: Options) -> BuildConfig:
    """The build of the options, with what a method reads where --method or --loss names one.

    Says on standard error what the method adds.
    """
    from densecli.models.student import patch_of
    from densecli.pipeline.teachers import kind_of
    from densecli.shards.datasets import defaults_for
    from densecli.shards.kinds import KINDS
    from densecli.train.columns import default_teacher, relabelled_from

    build = options.make(BuildConfig)
    if not any(options.get(name) for name in ("method", "losses")):
        return build
    config = training(options, build)
    there = {KINDS[kind_of(name)].read_kind for name in build.teachers}
    reads = sorted(kinds_read(config) - there)
    of_pvlm = {kind_of(name): name for name in config.preset_teachers(build.dataset)}
    wanted = [of_pvlm.get(kind) or default_teacher(build.dataset, kind, config.student) for kind in reads]
    # What relabel makes has no teacher of its own.
    sources = [(name, relabelled_from(name)) for name in wanted]
    teachers = [source[1] if source else name for name, source in sources]
    teachers = [name for name in teachers if name not in build.teachers]
    added: dict[str, Any] = {"teachers": teachers} if teachers else {}
    if "gram" in reads and options.get("student"):
        added["student_patch"] = options.get("student_patch") or patch_of(config.student)
    if options.get("method") and not defaults_for(build.dataset).generated:
        added |= {
            name: value for name, value in config.method_preset.store.items() if name not in options.given
        }
    if added:
        _say(options.get("method") or "The losses", added)
    for _, source in sources:
        if source:
            say(f"Then: {shlex.join(['densecli', 'relabel', '--teacher', source[1]])}")
    return options.make(BuildConfig, **{**added, "teachers": (*build.teachers, *teachers)})


def _say(what: str, added: Mapping[str, Any]) -> None:
    """Prints the options that a method implies."""
    words = []
    for name, value in added.items():
        of = settings_of(BuildConfig)[name]
        words += [f"{of.flag} {each}" for each in (value if of.repeatable else [value])]
    say(f"{what}: {' '.join(words)}")
