"""All seeds of the code study together: the table of estimates, and the claims judged."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from heldout.analyses.estimates import Estimand, Floats, View, describe
from heldout.analyses.marginals import CATEGORY, Categories
from heldout.analyses.summary import label, summarise
from heldout.evidence import Estimate, read_estimates
from heldout.runs import StepContext
from heldout.statistics.claims import Gate
from heldout.statistics.rule import mean_test
from heldout.statistics.verdict import Finding
from heldout.studies.audited import Audited
from heldout.studies.code import (
    BEATS,
    DATA,
    GENERAL,
    INDUCES,
    LEAST_INDUCTION,
    MARGIN_OVER_BIGRAM,
    MATCH,
    NETWORK,
    PACKAGES,
    REACHED,
    WEIGHTS,
    claims,
)
from heldout.studies.code_audit import (
    BASELINES,
    HEADS,
    INDUCTION,
    RANDOM,
    SCORES,
    WARNINGS,
    categories,
    grid,
    joint_site,
    make_plan,
    sites,
    test_names,
)

LANGUAGES = "new languages"  # a split in the estimates that stands for the mean over them


def judge_claims(ctx: StepContext) -> None:
    """Estimates of every quantity, verdicts, and the records that the page is made from."""
    s, seeds, corpus = ctx.settings, ctx.settings["seeds"], ctx.inputs["corpus"]
    audited = Audited.read(
        {(NETWORK, seed): ctx.inputs[f"audit-{seed}"] for seed in seeds},
        reference="id",
        more=[ctx.inputs[f"heads-{seed}"] / SCORES for seed in seeds],
    )
    rng = np.random.default_rng(0)
    estimates = summarise(
        audited.scores,
        plan=make_plan(s, corpus),
        chosen=audited.chosen,
        grid=lambda site: grid(s, site),
        sites={NETWORK: list(sites(s))},
        rng=rng,
    )
    heads = {seed: json.loads((ctx.inputs[f"heads-{seed}"] / HEADS).read_text()) for seed in seeds}
    baselines = json.loads((corpus / BASELINES).read_text())
    here = _Here(audited, s, test_names(corpus))
    estimates += here.category_gaps(rng) + here.head_costs(rng)
    estimates += warnings([ctx.inputs[f"warn-{seed}"] / WARNINGS for seed in seeds])
    audited.write(ctx.out, estimates, here.findings(heads, baselines), not_judged=s["not_judged"])
    (ctx.out / HEADS).write_text(json.dumps({str(seed): record for seed, record in heads.items()}, sort_keys=True))


class _Here:
    """The evidence of one study, with its names at hand."""

    def __init__(self, audited: Audited, s: Mapping[str, Any], tests: Sequence[str]) -> None:
        self.audited, self.s, self.tests = audited, s, tests
        self.chosen, self.site = audited.chosen, joint_site(s)
        self.languages = tuple(t for t in tests if t != PACKAGES)
        self.categories: Categories = categories(s)
        self.subjects = audited.subjects(NETWORK)
        self.data, self.weights = self._reaching(DATA), self._reaching(WEIGHTS)

    def _reaching(self, families: Sequence[str]) -> tuple[str, ...]:
        """Those families for which the rank rule found a size at the headline site, for every seed."""
        rows = [c for record in self.audited.records.values() for c in record["chosen"] if c["site"] == self.site]
        return tuple(f for f in families if all(c["reached"] for c in rows if c["family"] == f))

    def excess(self, families: Sequence[str], splits: Sequence[str]) -> Estimand:
        return lambda view: _mean(
            self.chosen.excess(view, self.site, family, split) for family in families for split in splits
        )

    def kept(self, view: View, family: str, split: str, category: int) -> Floats:
        """Agreement of a chosen simplification in one category."""
        edit = label(family, self.chosen.size(view, self.site, family))
        return view.ratio("same", split=split, edit=edit, site=self.site, stratum=CATEGORY, value=category)

    def category_gap(self, axis: str, name: str, splits: Sequence[str], families: Sequence[str]) -> Estimand:
        """The gap within one category, mean over families and splits that have it."""
        code = self.categories.code(axis, name)

        def gap(view: View) -> Floats:
            each = [
                self.kept(view, family, "id", code) - self.kept(view, family, split, code)
                for family in families
                for split in splits
            ]
            return _mean(each)

        return gap

    def category_gaps(self, rng: np.random.Generator) -> list[Estimate]:
        """The gap by category, on new packages and on new languages, SVD and k-means each."""
        wanted: list[tuple[Estimand, Mapping[str, Any]]] = []
        groups = {PACKAGES: [t for t in self.tests if t == PACKAGES], LANGUAGES: list(self.languages)}
        for split, members in groups.items():
            for axis, name, code in self.categories.listed() if members else ():
                there = [m for m in ("id", *members) if self._has(m, code)]
                if "id" not in there or len(there) < 2:
                    continue
                for family in DATA:
                    where = {"network": NETWORK, "site": self.site, "split": split, "reference": "id", "edit": family}
                    where["quantity"] = f"gap by {axis}: {name}"
                    wanted.append((self.category_gap(axis, name, there[1:], (family,)), where))
        return describe(self.audited.scores, self.subjects, wanted, rng=rng)

    def _has(self, split: str, code: int) -> bool:
        """Whether a split has a category in more than a few predictions, for every seed."""
        at: dict[str, Any] = {"split": split, "site": self.site, "stratum": CATEGORY, "value": code, "edit": "mean"}
        return all(float(self.audited.point(who).total("n", **at)[0]) >= 30 for who in self.audited.records)

    def head_costs(self, rng: np.random.Generator) -> list[Estimate]:
        """What simplifying induction heads, and as many random ones, costs by kind of word, on id and on new text."""
        wanted: list[tuple[Estimand, Mapping[str, Any]]] = []
        for split in ("id", *self.tests):
            for name in self.categories.axes["word"]:
                code = self.categories.code("word", name)
                if not self._has(split, code):
                    continue
                where = {"network": NETWORK, "split": split, "edit": "svd", "parameter": self.s["head_rank"]}
                where["quantity"] = f"lost: {name}"
                for site in (INDUCTION, RANDOM):
                    wanted.append((_lost(self.s["head_rank"], split, site, code), where | {"site": site}))
        singles = {c.edit.site for c in self.audited.scores.cells if " head " in c.edit.site}
        for site in sorted(singles):
            where = {"network": NETWORK, "split": "id", "edit": "svd", "parameter": self.s["head_rank"], "site": site}
            wanted.append((_lost(self.s["head_rank"], "id", site, None), where | {"quantity": "lost by one head"}))
        return describe(self.audited.scores, self.subjects, wanted, rng=rng)

    def findings(self, heads: Mapping[int, Any], baselines: Mapping[str, Mapping[str, float]]) -> list[Finding]:
        """The tests of each claim, with its gates."""
        gates = {gate.name: gate for gate in self._gates(heads, baselines)}
        by_id = {claim.id: claim for claim in claims()}

        def parts(id: str, found: Mapping[str, Estimand], why_none: str) -> Finding:  # noqa: A002
            claim = by_id[id]
            if not found:
                return Finding(claim, {}, tuple(gates[g] for g in claim.gates), reason=why_none)
            return self.audited.finding(claim, {name: (e, NETWORK) for name, e in found.items()}, gates)

        def excess(id: str, families: Sequence[str], splits: Sequence[str]) -> Finding:  # noqa: A002
            there = families and splits
            return parts(id, {NETWORK: self.excess(families, splits)} if there else {}, "no simplification or no split")

        reached = (*self.data, *self.weights)
        general = [t for t in self.tests if self._generalises(t)]
        below = {f"{f} on {t}": self._lead(f, t, 1.0) for f in reached for t in general}
        above = {f"{f} on {t}": self._lead(f, t, -1.0) for f in reached for t in self.tests}
        contrasts = self._contrasts(gates[INDUCES].passed) if self.data and self.languages else {}
        found = [
            excess("G1", self.data, self.tests),
            excess("G2", self.weights, self.tests),
            parts("G3", below, "the network generalises to no split, or no simplification keeps .95"),
            parts("G4", above, "no simplification keeps .95 on id_select"),
            excess("G6", self.data, self.languages),
            parts("G7", contrasts, "no simplification keeps .95 on id_select, or there is no new language"),
        ]
        inside = self.categories.code("word", "inside a repeated word")
        induction, random = (_lost(self.s["head_rank"], "id", site, inside) for site in (INDUCTION, RANDOM))
        return [*found, parts("G8", {NETWORK: lambda view: induction(view) - random(view)}, "")]

    def _contrasts(self, repeated: bool) -> dict[str, Estimand]:
        """G7's parts: differences between two kinds of character, each either way."""
        pairs = {"starts minus insides of words": (("offset", "1st of a word"), ("offset", "4th or later"))}
        if repeated:
            pairs["repeated minus new words"] = (("word", "inside a repeated word"), ("word", "inside a new word"))
        parts: dict[str, Estimand] = {}
        for name, (first, second) in pairs.items():
            a, b = (self.category_gap(*kind, self.languages, self.data) for kind in (first, second))
            parts[name], parts[f"{name}, the other way"] = _minus(a, b), _minus(b, a)
        return parts

    def _lead(self, family: str, split: str, sign: float) -> Estimand:
        """Network accuracy minus the simplification's, times `sign`."""

        def of(view: View) -> Floats:
            own = self.chosen.ratio(view, self.site, family, split, "net_correct")
            return sign * (own - self.chosen.ratio(view, self.site, family, split, "proxy_correct"))

        return of

    def _accuracy(self, who: tuple[str, int], split: str, metric: str = "net_correct") -> float:
        return float(self.audited.point(who).ratio(metric, split=split, edit="mean", site=self.site)[0])

    def _generalises(self, split: str) -> bool:
        return all(self._accuracy(w, split) >= self._accuracy(w, "id") - GENERAL for w in self.audited.records)

    def _gates(self, heads: Mapping[int, Any], baselines: Mapping[str, Mapping[str, float]]) -> Iterable[Gate]:
        bigram = baselines["id"]["bigram"]
        worst = max(self._accuracy(who, "id", "net_loss") for who in self.audited.records)
        text = f"largest loss on id {worst:.3f} nats, bigram table {bigram:.3f}; {MARGIN_OVER_BIGRAM} below it needed"
        yield Gate(BEATS, worst <= bigram - MARGIN_OVER_BIGRAM, text)
        best = {seed: max(h["induction"] for h in record["heads"]) for seed, record in heads.items()}
        low = min(best, key=lambda seed: best[seed])
        text = f"least induction score of a best head {best[low]:.3f} (seed {low}); {LEAST_INDUCTION} needed"
        yield Gate(INDUCES, best[low] >= LEAST_INDUCTION, text)
        pairs = {"svd and kmeans": (DATA, self.data), "weights and onehot": (WEIGHTS, self.weights)}
        for name, (families, reached) in pairs.items():
            short = {f: self._least_kept(f) for f in families if f not in reached}
            text = f"{', '.join(reached) or 'none'} of {name} for every seed" + "".join(
                f"; {f} keeps {least:.3f} at most in its worst seed" for f, least in short.items()
            )
            yield Gate(REACHED.format(name), bool(reached), text)
            yield self.audited.null_gate(MATCH.format(name), reached or families)

    def _least_kept(self, family: str) -> float:
        rows = [c for record in self.audited.records.values() for c in record["chosen"] if c["site"] == self.site]
        return float(min(c["agreement"] for c in rows if c["family"] == family))


def warnings(paths: Sequence[Any]) -> list[Estimate]:
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
            n = int(group["n"].min())
            test = mean_test([float(v) for v in group["value"]], unit_variance=variance, n_clusters=n, delta=0.0)
            how = "t over seeds and units"
            rows.append(Estimate(value=test.value, low=test.low, high=test.high, method=how, **where))
    return rows


def _lost(rank: int, split: str, site: str, category: int | None) -> Estimand:
    """The share of predictions changed by simplifying some heads."""
    at: dict[str, Any] = {"split": split, "edit": label("svd", rank), "site": site}
    if category is not None:
        at |= {"stratum": CATEGORY, "value": category}
    return lambda view: 1 - view.ratio("same", **at)


def _minus(a: Callable[[View], Floats], b: Callable[[View], Floats]) -> Estimand:
    return lambda view: a(view) - b(view)


def _mean(values: Iterable[Floats]) -> Floats:
    return np.asarray(np.mean(list(values), axis=0))
