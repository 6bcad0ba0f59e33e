"""Seeds side by side and one by one are the same networks, and which way is taken is said."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from heldout.errors import ConfigError
from heldout.networks.transformer import Transformer
from heldout.tasks.base import Batch, Rectangular, Split
from heldout.training import together
from heldout.training.batching import shuffled
from heldout.training.history import History
from heldout.training.loop import train
from heldout.training.losses import cross_entropy
from heldout.training.seeds import initialised
from heldout.training.settings import TrainSettings
from heldout.training.stacked import Batches
from heldout.training.together import How, train_together

SEEDS = (0, 1, 2)
SETTINGS = TrainSettings(30, 0.05, "constant", optimizer="sgd", weight_decay=0.0, evaluate_every=5)


def make() -> Transformer:
    return Transformer(7, width=16, layers=1, heads=2, max_length=6)


def batches() -> Batches:
    tokens = torch.randint(7, (40, 7), generator=torch.Generator().manual_seed(0))
    return shuffled(Split("train", "fit", Rectangular(tokens[:, :-1], tokens[:, 1:])), 60, seed=0)


def weight(network: nn.Module) -> dict[str, float]:
    assert not network.training
    return {"all/norm": float(sum(p.detach().square().sum() for p in network.parameters()))}


def furthest(a: nn.Module, b: nn.Module) -> float:
    return max(float((x - y).detach().abs().max()) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def trained(how: How, **more: object) -> together.Together:
    return train_together(make, SEEDS, batches(), cross_entropy, settings=SETTINGS, how=how, **more)  # type: ignore[arg-type]


def test_both_ways_are_the_same_updates() -> None:
    shown: list[tuple[int, int]] = []
    stacked = trained("stacked", evaluate=weight, progress=lambda done, total, loss: shown.append((done, total)))
    single = trained("one by one", evaluate=weight, progress=lambda done, total, loss: shown.append((done, total)))
    assert (stacked.how, single.how) == ("stacked", "one by one")
    assert shown.count((90, 90)) == 2
    for i, seed in enumerate(SEEDS):
        assert furthest(stacked.networks[i], initialised(make, seed)) > 0.01
        assert furthest(stacked.networks[i], single.networks[i]) < 2e-5
        for name in ("all/norm", "batch/loss"):
            ours, theirs = (run.histories[i].curve(name) for run in (stacked, single))
            assert [step for step, _ in ours] == [step for step, _ in theirs]
            assert [v for _, v in ours] == pytest.approx([v for _, v in theirs], rel=1e-4)
    assert len({history.last("all/norm") for history in stacked.histories}) == len(SEEDS)


def test_a_network_that_has_ended_stays_as_it_was() -> None:
    """Each network ends at a norm of its own; the stack leaves it there while the others go on."""
    whole = trained("one by one", evaluate=weight)
    norms = [history.curve("all/norm") for history in whole.histories]
    first = norms[0][2][1]  # seed 0 is there after 10 updates, or passes it

    def until(history: History) -> bool:
        return abs(history.last("all/norm") - first) < 1e-3 * first

    seen: list[float] = []

    def watched(network: nn.Module) -> dict[str, float]:
        found = weight(network)
        seen.append(found["all/norm"])
        return found

    stacked = trained("stacked", evaluate=watched, until=until)
    single = trained("one by one", evaluate=weight, until=until)
    assert len({*seen[2 * len(SEEDS) :: len(SEEDS)]}) == 1  # what is looked at later is seed 0 as it ended
    assert stacked.histories[0].rows[-1][0] == 10
    assert {history.rows[-1][0] for history in stacked.histories} == {10, 30}
    for ours, theirs, a, b in zip(stacked.histories, single.histories, stacked.networks, single.networks, strict=True):
        assert [step for step, _ in ours] == [step for step, _ in theirs]
        assert furthest(a, b) < 2e-5


def test_all_ended_ends_the_stack() -> None:
    calls: list[int] = []
    given = batches()

    def counted(step: int) -> Batch:
        calls.append(step)
        return given(step)  # type: ignore[operator,no-any-return]

    done = train_together(
        make, SEEDS, counted, cross_entropy, settings=SETTINGS, until=lambda history: len(history) > 1, how="stacked"
    )
    assert max(calls) == 9
    assert [history.rows[-1][0] for history in done.histories] == [10, 10, 10]


def test_a_seed_is_trained_as_train_does_it() -> None:
    """Bit for bit, dropout and all: the seed takes the place of the settings' own."""

    def noisy() -> Transformer:
        return Transformer(7, width=16, layers=1, heads=2, max_length=6, dropout=0.3)

    network = initialised(noisy, 3)
    history = train(network, batches(), cross_entropy, settings=replace(SETTINGS, seed=3))
    for how in together.HOW:
        one = train_together(noisy, [3], batches(), cross_entropy, settings=SETTINGS, how=how)
        assert furthest(one.networks[0], network) == 0
        assert one.histories[0].rows == history.rows
        assert one.how == "one by one"
    several = train_together(noisy, [2, 3], batches(), cross_entropy, settings=SETTINGS, how="one by one")
    assert furthest(several.networks[1], network) == 0


@pytest.mark.parametrize("how", ["stacked", "one by one"])
def test_each_seed_may_be_looked_at_on_its_own(how: How) -> None:
    looks = [lambda network, i=i: {"own/number": i + 0 * weight(network)["all/norm"]} for i in range(3)]
    done = trained(how, evaluate=looks)
    assert [history.last("own/number") for history in done.histories] == [0, 1, 2]


def test_auto_takes_the_faster_and_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock of its own: the ways are timed in turns, the stack first."""
    for stacked, single in ((1.0, 2.0), (2.0, 1.0)):
        ticks = iter([t for turn in range(4) for t in (0.0, stacked, 10.0, 10.0 + single)])
        monkeypatch.setattr(together.time, "process_time", lambda ticks=ticks: next(ticks))
        assert trained("auto").how == ("stacked" if stacked < single else "one by one")
    one = train_together(make, [3], batches(), cross_entropy, settings=replace(SETTINGS, steps=2))
    assert one.how == "one by one"


@pytest.mark.parametrize("sizes", [[(3, 6), (4, 6), (5, 6)], [(4, 6), (4, 5), (4, 6)]], ids=["items", "positions"])
def test_orders_of_other_shapes_are_not_stacked(sizes: list[tuple[int, int]]) -> None:
    orders = [lambda step, n=n, t=t: batch_of(n, t) for n, t in sizes]
    settings = replace(SETTINGS, steps=3)
    assert train_together(make, SEEDS, orders, cross_entropy, settings=settings).how == "one by one"
    with pytest.raises(ConfigError, match=r"batches of step 0 have different sizes, .* one by one"):
        train_together(make, SEEDS, orders, cross_entropy, settings=settings, how="stacked")


def batch_of(items: int, positions: int) -> Batch:
    tokens = torch.zeros(items, positions, dtype=torch.int64)
    return Batch(tokens, torch.arange(items), tokens)


def test_what_is_not_accepted() -> None:
    with pytest.raises(ConfigError, match=r"unknown way .*stacked"):
        trained("stack")  # type: ignore[arg-type]
    for what, more in (
        ("orders of batches", {"batches": [batches()] * 2}),
        ("ways to evaluate", {"evaluate": [weight] * 4}),
    ):
        given = {"batches": batches(), **more}
        for how in together.HOW:
            with pytest.raises(ConfigError, match=f"{what} for 3 seeds; give one for all, or as many"):
                train_together(make, SEEDS, loss=cross_entropy, settings=SETTINGS, how=how, **given)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no seeds"):
        train_together(make, [], batches(), cross_entropy, settings=SETTINGS)
