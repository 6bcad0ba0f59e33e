from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import heldout
from heldout.errors import ConfigError, SplitError
from heldout.networks.gpt import mingpt
from heldout.tasks.arithmetic import (
    BATCH,
    OPERATIONS,
    PRESETS,
    Arithmetic,
    ArithmeticSettings,
    Cell,
    Law,
    Pairs,
    arithmetic,
    carries,
    compute,
)
from heldout.tasks.arithmetic import numerals as nm
from heldout.tasks.arithmetic.splits import IGNORED
from heldout.tasks.base import Batch
from heldout.training.batching import shuffled
from heldout.training.loop import train
from heldout.training.losses import cross_entropy
from heldout.training.seeds import initialised
from heldout.training.settings import TrainSettings

SMALL = {"train": 300, "select": 100, "held_out": 100, "per_test": 200}
LAYOUTS = ("padded", "separated", "unpadded")


def task(seed: int = 0, **given: Any) -> Arithmetic:
    return arithmetic(ArithmeticSettings(**{**SMALL, **given}), seed)


def ints(digits: np.ndarray, base: int = 10) -> np.ndarray:
    return np.array(nm.to_ints(digits, base), dtype=object)


def numbers(pairs: Pairs, base: int = 10) -> tuple[np.ndarray, np.ndarray]:
    return ints(pairs.a, base), ints(pairs.b, base)


def whole(made: Arithmetic, name: str) -> Batch:
    return made.splits[name].items.take(np.arange(len(made.splits[name])))


# -- laws -------------------------------------------------------------------------------------------------------------


def test_laws_are_what_they_say() -> None:
    rng = np.random.default_rng(0)
    a, b = numbers(Law.parse("at_most 2").draw(40_000, 10, 5, rng))
    counts = np.bincount(a.astype(int), minlength=100)
    assert len(counts) == 100
    assert counts.min() > 300  # 400 +- 20 each
    assert abs(np.corrcoef(a.astype(float), b.astype(float))[0, 1]) < 0.03
    a, b = numbers(Law.parse("exactly 3").draw(20_000, 10, 5, rng))
    assert (min(a), max(a), min(b), max(b)) == (100, 999, 100, 999)
    a, b = numbers(Law.parse("exactly 1").draw(2_000, 10, 5, rng))
    assert set(a) == set(range(10))
    a, b = numbers(Law.parse("either 4").draw(20_000, 10, 5, rng))
    assert (np.maximum(a, b) >= 1000).all()
    assert abs(np.mean(a >= 1000) - 0.95) < 0.01  # one half, and nine tenths of the other half
    assert abs(np.mean(b >= 1000) - 0.95) < 0.01


def test_a_mixture_has_the_shares_of_its_weights() -> None:
    law = Law.parse("3 exactly 2 + 1 exactly 5")
    assert law.digits == 5
    a, b = numbers(law.draw(20_000, 10, 6, np.random.default_rng(1)))
    assert ((a >= 10_000) == (b >= 10_000)).all()  # both of a pair come from one part
    assert abs(np.mean(a >= 10_000) - 0.25) < 0.01
    assert ((a < 100) | (a >= 10_000)).all()


BAD_LAWS = ["", "at most 3", "at_most", "3", "at_most 3 +", "at_most 3.5", "exactly 0", "exactly 99", "0 exactly 2"]


@pytest.mark.parametrize("text", BAD_LAWS)
def test_a_law_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="law"):
        Law.parse(text)
    with pytest.raises(ConfigError, match="unknown law of operand lengths 'exact'; choose from at_most, exactly"):
        Law.parse("exact 3")


# -- operations -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("base", [2, 7, 10, 16])
def test_operations_agree_with_whole_numbers(operation: Any, base: int) -> None:
    a, b = Law.parse("at_most 25").draw(300, base, 27, np.random.default_rng(2))
    p = 1501 if operation.startswith("mod_") else None
    negative, digits = compute(operation, a, b, base=base, modulus=p)
    x, y = ints(a, base), ints(b, base)
    true = {
        "add": x + y,
        "subtract": x - y,
        "multiply": x * y,
        "mod_add": (x + y) % 1501,
        "mod_multiply": (x * y) % 1501,
    }[operation]
    assert (np.where(negative, -1, 1) * ints(digits, base) == true).all()


def test_carries_agree_with_adding_by_hand() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.integers(10**6, size=(2, 2000))
    found = carries(Pairs(nm.from_ints(x, width=6), nm.from_ints(y, width=6)), 4, base=10)
    for i in range(2000):
        into = [int(x[i] % 10**j + y[i] % 10**j >= 10**j) for j in range(5)]  # carry into digit j
        assert found.carried[i] == sum(into)
        assert found.out[i] == into[4]
        passes = [(x[i] // 10**j % 10 + y[i] // 10**j % 10 == 9) and into[j] for j in range(4)]
        runs = "".join("x" if p else " " for p in passes).split()
        assert found.cascade[i] == max(map(len, runs), default=0)


# -- layouts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "operation", "given", "text"),
    [
        ("padded", "add", {}, "0034500705050100"),
        ("padded", "add", {"reversed_answer": False}, "0034500705001050"),
        ("separated", "add", {}, "00345+00705=050100;"),
        ("unpadded", "add", {}, "345+705=0501;"),
        ("unpadded", "add", {"reversed_answer": False}, "345+705=1050;"),
        ("unpadded", "add", {"reversed_operands": True}, "543+507=0501;"),
        ("padded", "subtract", {}, "003450070506300-"),
        ("separated", "subtract", {"reversed_answer": False}, "00345-00705=-00360;"),
        ("unpadded", "subtract", {}, "345-705=063-;"),
        ("unpadded", "subtract", {"reversed_answer": False}, "345-705=-360;"),
        ("padded", "multiply", {}, "00345007055223420000"),
        ("unpadded", "mod_add", {"modulus": 150}, "345+705=0;"),
        ("padded", "mod_multiply", {"modulus": 150, "reversed_answer": False}, "0034500705075"),
    ],
)
def test_layouts_by_example(kind: Any, operation: Any, given: dict[str, Any], text: str) -> None:
    settings = ArithmeticSettings(layout=kind, operation=operation, **given)
    layout = settings.make_layout()
    a, b = nm.from_ints([345], width=5), nm.from_ints([705], width=5)
    answer = compute(operation, a, b, base=10, modulus=settings.modulus)
    written = layout.write(a, b, answer)
    assert layout.text(written.tokens) == text
    prompts, lengths = layout.prompts(a, b)
    assert text.startswith(layout.text(prompts[0, : lengths[0]]))
    assert lengths == written.prompts
    assert len(text) <= layout.longest


@pytest.mark.parametrize("operation", ["add", "subtract", "multiply", "mod_multiply"])
@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize("reverse", [True, False])
@pytest.mark.parametrize("base", [2, 10])
def test_what_is_written_is_read_back(operation: Any, kind: Any, reverse: bool, base: int) -> None:
    p = 97 if operation.startswith("mod_") else None
    settings = ArithmeticSettings(operation=operation, layout=kind, modulus=p, base=base, reversed_answer=reverse)
    layout = settings.make_layout()
    a, b = Law.parse("at_most 5").draw(500, base, 5, np.random.default_rng(4))
    answer = compute(operation, a, b, base=base, modulus=p)
    written = layout.write(a, b, answer)
    answers = np.full((500, layout.steps), layout.stop or 0)
    for i, (start, end) in enumerate(zip(written.offsets[:-1] + written.prompts, written.offsets[1:], strict=True)):
        answers[i, : end - start] = written.tokens[start:end]
    parsed = layout.read(answers)
    assert parsed.parsable.all()
    assert (parsed.negative == answer.negative).all()
    assert nm.equal(parsed.digits, answer.digits).all()
    assert parsed.digits.shape == (500, layout.answer_width)


@pytest.mark.parametrize(
    ("kind", "given", "text", "value"),
    [
        ("padded", {}, "050100", 1050),
        ("padded", {"reversed_answer": False}, "001050", 1050),
        ("unpadded", {}, "0501;;;", 1050),
        ("unpadded", {}, "050100;", 1050),  # leading zeros
        ("unpadded", {}, "05;99;;", 50),  # what follows the end does not count
        ("unpadded", {"reversed_answer": False}, "05;99;;", 5),
        ("unpadded", {}, "0501000", None),  # no end
        ("unpadded", {}, ";;;;;;;", None),  # no digit
        ("unpadded", {}, "05+1;;;", None),
        ("unpadded", {}, "05=;;;;", None),
        ("unpadded", {"operation": "subtract"}, "063-;;;", -360),
        ("unpadded", {"operation": "subtract"}, "-063;;;", None),  # a sign at the wrong end
        ("unpadded", {"operation": "subtract", "reversed_answer": False}, "-063;;;", -63),
        ("unpadded", {"operation": "subtract", "reversed_answer": False}, "--63;;;", None),
        ("unpadded", {"operation": "subtract"}, "-;;;;;;", None),
        ("unpadded", {"operation": "subtract"}, "0-;;;;;", 0),
        ("unpadded", {"operation": "subtract"}, "123451;", None),  # more digits than any answer
        ("padded", {"operation": "subtract"}, "06300-", -360),
        ("padded", {"operation": "subtract"}, "063000", 360),
        ("padded", {"operation": "subtract"}, "063001", None),
        ("padded", {"operation": "subtract"}, "06-000", None),
    ],
)
def test_answers_by_example(kind: Any, given: dict[str, Any], text: str, value: int | None) -> None:
    layout = ArithmeticSettings(layout=kind, **given).make_layout()
    parsed = layout.read(np.array([[layout.token(c) for c in text]]))
    assert parsed.parsable[0] == (value is not None)
    assert nm.to_ints(parsed.digits) == [abs(value or 0)]
    assert parsed.negative[0] == ((value or 0) < 0)


def test_the_papers_layouts_have_their_sizes() -> None:
    layout = PRESETS["paper_addition"].make_layout()
    assert (layout.vocabulary, layout.longest, layout.steps, layout.stop) == (10, 16, 6, None)
    layout = PRESETS["paper_multiplication"].make_layout()
    assert (layout.vocabulary, layout.longest, layout.steps) == (10, 20, 10)
    layout = PRESETS["mod_add_150"].make_layout()
    assert layout.symbols == "0123456789+=;"
    assert layout.longest == 66 - 2  # without the follow-up's tokens at begin and end
    assert (layout.width, layout.answer_width) == (20, 21)


# -- splits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"law": "exactly 3"},
        {"layout": "unpadded", "law": "0.5 either 2 + 0.5 either 3"},
        {"operation": "subtract", "layout": "separated", "base": 7},
        {"operation": "mod_multiply", "modulus": 51},
    ],
)
def test_no_unordered_pair_of_low_parts_is_in_train_and_elsewhere(given: dict[str, Any]) -> None:
    made = task(**given)
    s = made.settings
    seen: dict[frozenset[int], str] = {}
    unit_of: dict[frozenset[int], int] = {}
    for name, split in made.splits.items():
        a, b = numbers(made.pairs[name], s.base)
        assert len({*zip(a, b, strict=True)}) == len(split)  # no ordered pair twice
        for x, y, unit in zip(a % s.base**3, b % s.base**3, split.unit_ids(), strict=True):
            pair = frozenset((x, y))
            role = seen.setdefault(pair, split.role)
            assert role == split.role
            assert unit_of.setdefault(pair, int(unit)) == unit  # one unit across all splits
    assert len(set(unit_of.values())) == len(unit_of)


def test_cells_are_what_they_say() -> None:
    cells = (
        Cell(4, 2),
        Cell(1, 1),
        Cell(4, 4, "none"),
        Cell(4, 4, "out"),
        Cell(4, 4, "cascade"),
        Cell(4, 4, leading=(9, 1)),
        Cell(3, 1, leading=(7, 0)),
    )
    made = task(tests=cells)
    lengths = {c.name: (c.la, c.lb) for c in cells}
    for name, (la, lb) in lengths.items():
        assert (nm.lengths(made.pairs[name].a) == la).all()
        assert (nm.lengths(made.pairs[name].b) == lb).all()
        strata = whole(made, name).strata
        assert (strata["la"] == la).all()
    a, b = numbers(made.pairs["len_4_4_carry_none"])
    assert all((x % 10**i + y % 10**i) < 10**i for x, y in zip(a, b, strict=True) for i in (1, 2, 3))
    a, b = numbers(made.pairs["len_4_4_carry_out"])
    assert (a % 1000 + b % 1000 >= 1000).all()
    assert (whole(made, "len_4_4_carry_cascade").strata["cascade"] > 0).all()
    a, b = numbers(made.pairs["len_4_4_leading_9_1"])
    assert ((a // 1000 == 9) & (b // 1000 == 1)).all()
    a, b = numbers(made.pairs["len_3_1_leading_7_0"])
    assert ((a // 100 == 7) & (b == 0)).all()
    assert 20 < len(made.splits["len_1_1"]) < 60  # 40% of a hundred pairs: all that there are
    assert "exactly 4 and 4 digits; a carry into digit 4" in made.splits["len_4_4_carry_out"].note


@pytest.mark.parametrize("kind", LAYOUTS)
def test_items_are_next_tokens_with_loss_on_the_answer_alone(kind: Any) -> None:
    made = task(layout=kind)
    layout = made.layout
    batch = whole(made, "len_4_3")
    assert batch.targets is not None
    assert batch.scored is not None
    a, b = made.pairs["len_4_3"]
    answer = made.answers(a, b)
    written = layout.write(a, b, answer)
    for i in range(len(made.splits["len_4_3"])):
        text = written.tokens[written.offsets[i] : written.offsets[i + 1]].tolist()
        n, ask = len(text) - 1, int(written.prompts[i])
        assert batch.inputs[i, :n].tolist() == text[:-1]
        assert batch.scored[i].nonzero().squeeze(1).tolist() == list(range(ask - 1, n))
        assert batch.targets[i][batch.scored[i]].tolist() == text[ask:]
        assert (batch.targets[i, : ask - 1] == IGNORED).all()
    assert (batch.mask is None) == (kind != "unpadded")


@pytest.mark.parametrize("kind", LAYOUTS)
def test_the_training_loss_is_the_answers_alone(kind: Any) -> None:
    made = task(layout=kind)
    network = initialised(lambda: mingpt(made.layout.vocabulary, "nano", max_length=made.layout.longest - 1), 0).eval()
    batch = whole(made, "train")
    assert batch.targets is not None
    logits = network(batch.inputs)
    marked = logits.log_softmax(-1)[batch.scored].gather(1, batch.targets[batch.scored][:, None])
    torch.testing.assert_close(cross_entropy(logits, batch), -marked.mean())


@pytest.mark.parametrize("kind", ["padded", "unpadded"])
def test_training_and_faithfulness_take_it_as_it_is(kind: Any) -> None:
    made = task(layout=kind, tests=(Cell(4, 4), Cell(2, 3)), train=128, select=20, held_out=40, per_test=40)
    network = initialised(lambda: mingpt(made.layout.vocabulary, "nano", max_length=made.layout.longest - 1), 0)
    settings = TrainSettings(steps=6, schedule="constant", betas=(0.9, 0.95), weight_decay=0.1, decay="linear")
    size = BATCH if kind == "padded" else 64 * made.layout.longest
    train(network, shuffled(made.splits["train"], size, seed=0), cross_entropy, settings=settings)
    splits = [made.splits[name] for name in ("train", "id", "len_4_4", "len_2_3")]
    result = heldout.check(network, {"blocks.1.mlp": heldout.SVD(rank=48)}, splits, null_draws=2, batch_size=2048)
    assert result.reference == "id"
    for name in ("id", "len_4_4", "len_2_3"):
        batch = whole(made, name)
        assert batch.targets is not None
        assert batch.scored is not None
        with torch.no_grad():
            right = network(batch.inputs).argmax(-1)[batch.scored] == batch.targets[batch.scored]
        assert result["accuracy_network", name].value == pytest.approx(float(right.double().mean()), abs=1e-9)
        assert result["same_prediction", name].value > 0.999


def test_low_parts_of_any_kind_make_whole_pairs_the_unit() -> None:
    made = task(
        low_parts="any", tests=(Cell(4, 4), Cell(2, 2)), per_test=2000, train=5000, law="at_most 2", train_share=0.7
    )
    trained = {frozenset((x % 100, y % 100)) for x, y in zip(*numbers(made.pairs["train"]), strict=True)}
    a, b = numbers(made.pairs["len_4_4"])
    assert sum(frozenset((x % 100, y % 100)) in trained for x, y in zip(a, b, strict=True)) > 500
    assert len(set(made.splits["len_4_4"].unit_ids())) > 1990
    assert not any(frozenset(p) in trained for p in zip(*numbers(made.pairs["len_2_2"]), strict=True))
    assert "low parts" not in made.splits["len_4_4"].note


def test_the_seed_decides_and_nothing_else_does() -> None:
    a, b, other = task(), task(tests=(Cell(4, 4),)), task(seed=1)
    for name in ("train", "id", "len_4_4"):
        assert (a.pairs[name].a == b.pairs[name].a).all()  # the data of one split do not depend on the others
        assert not (a.pairs[name].a == other.pairs[name].a).all()
    assert (a.splits["id"].keys == b.splits["id"].keys).all()  # type: ignore[union-attr]


def test_the_pools_have_their_shares() -> None:
    made = task(train_share=0.5)
    low = Law.parse("at_most 3").draw(50_000, 10, 5, np.random.default_rng(5))
    shares = np.bincount(made._pool(low)) / 50_000
    assert np.abs(shares - [0.5, 0.1, 0.4]).max() < 0.01
    assert (made._pool(low) == made._pool(Pairs(low.b, low.a))).all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"operation": "divide"}, "unknown operation 'divide'"),
        ({"operation": "mod_add"}, "mod_add takes a modulus, got None"),
        ({"modulus": 7}, "add takes no modulus, got 7"),
        ({"operation": "mod_add", "modulus": 1}, "the modulus must be from 2"),
        ({"layout": "dense"}, "unknown layout 'dense'; choose from padded, separated, unpadded"),
        ({"width": 2}, r"width must be from the longest trained operand \(3\) to 30, got 2"),
        ({"answer_width": 5}, "answers have up to 6 digits, but answer_width is 5"),
        ({"base": 1}, "base"),
        ({"train": 0}, "train must be at least 1, got 0"),
        ({"train_share": 1.0}, "train_share must lie between 0 and 1"),
        ({"tests": (Cell(6, 1),)}, r"len_6_1 needs operand lengths from 1 to the width \(5\)"),
        ({"tests": (Cell(4, 4), Cell(4, 4))}, "len_4_4 is given twice"),
        ({"tests": (Cell(4, 4, "some"),)}, "unknown carry 'some'"),  # type: ignore[arg-type]
        ({"tests": (Cell(4, 4, leading=(0, 1)),)}, "leading digit of 4 digits must be from 1 to 9, got 0"),
        ({"operation": "multiply", "tests": (Cell(4, 4, "out"),)}, "multiply does not add"),
    ],
)
def test_settings_that_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ArithmeticSettings(**given)


def test_more_pairs_than_there_are_is_an_error_that_says_so() -> None:
    with pytest.raises(SplitError, match=r"'train' cannot be drawn: 300 different pairs are wanted and \d+ were found"):
        task(law="at_most 1")
    with pytest.raises(ConfigError, match=r"answers are \(N, 6\) tokens"):
        task().layout.read(np.zeros((3, 5)))
