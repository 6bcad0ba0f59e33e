"""The page of the arithmetic study: what networks answer, what the rule says, and where the two part."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from heldout.analyses.equivalence.theory import accuracy
from heldout.evidence import read_estimates
from heldout.figures import Figure, Matrix, forest, heatmap, scatter_components, training_curves
from heldout.figures.page import IdentityCheck, Page, Section, Table
from heldout.runs import Run
from heldout.statistics.verdict import Judgement
from heldout.studies.arithmetic import (
    CLASS_SITE,
    METHODS,
    ArithmeticConfig,
    Trained,
    length_split,
    sum_name,
)
from heldout.studies.arithmetic_answers import EXAMPLES, RULES, TRAINED
from heldout.studies.arithmetic_inside import INSIDE, POINTS, STRUCTURE
from heldout.studies.arithmetic_train import WATCHED, task_of
from heldout.studies.audited import CLAIMS, ESTIMATES
from heldout.studies.simplify import lasting, run_warnings

JUDGE = "arithmetic-judge"
UNIT = "unordered pairs"
SHOWN = 6  # answers to read, for each of two kinds
SYMBOL = {"add": "+", "mod_add": "+", "multiply": "×"}


def arithmetic_page(run: Run, config: ArithmeticConfig, title: str) -> Page:
    """The whole page of a finished run."""
    folder = run.output(JUDGE)
    here = _Here(run, config, read_estimates(folder / ESTIMATES), folder)
    judgements = tuple(Judgement.from_dict(r) for r in json.loads((folder / CLAIMS).read_text()))
    return Page(
        title=title,
        question="Transformers are wrong on operands longer than they were trained on: by which rule?",
        summary=tuple(here.summary()),
        identity=here.identity(),
        judgements=judgements,
        sections=(
            here.answers(),
            here.rules(),
            here.learning(),
            here.inside(),
            here.causes(),
            here.repair(),
            here.theory(),
            here.setting(),
        ),
        manifest=lasting(run.manifest),
        warnings=run_warnings(run),
    )


class _Here:
    """A finished run with its tables at hand."""

    def __init__(self, run: Run, config: ArithmeticConfig, estimates: pd.DataFrame, folder: Path) -> None:
        self.run, self.config, self.estimates = run, config, estimates
        self.kinds = {kind.name: kind for kind in config.networks()}
        self.sums = [kind.name for kind in config.sums()]
        self.rule_records: Mapping[str, Any] = json.loads((folder / RULES).read_text())
        self.inside_records: Mapping[str, Any] = json.loads((folder / INSIDE).read_text())

    def identity(self) -> tuple[IdentityCheck, ...]:
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
            for who, record in self.inside_records.items()
            for check in [max((row["identity"] for row in record["removal"]), key=lambda c: c["difference"])]
        )

    # -- in words -------------------------------------------------------------------------------------------------

    def summary(self) -> Iterable[str]:
        for name, kind in self.kinds.items():
            if kind.modulus:
                continue
            split = length_split(kind.longer[0])
            truth, rule = (self._value(q, name, split) for q in ("truth", "equivalence"))
            found = [self.rule_records[f"{name}/{seed}"][TRAINED]["found"] for seed in self.config.seed_list()]
            yield (
                f"{name}: on operands of {kind.longer[0][0]} digits {100 * truth:.1f}% of the answers are right and "
                f"{100 * rule:.1f}% are right for the operands' last {kind.digits} digits; discovery confirms a rule for "
                f"{sum(found)} of {len(found)} networks."
            )
        for name in self.sums:
            if not self.kinds[name].farther:
                continue
            split = length_split(self.kinds[name].farther[0])
            values = self._by_seed_weights(name, "farther")
            yield (
                f"{name}: with two digits more the rule gives {100 * self._value('equivalence', name, split):.1f}% of the "
                f"answers to {split.removeprefix('len_').replace('_', '+')} digits; the rest: "
                + (", ".join(f"{component} {100 * weight:.1f}%" for component, weight in values[1:4]) or "unexplained")
                + "."
            )

    def _value(self, quantity: str, network: str, split: str) -> float:
        e = self.estimates
        found = e[(e["quantity"] == quantity) & (e["network"] == network) & (e["split"] == split)]
        return float(found["value"].iloc[0])

    def _by_seed_weights(self, network: str, key: str) -> list[tuple[str, float]]:
        """Component -> weight, mean over seeds (0 where a seed's mixture lacks it), the largest first."""
        sums: dict[str, float] = {}
        seeds = self.config.seed_list()
        for seed in seeds:
            record = self.rule_records[f"{network}/{seed}"][key]
            for component, weight in zip(record["components"], record["weights"], strict=True):
                sums[component] = sums.get(component, 0.0) + weight / len(seeds)
        return sorted(sums.items(), key=lambda item: -item[1])

    def _rows(self, network: str, quantities: Mapping[str, str], *, edit: str = "greedy") -> pd.DataFrame:
        """Estimates of a network, with a column `how` from quantity -> words and `lengths` to read."""
        e = self.estimates
        rows = e[(e["network"] == network) & e["quantity"].isin(quantities) & (e["edit"] == edit)].copy()
        rows["how"] = rows["quantity"].map(quantities)
        rows["lengths"] = [_read(split) for split in rows["split"]]
        order = {q: i for i, q in enumerate(quantities)}
        return rows.assign(order=rows["quantity"].map(order)).sort_values("order", kind="stable")

    # -- sections -------------------------------------------------------------------------------------------------

    def answers(self) -> Section:
        words = {"truth": "the truth", "equivalence": "the rule", "self": "itself on the low parts", "shuffled": "null"}
        figures: list[Figure] = []
        for name, kind in self.kinds.items():
            if kind.modulus:
                continue
            figures.append(
                forest(
                    self._rows(name, words),
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
            figures.append(self._digits(name, kind))
        for name in self.sums:
            figures += [self._surface(name), *self._probabilities(name)]
        return Section(
            id="answers",
            title="What is answered, what is true, what the rule says",
            text=("An answer that is no number counts as wrong. Digits count from the units.",),
            figures=tuple(figures),
            tables=tuple(self._examples(name) for name, kind in self.kinds.items() if not kind.modulus),
        )

    def _digits(self, name: str, kind: Trained) -> Figure:
        """Exact match digit by digit: most digits of a wrong answer are right."""
        e = self.estimates[self.estimates["network"] == name]
        splits = [length_split(lengths) for lengths in kind.lengths]
        width = sum(q.startswith("truth_digit_") for q in e["quantity"].unique())
        table = e[e["edit"] == "greedy"].pivot_table("value", "split", "quantity")
        parts = [
            Matrix(words, table.loc[splits, [f"{q}_digit_{i}" for i in range(width)]].to_numpy())
            for q, words in (("truth", "the truth"), ("equivalence", "the rule"))
        ]
        return heatmap(
            parts,
            rows=[_read(s).removesuffix(" digits") for s in splits],
            columns=[_place(i) for i in range(width)],
            id=f"digits-{name}",
            title=f"{name}: digit by digit",
            row_title="digits of the operands",
            column_title="digit of the answer",
            value_title="share of answers with this digit right",
            limits="Mean over seeds. A digit is right by chance in about one answer of ten.",
        )

    def _examples(self, name: str) -> Table:
        """Answers to longer operands to read, of the first seed; those that break the rule first."""
        kind, seed = self.kinds[name], self.config.first_seed
        path = self.run.output(f"arithmetic-answers-{name}-s{seed}") / EXAMPLES
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
            folded=name not in self.sums,
        )

    def rules(self) -> Section:
        rows, parts = [], []
        for name in self.kinds:
            for seed in self.config.seed_list():
                for who, r in self.rule_records[f"{name}/{seed}"].items():
                    verdict = r["names"][0] if r["found"] else f"no relation: {r['reason']}"
                    shown = "answers with two digits more" if who == "farther" else who
                    k, n = r["heldout"]
                    rows.append((name, seed, shown, verdict, r["count"], f"{k} of {n}", round(r["threshold"], 3)))
        for name in self.sums:
            for key, words in ((TRAINED, "one digit more"), ("farther", "two digits more")):
                if key in self.rule_records[f"{name}/{self.config.first_seed}"]:
                    parts += [(name, words, c, round(w, 4)) for c, w in self._by_seed_weights(name, key)[:8]]
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
            caption=f"Weights of the mixture, mean over {len(self.config.seed_list())} seeds, 1 in all; the eight largest. "
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

    def learning(self) -> Section:
        frames = []
        for name in self.kinds:
            for seed in self.config.seed_list():
                frame = pd.read_parquet(self.run.output(f"arithmetic-train-{name}-s{seed}") / "history.parquet")
                frames.append(frame.assign(network=name, seed=seed))
        curves = pd.concat(frames, ignore_index=True)
        curves = curves[curves["metric"].isin(["truth", "equivalence"])]
        id_rule = (curves["split"] == "id") & (curves["metric"] == "equivalence")
        curves = curves[~id_rule].assign(n=WATCHED)
        longer = curves["metric"].map({"truth": "longer: the truth", "equivalence": "longer: the rule"})
        curves["split"] = np.where(curves["split"] == "id", "in distribution", longer)
        return Section(
            id="learning",
            title="When the rule appears",
            figures=(training_curves(curves, metric="exact match", unit="pairs at most"),),
        )

    def inside(self) -> Section:
        words = {"nearest": "trained", "nearest_untrained": "untrained", "nearest_permuted": "permuted labels"}
        figures: list[Figure] = []
        for name in self.sums:
            rows = self._rows(name, words, edit=STRUCTURE)
            rows["where"] = rows["site"] + ", " + rows["lengths"]
            figures.append(
                forest(
                    rows,
                    id=f"classes-{name}",
                    title=f"{name}: activations nearest to the centroid of their own units digit",
                    label="where",
                    group="how",
                    x="share of activations, last prompt position",
                    limits="Components and centroids are fitted on training pairs. That classes persist does not show that "
                    "the answer is read from them.",
                    unit=UNIT,
                )
            )
        for name in self.sums:
            figures += [self._points(name), self._tiles(name)]
        return Section(
            id="inside",
            title="The classes that activations form",
            figures=tuple(figures),
            tables=(self._structure(), self._spectrum(), self._distances()),
        )

    def _points(self, name: str) -> Figure:
        seed, arrays, frames = self.config.first_seed, self._pictures(name), []
        for split in [key.removesuffix("/points") for key in arrays if key.endswith("/points")]:
            frame = pd.DataFrame(arrays[f"{split}/points"][:, :2], columns=["component 1", "component 2"])
            units = arrays[f"{split}/units"].astype(str)
            frames.append(frame.assign(**{"units digit, operands": np.char.add(units, f", {_read(split)}")}))
        return scatter_components(
            pd.concat(frames, ignore_index=True),
            id=f"points-{name}",
            title=f"{name}, seed {seed}: activations in and out of distribution",
            x="component 1",
            y="component 2",
            by="units digit, operands",
            limits="Components fitted in distribution; out-of-distribution points are projected on them. Two of many.",
            unit="pairs",
        )

    def _pictures(self, name: str) -> dict[str, np.ndarray]:
        with np.load(self.run.output(f"arithmetic-inside-{name}-s{self.config.first_seed}") / POINTS) as arrays:
            return {key: arrays[key] for key in arrays}

    def _surface(self, name: str) -> Figure:
        """Answers over the plane of operands, beside the truth and the rule."""
        arrays = self._pictures(name)
        words = {"truth": "the truth", "rule": "the rule", "answer": "the network"}
        return heatmap(
            [
                Matrix(w, np.where(arrays[f"plane/{key}"] < 0, np.nan, arrays[f"plane/{key}"]))
                for key, w in words.items()
            ],
            rows=arrays["plane/ticks"].tolist(),
            columns=arrays["plane/ticks"].tolist(),
            id=f"surface-{name}",
            title=f"{name}, seed {self.config.first_seed}: answers over the plane of operands",
            row_title="a",
            column_title="b",
            value_title="sum",
            limits="One operand at random from each of 40 equal ranges: round ones would make rivals look alike.",
            reason="no number",
        )

    def _tiles(self, name: str) -> Figure:
        """The first component by the units of both operands: stripes, if it is a function of their sum's units."""
        arrays, digits = self._pictures(name), list(range(10))
        splits = [key.removesuffix("/by_units") for key in arrays if key.endswith("/by_units")]
        return heatmap(
            [Matrix(_read(s), arrays[f"{s}/by_units"][0], arrays[f"{s}/counts"]) for s in splits],
            rows=digits,
            columns=digits,
            id=f"tiles-{name}",
            title=f"{name}, seed {self.config.first_seed}: the first component by the operands' units",
            row_title="units of a",
            column_title="units of b",
            value_title="coordinate",
            limits="Fitted in distribution, last norm, last prompt position. A mean hides what varies within a cell.",
            difference=True,
            reason="no pairs",
        )

    def _probabilities(self, name: str) -> list[Figure]:
        arrays = self._pictures(name)
        figures = []
        for half in range(2):
            at = slice(4 * half, 4 * half + 4)
            problems, values = arrays["problems"][at], arrays["probabilities"][at]
            figures.append(
                heatmap(
                    [Matrix(f"{a} + {b}", p.T) for (a, b), p in zip(problems.tolist(), values, strict=True)],
                    rows=list(range(values.shape[2])),
                    columns=[_place(i) for i in range(values.shape[1])],
                    id=f"probabilities-{name}-{half}",
                    title=f"{name}, seed {self.config.first_seed}: probabilities along the answer",
                    row_title="digit",
                    column_title="place in the answer",
                    value_title="probability",
                    limits="Given the network's own answer so far. Single problems of one network.",
                )
            )
        return figures

    def _inside_means(self, name: str, what: str, keys: Sequence[str]) -> pd.DataFrame:
        """The mean over seeds of a list of records, by `keys`."""
        rows = [r for seed in self.config.seed_list() for r in self.inside_records[f"{name}/{seed}"][what]]
        return pd.DataFrame(rows).groupby(list(keys), sort=False).mean(numeric_only=True).reset_index()

    def _structure(self) -> Table:
        rows = []
        for name in self.sums:
            for r in self._inside_means(name, "structure", ("site", "split")).itertuples():
                rows.append(
                    (name, r.site, _read(r.split), *_rounded(r.explained, r.silhouette, r.silhouette_components))
                )
        return Table(
            title="Silhouettes of the ten classes",
            columns=("network", "site", "operands", "variance in components", "silhouette", "in the components"),
            rows=rows,
            caption=f"Mean over seeds; {self.config.components} components fitted in distribution. Silhouette: -1 to 1, by "
            "units digit, up to 500 pairs. The paper's released network had .85 at its last norm on pairs in and out of "
            "distribution together.",
            folded=True,
        )

    def _spectrum(self) -> Table:
        rows = []
        for name in self.sums:
            by_site: dict[str, list[list[float]]] = {}
            for seed in self.config.seed_list():
                for r in self.inside_records[f"{name}/{seed}"]["spectrum"]:
                    by_site.setdefault(r["site"], []).append(r["energy"])
            rows += [(name, site, *_rounded(*np.mean(energies, axis=0))) for site, energies in by_site.items()]
        shown = max((len(row) - 2 for row in rows), default=0)
        return Table(
            title="Fourier energy of the ten class centroids",
            columns=("network", "site", *(f"frequency {k + 1}" for k in range(shown))),
            rows=rows,
            caption="Share of the centroids' scatter at each frequency around the ten digits, mean over seeds; sums to 1. "
            "A circle that goes round k times has all its energy at k.",
        )

    def _distances(self) -> Table:
        rows = []
        for name in self.sums:
            for r in self._inside_means(name, "distances", ("network", "site")).itertuples():
                rows.append((name, r.network, r.site, *_rounded(r.distance, r.ratio, r.ratio_same_class)))
        return Table(
            title="How far the operands' low parts are from the operands themselves",
            columns=("network", "weights", "site", "distance", "ratio to control", "ratio within the class"),
            rows=rows,
            caption="Euclidean distance at the last prompt position between a problem one digit too long and its low parts, "
            "mean over 500 pairs and seeds. Control: as many digits changed where the rule looks, the same next token. "
            "Within the class: another pair with the same units digit.",
            folded=True,
        )

    def causes(self) -> Section:
        """C4, swaps and probes."""
        figures: list[Figure] = []
        e = self.estimates
        for name in self.sums:
            own = e[(e["network"] == name) & (e["quantity"] == "exact") & e["split"].isin(["id"])].copy()
            own["how"] = np.where(
                own["edit"].str.startswith("random directions"), "random, equal variance", own["edit"]
            )
            mean = own.groupby(["site", "how"], sort=False, as_index=False).agg(
                {"value": "mean", "n": "min", "seeds": "min", "reason": "first", "method": "first"}
                | {"low": "min", "high": "max"}
            )
            figures.append(
                forest(
                    mean,
                    id=f"removed-{name}",
                    title=f"{name}: what removing the classes costs in distribution",
                    label="site",
                    group="how",
                    x="exact match that is left",
                    limits=f"For random directions: the mean over {self.config.random_draws} draws, the "
                    "interval from the lowest to the highest end of the draws' intervals. At the last norm only the units "
                    "digit is read from this position, so that removal there is close to removing the answer itself.",
                    unit=UNIT,
                )
            )
            swapped = e[(e["network"] == name) & (e["quantity"] == "changed")].copy()
            figures.append(
                forest(
                    swapped,
                    id=f"swapped-{name}",
                    title=f"{name}: answers changed by swapping positions",
                    label="site",
                    group="edit",
                    x="share of answers changed",
                    limits="Spare positions: between a problem and its low parts. Used positions: between two problems, "
                    "where answers must change. What a later block has already read is not undone.",
                    unit=UNIT,
                )
            )
            probed = e[(e["network"] == name) & e["edit"].str.startswith("probe.") & (e["site"] == CLASS_SITE)].copy()
            probed["how"] = probed["quantity"].map(
                {"decoded": "decoded", "decoded_shuffled": "shuffled labels", "decoded_majority": "largest class"}
            )
            probed["what"] = probed["edit"].str.removeprefix("probe.") + ", " + [_read(s) for s in probed["split"]]
            figures.append(
                forest(
                    probed,
                    id=f"probes-{name}",
                    title=f"{name}: what a linear probe reads at the last norm",
                    label="what",
                    group="how",
                    x="share read right",
                    limits="Fitted on training pairs; the ignored digit on the other half of the same split (an oracle). "
                    "Decodable is not used.",
                    unit=UNIT,
                )
            )
        rows = []
        for name in self.sums:
            for r in self._inside_means(name, "removal", ("site",)).itertuples():
                rows.append((name, r.site, round(r.rank), *_rounded(r.share, r.control_rank, r.overlap, r.scale)))
        matched = Table(
            title="What was removed",
            columns=(
                *(
                    "network",
                    "site",
                    "class directions",
                    "share of variance",
                    "random directions",
                    "overlap",
                    "identity",
                ),
            ),
            rows=rows,
            caption="Random directions are removed until the mean squared change is the class subspace's. Overlap: the "
            "share of the class subspace that lies in them; near 1 the two interventions are one. Scale: what the "
            "deviation along as many random directions is multiplied with; above 1 it is pushed beyond the mean. Means over "
            "seeds.",
        )
        return Section(
            id="causes",
            title="Does accuracy hang on the classes?",
            figures=tuple(figures),
            tables=(matched,),
        )

    def repair(self) -> Section:
        figures: list[Figure] = []
        e = self.estimates
        for name in (sum_name(law) for law in self.config.repair_laws):
            kind = self.kinds[name]
            rows = e[(e["network"] == name) & e["edit"].isin(METHODS) & (e["quantity"] == "truth")].copy()
            rows["lengths"] = [_read(s) for s in rows["split"]]
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
                    limits=f"Longer examples have {kind.digits + 1} digits. Steps and rate were not tuned for each method.",
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

    def theory(self) -> Section:
        rows, table = [], []
        for name, kind in self.kinds.items():
            if not kind.modulus:
                continue
            words = {
                "truth": "measured",
                "predicted": "predicted for the same pairs",
                "equivalence": "follows the rule",
            }
            found = self._rows(name, words)
            rows.append(found.assign(where=f"mod {kind.modulus}, " + found["lengths"]))
            for lengths in (kind.longer[0], *kind.farther[:1]):
                exact = accuracy("mod_add", kind.modulus, kind.digits, lengths)
                measured = self._value("truth", name, length_split(lengths))
                table.append((f"mod {kind.modulus}", lengths[0], str(exact), *_rounded(float(exact), measured)))
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
            text=(
                "Where the modulus divides the base to the n, high digits do not matter and longer operands are right.",
            ),
            figures=(figure,),
            tables=(Table("Predicted and measured", columns, table, caption),),
        )

    def setting(self) -> Section:
        rows = []
        for name, kind in self.kinds.items():
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


def _read(split: str) -> str:
    """``len_4_3`` -> ``4 + 3 digits``."""
    if not split.startswith("len_"):
        return "in distribution" if split == "id" else split
    la, lb = split.removeprefix("len_").split("_")
    return f"{la} + {lb} digits"


def _place(i: int) -> str:
    return "units" if i == 0 else f"10^{i}"


def _rounded(*values: float) -> list[float]:
    return [round(float(v), 3) for v in values]
