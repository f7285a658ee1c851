"""Loss terms by name.

A term compares a student with one target column. To add one, write a module in this package, or a plug-in:

    from densecli.train.terms import TERMS, Term

    @TERMS.register("my_term", help="What it compares.")
    class MyTerm(Term):
        reads = ("crops",)
        ...

See `densecli.train.terms.base.Term` for the methods to define.
"""

from collections.abc import Iterable, Mapping

from densecli.core.errors import DenseCLIError
from densecli.core.registry import Registry, registry, unknown_name
from densecli.shards.kinds import KINDS
from densecli.train.terms.base import StudentOutput as StudentOutput
from densecli.train.terms.base import Term as Term
from densecli.train.terms.base import TermSetup as TermSetup

TERMS: Registry[type[Term]] = registry("losses", package=__name__, noun="loss term", of=type)


def term_and_kind(loss: str) -> tuple[str, str]:
    """Splits a loss into its term and the kind of target that the term reads.

    Args:
        loss: TERM or TERM:KIND. The default kind is the first one that the term reads.

    Raises:
        DenseCLIError: The term is unknown, or it cannot read this kind.
    """
    term, _, kind = loss.partition(":")
    reads = kinds_read(term)
    if kind and kind not in reads:
        raise DenseCLIError(
            f"The loss term {term} cannot read a {kind} column.", hint=f"It reads: {', '.join(reads)}."
        )
    return term, kind or reads[0]


def kinds_read(term: str) -> tuple[str, ...]:
    """Kinds of target that a term can learn from: those that it names, and those that name it."""
    named = [name for name, kind in KINDS.items() if term in kind.read_by]
    return tuple(dict.fromkeys([*TERMS[term].reads, *named]))


def options_by_term(options: Mapping[str, str], terms: Iterable[str]) -> dict[str, dict[str, str]]:
    """Groups options of loss terms by term.

    Args:
        options: Values by TERM.NAME, as `--loss-option` gives them.
        terms: Names of the terms of this training.

    Returns:
        For each term, the values of its options by name.

    Raises:
        DenseCLIError: An option belongs to another term.
    """
    grouped: dict[str, dict[str, str]] = {term: {} for term in terms}
    for name, value in options.items():
        term, _, option = name.partition(".")
        if term not in grouped:
            raise unknown_name("loss term in this training", term, grouped, more="Write TERM.NAME=VALUE.")
        grouped[term][option] = value
    return grouped
