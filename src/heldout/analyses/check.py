"""One network, one reading, some splits: does the reading hold where it was not made?

result = heldout.check(network, {"hidden.1": heldout.SVD(rank=8)}, splits)
print(result)
result.worst("rotated", 20)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from heldout.activations.accumulators import Moments, Reservoir
from heldout.activations.capture import Accumulator, capture
from heldout.activations.edits import Edit
from heldout.activations.replay import Replay
from heldout.activations.sites import Site
from heldout.analyses.damage import DRAWS, Matched, matched_damage
from heldout.analyses.estimates import Estimand, Scores, describe
from heldout.analyses.faithfulness import Check, Subject, faithfulness
from heldout.analyses.scoring import Scoring, compare
from heldout.analyses.tables import Memory
from heldout.errors import ConfigError, SplitError, choices
from heldout.evidence import Estimate, Origin
from heldout.tasks.base import Split, check_disjoint, require_fit

SAMPLE = 20_000  # rows that a proxy without `fit_moments` is fitted on, at most


@dataclass(frozen=True)
class Disagreement:
    """One prediction on which the edited network departs: its item in the split, position, classes, and KL in nats."""

    item: int
    position: int
    network: Any
    edited: Any
    target: Any
    kl: float


@dataclass(frozen=True, eq=False)
class Checked:
    """What `check` found: `identity`, `null` (how well the null matches) and `estimates`, one a split and quantity.

    Quantities: ``same_prediction``, ``accuracy_network``, ``accuracy_edited``, ``kl``, and for every split but the
    reference ``gap`` (same prediction on the reference minus on the split; ``null`` is the gap of equally damaging
    noise) and ``excess_gap`` (their difference). Intervals: 95%, percentile bootstrap over units. They describe this
    network; how another training run would fare needs more networks.
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
            accuracy = f"{row['accuracy_network'].value:.3f} -> {row['accuracy_edited'].value:.3f}"
            gaps = "".join(f"{_interval(row.get(q), signed=True):<24}" for q in ("gap", "excess_gap"))
            same = row["same_prediction"]
            lines.append(f"{name[:17]:<18}{same.n:>7}  {_interval(same):<23}{gaps}{accuracy}")
        return "\n".join(lines)

    def worst(self, split: str, n: int = 20, *, decode: Callable[[Any], Any] | None = None) -> list[Disagreement]:
        """The `n` largest disagreements on a split: other predictions first, by KL; `decode` turns classes into names."""
        if split not in self.splits:
            raise SplitError(f"no split {split!r}; {choices(split, self.splits)}")
        found: list[tuple[bool, float, Disagreement]] = []
        name = decode or (lambda label: label)
        s = self.subject
        replay = Replay(s.network, self.edit.functions)
        for batch in self.splits[split].batches(self.batch_size):
            batch = batch.to(s.device)
            ours = s.scoring.predictions(replay.record(batch).output, batch)
            theirs = s.scoring.predictions(replay.run(batch, self.edit.functions).output, batch)
            values = compare(ours, theirs)
            order = np.lexsort((-values["kl"].cpu().numpy(), values["same"].cpu().numpy()))
            for i in order[:n]:
                target = None if ours.targets is None else name(int(ours.targets[i]))
                kl, same = float(values["kl"][i]), bool(values["same"][i])
                item, position = int(ours.item[i]), int(ours.place[i])
                both = name(int(ours.top[i])), name(int(theirs.top[i]))
                found.append((same, -kl, Disagreement(item, position, *both, target, kl)))
            found = sorted(found, key=lambda f: f[:2])[:n]
        return [disagreement for _, _, disagreement in found]


def check(
    network: nn.Module,
    reading: Edit | Mapping[str, Any],
    splits: Sequence[Split],
    *,
    reference: str | None = None,
    scoring: Scoring | None = None,
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
    - `scoring`: which part of the output are the logits, and which classes are candidates.
    - `batch_size`: positions a batch (items, where items have one size).

    Raises `SplitError`, `SiteError`, `ProxyError`, `NetworkError`: each says what, where, and what would be accepted.
    """
    check_disjoint(splits)
    subject = Subject(network, scoring=scoring or Scoring(), device=device)
    tests = {s.name: s for s in splits if s.role == "test"}
    if not tests:
        raise SplitError("there is no split with role 'test'; a reading is tested on at least one")
    start = reference or ("id" if "id" in tests else next(iter(tests)))
    if start not in tests:
        raise SplitError(f"reference {start!r} is not a test split; {choices(start, tests)}")
    edit = reading if isinstance(reading, Edit) else _fitted(subject, reading, splits, seed, batch_size)
    ordered = [tests[start], *(s for n, s in tests.items() if n != start)]
    sink = Memory()
    outcome = faithfulness(subject, ordered, [edit], sink, batch_size=batch_size)
    null = matched_damage(subject, tests[start], edit, seed=seed, draws=null_draws, batch_size=batch_size)
    faithfulness(subject, ordered, null.edits, sink, batch_size=batch_size)
    scores = Scores.from_memory(sink)
    rows = _estimates(scores, subject, edit, null, [s.name for s in ordered], np.random.default_rng(seed))
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
    scores: Scores, subject: Subject, edit: Edit, null: Matched, names: Sequence[str], rng: np.random.Generator
) -> list[Estimate]:
    subjects = [(subject.name, subject.seed)]
    at: dict[str, Any] = {"edit": edit.origin.label, "site": edit.origin.site}
    noise: dict[str, Any] = {**at, "edit": null.edits[0].origin.label}
    reference = names[0]
    simple = {
        "same_prediction": "same",
        "accuracy_network": "net_correct",
        "accuracy_edited": "proxy_correct",
        "kl": "kl",
    }

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
        rows += describe(
            scores, subjects, [(ratio(m, split), what | {"quantity": q}) for q, m in simple.items()], rng=rng
        )
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
