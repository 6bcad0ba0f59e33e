from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heldout.errors import ConfigError
from heldout.tasks.code import breakdown
from heldout.tasks.code.breakdown import AXES, LONGEST, classes, labels, repeated_suffix, roles, words
from heldout.tasks.code.vocabulary import BOS, CHARACTERS, PAD, SIZE, UNK, decode, encode, shifted


def names(axis: str, values: np.ndarray) -> list[str]:
    return [AXES[axis][v] for v in values]


def test_the_vocabulary_has_97_characters_and_three_marks() -> None:
    assert len(CHARACTERS) == 97
    assert (BOS, UNK, PAD, SIZE) == (97, 98, 99, 100)
    assert decode(encode(CHARACTERS)) == CHARACTERS
    assert encode("é\x00\ufffd\U0001f600a").tolist() == [UNK, UNK, UNK, UNK, CHARACTERS.index("a")]


def test_inputs_are_the_targets_one_later() -> None:
    tokens = encode("abc")
    assert shifted(tokens).tolist() == [BOS, *tokens[:-1].tolist()]
    assert shifted(np.stack([tokens, tokens])).shape == (2, 3)


def test_classes() -> None:
    text = "a_Z9 \t\n([{)]}\"'`+é"
    expected = ["letter"] * 3 + ["digit", "space", "space", "newline"] + ["opening bracket"] * 3
    expected += ["closing bracket"] * 3 + ["quote"] * 3 + ["other sign"] * 2
    assert names("class", classes(text)) == expected


def test_offsets_and_novelty_of_words() -> None:
    offset, novelty = words("foo food (foo)")
    assert offset.tolist() == [1, 2, 3, 0, 1, 2, 3, 4, 0, 0, 1, 2, 3, 0]
    # "food" holds "foo" but is another word; the last "foo" is the first one again.
    assert names("novelty", novelty)[4] == "new word"
    assert set(names("novelty", novelty)[10:13]) == {"repeated word"}
    assert names("word", labels("foo food (foo)")["word"])[10:12] == [
        "start of a repeated word",
        "inside a repeated word",
    ]


def test_the_longest_repeated_suffix_and_its_continuation() -> None:
    #        0123456789
    text = "abcxabcyabcy"
    length, predicts = repeated_suffix(text)
    assert length[:5].tolist() == [0, 0, 0, 0, 0]  # nothing has recurred yet
    assert (length[5], predicts[5]) == (1, True)  # after "a" came "b"
    assert (length[7], predicts[7]) == (3, False)  # after "abc" came "x", here "y"
    assert (length[11], predicts[11]) == (3, True)  # the latest "abc" was followed by "y"


def test_a_suffix_may_overlap_its_earlier_occurrence_and_is_capped() -> None:
    length, predicts = repeated_suffix("a" * 20)
    assert length.tolist() == [0, 0, *np.minimum(np.arange(1, 19), LONGEST).tolist()]
    assert predicts[2:].all()


@given(st.text(alphabet="ab( \n", max_size=40))
def test_labels_agree_with_a_search_by_hand(text: str) -> None:
    length, predicts = repeated_suffix(text)
    for t in range(len(text)):
        found = 0
        for n in range(1, LONGEST + 1):
            ends = [e for e in range(n, t) if text[e - n : e] == text[t - n : t]] if n <= t else []
            if ends:
                found, same = n, text[ends[-1]] == text[t]
        assert length[t] == found
        if found:
            assert bool(predicts[t]) == same


def test_every_axis_has_a_name_for_every_label() -> None:
    text = "def f(x):\n    return x + 'x' * 12  # x\n" * 4
    found = labels(text) | {"role": roles(text, "python")}
    assert set(found) == {*AXES, "position"}
    for axis, values in found.items():
        assert values.shape == (len(text),)
        limit = len(breakdown.position_names(len(text))) if axis == "position" else len(AXES[axis])
        assert values.max() < limit


@pytest.mark.parametrize(
    ("language", "text", "word", "role"),
    [
        ("python", "def f(): return 12 # no\n", "def", "keyword"),
        ("python", "x = a and b\n", "and", "keyword"),
        ("python", "def f(): return 12 # no\n", "12", "number"),
        ("python", "def f(): return 12 # no\n", "# no", "comment"),
        ("python", "x = 'word'\n", "word", "string"),
        ("c_cpp", "int main() { return value; }\n", "value", "identifier"),
        ("c_cpp", "/* note */ int x;\n", "note", "comment"),
        ("cython", "cdef int x = 3\n", "cdef", "keyword"),
        ("fortran", "subroutine foo(x)\nend subroutine\n", "subroutine", "keyword"),
    ],
)
def test_roles_by_a_real_lexer(language: str, text: str, word: str, role: str) -> None:
    start = text.index(word)
    assert set(names("role", roles(text, language)[start : start + len(word)])) == {role}


def test_a_language_without_a_lexer_is_named() -> None:
    with pytest.raises(ConfigError, match="no lexer for 'klingon'"):
        roles("x", "klingon")
