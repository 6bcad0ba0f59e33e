"""What all networks of the code study say together: gaps by kind of character, costs of heads, early warning."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from heldout.analyses.damage import NULL
from heldout.analyses.estimates import Estimand, Floats, View, describe
from heldout.analyses.marginals import CATEGORY, Categories
from heldout.analyses.summary import label
from heldout.evidence import Estimate, read_estimates
from heldout.statistics.rule import mean_test
from heldout.studies.audited import Audited
from heldout.studies.code import DATA, NETWORK, PACKAGES
from heldout.studies.code_audit import INDUCTION, RANDOM, categories, joint_site

LANGUAGES = "new languages"  # a split in the estimates that stands for the mean over them
LEAST = 30  # predictions of a kind, in every seed and split, below which it is left out of the estimates


class CodeEvidence:
    """The scores of every network at the headline site, with the names of the study at hand.

    `tests`: the out-of-distribution splits. Methods that take families or splits give estimands: means over all of them.
    """

    def __init__(self, audited: Audited, s: Mapping[str, Any], tests: Sequence[str]) -> None:
        self.audited, self.s, self.tests = audited, s, tuple(tests)
        self.chosen, self.site = audited.chosen, joint_site(s)
        self.languages = tuple(t for t in tests if t != PACKAGES)
        self.categories: Categories = categories(s)

    def accuracy(self, who: tuple[str, int], split: str, metric: str = "net_correct") -> float:
        """A network's own accuracy, or another of its own metrics, on a split."""
        return float(self.audited.point(who).ratio(metric, split=split, edit="mean", site=self.site)[0])

    def excess(self, families: Sequence[str], splits: Sequence[str]) -> Estimand:
        """The gap minus the null's."""
        return lambda view: mean(
            self.chosen.excess(view, self.site, family, split) for family in families for split in splits
        )

    def lead(self, family: str, split: str, sign: float) -> Estimand:
        """Network accuracy minus the simplification's, times `sign`."""

        def of(view: View) -> Floats:
            own = self.chosen.ratio(view, self.site, family, split, "net_correct")
            return sign * (own - self.chosen.ratio(view, self.site, family, split, "proxy_correct"))

        return of

    def kind_gap(
        self, axis: str, name: str, families: Sequence[str], splits: Sequence[str], *, null: bool = False
    ) -> Estimand:
        """The gap (of the null, where `null`) within one kind of character."""
        at: dict[str, Any] = {"stratum": CATEGORY, "value": self.categories.code(axis, name), "site": self.site}

        def gap(view: View) -> Floats:
            each = []
            for family in families:
                edit = label(f"{family}+{NULL}" if null else family, self.chosen.size(view, self.site, family))
                kept = view.ratio("same", split="id", edit=edit, **at)
                each += [kept - view.ratio("same", split=split, edit=edit, **at) for split in splits]
            return mean(each)

        return gap

    def kind_excess(self, axis: str, name: str, families: Sequence[str], splits: Sequence[str]) -> Estimand:
        """The gap minus the null's within one kind of character.

        The null agrees as often as the simplification on all of id; within one kind it may agree more or less there.
        """
        return minus(
            self.kind_gap(axis, name, families, splits), self.kind_gap(axis, name, families, splits, null=True)
        )

    def lost(self, split: str, site: str, category: int | None = None) -> Estimand:
        """The share of predictions (of one kind) that simplifying some heads changes."""
        at: dict[str, Any] = {"split": split, "edit": label("svd", self.s["head_rank"]), "site": site}
        if category is not None:
            at |= {"stratum": CATEGORY, "value": category}
        return lambda view: 1 - view.ratio("same", **at)

    def kind_gaps(self, rng: np.random.Generator) -> list[Estimate]:
        """Gap and excess by kind of character, on new packages and on new languages, SVD and k-means each."""
        wanted: list[tuple[Estimand, Mapping[str, Any]]] = []
        groups = {PACKAGES: [t for t in self.tests if t == PACKAGES], LANGUAGES: list(self.languages)}
        for group, members in groups.items():
            for axis, name, code in self.categories.listed():
                splits = [m for m in members if self._has(m, code)]
                if not splits or not self._has("id", code):
                    continue
                for family in DATA:
                    where = {"network": NETWORK, "site": self.site, "split": group, "reference": "id", "edit": family}
                    of = (axis, name, (family,), splits)
                    null = self.kind_gap(*of, null=True)
                    points = [null(self.audited.point(who)) for who in self.audited.records]
                    gap = where | {"quantity": f"gap by {axis}: {name}", "null": float(np.mean(points))}
                    wanted.append((self.kind_gap(*of), gap))
                    wanted.append((self.kind_excess(*of), where | {"quantity": f"excess gap by {axis}: {name}"}))
        return describe(self.audited.scores, self.audited.subjects(NETWORK), wanted, rng=rng)

    def head_costs(self, rng: np.random.Generator) -> list[Estimate]:
        """What simplifying induction heads, and as many others, costs by kind of word, on id and on new text."""
        heads = {"network": NETWORK, "edit": "svd", "parameter": self.s["head_rank"]}
        wanted: list[tuple[Estimand, Mapping[str, Any]]] = []
        for split in ("id", *self.tests):
            for name in self.categories.axes["word"]:
                code = self.categories.code("word", name)
                for site in (INDUCTION, RANDOM) if self._has(split, code) else ():
                    where = heads | {"split": split, "quantity": f"lost: {name}", "site": site}
                    wanted.append((self.lost(split, site, code), where))
        singles = {c.edit.site for c in self.audited.scores.cells if " head " in c.edit.site}
        for site in sorted(singles):
            wanted.append(
                (self.lost("id", site), heads | {"split": "id", "site": site, "quantity": "lost by one head"})
            )
        return describe(self.audited.scores, self.audited.subjects(NETWORK), wanted, rng=rng)

    def _has(self, split: str, code: int) -> bool:
        """Whether a split has a kind in more than a few predictions, for every seed."""
        at: dict[str, Any] = {"split": split, "site": self.site, "stratum": CATEGORY, "value": code, "edit": "mean"}
        return all(float(self.audited.point(who).total("n", **at)[0]) >= LEAST for who in self.audited.records)


def warnings(paths: Sequence[Path]) -> list[Estimate]:
    """The mean over seeds of every AUROC, by the verdict rule's interval.

    Units are shared by seeds, so the mean's variance over units is taken to be a single seed's: at most too wide.
    """
    frame = read_estimates(paths)
    rows: list[Estimate] = []
    for (quantity, split, edit), group in frame.groupby(["quantity", "split", "edit"], sort=False):
        first = group.iloc[0]
        where: dict[str, Any] = {"quantity": str(quantity), "network": NETWORK, "split": str(split), "edit": str(edit)}
        where |= {"site": str(first["site"]), "null": 0.5, "n": int(group["n"].min()), "seeds": len(group)}
        if bool(group["value"].isna().any()):
            reasons = group.loc[group["value"].isna(), "reason"]
            rows.append(Estimate(value=float("nan"), reason=str(reasons.iloc[0]), **where))
        elif len(group) == 1:
            low, high = float(first["low"]), float(first["high"])
            rows.append(Estimate(value=float(first["value"]), low=low, high=high, method=str(first["method"]), **where))
        else:
            variance = float((((group["high"] - group["low"]) / 3.92) ** 2).mean())
            values = [float(v) for v in group["value"]]
            test = mean_test(values, unit_variance=variance, n_clusters=int(group["n"].min()), delta=0.0)
            how = "t over seeds and units"
            rows.append(Estimate(value=test.value, low=test.low, high=test.high, method=how, **where))
    return rows


def minus(a: Callable[[View], Floats], b: Callable[[View], Floats]) -> Estimand:
    """The difference of two estimands."""
    return lambda view: a(view) - b(view)


def mean(values: Iterable[Floats]) -> Floats:
    """The mean of some arrays of (R,)."""
    return np.asarray(np.mean(list(values), axis=0))
