"""The tokenizer of the generated world's CLIPs: one token per word."""

import torch

from densecli.core.errors import DenseCLIError
from densecli.scenes.vocabulary import CONTEXT_LENGTH, WORDS


class WordTokenizer:
    """Makes token ids: start, words, end, zeros. open_clip pools a text at its highest id, the end."""

    start, end = len(WORDS) + 1, len(WORDS) + 2

    def __init__(self) -> None:
        self.ids = {word: i + 1 for i, word in enumerate(WORDS)}

    def __call__(self, sentences: list[str]) -> torch.Tensor:
        """Turns N sentences into ids (N, CONTEXT_LENGTH) int64.

        Raises:
            DenseCLIError: A word is unknown to the generated world, or a sentence is too long.
        """
        tokens = torch.zeros(len(sentences), CONTEXT_LENGTH, dtype=torch.long)
        for row, sentence in enumerate(sentences):
            words = sentence.lower().split()
            if unknown := [word for word in words if word not in self.ids]:
                raise DenseCLIError(
                    f"The generated world's models do not know the word {unknown[0]!r}.",
                    hint=f"Use --categories scenes. The models know: {', '.join(WORDS)}.",
                )
            if len(words) > CONTEXT_LENGTH - 2:
                raise DenseCLIError(
                    f"A text of {len(words)} words is too long.",
                    hint=f"Give at most {CONTEXT_LENGTH - 2} words.",
                )
            ids = [self.start, *(self.ids[word] for word in words), self.end]
            tokens[row, : len(ids)] = torch.tensor(ids)
        return tokens
