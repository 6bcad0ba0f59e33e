"""The steps of an audit: which there are, and what each of them reads.

    splits -> (nothing: it refuses what overlaps)
    fit -> score -> match -> null, oracle, warn -> summary
    rule -> summary
    features -> summary
    similarity -> summary

Fit, match: one for each network and training run. Score, null, oracle, warn, rule, features: one for each of these and
split. Similarity: one for each split, of all networks. So a network that fails on one split keeps what was computed on the
others, and a split that is added is computed alone. A key is made of fingerprints of what a step reads, wherever that lies;
see `heldout.audits.work` for what the steps do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from heldout.audits import work
from heldout.audits.parts import Part, SplitSpec
from heldout.audits.sources import fingerprint, plain
from heldout.audits.spec import Spec
from heldout.errors import ConfigError
from heldout.runs import Step, StepContext

SUMMARY = "audit-summary"


def steps(spec: Spec, folder: Path) -> list[Step]:
    """The steps of a spec whose paths are relative to `folder`."""
    made = _Steps(spec, folder)
    made.add("splits", work.check_splits, {"splits": dict(spec.splits)}, {"notes": spec.notes})
    for name, runs in spec.runs.items():
        for run in range(runs):
            made.network(name, run)
    made.similarities()
    settings = {
        "runs": spec.runs,
        "tests": list(spec.tests),
        "scored": spec.scored,
        "kind": spec.scoring.kind,
        "seed": spec.seed,
    }
    inputs = {name.removeprefix("audit-"): name for name in made.steps}
    return [*made.steps.values(), Step(SUMMARY, work.summarise, settings, inputs, version=2)]


class _Steps:
    """Steps under construction."""

    def __init__(self, spec: Spec, folder: Path) -> None:
        self.spec, self.folder = spec, folder
        self.steps: dict[str, Step] = {}
        self._known: dict[str, Any] = {}  # fingerprints, by what the spec says: files are hashed once

    def add(self, name: str, function: Any, parts: Mapping[str, Any], settings: Mapping[str, Any], *inputs: str) -> str:
        """One step that reads `parts` of the spec, by their content, and `settings`, as they are."""
        if f"audit-{name}" in self.steps:
            raise ConfigError(f"two splits or networks are both called {name!r} in file names; give one another name")
        given = {"parts": {"scoring": self.spec.scoring, **parts}}
        self.steps[f"audit-{name}"] = Step(
            f"audit-{name}",
            function,
            {"content": self._each(given, self._content), "batch_size": self.spec.batch_size, **settings},
            {i.split("-")[0]: f"audit-{i}" for i in inputs},
            places={"folder": str(self.folder.resolve()), **self._each(given, plain)},
        )
        return name

    def network(self, name: str, run: int) -> None:
        """All steps of one training run of one network."""
        if self.spec.has_readings:
            self._readings(name, run)
        self._rules(name, run)
        self._features(name, run)

    def similarities(self) -> None:
        """One step for each test split, which compares all networks."""
        spec = self.spec
        if spec.similarity is None:
            return
        for s in spec.tests:
            parts = {"networks": spec.every_network, "similarity": spec.similarity, "splits": {s: spec.splits[s]}}
            settings = {"split": s, "seed": spec.seed}
            self.add(f"similarity-{slug(s)}", work.compare_networks, parts, settings)

    def _rules(self, name: str, run: int) -> None:
        spec = self.spec
        for s in spec.rule_splits:
            assert spec.rule is not None
            asked = spec.rule.model_copy(update={"splits": ()})  # a split more does not change what is asked on another
            parts = {"network": spec.every_network[name].of_run(run), "rule": asked, "splits": {s: spec.splits[s]}}
            settings = {"name": name, "run": run, "seed": spec.seed, "split": s}
            self.add(f"rule-{slug(name)}-r{run}-{slug(s)}", work.find_rule, parts, settings)

    def _features(self, name: str, run: int) -> None:
        spec, reference = self.spec, self.spec.tests[0]
        if spec.features is None:
            return
        network = None if spec.of_files else spec.every_network[name].of_run(run)
        for s in spec.tests:
            splits = {n: spec.splits[n] for n in (spec.fit_split, s, reference)}
            parts = {"network": network, "features": spec.features, "splits": splits}
            settings = {"name": name, "run": run, "seed": spec.seed, "split": s}
            settings |= {"fit_on": spec.fit_split, "reference": reference}
            self.add(f"features-{slug(name)}-r{run}-{slug(s)}", work.measure_features, parts, settings)

    def _readings(self, name: str, run: int) -> None:
        spec, reference = self.spec, self.spec.tests[0]
        who = f"{slug(name)}-r{run}"
        own = {"network": spec.every_network[name].of_run(run), "readings": list(spec.readings)}
        named = {"name": name, "run": run, "seed": spec.seed, "reference": reference}
        sites = {"sites": dict(spec.site_families)}
        fit_on = spec.fit_split if spec.needs_fit else ""

        def on(*splits: str) -> dict[str, Any]:
            return {"splits": {s: spec.splits[s] for s in splits if s}}

        fit = self.add(f"fit-{who}", work.fit_readings, own | sites | on(fit_on, reference), named | {"fit_on": fit_on})
        for s in spec.scored:
            self.add(f"score-{who}-{slug(s)}", work.score_split, own | on(s), named | {"split": s}, fit)
        chosen = [f"score-{who}-{slug(spec.select)}"] if spec.select else []
        rule = named | {"threshold": spec.threshold}
        match = self.add(f"match-{who}", work.match_nulls, own | on(reference), rule, fit, *chosen)
        worst = {"null_draws": spec.null_draws, "worst": spec.worst}
        for s in spec.tests:
            here, at = named | {"split": s}, f"{who}-{slug(s)}"
            self.add(f"null-{at}", work.score_null, own | on(s) | {"decode": spec.decode}, here | worst, fit, match)
            if spec.early_warning:
                self.add(f"warn-{at}", work.warn_early, own | on(s, fit_on), here | {"fit_on": fit_on}, fit, match)
            if spec.oracle and spec.site_families and s != reference:
                self.add(f"oracle-{at}", work.score_oracle, own | sites | on(s), here, fit, match)

    def _content(self, part: Part) -> Any:
        if isinstance(part, SplitSpec):  # what a reader is told of a split changes no number
            part = part.model_copy(update={"note": ""})
        said = f"{type(part).__name__} {part.model_dump_json(by_alias=True)}"
        if said not in self._known:
            self._known[said] = fingerprint(part, self.folder)
        return self._known[said]

    def _each(self, value: Any, of: Any) -> Any:
        if isinstance(value, Mapping):
            return {k: self._each(v, of) for k, v in value.items()}
        if isinstance(value, list):
            return [self._each(v, of) for v in value]
        return None if value is None else of(value)


def read_parts(ctx: StepContext, kind: str, name: str) -> Iterator[tuple[tuple[str, int], str, Path]]:
    """((network, run), split, path) of the file `name` in every input of a kind that there is; split is empty for those
    that are for all splits."""
    for network, runs in ctx.settings["runs"].items():
        for run in range(runs):
            for split in ("", *ctx.settings["scored"]):
                key = f"{kind}-{slug(network)}-r{run}" + (f"-{slug(split)}" if split else "")
                if key in ctx.inputs:
                    yield (network, run), split, ctx.inputs[key] / name


def slug(name: str) -> str:
    """`name` as it may stand in the name of a step."""
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in name)
