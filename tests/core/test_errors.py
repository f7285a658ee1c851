"""Errors: what they quote from data never reaches a terminal as it is."""

import pickle

from densecli.core.errors import DenseCLIError, Interrupted


def test_error__is_one_printable_line_whatever_it_quotes() -> None:
    error = DenseCLIError("No \x1b[31mred\x1b[0m\nname \u202eexe", hint="Try \x07this.")
    assert (str(error), error.hint) == ("No red name �exe", "Try �this.")


def test_error__a_long_word_is_shortened_and_the_sentence_stays() -> None:
    error = DenseCLIError(f"There is no {'x' * 10_000} here.", hint="y " * 10_000)
    assert str(error) == f"There is no {'x' * 120}… here."
    assert len(error.hint) == 2000


def test_error__keeps_message_hint_and_code_across_processes() -> None:
    error = pickle.loads(pickle.dumps(DenseCLIError("What.", hint="Do.")))
    assert (str(error), error.hint) == ("What.", "Do.")
    several = pickle.loads(pickle.dumps(DenseCLIError("What.", hint="Do:", commands=["a b", "c\nd"])))
    assert several.advice() == ["Do:", "a b", "c d"]
    ended = pickle.loads(pickle.dumps(Interrupted(15, "Stopped.", hint="Go on.")))
    assert (str(ended), ended.hint, ended.exit_code) == ("Stopped.", "Go on.", 143)
