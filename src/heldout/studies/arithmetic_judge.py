"""All networks of the arithmetic study together: the table of estimates, and the claims judged."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from heldout.analyses.equivalence.answers import GREEDY
from heldout.analyses.equivalence.repair import fewer_examples
from heldout.analyses.estimates import Estimand, Floats, Scores, View, describe
from heldout.evidence import Cell, Estimate, write_estimates
from heldout.runs import StepContext
from heldout.statistics.claims import Gate
from heldout.statistics.verdict import Finding, judge
from heldout.studies.arithmetic import METHODS, SCRATCH, Lengths, Trained, length_split
from heldout.studies.arithmetic_answers import RULES
from heldout.studies.arithmetic_claims import (
    ACCURATE,
    APART,
    CLASS_SITE,
    LAWS,
    LEARNT,
    LONG_WRONG,
    PRODUCT,
    TELLS,
    WITHIN,
    claims,
    sum_name,
)
from heldout.studies.arithmetic_inside import INSIDE, RANDOM, REMOVED, SCALED, STRUCTURE
from heldout.studies.audited import CLAIMS, ESTIMATES
from heldout.studies.judging import Judging

ANSWERED = ("truth", "equivalence", "self", "parsable", "shuffled", "predicted", "kl", "probability")
FOUND = {  # edit -> quantity in the estimates -> metric of the scores; what begins with these words
    STRUCTURE: {"nearest": "nearest", "nearest_permuted": "permuted", "nearest_untrained": "untrained"},
    "probe.": {"decoded": "correct", "decoded_shuffled": "shuffled", "decoded_majority": "majority"},
    "spare positions": {"changed": "changed", "swap_kl": "kl"},
    "used positions": {"changed": "changed", "swap_kl": "kl"},
    REMOVED: {"exact": "exact", "exact_before": "exact_before"},
    RANDOM: {"exact": "exact"},
    SCALED: {"exact": "exact"},
    **{f"{method}-": {"truth": "truth", "equivalence_n": "equivalence_n", "neither": "neither"} for method in METHODS},
}
Tests = dict[str, tuple[Estimand, str]]  # part -> what is tested, and on which networks
DRAWS = 400  # resamples behind an interval that is drawn and not judged


def judge_claims(ctx: StepContext) -> None:
    s = ctx.settings
    kinds = {name: Trained(**kind) for name, kind in s["kinds"].items()}
    judging = Judging(Scores.read(ctx.inputs.values()))
    found = _Findings(judging, kinds, s, _read(ctx, "inside", INSIDE))
    write_estimates(ctx.out / ESTIMATES, estimates(judging, kinds))
    judged = judge(list(found.all()), not_judged_because=s["not_judged"])
    (ctx.out / CLAIMS).write_text(json.dumps([j.to_dict() for j in judged]))
    for what, name in (("answers", RULES), ("inside", INSIDE)):
        record = {f"{network}/{seed}": one for (network, seed), one in _read(ctx, what, name).items()}
        (ctx.out / name).write_text(json.dumps(record, sort_keys=True))


def _read(ctx: StepContext, what: str, name: str) -> dict[tuple[str, int], Any]:
    """The record `name` that each step of one sort wrote, by network and seed."""
    found = {}
    for key, folder in ctx.inputs.items():
        sort, _, rest = key.partition("-")
        if sort == what:
            network, _, seed = rest.rpartition("-")
            found[network, int(seed)] = json.loads((folder / name).read_text())
    return found


class _Findings:
    """The tests of every claim, with its gates."""

    def __init__(
        self,
        judging: Judging,
        kinds: Mapping[str, Trained],
        s: Mapping[str, Any],
        inside: Mapping[tuple[str, int], Any],
    ) -> None:
        self.judging, self.kinds, self.s, self.inside = judging, kinds, s, inside
        self.modular = [kind for kind in kinds.values() if kind.modulus]
        self.gates = {gate.name: gate for gate in self._gates()}

    def all(self) -> Iterator[Finding]:
        tests: dict[str, Tests] = {"C7": theory_tests(self.modular)}
        for kind in (self.kinds[sum_name(law)] for law in LAWS):
            tests |= {f"{number}-{kind.law}": parts for number, parts in self._of_sum(kind).items()}
        tests |= {f"{number}-{PRODUCT}": parts for number, parts in answer_tests(self.kinds[PRODUCT]).items()}
        for claim in claims():
            if tests[claim.id]:
                yield self.judging.finding(claim, tests[claim.id], self.gates)
            else:
                gates = tuple(self.gates[g] for g in claim.gates)
                yield Finding(claim, {}, gates, reason="this preset does not repair networks of that law")

    def _of_sum(self, kind: Trained) -> dict[str, Tests]:
        def persists(view: View) -> Floats:
            each = []
            for lengths in kind.longer:
                at: dict[str, Any] = {"split": length_split(lengths), "edit": STRUCTURE, "site": CLASS_SITE}
                own, permuted, untrained = (view.ratio(m, **at) for m in ("nearest", "permuted", "untrained"))
                each.append(own - np.maximum(permuted, untrained))
            return _mean(each)

        grid, split = self.s["repair_examples"], length_split(kind.longer[0])
        repaired = kind.law in self.s["repair_laws"]
        methods = [m for m in METHODS if m != SCRATCH and repaired]
        saved = {m: (fewer_examples(m, split=split, grid=grid), kind.name) for m in methods}  # type: ignore[arg-type]
        return {
            **answer_tests(kind),
            "C4": {"": (class_removal(RANDOM, self.s["random_draws"]), kind.name)},
            "C4-rank": {"": (class_removal(SCALED, self.s["random_draws"]), kind.name)},
            "C5": {"": (persists, kind.name)},
            "C6": saved,
        }

    def _gates(self) -> Iterator[Gate]:
        sums = [self.kinds[sum_name(law)] for law in LAWS]
        for name, kinds in [*((k.name, [k]) for k in (*sums, self.kinds[PRODUCT])), ("modular sums", self.modular)]:
            least = {who: self._exact(who, kind.trained) for kind in kinds for who in self.judging.subjects(kind.name)}
            worst = min(least, key=lambda who: least[who])
            text = (
                f"least exact match on unseen pairs {least[worst]:.4f} ({worst[0]}, seed {worst[1]}); {ACCURATE} needed"
            )
            yield Gate(LEARNT.format(name), least[worst] >= ACCURATE, text)
        for kind in sums:
            rows = {
                seed: next(row for row in record["removal"] if row["site"] == CLASS_SITE)
                for (network, seed), record in self.inside.items()
                if network == kind.name
            }
            most = max(rows, key=lambda seed: rows[seed]["overlap"])
            row = rows[most]
            text = (
                f"the random subspaces hold {row['overlap']:.2f} of the class subspace on average (seed {most}: "
                f"{row['control_rank']:.1f} directions for its {row['rank']}, which hold {row['share']:.3f} of the "
                f"variance); at most {APART}"
            )
            yield Gate(TELLS.format(kind.name), row["overlap"] <= APART, text)

    def _exact(self, who: tuple[str, int], lengths: Lengths) -> float:
        return float(answered("truth", lengths)(self.judging.point(who))[0])


def answer_tests(kind: Trained) -> dict[str, Tests]:
    """C1 to C3, on what one kind of network answers."""

    def longer(metric: str) -> Estimand:
        return lambda view: _mean(answered(metric, lengths)(view) for lengths in kind.longer)

    truth, rule, null = longer("truth"), longer("equivalence"), longer("shuffled")
    return {
        "C1": {"": (_minus(answered("truth", kind.trained), ACCURATE), kind.name)},
        "C2": {"": (lambda view: LONG_WRONG - truth(view), kind.name)},
        "C3": {"": (lambda view: rule(view) - null(view), kind.name)},
    }


def class_removal(control: str, draws: int) -> Estimand:
    """Exact match that is lost with the class subspace, minus the 95th percentile over the draws of a control."""

    def of(view: View) -> Floats:
        def left(edit: str) -> Floats:
            return view.ratio("exact", split="id", edit=edit, site=CLASS_SITE)

        random = np.stack([left(f"{control} {draw}") for draw in range(draws)])
        # Lost is exact match before minus after; where the most is lost, the least is left.
        return np.asarray(np.quantile(random, 0.05, axis=0) - left(REMOVED))

    return of


def theory_tests(modular: Iterable[Trained]) -> Tests:
    """C7: measured accuracy is neither above nor below the predicted one by more than `WITHIN`."""
    found = {}
    for kind in modular:
        for lengths in (kind.longer[0], *kind.farther[:1]):
            measured, predicted = answered("truth", lengths), answered("predicted", lengths)
            for way, sign in (("not above", 1.0), ("not below", -1.0)):
                name = f"{kind.name}, {lengths[0]} digits, {way}"
                found[name] = (_within(measured, predicted, sign), kind.name)
    return found


def answered(metric: str, lengths: Lengths) -> Estimand:
    """The share of greedy answers to operands of two lengths of which `metric` holds."""
    return lambda view: view.ratio(metric, split=length_split(lengths), edit=GREEDY.label, site=GREEDY.site)


def _within(measured: Estimand, predicted: Estimand, sign: float) -> Estimand:
    return lambda view: WITHIN - sign * (measured(view) - predicted(view))


def _minus(estimand: Estimand, constant: float) -> Estimand:
    return lambda view: estimand(view) - constant


def _mean(values: Iterable[Floats]) -> Floats:
    return np.asarray(np.mean(list(values), axis=0))


def estimates(judging: Judging, kinds: Mapping[str, Trained]) -> list[Estimate]:
    """Every quantity of the page, mean over seeds."""
    found: list[Estimate] = []
    for kind in kinds.values():
        wanted: list[tuple[Estimand, Mapping[str, Any]]] = []
        for cell in _one_seed(judging.scores, kind.name):
            for quantity, metric in _quantities(judging.scores, cell).items():
                where: dict[str, Any] = {"network": kind.name, "split": cell.split, "site": cell.edit.site}
                where |= {"edit": cell.edit.name, "parameter": cell.edit.parameter, "oracle": cell.edit.oracle}
                wanted.append((_ratio(metric, cell), where | {"quantity": quantity}))
        rng = np.random.default_rng(0)
        found += describe(judging.scores, judging.subjects(kind.name), wanted, rng=rng, draws=DRAWS)
    return found


def _one_seed(scores: Scores, network: str) -> list[Cell]:
    """The cells of one seed: those of the others are the same."""
    cells = [cell for cell in scores.cells if cell.network == network]
    first = min(cell.seed for cell in cells)
    return [cell for cell in cells if cell.seed == first]


def _quantities(scores: Scores, cell: Cell) -> dict[str, str]:
    if cell.edit.name == GREEDY.name:
        columns = scores.columns(cell)
        return {metric: metric for metric in (*ANSWERED, *(c for c in columns if "_digit_" in c))}
    return next((found for start, found in FOUND.items() if cell.edit.label.startswith(start)), {})


def _ratio(metric: str, cell: Cell) -> Estimand:
    return lambda view: view.ratio(metric, split=cell.split, edit=cell.edit.label, site=cell.edit.site)
