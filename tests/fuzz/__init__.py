"""Fuzzers: odd inputs of every kind that a user or a stranger may hand to densecli.

One property holds for all of them. An input is used, or refused with one sentence (a DenseCLIError), or
passed over with a reason that is counted (Unreadable). It never ends in a traceback, never takes long or much
memory, never touches a file outside the folders it was given, and never connects where it was not asked to.

A target is a module of this folder with a TARGET, or several TARGETS:

    def try_one(rng: random.Random, folder: Path) -> None:
        data = mutated(rng, VALID)
        (folder / "list.csv").write_bytes(data)
        open_source("urls", str(folder / "list.csv"))

    TARGET = Target(name="lists", try_one=try_one)

`make test` tries a few inputs of each, always the same ones. `python -m tests.fuzz --seconds 600` tries
others; `--only NAME` picks targets, and `--seed N` tries again the input that a failure names.
"""
