"""The page of the arithmetic study: what networks answer, what the rule says, and where the two part."""

from __future__ import annotations

import json
from collections.abc import Iterable

from heldout.evidence import read_estimates
from heldout.figures.page import IdentityCheck, Page, Section, Table
from heldout.runs import Run
from heldout.statistics.verdict import Judgement
from heldout.studies.arithmetic import ArithmeticConfig, length_split
from heldout.studies.arithmetic_answers import TRAINED
from heldout.studies.arithmetic_page_answers import answers, learning, repair, rules, theory
from heldout.studies.arithmetic_page_inside import causes, inside
from heldout.studies.arithmetic_shown import Shown
from heldout.studies.arithmetic_train import task_of
from heldout.studies.audited import CLAIMS, ESTIMATES
from heldout.studies.simplify import lasting, run_warnings

JUDGE = "arithmetic-judge"


def arithmetic_page(run: Run, config: ArithmeticConfig, title: str) -> Page:
    """The whole page of a finished run."""
    folder = run.output(JUDGE)
    here = Shown(run, config, read_estimates(folder / ESTIMATES), folder)
    judgements = tuple(Judgement.from_dict(r) for r in json.loads((folder / CLAIMS).read_text()))
    return Page(
        title=title,
        question="Transformers are wrong on operands longer than they were trained on: by which rule?",
        summary=tuple(summary(here)),
        identity=identity(here),
        judgements=judgements,
        sections=tuple(make(here) for make in (answers, rules, learning, inside, causes, repair, theory, setting)),
        manifest=lasting(run.manifest),
        warnings=run_warnings(run),
    )


def summary(here: Shown) -> Iterable[str]:
    """The run in a few sentences: what is right, what follows the rule, and what the rest is."""
    for name, kind in here.kinds.items():
        if kind.modulus:
            continue
        split = length_split(kind.longer[0])
        truth, rule = (here.value(q, name, split) for q in ("truth", "equivalence"))
        found = [here.rule_records[f"{name}/{seed}"][TRAINED]["found"] for seed in here.config.seed_list()]
        yield (
            f"{name}: on operands of {kind.longer[0][0]} digits {100 * truth:.1f}% of the answers are right and "
            f"{100 * rule:.1f}% are right for the operands' last {kind.digits} digits; discovery confirms a rule for "
            f"{sum(found)} of {len(found)} networks."
        )
    for name in here.sums:
        if not here.kinds[name].farther:
            continue
        split = length_split(here.kinds[name].farther[0])
        values = here.weights(name, "farther")
        rest = [
            f"{component.replace(f'{values[0][0]},', 'that')} in {100 * weight:.1f}%"
            for component, weight in values[1:4]
        ]
        yield (
            f"{name}: with two digits more in either operand the answers are {values[0][0]} in {100 * values[0][1]:.1f}%"
            + (f", {', '.join(rest)}" if rest else "")
            + f"; the rule gives {100 * here.value('equivalence', name, split):.1f}% of those to "
            f"{split.removeprefix('len_').replace('_', ' + ')} digits."
        )


def identity(here: Shown) -> tuple[IdentityCheck, ...]:
    """What an edit that changes nothing changes, of every network that was edited."""
    return tuple(
        IdentityCheck(
            label=who.replace("/", ", seed "),
            site=", ".join(check["sites"]),
            max_abs_difference=check["difference"],
            tolerance=check["tolerance"],
            passed=check["difference"] <= check["tolerance"],
            replay=check["replay"],
        )
        for who, record in here.inside_records.items()
        for check in [max((row["identity"] for row in record["removal"]), key=lambda c: c["difference"])]
    )


def setting(here: Shown) -> Section:
    """Where the pairs come from."""
    rows = []
    for name, kind in here.kinds.items():
        task = task_of(kind)
        rows += [(name, s.name, s.role, len(s), s.note) for s in task.splits.values()]
    splits = Table(
        title="Splits",
        columns=("network", "split", "role", "pairs", "what it is"),
        rows=rows,
        caption="Ordered pairs. The unordered pair of the operands' low parts is the unit and stands on one side only.",
        folded=True,
    )
    return Section(id="setting", title="What was compared", tables=(splits,))
