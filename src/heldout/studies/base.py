"""What a study is: a configuration, presets, steps, claims, and the page that shows what came of them.

Nothing here loads torch, pandas or plotly: listing and showing studies is instant.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from heldout.errors import ConfigError, unknown
from heldout.studies.schema import FirstSeed, Schema, Seeds, check_plain, short

if TYPE_CHECKING:
    from heldout.figures.page import Page
    from heldout.runs import Run, Step
    from heldout.statistics.claims import Claim

SMOKE = "smoke"
TUNING_SEEDS = 100  # seeds from here upward are for tuning; claims are judged on seeds below

# A new study is one file and one line here.
STUDIES = {
    "arithmetic": (
        "heldout.studies.arithmetic:STUDY",
        "transformers on sums and products: the rule behind wrong answers to longer operands",
    ),
    "degeneracy": (
        "heldout.studies.degeneracy:STUDY",
        "free directions counted, and the interaction basis against principal components in addition modulo p",
    ),
    "digits": ("heldout.studies.digits:STUDY", "an MLP and a CNN on handwritten digits: the audit itself, in a minute"),
    "code": ("heldout.studies.code:STUDY", "decoders of source code: simplified, on new packages and new languages"),
    "dyck": ("heldout.studies.dyck:STUDY", "a transformer on nested brackets: simplified, on unseen depths"),
    "features": (
        "heldout.studies.features:STUDY",
        "MLPs that compute several Boolean features equally well: which are represented loudly, which quietly",
    ),
    "matrix": ("heldout.studies.matrix:STUDY", "every analysis on the networks of the other studies, on one page"),
    "nuclear": (
        "heldout.studies.nuclear:STUDY",
        "networks that predict nuclear masses: components, terms of a mass formula and a helix, tested with nulls",
    ),
    "sequences": (
        "heldout.studies.sequences:STUDY",
        "transformers that answer several features one after another: is what is answered early represented loudly",
    ),
    "similarity": (
        "heldout.studies.similarity:STUDY",
        "networks that learn one feature or two, compared by every measure: is what computes the same alike",
    ),
    "images": ("heldout.studies.images:STUDY", "CNNs with and without residual connections: colour against shape"),
}


class Config(Schema):
    """Base of every study's configuration: frozen, and unknown fields are errors.

    `seeds` training seeds are used, from `first_seed` on. Tune on seeds from 100 upward.
    """

    seeds: Seeds = 5
    first_seed: FirstSeed = 0

    def seed_list(self) -> list[int]:
        return list(range(self.first_seed, self.first_seed + self.seeds))


@dataclass(frozen=True)
class Study:
    """One study. `presets` maps a name to the fields in which it differs from the configuration's defaults; `steps` and
    `page` are functions of a configuration and of a finished run."""

    name: str
    title: str
    summary: str
    config: type[Config]
    presets: Mapping[str, Mapping[str, Any]]
    claims: Callable[[], Sequence[Claim]]
    steps: Callable[[Config, str], list[Step]]
    page: Callable[[Run], Page]

    def configure(self, preset: str, overrides: Mapping[str, Any] | None = None) -> tuple[Config, list[str]]:
        """The configuration of a preset with some fields replaced, and the names of those that differ from the preset's.

        More seeds than the preset has are the same settings on more data, and do not count as different.
        """
        if preset not in self.presets:
            raise ConfigError(f"study {self.name!r}: {unknown('preset', preset, self.presets)}")
        base = self.presets[preset]
        given = dict(overrides or {})
        for field in given:
            if field not in self.config.model_fields:
                raise ConfigError(f"study {self.name!r}: {unknown('field', field, self.config.model_fields)}")
            check_plain(given[field], f"study {self.name!r}: {field}")
        try:
            plain = self.config(**base)
            config = self.config(**{**base, **given})
        except ValidationError as error:
            raise ConfigError(f"study {self.name!r}: {_sentence(error)}") from None
        changed = [f for f in given if getattr(config, f) != getattr(plain, f)]
        if config.seeds > plain.seeds and "seeds" in changed:
            changed.remove("seeds")
        return config, changed


def departures(config: Config, *names: str) -> dict[str, Any]:
    """The fields among `names` that are not at their default, as JSON: for settings that are younger than outputs in users'
    stores, whose keys are to stay what they were."""
    found = config.model_dump(mode="json", include=set(names), exclude_defaults=True)
    return {name: found[name] for name in names if name in found}


def known_once(kind: str, names: Sequence[str], known: Collection[str]) -> None:
    """Raise `ValueError` where one of `names` is not `known`, or stands there twice: for settings that list names."""
    for name in names:
        if name not in known:
            raise ValueError(unknown(kind, name, known))
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise ValueError(f"{kind} {twice[0]!r} is named twice; name each once")


def find_study(name: str) -> Study:
    """The study called `name`; a `ConfigError` with the nearest names where there is none."""
    if name not in STUDIES:
        raise ConfigError(unknown("study", name, STUDIES))
    module, _, attribute = STUDIES[name][0].partition(":")
    study: Study = getattr(import_module(module), attribute)
    return study


def parse_overrides(pairs: Sequence[str]) -> dict[str, Any]:
    """``key=value`` pairs as a mapping; values are JSON where they can be read as such, and text otherwise."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"a setting is written key=value, for example seeds=3; got {pair!r}")
        if key in found:
            raise ConfigError(f"{short(key)} is set twice; set each field once")
        try:
            found[key] = json.loads(value, object_pairs_hook=partial(_each_once, key))
        except json.JSONDecodeError:
            found[key] = value
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets without end
            raise ConfigError(f"{key}: {short(value)} is not accepted: {str(error).split(';')[0]}") from None
    return found


def overrides_of(pairs: Sequence[str], seeds: int | None) -> dict[str, Any]:
    """``key=value`` pairs and the number of seeds, which has an option of its own, as one mapping."""
    given = parse_overrides(pairs)
    if seeds is None:
        return given
    if "seeds" in given:
        raise ConfigError("seeds is set twice, by --seeds and by --set; set each field once")
    return given | {"seeds": seeds}


def _each_once(where: str, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A mapping as JSON writes it; JSON itself would keep the last of two values."""
    names = [name for name, _ in pairs]
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise ConfigError(f"{where}: {short(twice[0])} is given twice; give each once")
    return dict(pairs)


def not_judged_because(preset: str, changed: Sequence[str]) -> str:
    """Why a run's claims are not judged; empty where they are."""
    if preset == SMOKE:
        return "the smoke preset is too small to judge anything"
    if changed:
        return f"settings overridden: {', '.join(changed)}"
    return ""


def describe_study(name: str, preset: str, pairs: Sequence[str], seeds: int | None) -> str:
    """What `heldout show` prints: the configuration with where each value comes from, the steps, the claims."""
    study = find_study(name)
    given = overrides_of(pairs, seeds)
    config, changed = study.configure(preset, given)
    lines = [f"{study.name}: {study.summary}", f"presets: {', '.join(study.presets)}", "", f"configuration ({preset})"]
    for field, value in config.model_dump(mode="json").items():
        source = "given" if field in given else f"preset {preset}" if field in study.presets[preset] else "default"
        lines.append(f"  {field} = {json.dumps(value)}  ({source})")
    steps = study.steps(config, not_judged_because(preset, changed))
    kinds: dict[str, int] = {}
    for step in steps:
        kinds[step.function.__name__] = kinds.get(step.function.__name__, 0) + 1
    lines += ["", "steps", *(f"  {n} x {kind}" for kind, n in kinds.items()), "", "claims"]
    for claim in study.claims():
        lines.append(f"  {claim.id}  {claim.title}")
        lines.append(f"      theta: {claim.estimand}")
        lines.append(f"      smallest effect that counts: {claim.delta:g}; null: {claim.null or 'none'}")
    if why := not_judged_because(preset, changed):
        lines += ["", f"claims would not be judged: {why}"]
    return "\n".join(lines)


def _sentence(error: ValidationError) -> str:
    """pydantic's findings as one sentence each: field, rule, what was given."""
    parts = []
    for item in error.errors():
        where, message = ".".join(str(p) for p in item["loc"]), item["msg"].removeprefix("Value error, ")
        own = (
            item["type"] == "value_error"
        )  # a rule of ours, which says what was given; one about several fields names them
        parts.append(f"{where}: " * bool(where) + message + ("" if own else f", got {short(item.get('input'))}"))
    return "; ".join(parts)
