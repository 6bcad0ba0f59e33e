"""Similarity beside some features: partial RSA, variance partitioning of an RDM, similarity after features are taken out.

Three ways to ask whether two networks are alike in more than one loud feature, which answer different questions:

- *Partial RSA* regresses the features' model RDMs out of both RDMs and correlates what is left. It supposes that a feature
  adds its own multiple of its model RDM to the distances; this holds for squared Euclidean ones.
- *Without the subspace*: what is alike in the directions that do not hold the feature. These are found on the fit split.
- *Without the labels*: what is alike in the activations less what the labels predict; the directions stay.

None shows that a feature is or is not used. Pairs that share a stimulus are dependent, so none of the regressions over
pairs has a textbook standard error; resample stimuli.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from torch import Tensor

from heldout.analyses.features.labels import Coding, Feature, Kind, checked
from heldout.analyses.features.moments import JointMoments, moments_of
from heldout.analyses.features.variance import commonality, parts, subsets
from heldout.analyses.similarity.checks import Floats
from heldout.analyses.similarity.corrections import Scorer, scorer
from heldout.analyses.similarity.rdm import stimuli_of
from heldout.analyses.similarity.subspaces import Subspaces
from heldout.errors import ConfigError, NonFiniteError, StatisticsError, unknown

By = Literal["pearson", "spearman"]
LEFT = 1e-10  # share of an RDM's variance below which nothing but rounding is left of it
ALL = "*"


def model_rdms(labels: Mapping[str, ArrayLike], kinds: Mapping[str, Kind] | None = None) -> dict[str, Floats]:
    """label -> condensed model RDM (N(N-1)/2,): 1 where two stimuli differ in it, 0 where not; the absolute difference of
    a continuous label. `kinds` as for `Coding.fit`; a label that is constant raises `StatisticsError`."""
    columns = checked(labels)
    found = {}
    for feature in Coding.fit(columns, kinds).features:
        values = columns[feature.name]
        i, j = np.triu_indices(len(values), 1)
        if feature.kind == "continuous":
            numbers = values.astype(np.float64)
            found[feature.name] = np.abs(numbers[i] - numbers[j])
        else:
            codes = feature.codes(values)
            found[feature.name] = (codes[i] != codes[j]).astype(np.float64)
    return found


def partial_rsa(a: ArrayLike, b: ArrayLike, controls: Mapping[str, ArrayLike], by: By = "pearson") -> float:
    """Partial correlation, -1 to 1, of two condensed RDMs (m,), given the model RDMs in `controls`, name -> (m,).

    ``spearman`` takes ranks of all of them first. Raises `StatisticsError` where the controls determine one of the RDMs.
    """
    left = control(controls, by)
    return float(np.clip(left(_condensed(a, "a")) @ left(_condensed(b, "b")), -1, 1))


def control(controls: Mapping[str, ArrayLike], by: By = "pearson") -> Callable[[Floats], Floats]:
    """A function from RDMs (m,) to residuals (m,) of length 1, whose inner products are partial correlations."""
    models = [_ranked(_condensed(model, f"the model of {name!r}"), by) for name, model in controls.items()]
    if not models:
        raise ConfigError("no model RDMs were given to control for; name one or more")
    lengths = {len(model) for model in models}
    if len(lengths) > 1:
        raise StatisticsError(f"model RDMs have different lengths, {sorted(lengths)}; all are of the same stimuli")
    design = np.stack([model - model.mean() for model in models], axis=1)
    u, size, _ = np.linalg.svd(design, full_matrices=False)
    if not size[0] > 0:
        raise StatisticsError("the model RDMs are constant: there is nothing to control for")
    space = u[:, size > LEFT * size[0]]

    def residual(distances: Floats) -> Floats:
        if len(distances) != len(space):
            raise StatisticsError(
                f"an RDM of {len(distances)} distances and models of {len(space)}: all are of the same stimuli"
            )
        z = _ranked(distances, by)
        left: Floats = z - z.mean()
        whole = float(np.linalg.norm(left))
        left -= space @ (space.T @ left)
        norm = float(np.linalg.norm(left))
        if norm <= np.sqrt(LEFT) * whole:
            raise StatisticsError(
                "the model RDMs determine an RDM (or it is constant): nothing is left of it to correlate; control for "
                "fewer features"
            )
        left /= norm
        return left

    return residual


def partition(distances: ArrayLike, models: Mapping[str, ArrayLike], by: By = "pearson") -> pd.DataFrame:
    """What model RDMs, one a feature, explain of the variance of a condensed RDM (m,), by least squares over all pairs.

    Columns ``feature``, ``alone`` (R^2 by itself), ``unique`` (what R^2 of all loses without it), ``shared`` (alone less
    unique, negative where others sharpen it); the last row, feature ``*``, has R^2 of all in ``alone`` and ``unique``. In
    sample: pairs are many, but stimuli are what there are few of. ``spearman`` takes ranks first.
    """
    moments, coding = _regression(distances, models, by)
    found = parts(moments, moments, coding)
    whole = subsets(moments, moments, coding)[coding.names]
    rows = [{"feature": name, **part._asdict()} for name, part in found.items()]
    return pd.DataFrame([*rows, {"feature": ALL, "alone": whole, "unique": whole, "shared": 0.0}])


def common(distances: ArrayLike, models: Mapping[str, ArrayLike], by: By = "pearson") -> pd.DataFrame:
    """The same R^2 cut into what each *set* of features explains in common and with no other (see `commonality`).

    Columns ``features`` (names joined by `` & ``) and ``share``; shares add up to R^2 of all.
    """
    moments, coding = _regression(distances, models, by)
    shares = commonality(subsets(moments, moments, coding))
    return pd.DataFrame({"features": [" & ".join(names) for names in shares], "share": list(shares.values())})


def similarity_without_subspace(
    x_fit: ArrayLike | Tensor,
    y_fit: ArrayLike | Tensor,
    labels_fit: Mapping[str, ArrayLike],
    x: ArrayLike | Tensor,
    y: ArrayLike | Tensor,
    names: Sequence[str],
    *,
    measure: str | Scorer = "cka",
) -> float:
    """Similarity of x (N, Dx) and y (N, Dy) after the subspaces of the labels `names` are removed from both.

    Subspaces come from x_fit (n, Dx), y_fit (n, Dy) and `labels_fit`, name -> (n,), alone; the labels of the stimuli
    compared are not looked at.
    """
    of_x, of_y = Subspaces.fit(x_fit, labels_fit), Subspaces.fit(y_fit, labels_fit)
    return scorer(measure)(of_x.without(x, *names), of_y.without(y, *names))


def similarity_without_labels(
    x_fit: ArrayLike | Tensor,
    y_fit: ArrayLike | Tensor,
    labels_fit: Mapping[str, ArrayLike],
    x: ArrayLike | Tensor,
    y: ArrayLike | Tensor,
    labels: Mapping[str, ArrayLike],
    names: Sequence[str],
    *,
    measure: str | Scorer = "cka",
) -> float:
    """Similarity of x (N, Dx) and y (N, Dy) less what `labels`, name -> (N,), say of them by maps fitted on the fit split;
    with CKA, and the fit split itself compared, labels are projected out of the Gram matrices. Else as above."""
    of_x, of_y = Subspaces.fit(x_fit, labels_fit), Subspaces.fit(y_fit, labels_fit)
    return scorer(measure)(of_x.unlabelled(x, labels, *names), of_y.unlabelled(y, labels, *names))


def _regression(distances: ArrayLike, models: Mapping[str, ArrayLike], by: By) -> tuple[JointMoments, Coding]:
    """Pairs as rows, models as continuous labels: what `features.variance` partitions."""
    z = _ranked(_condensed(distances, "the RDM"), by)
    columns = {
        name: _ranked(_condensed(m, f"the model of {name!r}"), by) for name, m in checked(models, len(z)).items()
    }
    for name, values in columns.items():
        if not np.ptp(values) > 0:
            raise StatisticsError(f"the model RDM of {name!r} is constant: it explains nothing")
    coding = Coding(tuple(Feature(name, "continuous", slice(i, i + 1)) for i, name in enumerate(columns)))
    return moments_of(z[:, None], np.stack(list(columns.values()), axis=1)), coding


def _condensed(rdm: ArrayLike, name: str) -> Floats:
    values = np.asarray(rdm, dtype=np.float64)
    stimuli_of(values)
    if not np.isfinite(values).all():
        raise NonFiniteError(f"{name} holds NaN or infinite distances; only finite ones can be compared")
    return values


def _ranked(values: Floats, by: By) -> Floats:
    from scipy.stats import rankdata

    if by not in ("pearson", "spearman"):
        raise ConfigError(unknown("comparator", by, ("pearson", "spearman")))
    return np.asarray(rankdata(values), dtype=np.float64) if by == "spearman" else values
