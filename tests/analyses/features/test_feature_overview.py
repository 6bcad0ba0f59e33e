"""All figures of one place at once, and the warnings beside them."""

from __future__ import annotations

import numpy as np
import pytest
from planted_features import planted

from heldout.analyses.features.guards import guards, shared_rows
from heldout.analyses.features.labels import Coding
from heldout.analyses.features.moments import moments_of
from heldout.analyses.features.overview import Labelled, overview
from heldout.analyses.features.strength import strength
from heldout.evidence import Estimate

SIZES = {"loud": 3.0, "quiet": 0.8, "absent": 0.0}


@pytest.fixture(scope="module")
def found() -> tuple[dict[str, Estimate], object]:
    fit, test = planted(600, SIZES, seed=1), planted(600, SIZES, seed=2)
    whole = overview(
        Labelled(fit.x, fit.table),
        Labelled(test.x, test.table),
        Coding.fit(fit.table),
        seed=0,
        draws=200,
        elsewhere={"before": (-fit.x, -test.x)},
        split="id",
        site="hidden.0.act",
    )
    return {row.quantity: row for row in whole.estimates}, whole


def test_present_features_exceed_their_null_and_absent_ones_say_why_they_have_no_density(found) -> None:
    rows, whole = found
    for name in ("loud", "quiet"):
        row = rows[f"variance_explained:{name}"]
        assert row.value == strength(whole.errors, name)["variance_explained"].value
        assert row.low > row.null > 0
        assert rows[f"permutation_p:{name}"].value == pytest.approx(1 / 201)
        band = rows[f"variance_band:{name}"]
        assert band.low < band.value < band.high
        assert band.value == pytest.approx(row.value)
        assert rows[f"density:{name}"].value > 0
    assert rows["permutation_p:absent"].value > 0.01
    assert np.isnan(rows["density:absent"].value)
    assert "permutation null" in rows["density:absent"].reason
    assert rows["largest_component:loud"].value == 1
    assert rows["largest_component:quiet"].value == 2
    assert all(row.split == "id" and row.n == 600 for row in rows.values())
    assert whole.warnings == []


def test_the_same_seed_gives_the_same_numbers(found) -> None:
    fit, test = planted(100, SIZES, seed=1), planted(100, SIZES, seed=2)
    groups = np.arange(100) // 4
    sides = Labelled(fit.x, fit.table, groups), Labelled(test.x, test.table, groups)
    first, second = (overview(*sides, Coding.fit(fit.table), seed=3, draws=20) for _ in range(2))
    assert repr(first.estimates) == repr(second.estimates)
    assert {row.n for row in first.estimates} == {25}
    # A label of whole groups, beside others that vary within them, has no permutation within strata: said, and made without.
    for side in sides:
        side.table["whole"] = groups % 2  # type: ignore[index]
    whole = overview(*sides, Coding.fit(fit.table), seed=3, draws=20)
    (said,) = [w for w in whole.warnings if "'whole' is permuted with regard to clusters alone" in w]
    assert "the strata vary within" in said
    rows = {row.quantity: row for row in whole.estimates}
    assert rows["permutation_p:whole"].value > 0.05
    assert rows["permutation_p:loud"].value == pytest.approx(1 / 21)


def test_what_weakens_a_figure_is_said() -> None:
    rng = np.random.default_rng(0)
    table = {"rare": (np.arange(60) < 2).astype(int), "k": rng.integers(0, 8, size=60)}
    table["again"] = np.where(np.arange(60) == 40, 1 - table["rare"], table["rare"])
    table["copy"] = table["k"] * 10
    x = np.column_stack([rng.normal(size=(60, 2)), np.zeros((60, 2))])
    coding = Coding.fit(table)
    warnings = guards(coding, table, moments_of(x, coding.encode(table)), split="test")
    for part in ("60 rows for 16 label columns", "label 'rare' is 1 in 3.3% of rows", "50% of units are dead"):
        assert any(part in w for w in warnings), part
    assert any("explain 100% of label 'k'" in w for w in warnings)
    assert shared_rows(x, np.vstack([x[:3], x[:2] + 1])) == 3
