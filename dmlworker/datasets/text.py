"""Text as tokens, cut as Keras' TextVectorization cuts it, so that the exported model does the same to raw strings: small letters (of A to Z,
as there), no ASCII punctuation, words at white space; single characters where a script has no spaces."""

import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

MAX_TOKENS = 10_000
"""Different tokens that a column of nothing but text keeps."""
MAX_WORDS = 300
"""That a text among other columns keeps, each a column."""
MAX_LENGTH = 512
"""Tokens of a text that count."""
LENGTHS = 95
"""Per cent of the training part's texts are not cut."""
RARE = 2
"""Texts of the training part that a token must occur in."""
WORDS = 3
"""From so many on, a cell looks like text."""
UNKNOWN = 1
"""The id of all other tokens; 0 is where a text has ended."""
WHITESPACE, CHARACTER = "whitespace", "character"
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase, string.punctuation)
_SPACES = re.compile(r"[ \t\n\r\v\f]+")
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""Thai, Lao, Burmese, Khmer, Japanese, Chinese."""
_SAMPLE = 1000
"""Texts that the way of cutting is chosen by."""


def tokens(text: str, split: str) -> list[str]:
    """`split`: WHITESPACE or CHARACTER."""
    plain = text.translate(_LOWER)
    return list(plain) if split == CHARACTER else [word for word in _SPACES.split(plain) if word]


def looks_like_text(cell: str) -> bool:
    return len(cell.split(maxsplit=WORDS)) >= WORDS or len(_UNSPACED.findall(cell[:100])) > WORDS


def way_of(texts: Sequence[str]) -> str:
    """How these are to be cut."""
    found = "".join(text[:200] for text in texts[:_SAMPLE])
    return CHARACTER if 4 * len(_UNSPACED.findall(found)) > len(found) else WHITESPACE


def frequent(texts: Iterable[tuple[str, int]], split: str, most: int, enough: float = RARE) -> tuple[str, ...]:
    """The tokens that count, the most frequent first; of equally frequent ones by the alphabet. texts: each with how often it occurs."""
    counts: Counter[str] = Counter()
    for text, times in texts:
        for token in set(tokens(text, split)):
            counts[token] += times
    ranked = sorted(counts, key=lambda token: (-counts[token], token))
    return tuple(token for token in ranked[:most] if counts[token] >= enough) or tuple(ranked[:1])


def length_of(lengths: np.ndarray) -> int:
    """Tokens of each text that a model gets, where the training part's have these lengths."""
    return int(min(MAX_LENGTH, max(1, np.percentile(lengths, LENGTHS, method="higher"))))


class Vocabulary:
    """Tokens that count, as numbers."""

    def __init__(self, values: Sequence[str], split: str) -> None:
        self._ids = {token: number for number, token in enumerate(values)}
        self._split = split

    def ids(self, text: str, length: int) -> np.ndarray:
        """(length,) uint16: 0 where the text has ended, UNKNOWN, then the tokens."""
        found = [self._ids.get(token, -1) + UNKNOWN + 1 for token in tokens(text, self._split)[:length]]
        return np.array(found + [0] * (length - len(found)), np.uint16)

    def marks(self, text: str) -> np.ndarray:
        """(1 + tokens,) float32: whether any other token is there, then whether each of ours is."""
        marks = np.zeros(1 + len(self._ids), np.float32)
        marks[[self._ids.get(token, -1) + 1 for token in set(tokens(text, self._split))]] = 1
        return marks
