"""What kind of character each target is: one label on each of several axes, T targets of one window.

Labels are made from the text that the network sees: a window that begins inside a word begins that word there.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import numpy as np

from heldout.errors import ConfigError
from heldout.tasks.code.languages import LEXERS

LONGEST = 8  # characters of a repeated suffix that are looked for at most
BUCKET = 32  # positions that share a label
# A shorter suffix than this recurs by chance in any code.
TELLING = 3

# Axis -> what its labels 0, 1, ... mean.
AXES: dict[str, tuple[str, ...]] = {
    "class": ("space", "newline", "letter", "digit", "opening bracket", "closing bracket", "quote", "other sign"),
    "role": ("other", "keyword", "identifier", "number", "string", "comment"),
    "offset": ("outside words", "1st of a word", "2nd", "3rd", "4th or later"),
    "novelty": ("outside words", "new word", "repeated word"),
    "word": (
        "outside words",
        "start of a new word",
        "inside a new word",
        "start of a repeated word",
        "inside a repeated word",
    ),
    "induction": ("no repeated suffix", "repeated suffix, other continuation", "repeated suffix, same continuation"),
}
INSIDE_REPEATED = AXES["word"].index("inside a repeated word")
INSIDE_NEW = AXES["word"].index("inside a new word")

_WORD = re.compile(r"\w+", re.ASCII)
_CLASSES = (" \t", "\n", "", "0123456789", "([{", ")]}", "\"'`")


def position_names(window: int) -> tuple[str, ...]:
    """What the labels of the axis ``position`` mean in windows of T characters."""
    return tuple(f"{i} to {min(i + BUCKET, window) - 1}" for i in range(0, window, BUCKET))


def labels(text: str) -> dict[str, np.ndarray]:
    """Axis -> (T,) uint8 for a window `text`; all axes but ``role``, which needs the whole file (see `roles`)."""
    offset, novelty = words(text)
    length, predicts = repeated_suffix(text)
    inside = offset > 1
    return {
        "class": classes(text),
        "offset": offset,
        "novelty": novelty,
        "word": np.where(novelty == 0, 0, 2 * novelty - 1 + inside).astype(np.uint8),
        "induction": np.where(length < TELLING, 0, 1 + predicts).astype(np.uint8),
        "position": (np.arange(len(text)) // BUCKET).astype(np.uint8),
    }


def classes(text: str) -> np.ndarray:
    """(T,) uint8, the class of each character; the underscore counts as a letter."""
    found = np.full(len(text), len(_CLASSES), dtype=np.uint8)
    for i, c in enumerate(text):
        if c == "_" or (c.isascii() and c.isalpha()):
            found[i] = 2
        else:
            found[i] = next((k for k, members in enumerate(_CLASSES) if c in members), len(_CLASSES))
    return found


def words(text: str) -> tuple[np.ndarray, np.ndarray]:
    """(T,) offset and (T,) novelty: where in its word a character stands, and whether that whole word (ASCII letters, digits
    and underscores) stood earlier in the window."""
    offset, novelty = np.zeros(len(text), dtype=np.uint8), np.zeros(len(text), dtype=np.uint8)
    seen: set[str] = set()
    for match in _WORD.finditer(text):
        at = slice(match.start(), match.end())
        offset[at] = np.minimum(np.arange(1, len(match[0]) + 1), 4)
        novelty[at] = 2 if match[0] in seen else 1
        seen.add(match[0])
    return offset, novelty


def repeated_suffix(text: str) -> tuple[np.ndarray, np.ndarray]:
    """For each target: the length (0 to `LONGEST`) of the longest suffix of what precedes it that occurred before, and
    whether the character after its latest earlier occurrence is the target. Both (T,), uint8 and bool."""
    length, predicts = np.zeros(len(text), dtype=np.uint8), np.zeros(len(text), dtype=bool)
    for t in range(2, len(text)):
        for n in range(min(LONGEST, t - 1), 0, -1):
            start = text.rfind(text[t - n : t], 0, t - 1)  # ends before the last character that is known
            if start >= 0:
                length[t], predicts[t] = n, text[start + n] == text[t]
                break
    return length, predicts


def roles(text: str, language: str) -> np.ndarray:
    """(T,) uint8, the role of each character of a whole file, by Pygments' lexer for its language."""
    found = np.zeros(len(text), dtype=np.uint8)
    for start, token, value in _lexer(language).get_tokens_unprocessed(text):
        found[start : start + len(value)] = _role(token)
    return found


@lru_cache(maxsize=512)
def _role(token: Any) -> int:
    """The role of a Pygments token type: the number of the first kind that it belongs to."""
    from pygments.token import Comment, Keyword, Name, Number, Operator, String

    kinds = {Keyword: 1, Operator.Word: 1, Name: 2, Number: 3, String: 4, Comment: 5}
    return next((role for kind, role in kinds.items() if token in kind), 0)


@lru_cache(maxsize=32)
def _lexer(language: str) -> Any:
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    try:
        return get_lexer_by_name(LEXERS.get(language, language))
    except ClassNotFound:
        raise ConfigError(f"code: there is no lexer for {language!r}, which the axis 'role' needs") from None
