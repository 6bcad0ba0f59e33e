"""Regression and embedding outputs on cases whose answer is known; nothing depends on the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import heldout
from heldout.activations.tap import Tap
from heldout.analyses.outputs import Embedding, Regression, calibrated, calibration, restored
from heldout.analyses.scoring import compare
from heldout.errors import ConfigError, NetworkError, SplitError
from heldout.tasks.base import Batch

N, D = 30, 4
X = torch.randn(N, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def batch(n: int = N, **more: Tensor) -> Batch:
    return Batch(torch.zeros(n, 1), torch.arange(n), **more)


def split(x: Tensor = X) -> heldout.Split:
    return heldout.split("id", "test", x)


def regression(tolerance: float = 0.1) -> Regression:
    made = calibrated(Regression(tolerance=tolerance), nn.Identity(), split())
    assert isinstance(made, Regression)
    return made


def test_scale_is_the_standard_deviation_of_the_output_whatever_the_batch() -> None:
    for size in (1, 7, 100):
        made = calibrated(Regression(), nn.Identity(), split(), batch_size=size)
        assert isinstance(made, Regression)
        torch.testing.assert_close(made.scale, X.std(dim=0))
        torch.testing.assert_close(made.centre, X.mean(dim=0))


def test_a_shift_by_a_share_of_the_scale_is_the_same_up_to_the_tolerance() -> None:
    s = regression(0.1)
    assert s.scale is not None
    near, far = X + 0.099 * s.scale, X + 0.101 * s.scale
    own = s.predictions(X, batch())
    assert compare(own, s.predictions(near, batch()))["same"].all()
    assert not compare(own, s.predictions(far, batch()))["same"].any()
    np.testing.assert_allclose(compare(own, s.predictions(far, batch()))["squared"], 0.101**2)


def test_r_squared_of_sums_is_scikit_learns_on_the_calibration_split() -> None:
    from sklearn.metrics import r2_score

    noisy = X + 0.3 * torch.randn(N, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    s = regression()
    found = compare(s.predictions(X, batch()), s.predictions(noisy, batch()))
    ours = 1 - float(found["squared"].sum() / found["spread"].sum())
    assert ours == pytest.approx(r2_score(X.numpy(), noisy.numpy(), multioutput="uniform_average"))


def test_the_mean_has_r_squared_zero_and_the_network_itself_one() -> None:
    s = regression()
    own = s.predictions(X, batch())
    mean = compare(own, s.predictions(X.mean(dim=0).expand(N, D), batch()))
    assert float(mean["squared"].sum() / mean["spread"].sum()) == pytest.approx(1.0)
    assert float(compare(own, own)["squared"].sum()) == 0.0


def test_targets_of_numbers_give_errors_in_units_of_the_scale() -> None:
    s = regression()
    assert s.scale is not None
    found = compare(*(s.predictions(v, batch(targets=X)) for v in (X + s.scale, X)))
    np.testing.assert_allclose(found["net_loss"], 1.0)
    np.testing.assert_allclose(found["proxy_loss"], 0.0)
    assert not found["net_correct"].any()
    assert found["proxy_correct"].all()


def test_one_number_an_item_may_come_without_a_dimension() -> None:
    network = nn.Flatten(0)
    made = calibrated(Regression(), network, split(X[:, :1]))
    p = made.predictions(X[:, 0], batch(targets=X[:, 0]))
    assert p.logits.shape == (N, 1)
    assert p.correct.all()


def embedding(**more: int) -> Embedding:
    made = calibrated(Embedding(**more), nn.Identity(), split())
    assert isinstance(made, Embedding)
    return made


def test_neighbours_equal_scikit_learns() -> None:
    from sklearn.neighbors import NearestNeighbors

    other = X + 0.5 * torch.randn(N, D, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    s, k = embedding(neighbours=5), 5
    found = compare(s.predictions(X, batch()), s.predictions(other, batch()))
    search = NearestNeighbors(n_neighbors=N, metric="cosine").fit(X.numpy())
    shares, nearest = [], []
    for i in range(N):
        mine, theirs = (
            [j for j in search.kneighbors(v[i : i + 1].numpy(), return_distance=False)[0] if j != i] for v in (X, other)
        )
        shares.append(len({*mine[:k]} & {*theirs[:k]}) / k)
        nearest.append(mine[0] == theirs[0])
    np.testing.assert_allclose(found["neighbours"], shares)
    assert found["same"].tolist() == nearest
    assert 0 < sum(nearest) < N  # or the comparison would show nothing
    np.testing.assert_allclose(found["cosine"], torch.cosine_similarity(X, other, dim=1))


def test_length_does_not_count_and_no_item_is_its_own_neighbour() -> None:
    s = embedding()
    own = s.predictions(X, batch())
    assert (own.top != torch.arange(N)).all()
    found = compare(own, s.predictions(3 * X, batch()))
    assert found["same"].all()
    np.testing.assert_allclose(found["neighbours"], 1.0)
    np.testing.assert_allclose(found["distance"], 0.0, atol=1e-12)


@pytest.mark.parametrize("scoring", [Regression(tolerance=0.3), Embedding(neighbours=4, size=11)])
def test_no_metric_depends_on_the_batch(scoring: heldout.Scoring) -> None:
    other = X + 0.2 * torch.randn(N, D, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    totals = []
    for size in (1, 8, N):
        s = calibrated(scoring, nn.Identity(), split(), batch_size=size)
        sums: dict[str, float] = {}
        for at in torch.arange(N).split(size):
            here = Batch(torch.zeros(len(at), 1), at)
            found = compare(s.predictions(X[at], here), s.predictions(other[at], here))
            for name, values in found.items():
                sums[name] = sums.get(name, 0.0) + float(values.double().sum())
        totals.append(sums)
    for sums in totals[1:]:
        assert sums == pytest.approx(totals[0])


@pytest.mark.parametrize("scoring", [Regression(), Embedding()])
def test_what_was_measured_can_be_stored_and_put_back(scoring: heldout.Scoring) -> None:
    made = calibrated(scoring, nn.Identity(), split())
    again = restored(scoring, calibration(made))
    first, second = (compare(s.predictions(X, batch()), s.predictions(X + 0.1, batch())) for s in (made, again))
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_classes_need_no_calibration() -> None:
    assert calibrated(heldout.Scoring(), nn.Identity(), split()) == heldout.Scoring()
    assert calibration(heldout.Scoring()) == {}


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(ConfigError, match="calibrated"):
        Regression().predictions(X, batch())
    with pytest.raises(ConfigError, match="calibrated"):
        Embedding().predictions(X, batch())
    with pytest.raises(SplitError, match="does not vary"):
        calibrated(Regression(), nn.Identity(), split(torch.ones(5, 2)))
    with pytest.raises(SplitError, match="at least three"):
        calibrated(Embedding(), nn.Identity(), split(X[:2]))
    with pytest.raises(NetworkError, match=r"4 numbers a prediction.*\(2,\)"):
        regression().predictions(X, batch(targets=X[:, :2]))
    with pytest.raises(NetworkError, match="width 3"):
        embedding().predictions(X[:, :3], batch())
    with pytest.raises(heldout.HeldoutError, match="NaN"):
        regression().predictions(X.masked_fill(X > 1, torch.nan), batch())


def test_taps_are_closed_after_calibration() -> None:
    network = nn.Linear(D, 2).double()
    calibrated(Regression(), network, split())
    assert not network._forward_hooks
    with Tap(network):
        pass
