"""Proxies against closed forms and scikit-learn, and the battery against proxies that are broken on purpose."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Self

import numpy as np
import pytest
import torch
from sklearn import decomposition
from sklearn.cluster import KMeans as SklearnKMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.extmath import svd_flip
from torch import Tensor, nn

from heldout.activations.accumulators import Moments
from heldout.errors import NonFiniteError, ProxyError
from heldout.proxies.base import Proxy
from heldout.proxies.checks import check_nested, check_proxy, sample
from heldout.proxies.clusters import KMeans
from heldout.proxies.controls import Mean, RandomSubspace
from heldout.proxies.svd import SVD
from heldout.proxies.wrapped import Autoencoder, Estimator


def autoencoder() -> Autoencoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Autoencoder(nn.Sequential(nn.Linear(16, 8), nn.ReLU()), nn.Linear(8, 16))


PROXIES: dict[str, Callable[[], Proxy]] = {
    "svd": lambda: SVD(4),
    "svd of every rank": SVD,
    "pca": lambda: SVD(4, centred=True),
    "svd at 0": lambda: SVD(0),
    "k-means": lambda: KMeans(8, restarts=1),
    "one cluster": lambda: KMeans(1),
    "mean": Mean,
    "random subspace": lambda: RandomSubspace(4, seed=0),
    "centred random subspace": lambda: RandomSubspace(4, seed=0, centred=True),
    "sklearn pca": lambda: Estimator(decomposition.PCA(4)),
    "sklearn ica": lambda: Estimator(decomposition.FastICA(4, random_state=0, max_iter=2000, tol=1e-3)),
    "autoencoder": autoencoder,
}


@pytest.mark.parametrize("name", PROXIES)
def test_the_battery(name: str) -> None:
    check_proxy(PROXIES[name])


@pytest.mark.parametrize("centred", [False, True])
def test_the_nested_battery(centred: bool) -> None:
    check_nested(lambda rank: SVD(rank, centred=centred))
    check_nested(lambda rank: RandomSubspace(rank, seed=3, centred=centred))
    check_nested(lambda rank: SVD(centred=centred).fit(sample(400, 16)).at(rank))


class Broken:
    """Keeps its rows, but for one fault."""

    def __init__(self, fault: str, draw: list[int] | None = None) -> None:
        self.fault, self.draw = fault, [0] if draw is None else draw

    def fit(self, x: Tensor) -> Self:
        self.draw[0] += 1
        return self

    def reconstruct(self, x: Tensor) -> Tensor:
        self.draw[0] += 1
        if self.fault == "shape":
            return x[:, :-1]
        if self.fault == "dtype":
            return x.double()
        if self.fault == "in place":
            return x.mul_(0.5)
        if self.fault == "deterministic":
            return x + self.draw[0]
        if self.fault == "order":
            return x * torch.arange(len(x))[:, None]
        if self.fault == "batch":
            return x - x.mean(0)
        if self.fault == "padding":
            return x / len(x) if len(x) == 27 else x.clone()
        return x.clone()


@pytest.mark.parametrize("fault", ["shape", "dtype", "in place", "deterministic", "order", "batch", "padding"])
def test_the_battery_fails_on_what_is_broken(fault: str) -> None:
    check_proxy(lambda: Broken(""))
    with pytest.raises(AssertionError, match=fault):
        check_proxy(lambda: Broken(fault))


def test_the_battery_fails_on_fits_that_differ() -> None:
    count = iter(range(100))
    with pytest.raises(AssertionError, match="two fits differ"):
        check_proxy(lambda: RandomSubspace(4, seed=next(count)))


def test_the_nested_battery_fails_on_what_does_not_nest() -> None:
    with pytest.raises(AssertionError, match="ranks do not nest"):
        check_nested(lambda rank: RandomSubspace(rank, seed=rank))
    with pytest.raises(AssertionError, match="full rank differs"):
        check_nested(lambda rank: SVD(rank - 1 or 1))
    with pytest.raises(AssertionError, match="error rises"):
        check_nested(lambda rank: SVD(16 if rank == 1 else rank))


@pytest.mark.parametrize("rank", [0, 1, 5, 16])
def test_svd_is_the_truncated_decomposition(rank: int) -> None:
    x = sample(300, 16).double()
    u, s, v = np.linalg.svd(x.numpy(), full_matrices=False)
    fit = SVD(rank).fit(x)
    np.testing.assert_allclose(fit.reconstruct(x), (u[:, :rank] * s[:rank]) @ v[:rank], atol=1e-10)
    np.testing.assert_allclose(fit.spectrum_, s**2 / 300, atol=1e-10)
    np.testing.assert_allclose(fit.explained(), np.cumsum(s**2) / (s**2).sum(), atol=1e-12)
    _, signed = svd_flip(u, v, u_based_decision=False)
    np.testing.assert_allclose(fit.components_, signed, atol=1e-7)


def test_pca_is_scikit_learns() -> None:
    x, new = sample(300, 16).double(), sample(50, 16, seed=5).double()
    theirs = decomposition.PCA(5, svd_solver="full").fit(x.numpy())
    ours = SVD(5, centred=True).fit(x)
    np.testing.assert_allclose(
        ours.reconstruct(new), theirs.inverse_transform(theirs.transform(new.numpy())), atol=1e-10
    )
    np.testing.assert_allclose(ours.components_[:5], theirs.components_, atol=1e-8)
    np.testing.assert_allclose(ours.explained()[:5], np.cumsum(theirs.explained_variance_ratio_), atol=1e-10)
    np.testing.assert_allclose(
        Estimator(decomposition.PCA(5)).fit(x).reconstruct(new), ours.reconstruct(new), atol=1e-8
    )
    truncated = decomposition.TruncatedSVD(5, algorithm="arpack", random_state=0).fit(x.numpy())
    np.testing.assert_allclose(
        SVD(5).fit(x).reconstruct(new), truncated.inverse_transform(truncated.transform(new.numpy())), atol=1e-8
    )


@pytest.mark.parametrize(
    "make", [lambda: SVD(3), lambda: SVD(3, centred=True), Mean, lambda: RandomSubspace(3, seed=1, centred=True)]
)
def test_fitting_on_moments_is_fitting_on_rows(make: Callable[[], SVD]) -> None:
    x = sample(300, 16)
    moments = Moments()
    for chunk in x.split(37):
        moments.update(chunk)
    torch.testing.assert_close(
        make().fit_moments(moments).reconstruct(x), make().fit(x).reconstruct(x), atol=1e-5, rtol=0
    )
    with pytest.raises(ProxyError, match="nothing to fit on"):
        make().fit_moments(Moments())


def test_cutting_and_choosing() -> None:
    x = sample(300, 16).double()
    full = SVD().fit(x)
    for rank in (0, 3, 16):
        torch.testing.assert_close(full.at(rank).reconstruct(x), SVD(rank).fit(x).reconstruct(x))
    torch.testing.assert_close(full.at(3).at(5).reconstruct(x), full.at(5).reconstruct(x))
    torch.testing.assert_close(full.keeping([0, 1, 2]).reconstruct(x), full.at(3).reconstruct(x))
    torch.testing.assert_close(
        full.keeping([4, 7]).reconstruct(x) + full.keeping([c for c in range(16) if c not in (4, 7)]).reconstruct(x), x
    )
    shares = full.explained().diff(prepend=torch.zeros(1))
    torch.testing.assert_close(full.keeping([4, 7]).explained(), shares[[4, 7]].cumsum(0))
    torch.testing.assert_close(full.keeping([4, 7]).at(1).reconstruct(x), full.keeping([4]).reconstruct(x))
    torch.testing.assert_close(full.reconstruct(x), x)  # untouched by all of this
    for wrong in ([16], [-1], [2, 2]):
        with pytest.raises(ProxyError, match="choose different ones from 0 to 15"):
            full.keeping(wrong)
    with pytest.raises(ProxyError, match=r"rank 3 .* choose from 0 to 2"):
        full.keeping([4, 7]).at(3)


def test_rows_that_are_all_alike() -> None:
    x = torch.ones(10, 4)
    assert torch.equal(SVD(0, centred=True).fit(x).reconstruct(x), x)
    assert SVD(centred=True).fit(x).explained().tolist() == [1.0] * 4
    assert torch.equal(KMeans(1).fit(x).reconstruct(x), x)
    torch.testing.assert_close(SVD(1).fit(x).reconstruct(x), x)


def test_k_means_is_scikit_learns() -> None:
    x = sample(300, 6).double()
    ours = KMeans(7, restarts=2, seed=3).fit(x)
    theirs = SklearnKMeans(7, n_init=2, random_state=3).fit(x.numpy())
    assert ours.inertia_ == pytest.approx(theirs.inertia_, rel=1e-12)
    error = float(((x - ours.reconstruct(x)) ** 2).sum())
    assert error == pytest.approx(theirs.inertia_, rel=1e-9)
    np.testing.assert_allclose(ours.centroids_[ours.assign(x)], theirs.cluster_centers_[theirs.labels_])
    assert ours.centroids_[:, 0].tolist() == sorted(ours.centroids_[:, 0].tolist())
    new = sample(50, 6, seed=9).double()
    brute = torch.cdist(new, ours.centroids_).argmin(1)
    assert torch.equal(ours.assign(new), brute)


def test_k_means_far_from_the_origin() -> None:
    """In float32, squared norms of 1e6 would drown the distances; about the centroids' centre they do not."""
    x = (sample(300, 6) + 1000).float()
    ours = KMeans(7, restarts=1).fit(x)
    expected = torch.cdist(x.double(), ours.centroids_).argmin(1)
    assert torch.equal(ours.assign(x), expected)


def test_one_cluster_is_the_mean() -> None:
    x = sample(100, 6)
    torch.testing.assert_close(KMeans(1).fit(x).reconstruct(x), Mean().fit(x).reconstruct(x))
    torch.testing.assert_close(Mean().fit(x).reconstruct(x[:2])[0], x.mean(0))


def test_random_subspaces_keep_their_share_of_the_norm() -> None:
    """E |P x|^2 = K / D |x|^2, with variance 2 K (D - K) / (D^2 (D + 2)) for a unit vector (a beta distribution)."""
    width, rank, draws = 12, 3, 800
    x = torch.eye(width)[:1]
    kept = torch.tensor([float((RandomSubspace(rank, seed=s).fit(x).reconstruct(x) ** 2).sum()) for s in range(draws)])
    spread = (2 * rank * (width - rank) / (width**2 * (width + 2))) ** 0.5
    assert abs(float(kept.mean()) - rank / width) < 4 * spread / draws**0.5
    assert float(kept.std()) == pytest.approx(spread, rel=0.1)
    fit = RandomSubspace(rank, seed=0).fit(x)
    torch.testing.assert_close(fit.basis_.T @ fit.basis_, torch.eye(rank, dtype=torch.float64))


def test_random_subspaces_about_the_mean_keep_the_mean() -> None:
    x = sample(100, 6)
    kept = RandomSubspace(0, seed=0, centred=True).fit(x).reconstruct(x)
    torch.testing.assert_close(kept, Mean().fit(x).reconstruct(x))


def test_an_estimator_with_a_domain() -> None:
    x = sample(200, 16).abs()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a rough fit will do
        proxy = Estimator(decomposition.NMF(4, random_state=0)).fit(x)
        y = proxy.reconstruct(x)
        assert float(y.min()) >= 0
        with pytest.raises(ProxyError, match="NMF cannot be applied: Negative values"):
            proxy.reconstruct(-x)
        with pytest.raises(ProxyError, match="NMF cannot be fitted: Negative values"):
            Estimator(decomposition.NMF(4)).fit(-x)


def test_an_autoencoder_is_used_as_it_is() -> None:
    proxy, x = autoencoder(), sample(10, 16)
    assert proxy.fit(x) is proxy
    with torch.no_grad():
        assert torch.equal(proxy.reconstruct(x), proxy.decoder(proxy.encoder(x)))
    assert not proxy.reconstruct(x).requires_grad
    with pytest.raises(ProxyError, match=r"returned \(10, 8\) for activations of shape \(10, 16\)"):
        Autoencoder(nn.Identity(), nn.Linear(16, 8)).reconstruct(x)
    with pytest.raises(ProxyError, match="returned tuple"):
        Autoencoder(nn.LSTM(16, 16), nn.Identity()).reconstruct(x)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (SVD, "SVD"),
        (lambda: SVD(centred=True), "PCA"),
        (lambda: KMeans(2), "k-means"),
        (Mean, "the mean"),
        (lambda: RandomSubspace(2, seed=0), "a random subspace"),
        (lambda: Estimator(decomposition.PCA(2)), "PCA"),
    ],
)
def test_misuse(make: Callable[[], Proxy], name: str) -> None:
    x = sample(20, 6)
    with pytest.raises(ProxyError, match="not fitted"):
        make().reconstruct(x)
    fit = make().fit(x)
    with pytest.raises(ProxyError, match="6"):
        fit.reconstruct(x[:, :5])
    for bad in (float("nan"), float("inf")):
        with pytest.raises(NonFiniteError, match=f"{name}: 1 of 20 rows"):
            make().fit(torch.where(torch.arange(20)[:, None] == 3, bad, x))
    for shape in ((0, 6), (20, 0), (20,), (2, 10, 6)):
        with pytest.raises(ProxyError, match="is fitted on a matrix"):
            make().fit(torch.zeros(shape))


def test_sizes_that_cannot_be() -> None:
    x = sample(20, 6)
    for make in (
        lambda rank: SVD(rank),
        lambda rank: SVD(rank, centred=True),
        lambda rank: RandomSubspace(rank, seed=0),
    ):
        for rank in (7, -1):
            with pytest.raises(ProxyError, match=f"rank {rank} for activations of width 6; choose from 0 to 6"):
                make(rank).fit(x)
    with pytest.raises(ProxyError, match="rank 7"):
        SVD().fit(x).at(7)
    with pytest.raises(ProxyError, match="not fitted"):
        SVD().at(2)
    with pytest.raises(ProxyError, match="21 clusters on 20 rows, 20 of them distinct"):
        KMeans(21).fit(x)
    with pytest.raises(ProxyError, match="3 clusters on 40 rows, 2 of them distinct; use at most 2"):
        KMeans(3).fit(x[:2].repeat(20, 1))
    with pytest.raises(ProxyError, match="at least one cluster, got 0"):
        KMeans(0).fit(x)
    with pytest.raises(ProxyError, match="KMeans has no inverse_transform"):
        Estimator(SklearnKMeans(2))


def test_precision_and_refitting() -> None:
    """One fit serves float32 and float64 rows in turn, and a second fit replaces the first."""
    for make in (lambda: SVD(3), lambda: KMeans(3), Mean, lambda: RandomSubspace(3, seed=0)):
        x, other = sample(50, 6), sample(50, 6, seed=8) + 3
        proxy = make().fit(x)
        single, double = proxy.reconstruct(x), proxy.reconstruct(x.double())
        assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
        torch.testing.assert_close(single.double(), double, atol=1e-5, rtol=0)
        assert torch.equal(proxy.reconstruct(x), single)
        assert torch.equal(proxy.fit(other).reconstruct(other), make().fit(other).reconstruct(other))


def test_an_autoencoder_runs_in_eval_mode_and_has_its_flags_back() -> None:
    encoder, decoder = nn.Sequential(nn.Linear(4, 9), nn.Dropout(0.5), nn.BatchNorm1d(9)), nn.Linear(9, 4)
    decoder.eval()
    x = torch.randn(11, 4, generator=torch.Generator().manual_seed(0))
    proxy = Autoencoder(encoder, decoder)
    whole = proxy.reconstruct(x)
    assert torch.equal(whole, proxy.reconstruct(x))  # no dropout
    torch.testing.assert_close(proxy.reconstruct(x[:3]), whole[:3])  # and no statistics of the batch
    assert encoder[2].num_batches_tracked == 0
    assert all(m.training for m in encoder.modules())
    assert not decoder.training
