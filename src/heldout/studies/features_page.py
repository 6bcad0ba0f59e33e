"""The page of the features study: how loud each feature is, where that turns, and whether it matters."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from heldout.evidence import read_estimates
from heldout.figures import Figure, Matrix, faithfulness_curves, forest, heatmap, scatter_components, training_curves
from heldout.figures.page import IdentityCheck, Page, Section, Table
from heldout.runs import Run
from heldout.statistics.verdict import Judgement
from heldout.studies.audited import CLAIMS, ESTIMATES
from heldout.studies.features import HEADLINE, JUDGE, PREVALENCES, FeaturesConfig, measure_name, sides
from heldout.studies.features_conditions import ADAM_XOR, DROPOUTS, EXPERIMENTS, OPTIMISERS, SHARES, Condition
from heldout.studies.features_judge import GATES
from heldout.studies.features_measure import PICTURES, SITE, TOLERANCE, VALUES
from heldout.studies.simplify import lasting, run_warnings
from heldout.tasks.features.complexity import complexity

UNIT = "test rows"
BINS = np.linspace(0.0, 1.0, 11)  # of a unit's r^2


def features_page(run: Run, config: FeaturesConfig, title: str) -> Page:
    """The whole page of a finished run."""
    folder = run.output(JUDGE)
    here = _Here(run, config, read_estimates(folder / ESTIMATES), folder)
    return Page(
        title=title,
        question="Networks compute several features equally well: which of them do they represent with more variance?",
        summary=tuple(here.summary()),
        identity=tuple(here.identity()),
        judgements=tuple(Judgement.from_dict(r) for r in json.loads((folder / CLAIMS).read_text())),
        sections=(
            here.loudness(),
            here.units(),
            here.components(),
            here.causes(),
            here.importance(),
            here.robustness(),
            here.setting(),
        ),
        manifest=lasting(run.manifest),
        warnings=run_warnings(run),
    )


class _NotRunError(Exception):
    """A figure that this run has no data for; the message names the conditions that it needs."""


class _Here:
    """A finished run with its tables at hand."""

    def __init__(self, run: Run, config: FeaturesConfig, estimates: pd.DataFrame, folder: Path) -> None:
        self.run, self.config, self.folder = run, config, folder
        self.conditions: Mapping[str, Condition] = {c.name: c for c in config.chosen()}
        kind, feature = zip(*(q.partition(":")[::2] for q in estimates["quantity"]), strict=True)
        self.estimates = estimates.assign(kind=kind, feature=feature)

    def rows(self, kind: str, conditions: Iterable[str] = (), **where: object) -> pd.DataFrame:
        """Estimates of one kind of quantity, of some conditions (all of them where none are named), in their order."""
        e = self.estimates[self.estimates["kind"] == kind]
        for column, value in where.items():
            e = e[e[column] == value]
        names = list(conditions)
        if names:
            e = e[e["network"].isin(names)]
            e = e.assign(at=[names.index(n) for n in e["network"]]).sort_values("at", kind="stable").drop(columns="at")
        return e.assign(condition=e["network"])

    def ran(self, experiment: Iterable[str], *, least: int = 1) -> list[str]:
        """Those of some conditions that this run has; `_NotRunError` where they are fewer than `least`."""
        wanted = list(experiment)
        found = [name for name in wanted if name in self.conditions]
        if len(found) < least:
            missing = [name for name in wanted if name not in self.conditions]
            raise _NotRunError(f"{', '.join(missing[:6])}{' ...' if len(missing) > 6 else ''}")
        return found

    def section(
        self, key: str, title: str, text: Sequence[str], figures: _Wanted, tables: Sequence[Table] = ()
    ) -> Section:
        """Figures that can be drawn, and for each that cannot a sentence that says so."""
        drawn: list[Figure] = []
        absent: list[str] = []
        for name, make in figures.items():
            try:
                drawn.append(make())
            except _NotRunError as why:
                absent.append(f"Not run here: {name}. It needs {why}.")
        return Section(id=key, title=title, text=(*text, *absent), figures=tuple(drawn), tables=tuple(tables))

    # -- in words -------------------------------------------------------------------------------------------------

    def summary(self) -> Iterable[str]:
        gates = json.loads((self.folder / GATES).read_text())
        failed = sum(not g["passed"] for g in gates if g["name"].split(" ")[0] in self.conditions)
        if HEADLINE in self.conditions:
            loud = self.rows("variance_explained", [HEADLINE])
            words = [f"{r.feature} explains {100 * r.value:.1f}%" for r in loud.itertuples() if np.isfinite(r.value)]
            if words:
                yield f"In the headline condition {' and '.join(words)} of the penultimate layer's variance."
        gaps = self.rows("gap")
        gaps = gaps[gaps["value"].notna()]
        pairs = gaps[[self._differ(n) for n in gaps["network"]]]
        if len(pairs):
            above, below = int((pairs["low"] > 0).sum()), int((pairs["high"] < 0).sum())
            yield (
                f"Of {len(pairs)} conditions with a simpler and a more complex feature the interval of the gap is above 0 "
                f"in {above} and below 0 in {below}."
            )
        yield (
            f"{failed} of {len(self.conditions)} conditions miss the accuracy gate (every feature above .95 and within .01 "
            "of the others, in every seed), controls that are not trained on both among them; they are shown and not judged."
        )

    def _differ(self, condition: str) -> bool:
        return len(set(self.conditions[condition].task.features)) > 1

    def identity(self) -> Iterable[IdentityCheck]:
        """That decisions read from the penultimate layer are those of the network."""
        for row in self.rows("difference_of_passes").to_dict("records"):
            most = max(v for v in self._values(row["network"], "difference_of_passes").values())
            yield IdentityCheck(row["network"], SITE, most, TOLERANCE, most <= TOLERANCE, "not used: rows are held")

    def _values(self, condition: str, quantity: str) -> dict[int, float]:
        """One value a network, by seed."""
        record = json.loads((self.run.output(measure_name(condition)) / VALUES).read_text())
        return {int(seed): v[1] for seed, rows in record.items() for v in rows if v[0] == quantity and v[1] is not None}

    # -- sections -------------------------------------------------------------------------------------------------

    def loudness(self) -> Section:
        return self.section(
            "loudness",
            "How loud each feature is",
            (
                "Each feature has an output of its own and the same weight in the loss. Variance explained asks how much of "
                "the penultimate layer's variance a linear map from the feature's value accounts for: fitted on val, "
                "scored on test, pooled over units. It says how loud a feature is, not how readable or how important.",
            ),
            {
                "variance explained by simpler and more complex features (E1 and E3)": self._bars,
                "how it grows while training (E13)": lambda: self._along("explained_of_final", "loudness-along"),
                "the same over each checkpoint's own variance (E13)": lambda: self._along(
                    "explained_of_current", "share-along"
                ),
                "accuracy along the way (E13)": lambda: self._along("accuracy_along", "accuracy-along"),
            },
            (self._concept(), self._mastery()),
        )

    def _bars(self) -> Figure:
        names = self.ran(dict.fromkeys([*EXPERIMENTS["E1"], *EXPERIMENTS["E3"]]))
        return self._by_feature(names, "loudness", "Variance explained, by condition and feature")

    def _by_feature(self, names: Sequence[str], key: str, title: str, kind: str = "variance_explained") -> Figure:
        rows = self.rows(kind, names)
        return forest(
            rows,
            id=key,
            title=title,
            label="condition",
            group="feature",
            x="pooled variance explained, held out",
            limits="Rescalings of units that leave the network's function unchanged move it: see the bands. Features need "
            "not sum to 1.",
            unit=UNIT,
            marks=(0.0, 1.0),
        )

    def _along(self, kind: str, key: str) -> Figure:
        words = {
            "explained_of_final": "explained variance / final total variance",
            "explained_of_current": "explained variance / total variance at the time",
            "accuracy_along": "accuracy on test",
        }
        name = self.ran(EXPERIMENTS["E13"])[0]
        record = json.loads((self.run.output(measure_name(name)) / VALUES).read_text())
        n = int(self.rows("variance_explained", [name])["n"].max())
        found = [
            {"network": name, "seed": int(seed), "split": v[0].partition(":")[2], "step": v[2], "value": v[1], "n": n}
            for seed, rows in record.items()
            for v in rows
            if v[0].startswith(f"{kind}:")
        ]
        curves = pd.DataFrame(found)
        curves["value"] = curves["value"].astype(float)
        return training_curves(curves, metric=words[kind], id=key, title=f"{name}: {words[kind]}", unit=UNIT)

    def _concept(self) -> Table:
        features = {p.name: p.feature for c in self.conditions.values() for p in c.task.planted()}
        rows = []
        for written, f in {f.name: f for f in features.values()}.items():
            c = complexity(f)
            depth = "unknown" if c.circuit_depth is None else c.circuit_depth
            rows.append((written, f.classes, c.fan_in, c.fourier_degree, round(c.average_sensitivity, 3), depth))
        return Table(
            title="The features, by complexity",
            columns=("feature", "classes", "inputs", "Fourier degree", "average sensitivity", "circuit depth"),
            rows=sorted(rows, key=lambda row: (row[2], row[3], row[4])),
            caption="Computed from truth tables under uniform inputs. None of these says how hard a feature is to learn.",
        )

    def _mastery(self) -> Table:
        rows = []
        for kind in ("mastered", "growth_after_mastery"):
            for r in self.rows(kind).to_dict("records"):
                rows.append((r["network"], r["feature"], kind.replace("_", " "), *_interval(r)))
        return Table(
            title="When features are mastered, and how much louder they get afterwards",
            columns=("condition", "feature", "quantity", "mean over seeds", "95% interval"),
            rows=rows,
            caption="Mastered: the first look from which on accuracy stays at .95. Growth: explained variance over the "
            "final total, at the end minus at mastery. t intervals over seeds.",
        )

    def units(self) -> Section:
        return self.section(
            "units",
            "Over how many units it is spread",
            (
                "Density is 1 where all live units carry a feature alike and 1/U where one of U does. An unrepresented "
                "feature scores about one third by chance: permuted labels and random directions stand beside.",
            ),
            {
                "r² of single units": self._histogram,
                "density beside its nulls": self._density,
            },
        )

    def _histogram(self) -> Figure:
        name = self.ran([HEADLINE, *self.conditions])[0]
        names = [p.name for p in self.conditions[name].task.planted()]
        with np.load(self.run.output(measure_name(name)) / PICTURES) as arrays:
            r2 = arrays["unit_r2"]
        edges = [f"{low:.1f} to {high:.1f}" for low, high in pairwise(BINS)]
        counts = np.stack(
            [np.histogram(np.clip(r2[:, i][np.isfinite(r2[:, i])], 0, 1), BINS)[0] for i in range(len(names))]
        )
        total = counts.sum(axis=1, keepdims=True)
        matrix = Matrix("", np.where(total > 0, counts / np.maximum(total, 1), np.nan).T, np.repeat(total, 10, 1).T)
        return heatmap(
            [matrix],
            rows=edges,
            columns=names,
            id="unit-histogram",
            title=f"{name}: how much of a unit's variance a feature explains",
            row_title="r² of a unit",
            column_title="feature",
            value_title="share of units, all seeds",
            limits="Units that do not vary are left out.",
            reason="no unit varies",
        )

    def _density(self) -> Figure:
        words = {
            "density": "network",
            "density_permuted": "permuted labels",
            "density_random_direction": "random directions",
        }
        names = self.ran(dict.fromkeys([*EXPERIMENTS["E1"], *EXPERIMENTS["E3"]]))
        rows = pd.concat([self.rows(kind, names).assign(how=how) for kind, how in words.items()])
        rows["where"] = rows["condition"] + ", " + rows["feature"]
        return forest(
            rows,
            id="density",
            title="Density of each feature",
            label="where",
            group="how",
            x="participation ratio of debiased r² over live units",
            limits="Absent where the pooled figure does not exceed its permutation null in some seed.",
            unit="networks",
        )

    def components(self) -> Section:
        names = self.ran([HEADLINE, *self.conditions])[:1]
        return self.section(
            "components",
            "Principal components",
            ("That a feature sits in small components does not show that it matters little.",),
            {
                "the two largest components": lambda: self._scatter(names[0]),
                "r² of components": self._component_r2,
                "accuracy with the largest components alone (E15)": self._survival,
            },
            (self._ranks(),),
        )

    def _scatter(self, name: str) -> Figure:
        with np.load(self.run.output(measure_name(name)) / PICTURES) as arrays:
            points, values = arrays["points"], arrays["values"]
        features = [p.name for p in self.conditions[name].task.planted()]
        frame = pd.DataFrame(points[:, :2], columns=["component 1", "component 2"])
        frame["features"] = [", ".join(f"{f} = {v}" for f, v in zip(features, row, strict=True)) for row in values]
        return scatter_components(
            frame.sort_values("features", kind="stable"),
            id="components",
            title=f"{name}, seed {self.config.first_seed}: the two largest components",
            x="component 1",
            y="component 2",
            by="features",
            limits="Components are fitted on val. Two of many: a feature that is not seen here may be in smaller ones.",
            unit=UNIT,
        )

    def _component_r2(self) -> Figure:
        names = self.ran(EXPERIMENTS["E15"])
        return self._curves("component_r2", names, "component-r2", "r² of each component", "component")

    def _survival(self) -> Figure:
        names = [n for n in self.ran(EXPERIMENTS["E15"]) if len(self.rows("accuracy_of_top", [n]))]
        return self._curves(
            "accuracy_of_top", names, "survival", "Accuracy from the top components alone", "components kept"
        )

    def _curves(self, kind: str, names: Sequence[str], key: str, title: str, parameter: str) -> Figure:
        rows = self.rows(kind, names)
        rows = rows[rows["parameter"] > 0]
        words = kind.replace("_", " ")
        rows = rows.assign(split=rows["feature"], quantity=words, edit="")
        return faithfulness_curves(
            rows, quantity=words, id=key, title=title, unit="networks", by=("network",), parameter=parameter
        )

    def _ranks(self) -> Table:
        kinds = ("largest_component", "k95", "effective_dimension")
        rows = [
            (r["network"], r["feature"] or "all", kind.replace("_", " "), *_interval(r))
            for kind in kinds
            for r in self.rows(kind).to_dict("records")
        ]
        return Table(
            title="Where features sit among components",
            columns=("condition", "feature", "quantity", "mean over seeds", "95% interval"),
            rows=sorted(rows, key=lambda row: list(self.conditions).index(row[0])),
            caption="Largest component: the one whose variance the feature explains best. k95: components from which on "
            "accuracy stays at 95% of the network's; of a feature that the network does not compute it says nothing.",
            folded=True,
        )

    def causes(self) -> Section:
        return self.section(
            "causes",
            "What moves the gap",
            ("Gap: variance explained by the simpler feature minus that by the more complex one.",),
            {
                "order of learning (E4)": lambda: self._gaps("E4", "order", "Gap by order of learning"),
                "parts of the complex feature (E5)": self._parts,
                "prevalence (E6)": self._prevalence,
                "depth and width (E9)": lambda: self._gaps("E9", "depth-width", "Gap by depth and width"),
                "optimiser and dropout (E8)": self._dropout,
            },
        )

    def _gaps(self, experiment: str, key: str, title: str) -> Figure:
        return self._forest_of_gaps(self.ran(EXPERIMENTS[experiment], least=2), key, title)

    def _forest_of_gaps(self, names: Sequence[str], key: str, title: str) -> Figure:
        return forest(
            self.rows("gap", names),
            id=key,
            title=title,
            label="condition",
            x="gap in pooled variance explained, held out",
            limits="Conditions that miss the accuracy gate are drawn too; the table of gates names them.",
            unit=UNIT,
        )

    def _parts(self) -> Figure:
        names = self.ran(EXPERIMENTS["E5"])
        parts = self.rows("part", names)
        whole = self.rows("variance_explained", names)
        rows = pd.concat([whole.assign(what="feature"), parts.assign(what="part of it")])
        rows["where"] = rows["condition"] + ", " + rows["feature"]
        return forest(
            rows.sort_values("where", kind="stable"),
            id="parts",
            title="Features and their parts",
            label="where",
            group="what",
            x="pooled variance explained, held out",
            limits="Parts of one feature are not independent, so their figures do not add up. n is test rows for features "
            "and networks for parts.",
            unit="rows or networks",
        )

    def _prevalence(self) -> Figure:
        names = self.ran(
            ["equal", *(f"rare-{r}-{p:g}" for r in ("mask", "constant", "base_rate") for p in SHARES)], least=2
        )
        rows = self.rows("variance_explained", names)
        order = [self.conditions[n].task.planted()[0].name for n in rows["network"]]
        rows = rows.assign(which=np.where(rows["feature"] == order, "the rare feature", "its equal"))
        return forest(
            rows,
            id="prevalence",
            title="Two equal features, one of them rare in training",
            label="condition",
            group="which",
            x="pooled variance explained, held out",
            limits="Prevalences "
            f"{', '.join(f'{p:g}' for p in sorted(PREVALENCES.values()))} by masked labels; the other ways of being rare "
            "are kept apart. All are measured on balanced rows.",
            unit=UNIT,
        )

    def _dropout(self) -> Figure:
        names = self.ran(f"{o}-dropout-{p:g}" for o in OPTIMISERS for p in DROPOUTS)
        plain = {"sgd": HEADLINE, "adam": ADAM_XOR.name}
        gaps = self.rows("gap").set_index("network")
        columns = (0.0, *DROPOUTS)
        values = np.full((len(OPTIMISERS), len(columns)), np.nan)
        for i, optimiser in enumerate(OPTIMISERS):
            for j, p in enumerate(columns):
                name = f"{optimiser}-dropout-{p:g}" if p else plain.get(optimiser, optimiser)
                if name in gaps.index:
                    values[i, j] = gaps.loc[name, "value"]
        n = np.where(np.isfinite(values), int(gaps["n"].max()), 0)
        return heatmap(
            [Matrix("", values, n)],
            rows=list(OPTIMISERS),
            columns=[f"{p:g}" for p in columns],
            id="dropout",
            title=f"Gap by optimiser and dropout ({len(names)} conditions with dropout)",
            row_title="optimiser",
            column_title="dropout",
            value_title="gap in pooled variance explained, held out",
            limits="Mean over seeds; intervals are in the robustness grid.",
            reason="not run here",
        )

    def importance(self) -> Section:
        return self.section(
            "importance",
            "Does loudness matter?",
            (
                "Steering pushes activations along the difference of a feature's class means until the network changes its "
                "decision. Removal takes away the directions that the feature's map uses. Reliance asks which feature a new "
                "linear classifier uses where either would do.",
            ),
            {
                "steering (E14)": self._steering,
                "reliance of a linear classifier (E17)": self._reliance,
                "what removal costs": self._costs,
            },
            (self._pushes(), self._dissociation()),
        )

    def _steering(self) -> Figure:
        names = [n for n in self.ran(EXPERIMENTS["E14"]) if len(self.rows("flips", [n]))]
        if not names:
            raise _NotRunError("a network whose class means differ")
        return self._curves("flips", names, "steering", "Decisions that flip", "push, in differences of class means")

    def _reliance(self) -> Figure:
        names = [n for n in self.ran(EXPERIMENTS["E17"]) if len(self.rows("reliance", [n]))]
        if not names:
            raise _NotRunError("headline")
        rows = self.rows("reliance", names)
        rows = rows.assign(rates=rows["edit"].str.removeprefix("classifier "))
        return forest(
            rows,
            id="reliance",
            title="What a linear classifier relies on where the features disagree",
            label="condition",
            group="rates",
            x="share labelled as the simpler feature says (chance .5)",
            limits="Groups: how often the training label agrees with the simpler and with the more complex feature. It "
            "says what a new readout would lean on, not what the network's own does.",
            unit=UNIT,
            marks=(0.5,),
        )

    def _costs(self) -> Figure:
        names = self.ran(dict.fromkeys([*EXPERIMENTS["E14"], *self.conditions]))
        rows = pd.concat(
            [
                self.rows("cost", names).assign(what="its own directions"),
                self.rows("random_cost", names).assign(what="as many random directions"),
            ]
        )
        rows["where"] = rows["condition"] + ", " + rows["feature"]
        return forest(
            rows,
            id="removal",
            title="Accuracy on a feature that the removal of its directions costs",
            label="where",
            group="what",
            x="accuracy lost",
            limits="No cost does not show that a feature is unused: it may be read from elsewhere too.",
            unit="networks",
        )

    def _pushes(self) -> Table:
        kinds = {
            "half_push": "in differences of class means",
            "half_length": "as a length",
            "half_deviations": "in standard deviations along it",
            "off_target": "largest share of another feature's decisions that flip at a push of 1",
        }
        rows = [
            (r["network"], r["feature"], words, *_interval(r))
            for kind, words in kinds.items()
            for r in self.rows(kind, self._names("E14")).to_dict("records")
        ]
        return Table(
            title="The push that flips half of the decisions",
            columns=("condition", "feature", "size", "mean over seeds", "95% interval"),
            rows=rows,
            caption="A quiet feature needs a shorter push almost by definition; in differences of class means it need not.",
        )

    def _names(self, experiment: str) -> list[str]:
        return [n for n in EXPERIMENTS[experiment] if n in self.conditions] or ["none"]

    def _dissociation(self) -> Table:
        p = {(r["network"], r["feature"]): r["value"] for r in self.rows("dissociation_p").to_dict("records")}
        rows = [
            (r["network"], r["feature"], _shown(r["value"]), _shown(p.get((r["network"], r["feature"]), np.nan)))
            for r in self.rows("dissociation").to_dict("records")
        ]
        return Table(
            title="More important than loud",
            columns=("condition", "feature", "index", "p"),
            rows=rows,
            caption="Index: rank by what a feature's removal costs less rank by variance explained, mean over networks; "
            "above 0 a feature is computed but quiet. p: of an index as high if importance were dealt out at random.",
            folded=True,
        )

    def robustness(self) -> Section:
        pairs = [n for n in self.conditions if self._differ(n)]
        narrowed = self.rows("gap_narrowed")
        table = Table(
            title="The gap against a baseline",
            columns=("condition", "baseline", "baseline's gap minus this one's", "95% interval"),
            rows=[(r["network"], r["reference"], *_interval(r)) for r in narrowed.to_dict("records")],
            caption="Paired by training seed; above 0 the condition narrows the gap. Not corrected for the number of rows.",
        )
        return self.section(
            "robustness",
            "Where it turns",
            ("Claims are judged on the configuration that each names. Everything else that was run stands here.",),
            {
                "the gap in every condition": lambda: self._forest_of_gaps(
                    self.ran(pairs), "robustness", "Gap, every condition"
                )
            },
            (table, self._bands()),
        )

    def _bands(self) -> Table:
        kinds = ("band_low", "band_high", "zscored", "whitened", "before_nonlinearity")
        loud = self.rows("variance_explained")
        found = {kind: self.rows(kind).set_index(["network", "feature"])["value"] for kind in kinds}
        rows = []
        for r in loud.to_dict("records"):
            key = (r["network"], r["feature"])
            rows.append((*key, _shown(r["value"]), *(_shown(found[k].get(key, np.nan)) for k in kinds)))
        return Table(
            title="The band that variance explained moves in",
            columns=(
                "condition",
                "feature",
                "as measured",
                "least",
                "greatest",
                "z-scored",
                "whitened",
                "before nonlinearity",
            ),
            rows=rows,
            caption="Under changes of the activations that leave the network's function as it is; means over seeds. Least "
            f"and greatest are over {self.config.band_draws} rescalings of units (standard deviation 1 in log) and the "
            "others.",
            folded=True,
        )

    def setting(self) -> Section:
        gates = json.loads((self.folder / GATES).read_text())
        rows = [(g["name"], "holds" if g["passed"] else "fails", g["value"]) for g in gates]
        accuracy = Table(
            title="Gates",
            columns=("gate", "", "what was found"),
            rows=rows,
            caption="Networks that miss a gate are not dropped: they are shown, and claims about them are not judged.",
        )
        made = Table(
            title="Conditions",
            columns=("condition", "what it is", "features", "updates", "rows of train, val, test"),
            rows=[
                (c.name, c.note, ", ".join(c.task.features), c.steps, f"{c.task.train}, {c.task.val}, {c.task.test}")
                for c in self.conditions.values()
            ],
            caption=f"{len(self.config.seed_list())} seeds each, trained side by side on the same rows in the same order.",
            folded=True,
        )
        left_out = sorted({n for names in EXPERIMENTS.values() for n in names} - set(self.conditions))
        text = (f"Not run here: {', '.join(left_out)}. The preset full has them.",) if left_out else ()
        compared = tuple(f"{n}: {' against '.join(sides(c.task)[i][0] for i in (0, 1))}" for n, c in self._pairs())
        return Section(
            "setting", "What was compared", (*text, f"Gaps: {'; '.join(compared)}."), tables=(accuracy, made)
        )

    def _pairs(self) -> Iterable[tuple[str, Condition]]:
        return ((n, c) for n, c in self.conditions.items() if len(c.task.features) > 1)


_Wanted = Mapping[str, Callable[[], Figure]]


def _interval(row: Mapping[str, float]) -> tuple[str, str]:
    """Value and interval as text; the reason where there is no value."""
    if not np.isfinite(row["value"]):
        return "none", str(row["reason"])
    return _shown(row["value"]), f"{_shown(row['low'])} to {_shown(row['high'])}" if np.isfinite(row["low"]) else ""


def _shown(value: float) -> str:
    return f"{value:.3g}" if np.isfinite(value) else "none"
