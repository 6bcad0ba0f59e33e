"""From a network and a split to edits: the same as capturing and fitting by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from heldout.activations.edits import Edit
from heldout.errors import ConfigError, ProxyError, SiteError, SplitError
from heldout.proxies import fit
from heldout.proxies.clusters import KMeans
from heldout.proxies.controls import Mean
from heldout.proxies.fit import FAMILIES, Family, fit_edits
from heldout.proxies.svd import SVD
from heldout.tasks.base import Rectangular, Split

X = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
NETWORK = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2)).eval()
for parameter in NETWORK.parameters():
    parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
FIT = Split("fit", "fit", Rectangular(X))
with torch.no_grad():
    ROWS = NETWORK[1](NETWORK[0](X))
FRESH = torch.randn(9, 6, generator=torch.Generator().manual_seed(2))


def applied(edit: Edit) -> Tensor:
    (function,) = edit.functions.values()
    return function(FRESH, None)


def test_every_family_is_its_proxy_fitted_on_the_captured_rows() -> None:
    edits = fit_edits(
        NETWORK, FIT, ["1"], [Family("svd", (2,)), Family("pca", (2,)), Family("kmeans", (3,)), Family("mean")]
    )
    by_hand = [SVD(2, centred=False).fit(ROWS), SVD(2, centred=True).fit(ROWS), KMeans(3).fit(ROWS), Mean().fit(ROWS)]
    for edit, proxy in zip(edits, by_hand, strict=True):
        torch.testing.assert_close(applied(edit), proxy.reconstruct(FRESH), rtol=1e-5, atol=1e-5)


def test_origins_say_where_an_edit_came_from() -> None:
    families = [Family("svd", (1, 2)), Family("kmeans", (3,), options={"restarts": 2}), Family("mean")]
    edits = fit_edits(NETWORK, FIT, ["0", "1"], families)
    assert [(e.origin.label, e.origin.site) for e in edits] == [
        *((label, "0") for label in ("svd-1", "svd-2", "kmeans-3", "mean")),
        *((label, "1") for label in ("svd-1", "svd-2", "kmeans-3", "mean")),
    ]
    assert {(e.origin.fit_split, e.origin.oracle) for e in edits} == {("fit", False)}
    assert edits[2].origin.settings == {"restarts": 2}


def test_draws_of_a_family_differ_and_share_an_origin() -> None:
    for name, size, sample in (("haar", 2, 60), ("kmeans", 4, 20)):
        edits = fit_edits(NETWORK, FIT, ["1"], [Family(name, (size,), draw=d) for d in range(3)], sample=sample)
        assert len({str(e.origin) for e in edits}) == 1
        assert not torch.equal(applied(edits[0]), applied(edits[1]))
        again = fit_edits(NETWORK, FIT, ["1"], [Family(name, (size,), draw=1)], sample=sample)
        assert torch.equal(applied(edits[1]), applied(again[0]))


def test_the_batch_size_changes_nothing_but_rounding() -> None:
    families = [Family("svd", (2,)), Family("kmeans", (3,)), Family("haar", (2,)), Family("mean")]
    for a, b in zip(*(fit_edits(NETWORK, FIT, ["1"], families, batch_size=s) for s in (7, 60)), strict=True):
        torch.testing.assert_close(applied(a), applied(b), rtol=1e-5, atol=1e-5)


def test_rows_are_kept_only_for_the_families_that_need_them(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    class Counted(fit.Reservoir):
        def __init__(self, size: int, *, seed: int, shard: int = 0) -> None:
            made.append(shard)
            super().__init__(size, seed=seed, shard=shard)

    monkeypatch.setattr(fit, "Reservoir", Counted)
    fit_edits(NETWORK, FIT, ["0", "1"], [*(Family("haar", (1,), draw=d) for d in range(20)), Family("svd", (1,))])
    assert made == []
    fit_edits(NETWORK, FIT, ["0", "1"], [Family("haar", (1,), draw=9), Family("kmeans", (2,), draw=4)])
    assert made == [4, 4]


def test_a_test_split_is_fitted_on_by_an_oracle_alone() -> None:
    test = Split("ood", "test", Rectangular(X))
    with pytest.raises(SplitError, match=r"svd, mean may not be fitted on split 'ood'.*oracle=True"):
        fit_edits(NETWORK, test, ["1"], [Family("svd", (1,)), Family("mean")])
    (edit,) = fit_edits(NETWORK, test, ["1"], [Family("svd", (1,))], oracle=True)
    assert edit.origin.label == "svd-1-oracle"


@pytest.mark.parametrize(
    ("family", "error", "words"),
    [
        (Family("svdd", (1,)), ConfigError, ["unknown proxy 'svdd'", *FAMILIES]),
        (Family("svd", (7,)), ProxyError, ["rank 7", "width 6", "from 0 to 6"]),
        (Family("haar", (7,)), ProxyError, ["rank 7", "width 6"]),
        (Family("kmeans", (61,)), ProxyError, ["61 clusters on 60 rows", "at most 60"]),
    ],
)
def test_what_does_not_fit_is_refused(family: Family, error: type[Exception], words: list[str]) -> None:
    with pytest.raises(error) as caught:
        fit_edits(NETWORK, FIT, ["1"], [family])
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_an_unknown_site_is_met_with_the_nearest() -> None:
    with pytest.raises(SiteError, match=r"'3'.*0, 1, 2"):
        fit_edits(NETWORK, FIT, ["3"], [Family("mean")])


def test_only_data_is_fitted_on_and_not_padding() -> None:
    x = torch.randn(20, 4, 3, generator=torch.Generator().manual_seed(3))
    mask = torch.from_numpy(np.random.default_rng(0).random((20, 4)) < 0.6)
    padded = x.clone()
    padded[~mask] = 1e3
    split = Split("fit", "fit", Rectangular(padded, mask=mask))
    flat = Split("fit", "fit", Rectangular(x[mask]))
    families = [Family("svd", (2,)), Family("kmeans", (3,)), Family("mean")]
    for a, b in zip(*(fit_edits(NETWORK, s, ["1"], families) for s in (split, flat)), strict=True):
        torch.testing.assert_close(applied(a), applied(b), rtol=1e-4, atol=1e-4)
