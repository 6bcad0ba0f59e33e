"""Metrics against SciPy in float64 and by hand; which predictions count; what bad outputs get."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.special import log_softmax, softmax
from scipy.stats import entropy
from torch import Tensor

from heldout.analyses.scoring import METRICS, Scoring, compare
from heldout.errors import NetworkError, NonFiniteError
from heldout.tasks.base import Batch

RNG = np.random.default_rng(3)
B, T, V = 6, 4, 5
P = RNG.normal(0, 2, size=(B, V))
Q = P + RNG.normal(0, 2, size=(B, V))
TARGETS = RNG.integers(0, V, size=B)


def batch(n: int = B, **more: Any) -> Batch:
    return Batch(torch.zeros(n, 1), torch.arange(10, 10 + n), **more)


def compared(p: Any, q: Any, b: Batch, scoring: Scoring | None = None) -> dict[str, np.ndarray]:
    s = scoring or Scoring()
    return {k: v.numpy() for k, v in compare(s.predictions(p, b), s.predictions(q, b)).items()}


def test_every_metric_equals_scipy_in_float64() -> None:
    found = compared(torch.tensor(P), torch.tensor(Q), batch(targets=torch.tensor(TARGETS)))
    p, q = softmax(P, axis=1), softmax(Q, axis=1)
    assert set(found) == set(METRICS)
    np.testing.assert_allclose(found["kl"], entropy(p, q, axis=1), rtol=1e-12)
    np.testing.assert_allclose(found["jsd"], jensenshannon(p, q, base=2, axis=1) ** 2, rtol=1e-11)
    np.testing.assert_allclose(found["net_loss"], -log_softmax(P, axis=1)[range(B), TARGETS], rtol=1e-12)
    np.testing.assert_allclose(found["proxy_loss"], -log_softmax(Q, axis=1)[range(B), TARGETS], rtol=1e-12)
    net, proxy = P.argmax(1), Q.argmax(1)
    np.testing.assert_array_equal(found["same"], net == proxy)
    np.testing.assert_array_equal(found["net_correct"], net == TARGETS)
    np.testing.assert_array_equal(found["proxy_correct"], proxy == TARGETS)
    np.testing.assert_array_equal(found["both_correct"], (net == TARGETS) & (proxy == TARGETS))
    assert 0 < found["same"].sum() < B  # or the comparison would show nothing


def test_a_hand_calculation() -> None:
    """p = (3/4, 1/4), q = (1/2, 1/2): KL = ln 2 + 3/4 ln 3/4 + 1/4 ln 1/4."""
    found = compared(torch.tensor([[3.0, 1.0]]).log(), torch.zeros(1, 2), batch(1, targets=torch.tensor([1])))
    assert found["kl"][0] == pytest.approx(np.log(2) + 0.75 * np.log(0.75) + 0.25 * np.log(0.25), rel=1e-6)
    assert found["net_loss"][0] == pytest.approx(np.log(4), rel=1e-6)
    assert found["proxy_loss"][0] == pytest.approx(np.log(2), rel=1e-6)


def test_divergence_is_bounded_symmetric_and_reaches_both_ends() -> None:
    p = torch.tensor([[50.0, -50.0], [1.0, 2.0]])
    q = torch.tensor([[-50.0, 50.0], [1.0, 2.0]])
    there, back = compared(p, q, batch(2))["jsd"], compared(q, p, batch(2))["jsd"]
    np.testing.assert_array_equal(there, back)
    assert there[0] == pytest.approx(1.0, abs=1e-6)
    assert there[1] == 0.0


def test_a_network_against_itself_diverges_by_exactly_nothing() -> None:
    found = compared(torch.tensor(P).float(), torch.tensor(P).float(), batch())
    assert found["kl"].tolist() == [0.0] * B
    assert np.abs(found["jsd"]).max() < 1e-7
    assert found["same"].all()


def test_without_targets_nothing_is_correct_and_losses_are_zero() -> None:
    found = compared(torch.tensor(P), torch.tensor(Q), batch())
    assert not any(found[m].any() for m in ("net_correct", "proxy_correct", "both_correct", "net_loss", "proxy_loss"))


def test_margin_is_the_lead_of_the_predicted_class() -> None:
    p = Scoring().predictions(torch.tensor([[1.0, 4.0, 2.5], [7.0, 7.0, 0.0]]), batch(2))
    assert p.margin.tolist() == [1.5, 0.0]


def test_candidates_restrict_the_prediction_and_the_margin_but_not_the_divergence() -> None:
    s = Scoring(candidates=(1, 4))
    found = compared(torch.tensor(P), torch.tensor(Q), batch(targets=torch.tensor(TARGETS)), s)
    np.testing.assert_array_equal(s.predictions(torch.tensor(P), batch()).top, P[:, 1:4].argmax(1) + 1)
    lead = np.sort(P[:, 1:4], axis=1)
    np.testing.assert_allclose(s.predictions(torch.tensor(P), batch()).margin, lead[:, 2] - lead[:, 1])
    np.testing.assert_allclose(found["kl"], entropy(softmax(P, 1), softmax(Q, 1), axis=1), rtol=1e-12)


@pytest.mark.parametrize("marks", ["scored", "mask", "none"])
def test_of_positions_those_count_that_are_marked(marks: str) -> None:
    logits = torch.tensor(RNG.normal(size=(B, T, V)))
    pick = torch.tensor(RNG.random((B, T)) < 0.5) if marks != "none" else torch.ones(B, T, dtype=torch.bool)
    targets = torch.tensor(RNG.integers(0, V, size=(B, T)))
    depth = torch.arange(B * T).reshape(B, T)
    b = batch(targets=targets, strata={"depth": depth, "kind": torch.arange(B)})
    b = b if marks == "none" else Batch(**{**vars(b), marks: pick})
    if marks == "scored":  # and scored goes before mask
        b = Batch(**{**vars(b), "mask": torch.ones(B, T, dtype=torch.bool)})
    p = Scoring().predictions(logits, b)
    rows, columns = np.nonzero(pick.numpy())
    np.testing.assert_array_equal(p.item, rows + 10)
    np.testing.assert_array_equal(p.place, columns)
    np.testing.assert_array_equal(p.logits, logits.numpy()[rows, columns])
    assert p.targets is not None
    np.testing.assert_array_equal(p.targets, targets.numpy()[rows, columns])
    np.testing.assert_array_equal(p.strata["depth"], depth.numpy()[rows, columns])
    np.testing.assert_array_equal(p.strata["kind"], rows)


def test_one_prediction_an_item_ignores_the_mask_of_its_tokens() -> None:
    p = Scoring().predictions(torch.tensor(P), batch(mask=torch.zeros(B, T, dtype=torch.bool)))
    np.testing.assert_array_equal(p.item, np.arange(10, 10 + B))


def _model_output(logits: Tensor) -> Any:
    outputs = pytest.importorskip("transformers.modeling_outputs")
    return outputs.CausalLMOutput(loss=torch.zeros(()), logits=logits)


@pytest.mark.parametrize(
    ("wrap", "output"),
    [
        (lambda x: {"hidden": x + 1, "logits": x}, ""),
        (lambda x: {"hidden": x + 1, "scores": x}, "scores"),
        (lambda x: (x + 1, x), "1"),
        (lambda x: [x, x + 1], "0"),
        (_model_output, ""),
    ],
    ids=["dict", "named", "tuple", "list", "model output"],
)
def test_logits_are_found_in_nested_outputs(wrap: Any, output: str) -> None:
    p = Scoring(output).predictions(wrap(torch.tensor(P)), batch())
    np.testing.assert_array_equal(p.logits, P)


@pytest.mark.parametrize(
    ("scoring", "output", "b", "words"),
    [
        (Scoring(), torch.zeros(B), batch(), ["(6,)", "(B, V) or (B, T, V)"]),
        (Scoring(), torch.zeros(B + 1, V), batch(), ["(7, 5)", "6 items"]),
        (Scoring(), {"hidden": torch.zeros(B, V)}, batch(), ["dict", "output=...", "hidden"]),
        (Scoring("logit"), {"logits": torch.zeros(B, V)}, batch(), ["logits"]),
        (Scoring(), (torch.zeros(B, V),), batch(), ["tuple", "0"]),
        (Scoring("loss"), {"loss": 3.0}, batch(), ["'loss'", "float"]),
        (Scoring(), None, batch(), ["NoneType", "tensor of logits"]),
        (Scoring(), torch.zeros(B, T, V), batch(mask=torch.ones(B, T + 1, dtype=torch.bool)), ["(6, 4)", "(6, 5)"]),
        (Scoring(), torch.zeros(B, V), batch(targets=torch.full((B,), V)), ["5 to 5", "5 classes"]),
        (Scoring(), torch.zeros(B, V), batch(targets=torch.full((B,), -100)), ["-100", "scored=..."]),
        (Scoring(), torch.zeros(B, V), batch(targets=torch.zeros(B, T, dtype=torch.long)), ["(6, 4)", "(6,)"]),
        (Scoring(candidates=(2, V + 1)), torch.zeros(B, V), batch(), ["2 to 6", "5 classes"]),
        (Scoring(candidates=(2, 2)), torch.zeros(B, V), batch(), ["2 to 2"]),
        (Scoring(), torch.zeros(B, 1), batch(), ["at least two classes"]),
    ],
)
def test_outputs_that_cannot_be_scored_are_refused(scoring: Scoring, output: Any, b: Batch, words: list[str]) -> None:
    with pytest.raises(NetworkError) as error:
        scoring.predictions(output, b)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_padding_may_hold_targets_that_are_no_class() -> None:
    targets, pick = torch.zeros(B, T, dtype=torch.long), torch.ones(B, T, dtype=torch.bool)
    targets[:, -1], pick[:, -1] = -100, False
    p = Scoring().predictions(torch.zeros(B, T, V), batch(targets=targets, scored=pick))
    assert p.loss.tolist() == pytest.approx([np.log(V)] * (B * (T - 1)))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_not_finite_names_split_and_items(bad: float) -> None:
    logits = torch.tensor(P)
    logits[[1, 4], 2] = bad
    with pytest.raises(NonFiniteError, match=r"on split 'rotated'.*\[11, 14\]"):
        Scoring().predictions(logits, batch(), where=" on split 'rotated'")


def test_large_logits_of_a_half_precision_network_are_finite() -> None:
    p = Scoring().predictions(torch.full((B, V), 60_000.0, dtype=torch.float16), batch())
    assert p.log_p.dtype == torch.float32
    assert p.loss.tolist() == [0.0] * B
