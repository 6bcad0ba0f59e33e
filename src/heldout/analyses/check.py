"""One network, one reading, some splits: does the reading hold where it was not made?

result = heldout.check(network, {"hidden.1": heldout.SVD(rank=8)}, splits)
print(result)
result.worst("rotated", 20)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from heldout.activations.accumulators import Moments, Reservoir
from heldout.activations.capture import Accumulator, capture
from heldout.activations.edits import Edit
from heldout.activations.sites import Site
from heldout.analyses.alone import check_items_alone
from heldout.analyses.damage import DRAWS, Matched, matched_damage
from heldout.analyses.disagreements import Disagreement, largest_disagreements
from heldout.analyses.estimates import Estimand, Scores, describe
from heldout.analyses.faithfulness import Check, Subject, faithfulness
from heldout.analyses.outputs import calibrated, scoring_of
from heldout.analyses.quantities import of_outputs
from heldout.analyses.scoring import Scoring
from heldout.analyses.tables import Memory
from heldout.errors import ConfigError, SplitError, choices
from heldout.evidence import Estimate, Origin
from heldout.tasks.base import Split, check_disjoint, require_fit
from heldout.tasks.targets import has_targets, with_next_tokens

ACCURACIES = {"network": "net_correct", "edited": "proxy_correct"}
SAMPLE = 20_000  # rows that a proxy without `fit_moments` is fitted on, at most


@dataclass(frozen=True, eq=False)
class Checked:
    """What `check` found: `identity`, `null` (how well the null matches) and `estimates`, one a split and quantity.

    Quantities: ``same_prediction``; of classes ``kl`` and ``jsd``, of numbers ``mean_squared`` and ``r_squared``, of
    embeddings ``neighbour_agreement`` and ``cosine``; ``accuracy_network`` and ``accuracy_edited`` where there are
    targets; and for every split but the reference ``gap`` (same prediction on the reference minus on the split; ``null``
    is the gap of equally damaging noise) and ``excess_gap`` (their difference). Intervals: 95%, percentile bootstrap over
    units. They describe this network; how another training run would fare needs more networks.
    """

    subject: Subject
    edit: Edit
    splits: Mapping[str, Split]
    reference: str
    identity: Check
    null: Matched
    estimates: tuple[Estimate, ...]
    batch_size: int

    def __getitem__(self, key: tuple[str, str]) -> Estimate:
        """``result["gap", "rotated"]``: one estimate by quantity and split."""
        for estimate in self.estimates:
            if (estimate.quantity, estimate.split) == key:
                return estimate
        known = [f"{e.quantity} on {e.split}" for e in self.estimates]
        raise ConfigError(f"no estimate of {key[0]!r} on {key[1]!r}; {choices(' on '.join(key), known)}")

    def __str__(self) -> str:
        first = self.identity
        lines = [
            f"{self.edit.origin.label} at {self.edit.origin.site}, gaps from {self.reference!r}",
            f"identity edit changes the output by {first.difference:.2g} (rounding: {first.tolerance:.2g}); "
            f"replay {first.replay}",
        ]
        if self.null.reason:
            lines.append(f"null: {self.null.reason}")
        lines.append(f"{'split':<18}{'n':>7}  {'same prediction':<23}{'gap':<24}{'gap minus null':<24}{'accuracy':<10}")
        for name in dict.fromkeys(e.split for e in self.estimates):
            row = {e.quantity: e for e in self.estimates if e.split == name}
            right = [row[q].value for q in ("accuracy_network", "accuracy_edited") if q in row]
            accuracy = " -> ".join(f"{value:.3f}" for value in right) or "no targets"
            gaps = "".join(f"{_interval(row.get(q), signed=True):<24}" for q in ("gap", "excess_gap"))
            same = row["same_prediction"]
            lines.append(f"{name[:17]:<18}{same.n:>7}  {_interval(same):<23}{gaps}{accuracy}")
        return "\n".join(lines)

    def worst(self, split: str, n: int = 20, *, decode: Callable[[Any], Any] | None = None) -> list[Disagreement]:
        """The `n` largest disagreements on a split: other predictions first, then by divergence; `decode` turns the
        network's, the edited and the target's class into names."""
        if split not in self.splits:
            raise SplitError(f"no split {split!r}; {choices(split, self.splits)}")
        (found,) = largest_disagreements(self.subject, self.splits[split], [self.edit], n=n, batch_size=self.batch_size)
        if decode is None:
            return found
        named = ("network", "edited", "target")
        return [replace(d, **{k: decode(v) for k in named if (v := getattr(d, k)) is not None}) for d in found]


def check(
    network: nn.Module,
    reading: Edit | Mapping[str, Any],
    splits: Sequence[Split],
    *,
    reference: str | None = None,
    scoring: Scoring | str = "classification",
    null_draws: int = DRAWS,
    seed: int = 0,
    batch_size: int = 256,
    device: str = "cpu",
) -> Checked:
    """Test a reading of `network` on every split that is not fitted on.

    - `reading`: an `Edit`, or a mapping from sites to what replaces them: a proxy (fitted here, on the split whose role
      is ``fit``) or a function (rows (B, ..., D), mask) -> rows.
    - `splits`: one with role ``fit`` where there is something to fit, and the test splits.
    - `reference`: the test split that gaps are measured from; ``id`` where there is one, else the first.
    - `scoring`: how outputs are scored: ``classification``, ``next_token`` (the tokens are the targets where there are
      none), ``regression``, ``embedding``; or a `Scoring`, `Regression` or `Embedding` with its settings (which part of
      the output counts, which classes are candidates, the tolerance, how many neighbours).
    - `batch_size`: positions a batch (items, where items have one size).

    Raises `SplitError`, `SiteError`, `ProxyError`, `NetworkError`: each says what, where, and what would be accepted.
    """
    check_disjoint(splits)
    how = scoring_of(scoring) if isinstance(scoring, str) else scoring
    if scoring == "next_token":
        splits = [with_next_tokens(s) for s in splits]
    tests = {s.name: s for s in splits if s.role == "test"}
    if not tests:
        raise SplitError("there is no split with role 'test'; a reading is tested on at least one")
    start = reference or ("id" if "id" in tests else next(iter(tests)))
    if start not in tests:
        raise SplitError(f"reference {start!r} is not a test split; {choices(start, tests)}")
    how = calibrated(how, network, tests[start], batch_size=batch_size, device=device)
    subject = Subject(network, scoring=how, device=device)
    check_items_alone(subject, tests[start])
    edit = reading if isinstance(reading, Edit) else _fitted(subject, reading, splits, seed, batch_size)
    ordered = [tests[start], *(s for n, s in tests.items() if n != start)]
    sink = Memory()
    outcome = faithfulness(subject, ordered, [edit], sink, batch_size=batch_size)
    null = matched_damage(subject, tests[start], edit, seed=seed, draws=null_draws, batch_size=batch_size)
    faithfulness(subject, ordered, null.edits, sink, batch_size=batch_size)
    scores = Scores.from_memory(sink)
    labelled = {s.name for s in ordered if has_targets(s) and how.kind != "embedding"}
    names = [s.name for s in ordered]
    rows = _estimates(scores, subject, edit, null, names, labelled, np.random.default_rng(seed))
    return Checked(subject, edit, tests, start, outcome.check, null, tuple(rows), batch_size)


def _fitted(subject: Subject, reading: Mapping[str, Any], splits: Sequence[Split], seed: int, batch_size: int) -> Edit:
    """The edit that a mapping of sites means, its proxies fitted on the one fit split."""
    if not reading:
        raise ConfigError("the reading is empty; give at least one site and what replaces it")
    proxies = {str(Site.parse(site)): p for site, p in reading.items() if hasattr(p, "reconstruct")}
    fit_split = None
    if proxies:
        fits = [s for s in splits if s.role == "fit"]
        if len(fits) != 1:
            raise SplitError(
                f"proxies are fitted on the split whose role is 'fit'; {len(fits)} of {len(splits)} splits have it, and "
                "one is needed (or give an Edit of fitted proxies)"
            )
        fit_split = require_fit(fits[0], "a proxy")
        wanted: dict[str, Accumulator] = {
            place: Moments() if hasattr(proxy, "fit_moments") else Reservoir(SAMPLE, seed=seed)
            for place, proxy in proxies.items()
        }
        capture(
            subject.network,
            fit_split,
            {p: [a] for p, a in wanted.items()},
            batch_size=batch_size,
            device=subject.device,
        )
        for place, proxy in proxies.items():
            seen = wanted[place]
            proxies[place] = proxy.fit(seen.rows) if isinstance(seen, Reservoir) else proxy.fit_moments(seen)
    edits = []
    for site, part in reading.items():
        place = str(Site.parse(site))
        if place in proxies:
            origin = Origin(type(part).__name__.lower(), place, fit_split.name if fit_split else "", _size(part))
            edits.append(Edit.from_proxy(place, proxies[place], origin))
        elif callable(part):
            edits.append(Edit.function(place, part))
        else:
            raise ConfigError(
                f"the reading at {place} is a {type(part).__name__}; accepted are a proxy (with fit and reconstruct) and a "
                "function (rows, mask) -> rows"
            )
    joined = edits[0]
    for edit in edits[1:]:
        joined = joined.then(edit, name=f"{joined.origin.name}+{edit.origin.name}")
    return joined


def _size(proxy: Any) -> float | None:
    size = getattr(proxy, "rank", getattr(proxy, "clusters", None))
    return None if size is None else float(size)


def _estimates(
    scores: Scores,
    subject: Subject,
    edit: Edit,
    null: Matched,
    names: Sequence[str],
    labelled: Collection[str],
    rng: np.random.Generator,
) -> list[Estimate]:
    """Every quantity on every split of `names`, the reference first; accuracies on those that are `labelled`."""
    subjects = [(subject.name, subject.seed)]
    at: dict[str, Any] = {"edit": edit.origin.label, "site": edit.origin.site}
    noise: dict[str, Any] = {**at, "edit": null.edits[0].origin.label}
    reference = names[0]

    def ratio(metric: str, split: str) -> Estimand:
        return lambda view: view.ratio(metric, split=split, **at)

    def gap(split: str, of: Mapping[str, Any]) -> Estimand:
        return lambda view: view.gap(reference=reference, split=split, **of)

    def excess(split: str) -> Estimand:
        return lambda view: gap(split, at)(view) - gap(split, noise)(view)

    rows = []
    for split in names:
        what: dict[str, Any] = {"split": split, "edit": edit.origin.name, "site": edit.origin.site}
        what |= {"parameter": edit.origin.parameter, "oracle": edit.origin.oracle}
        simple = of_outputs(subject.scoring.kind, split=split, **at)
        if split in labelled:
            simple |= {f"accuracy_{who}": ratio(m, split) for who, m in ACCURACIES.items()}
        rows += describe(scores, subjects, [(e, what | {"quantity": q}) for q, e in simple.items()], rng=rng)
        if split == reference:
            continue
        what["reference"] = reference
        null_gap = describe(scores, subjects, [(gap(split, noise), what | {"quantity": "null_gap"})], rng=rng)[0]
        pair = [
            (gap(split, at), what | {"quantity": "gap", "null": null_gap.value}),
            (excess(split), what | {"quantity": "excess_gap"}),
        ]
        rows += describe(scores, subjects, pair, rng=rng)
    return rows


def _interval(estimate: Estimate | None, *, signed: bool = False) -> str:
    if estimate is None:
        return "(reference)"
    if math.isnan(estimate.value):
        return "undefined"
    form = "{:+.3f}" if signed else "{:.3f}"
    return f"{form.format(estimate.value)} [{form.format(estimate.low)}, {form.format(estimate.high)}]"
