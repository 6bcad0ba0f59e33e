"""The page of the arithmetic study, from outside: answers, rules, when they appear, what repairs them, modular sums."""

from __future__ import annotations

import numpy as np
import pandas as pd

from heldout.analyses.equivalence.theory import accuracy
from heldout.figures import Figure, Matrix, forest, heatmap, training_curves
from heldout.figures.page import Section, Table
from heldout.studies.arithmetic import METHODS, Trained, length_split
from heldout.studies.arithmetic_answers import EXAMPLES, TRAINED
from heldout.studies.arithmetic_claims import sum_name
from heldout.studies.arithmetic_shown import UNIT, Shown, place, read, rounded
from heldout.studies.arithmetic_train import ASIDE, WATCHED

SHOWN = 6  # answers to read, for each of two kinds
SYMBOL = {"add": "+", "mod_add": "+", "multiply": "×"}


def answers(here: Shown) -> Section:
    words = {"truth": "the truth", "equivalence": "the rule", "self": "itself on the low parts", "shuffled": "null"}
    figures: list[Figure] = []
    for name, kind in here.kinds.items():
        if kind.modulus:
            continue
        figures.append(
            forest(
                here.rows(name, words),
                id=f"answers-{name}",
                title=f"{name}: what the answers agree with",
                label="lengths",
                group="how",
                x="share of answers, exact match",
                limits=f"The rule: the operands' last {kind.digits} digits alone count. Null: the rule on answers "
                "shuffled within answer length. On operands no longer than trained, rule and truth are one.",
                unit=UNIT,
                marks=(0.0, 1.0),
            )
        )
        figures.append(_digits(here, name, kind))
    for name in here.sums:
        figures += [_surface(here, name), *_probabilities(here, name)]
    return Section(
        id="answers",
        title="What is answered, what is true, what the rule says",
        text=("An answer that is no number counts as wrong. Digits count from the units.",),
        figures=tuple(figures),
        tables=tuple(_examples(here, name) for name, kind in here.kinds.items() if not kind.modulus),
    )


def _digits(here: Shown, name: str, kind: Trained) -> Figure:
    """Exact match digit by digit: most digits of a wrong answer are right."""
    e = here.estimates[here.estimates["network"] == name]
    splits = [length_split(lengths) for lengths in kind.lengths]
    width = sum(q.startswith("truth_digit_") for q in e["quantity"].unique())
    table = e[e["edit"] == "greedy"].pivot_table("value", "split", "quantity")
    parts = [
        Matrix(words, table.loc[splits, [f"{q}_digit_{i}" for i in range(width)]].to_numpy())
        for q, words in (("truth", "the truth"), ("equivalence", "the rule"))
    ]
    return heatmap(
        parts,
        rows=[read(s).removesuffix(" digits") for s in splits],
        columns=[place(i) for i in range(width)],
        id=f"digits-{name}",
        title=f"{name}: digit by digit",
        row_title="digits of the operands",
        column_title="digit of the answer",
        value_title="share of answers with this digit right",
        limits="Mean over seeds. A digit is right by chance in about one answer of ten.",
    )


def _examples(here: Shown, name: str) -> Table:
    """Answers to longer operands to read, of the first seed; those that break the rule first."""
    kind, seed = here.kinds[name], here.config.first_seed
    path = here.run.output(f"arithmetic-answers-{name}-s{seed}") / EXAMPLES
    rows = pd.read_json(path, orient="records", dtype=False)
    names = [length_split(lengths) for lengths in (*kind.longer, *kind.farther)]
    rows = rows[rows["split"].isin(names)]
    broken = rows[rows["answer"] != rows["rule"]].head(SHOWN)
    kept = rows[rows["answer"] == rows["rule"]].head(SHOWN)
    sign = SYMBOL[kind.operation]
    shown = [
        (f"{r.a} {sign} {r.b}", r.answer or "no number", r.rule, r.truth, "no" if r.answer != r.rule else "yes")
        for r in pd.concat([broken, kept]).itertuples()
    ]
    return Table(
        title=f"{name}: answers to read, seed {seed}",
        columns=("problem", "answer", "the rule says", "truth", "follows the rule"),
        rows=shown,
        caption=f"The first {len(broken)} answers that break the rule among {len(rows)} and the first {len(kept)} that "
        "follow it; not a random sample.",
        folded=name not in here.sums,
    )


def _surface(here: Shown, name: str) -> Figure:
    """Answers over the plane of operands, beside the truth and the rule."""
    arrays = here.pictures(name)
    words = {"truth": "the truth", "rule": "the rule", "answer": "the network"}
    return heatmap(
        [Matrix(w, np.where(arrays[f"plane/{key}"] < 0, np.nan, arrays[f"plane/{key}"])) for key, w in words.items()],
        rows=arrays["plane/ticks"].tolist(),
        columns=arrays["plane/ticks"].tolist(),
        id=f"surface-{name}",
        title=f"{name}, seed {here.config.first_seed}: answers over the plane of operands",
        row_title="a",
        column_title="b",
        value_title="sum",
        limits="One operand at random from each of 40 equal ranges: round ones would make rivals look alike.",
        reason="no number",
    )


def _probabilities(here: Shown, name: str) -> list[Figure]:
    arrays = here.pictures(name)
    figures = []
    for half in range(2):
        at = slice(4 * half, 4 * half + 4)
        problems, values = arrays["problems"][at], arrays["probabilities"][at]
        figures.append(
            heatmap(
                [Matrix(f"{a} + {b}", p.T) for (a, b), p in zip(problems.tolist(), values, strict=True)],
                rows=list(range(values.shape[2])),
                columns=[place(i) for i in range(values.shape[1])],
                id=f"probabilities-{name}-{half}",
                title=f"{name}, seed {here.config.first_seed}: probabilities along the answer",
                row_title="digit",
                column_title="place in the answer",
                value_title="probability",
                limits="Given the network's own answer so far. Single problems of one network.",
            )
        )
    return figures


def rules(here: Shown) -> Section:
    rows, parts = [], []
    for name in here.kinds:
        for seed in here.config.seed_list():
            for who, r in here.rule_records[f"{name}/{seed}"].items():
                verdict = r["names"][0] if r["found"] else f"no relation: {r['reason']}"
                shown = "answers with two digits more" if who == "farther" else who
                k, n = r["heldout"]
                rows.append((name, seed, shown, verdict, r["count"], f"{k} of {n}", round(r["threshold"], 3)))
    for name in here.sums:
        for key, words in ((TRAINED, "one digit more"), ("farther", "two digits more")):
            if key in here.rule_records[f"{name}/{here.config.first_seed}"]:
                parts += [(name, words, c, round(w, 4)) for c, w in here.weights(name, key)[:8]]
    discovered = Table(
        title="What discovery finds",
        columns=("network", "seed", "answers of", "rule", "not separable", "held-out matches", "must exceed"),
        rows=rows,
        caption="Rule: the best of the rules that the held-out half confirms. Not separable: how many rules of the "
        "grammar these pairs cannot tell from it. Must exceed: .1 above the 95th percentile of the best of the grammar "
        "on answers shuffled within answer length.",
        folded=len(rows) > 20,
    )
    mixture = Table(
        title="What the answers to longer operands are made of",
        columns=("network", "operands", "component", "weight"),
        rows=parts,
        caption=f"Weights of the mixture, mean over {len(here.config.seed_list())} seeds, 1 in all; the eight largest. "
        "Unexplained: no rule of the grammar and none of the slips.",
    )
    return Section(
        id="rules",
        title="The rule, found without being told",
        text=(
            "Discovery is given operands and answers alone. Beside the trained network stand its own answers shuffled "
            "and the untrained network: for those the right result is that there is no relation.",
        ),
        tables=(mixture, discovered),
    )


def learning(here: Shown) -> Section:
    frames = []
    for name in here.kinds:
        for seed in here.config.seed_list():
            frame = pd.read_parquet(here.run.output(f"arithmetic-train-{name}-s{seed}") / "history.parquet")
            frames.append(frame.assign(network=name, seed=seed))
    curves = pd.concat(frames, ignore_index=True)
    curves = curves[curves["metric"].isin(["truth", "equivalence"]) & (curves["split"] != ASIDE)]
    id_rule = (curves["split"] == "id") & (curves["metric"] == "equivalence")
    curves = curves[~id_rule].assign(n=WATCHED)
    longer = curves["metric"].map({"truth": "longer: the truth", "equivalence": "longer: the rule"})
    curves["split"] = np.where(curves["split"] == "id", "in distribution", longer)
    return Section(
        id="learning",
        title="When the rule appears",
        figures=(training_curves(curves, metric="exact match", unit="pairs at most"),),
    )


def repair(here: Shown) -> Section:
    figures: list[Figure] = []
    e = here.estimates
    for name in (sum_name(law) for law in here.config.repair_laws):
        kind = here.kinds[name]
        rows = e[(e["network"] == name) & e["edit"].isin(METHODS) & (e["quantity"] == "truth")].copy()
        rows["lengths"] = [read(s) for s in rows["split"]]
        rows = rows.assign(place=[METHODS.index(m) for m in rows["edit"]]).sort_values(["place", "parameter"])
        rows["how"] = rows["edit"].str.replace("_", " ") + ", " + rows["parameter"].map("{:g} longer".format)
        figures.append(
            forest(
                rows,
                id=f"repair-{name}",
                title=f"{name}: exact match with the truth after repair",
                label="how",
                group="lengths",
                x="share of answers right",
                limits=f"Longer examples have {kind.digits + 1} digits. From scratch "
                "trains until its own examples are right and as long as the networks settle; the others for set steps.",
                unit=UNIT,
                marks=(0.9,),
            )
        )
    return Section(
        id="repair",
        title="What repairs it",
        text=("The vertical line is .9, which claim C6 asks for on operands one digit longer.",),
        figures=tuple(figures),
    )


def theory(here: Shown) -> Section:
    rows, table = [], []
    for name, kind in here.kinds.items():
        if not kind.modulus:
            continue
        words = {
            "truth": "measured",
            "predicted": "predicted for the same pairs",
            "equivalence": "follows the rule",
        }
        found = here.rows(name, words)
        rows.append(found.assign(where=f"mod {kind.modulus}, " + found["lengths"]))
        for lengths in (kind.longer[0], *kind.farther[:1]):
            exact = accuracy("mod_add", kind.modulus, kind.digits, lengths)
            measured = here.value("truth", name, length_split(lengths))
            table.append((f"mod {kind.modulus}", lengths[0], str(exact), *rounded(float(exact), measured)))
    if not rows:
        return Section(id="theory", title="Modular sums")
    figure = forest(
        pd.concat(rows, ignore_index=True),
        id="theory",
        title="Modular sums: accuracy measured and predicted",
        label="where",
        group="how",
        x="share of answers",
        limits="The prediction assumes a network that has learnt its task perfectly and computes the rule.",
        unit=UNIT,
    )
    caption = "Operands of exactly so many digits. Predicted: over all such pairs. Measured: mean over seeds."
    columns = ("task", "digits", "predicted", "as decimal", "measured")
    return Section(
        id="theory",
        title="Modular sums: where longer operands are right, and why",
        text=("Where the modulus divides the base to the n, high digits do not matter and longer operands are right.",),
        figures=(figure,),
        tables=(Table("Predicted and measured", columns, table, caption),),
    )
