"""Scores of an edited linear network against the network with its weights changed, and invariances."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import small
import torch
from scipy.special import log_softmax
from torch import Tensor, nn

from heldout.activations.edits import Edit
from heldout.activations.tap import Reading
from heldout.analyses.faithfulness import faithfulness, margin_edges
from heldout.analyses.tables import Memory
from heldout.errors import NonFiniteError, SiteError, SplitError
from heldout.evidence import Origin
from heldout.tasks.base import Batch, Rectangular, Split

NETWORK = small.Linear2().eval()
MATRIX = small.projector(5, 2)
EDIT = small.projection_edit("first", MATRIX)
SPLITS = [small.split("id", 37), small.split("rotated", 23, seed=1)]


def run(splits: list[Split], edits: list[Edit], network: nn.Module = NETWORK, **more: Any) -> tuple[Any, Memory]:
    memory = Memory()
    return faithfulness(small.subject(network), splits, edits, memory, **more), memory


def by_hand(split: Split, proxy: nn.Module) -> dict[str, float]:
    """Totals from the two networks' logits, with numpy alone."""
    b = split.items.take(np.arange(len(split)))
    with torch.no_grad():
        p, q = log_softmax(NETWORK(b.inputs).numpy(), axis=1), log_softmax(proxy(b.inputs).numpy(), axis=1)
    assert b.targets is not None
    t, rows = b.targets.numpy(), np.arange(len(split))
    net, edited = p.argmax(1) == t, q.argmax(1) == t
    m = np.logaddexp(p, q) - np.log(2)
    return {
        "n": len(split),
        "same": (p.argmax(1) == q.argmax(1)).sum(),
        "net_correct": net.sum(),
        "proxy_correct": edited.sum(),
        "both_correct": (net & edited).sum(),
        "kl": (np.exp(p) * (p - q)).sum(),
        "jsd": (np.exp(p) * (p - m) + np.exp(q) * (q - m)).sum() / 2 / np.log(2),
        "net_loss": -p[rows, t].sum(),
        "proxy_loss": -q[rows, t].sum(),
    }


def test_a_projection_edit_is_the_network_with_projected_weights() -> None:
    outcome, memory = run(SPLITS, [EDIT])
    projected = copy.deepcopy(NETWORK)
    projected.first.weight.data = MATRIX @ projected.first.weight.data
    for split in SPLITS:
        found, expected = small.totals(memory, split.name, "projection"), by_hand(split, projected)
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, rel=1e-10), name
        assert outcome.agreement[0][split.name] == expected["same"] / len(split)
        assert 0 < expected["same"] < len(split)


def test_an_identity_edit_keeps_everything() -> None:
    outcome, memory = run(SPLITS, [Edit.identity(["first"])])
    found = small.totals(memory, "id", "identity")
    assert (found["kl"], found["same"], found["n"]) == (0.0, 37.0, 37.0)
    assert found["net_loss"] == found["proxy_loss"]
    assert outcome.agreement[0] == {"id": 1.0, "rotated": 1.0}
    assert (outcome.check.difference, outcome.check.passed, outcome.check.replay) == (0.0, True, "used, exact")
    assert outcome.check.sites == ("first",)


def rows(memory: Memory) -> dict[str, dict[str, np.ndarray]]:
    """Cell -> sums by unit: what does not depend on how rows are cut."""
    found = {}
    for name, (_, parts) in memory.parts.items():
        whole = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
        units, at = np.unique(whole["unit"], return_inverse=True)
        found[name] = {"unit": units} | {k: np.bincount(at, v) for k, v in whole.items() if k != "unit"}
    return found


def same_rows(a: Memory, b: Memory, *, rtol: float = 1e-12) -> None:
    first, second = rows(a), rows(b)
    assert set(first) == set(second)
    for name in first:
        for column in first[name]:
            np.testing.assert_allclose(first[name][column], second[name][column], rtol=rtol, err_msg=column)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_batch_size_changes_nothing(size: int) -> None:
    same_rows(run(SPLITS, [EDIT])[1], run(SPLITS, [EDIT], batch_size=size)[1])


def test_the_order_of_splits_and_edits_changes_nothing() -> None:
    other = small.projection_edit("second", small.projector(3, 1), "other")
    there, back = run(SPLITS, [EDIT, other]), run(SPLITS[::-1], [other, EDIT])
    same_rows(there[1], back[1], rtol=0)
    assert list(there[0].agreement) == list(back[0].agreement)[::-1]


def test_replay_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from heldout.activations.replay import Replay

    replayed = run(SPLITS, [EDIT])
    monkeypatch.setattr(Replay, "check", lambda self, batch: setattr(self, "active", False))
    full = run(SPLITS, [EDIT])
    assert replayed[0].check.replay == "used, exact"
    assert full[0].check.replay.startswith("not used")
    same_rows(replayed[1], full[1], rtol=0)


def test_draws_of_one_origin_add_up_in_one_cell() -> None:
    matrices = [small.projector(5, 2, seed=s) for s in range(3)]
    origin = Origin("haar", "first", parameter=2)

    def edit(m: Tensor) -> Edit:
        return Edit({"first": lambda x, mask: x @ m}, origin)

    together = run(SPLITS, [edit(m) for m in matrices])
    apart = [run(SPLITS, [edit(m)]) for m in matrices]
    found = small.totals(together[1], "rotated", "haar-2")
    each = [small.totals(memory, "rotated", "haar-2") for _, memory in apart]
    assert found["n"] == 3 * 23
    for name in ("n", "same", "kl", "proxy_loss"):
        assert found[name] == pytest.approx(sum(e[name] for e in each), rel=1e-12)
    assert [a["rotated"] for a in together[0].agreement] == [o.agreement[0]["rotated"] for o, _ in apart]
    assert len({e["kl"] for e in each}) == 3


def test_strata_units_and_margin_bins_label_the_rows() -> None:
    b = SPLITS[0].items.take(np.arange(37))
    kind = torch.arange(37) % 2
    split = Split("id", "test", Rectangular(b.inputs, b.targets, strata={"kind": kind}), units=np.arange(37) // 3 + 100)
    edges = margin_edges(small.subject(NETWORK), split, bins=4)
    _, memory = run([split], [EDIT], margin_edges=edges, batch_size=5)
    ((_, parts),) = memory.parts.values()
    whole = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
    with torch.no_grad():
        top = NETWORK(b.inputs).topk(2).values.numpy()
    margin = top[:, 0] - top[:, 1]
    np.testing.assert_allclose(edges, np.quantile(margin, [0.25, 0.5, 0.75]))
    expected = list(zip(split.units, kind.numpy(), np.searchsorted(edges, margin, side="right"), strict=True))
    assert set(zip(whole["unit"], whole["kind"], whole["margin_bin"], strict=True)) == set(expected)
    per_bin = np.bincount(whole["margin_bin"], whole["n"])
    assert per_bin.tolist() == [9, 9, 9, 10]


def test_tied_margins_give_fewer_bins() -> None:
    flat = Split("flat", "test", Rectangular(torch.zeros(12, 4, dtype=torch.float64)))
    assert margin_edges(small.subject(NETWORK), flat).tolist() == [0.0]


def test_extra_metrics_see_what_was_read_in_both_passes() -> None:
    def error(original: Reading, proxied: Reading, batch: Batch) -> Mapping[str, Tensor]:
        return {"squared": ((original["first"] - proxied["first"]) ** 2).sum(-1)}

    _, memory = run(SPLITS, [EDIT], read=["first"], extra=error)
    with torch.no_grad():
        x = NETWORK.first(SPLITS[0].items.take(np.arange(37)).inputs)
    assert small.totals(memory, "id", "projection")["squared"] == pytest.approx(float(((x - x @ MATRIX) ** 2).sum()))


def test_progress_counts_the_batches() -> None:
    seen: list[tuple[int, int]] = []
    run(SPLITS, [EDIT], batch_size=10, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 7) for i in range(1, 8)]


class Restless(small.Linear2):
    """Computes something else every time it is asked."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.randn(3)


def hooks(network: nn.Module) -> int:
    return sum(len(v) for m in network.modules() for k, v in vars(m).items() if "hooks" in k and isinstance(v, dict))


def test_a_network_that_is_random_in_forward_is_refused() -> None:
    torch.manual_seed(0)
    network = Restless()
    with pytest.raises(SiteError, match=r"replacing first by itself changes the output of Restless by .* twice\?"):
        run(SPLITS, [EDIT], network)
    assert hooks(network) == 0


def test_nothing_is_left_on_the_network() -> None:
    network = small.Linear2().train()
    with pytest.raises(NonFiniteError, match=r"first.*NaN|NaN.*first"):
        faithfulness(small.Subject(network), SPLITS, [Edit.function("first", _nan)], Memory())
    faithfulness(small.Subject(network), SPLITS, [EDIT], Memory())
    assert hooks(network) == 0
    assert network.training
    assert "forward" not in vars(network.first)


def _nan(rows: Tensor, mask: Tensor | None) -> Tensor:
    return rows * float("nan")


def test_a_bad_output_names_the_split_and_the_items() -> None:
    inputs = torch.ones(6, 4, dtype=torch.float64)
    inputs[4] = float("inf")
    with pytest.raises(NonFiniteError, match=r"on split 'broken', items \[4\]"):
        run([SPLITS[0], Split("broken", "test", Rectangular(inputs))], [EDIT])


class Positions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def test_a_split_of_which_nothing_is_scored_is_refused() -> None:
    inputs = torch.zeros(4, 5, 2)
    some = Split("some", "test", Rectangular(inputs))
    none = Split("none", "test", Rectangular(inputs, scored=torch.zeros(4, 5, dtype=torch.bool)))
    network = Positions()
    with pytest.raises(SplitError, match="'none' is scored"):
        run([some, none], [Edit.identity(["inner"])], network)
    with pytest.raises(SplitError, match="'none' is scored"):
        margin_edges(small.subject(network), none)
