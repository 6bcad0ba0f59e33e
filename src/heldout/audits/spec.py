"""What a SPEC.yaml may say as a whole, and how one is read. Every field is typed, unknown ones are errors, and nothing but
plain YAML is read; its parts are in `parts`.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self, Union, get_args, get_origin

from pydantic import BaseModel, Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from heldout.audits.parts import (
    AnyReading,
    Circuit,
    Decode,
    Families,
    Features,
    Name,
    Network,
    Part,
    Probe,
    Rule,
    ScoringSpec,
    Similarity,
    SplitSpec,
)
from heldout.audits.reading import read_plain
from heldout.errors import ConfigError, choices
from heldout.studies.schema import check_plain, short

RUNS_WITHIN = 3  # training runs from which on a network is compared with itself
ACTIVATIONS = "activations"  # what rows from files are called where a network's name stands


class Spec(Part):
    """A whole SPEC.yaml; see docs/audit.md.

    - `sites`: a list of sites that share `families`, or a mapping site -> its own families.
    - `reference`: the test split that gaps are measured from; ``id`` where there is one, else the first.
    - `select`: the split on which the smallest size that keeps `threshold` of the predictions is chosen, for each site
      and family. Without it, every size stands on its own, each with its null.
    - `null_draws`: draws of equally damaging noise beside each edit that is looked at.
    - `oracle`: also fit what is looked at (svd, pca, ib, kmeans) on one half of each test split, and score the other half.
    - `early_warning`: also ask how well reconstruction error, margin and distance tell where the edit disagrees.
    - `rule`: also look for the rule behind the network's answers to arithmetic; it needs no sites and no readings.
    - `features`: also ask which labels activations carry loudly, which quietly, and which matter; with activations from
      files there is no network, and nothing else to ask.
    - `batch_size`: positions a batch (items, where items have one size). `worst`: rows of the table of disagreements.
    """

    name: Name
    network: Network | None = None
    networks: dict[Name, Network] = Field(default_factory=dict)
    splits: Annotated[dict[Name, SplitSpec], Field(min_length=1)]
    scoring: ScoringSpec = ScoringSpec()
    sites: tuple[str, ...] | dict[str, Families | None] = ()
    families: Families = Families()
    readings: tuple[AnyReading, ...] = ()
    rule: Rule | None = None
    features: Features | None = None
    similarity: Similarity | None = None
    reference: str | None = None
    select: str | None = None
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.95
    null_draws: PositiveInt = 20
    oracle: bool = True
    early_warning: bool = True
    batch_size: PositiveInt = 256
    seed: NonNegativeInt = 0
    device: str = "auto"
    out: str | None = None
    worst: NonNegativeInt = 20
    decode: Decode | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.of_files:
            self._files()
        elif (self.network is None) == (not self.networks):
            raise ValueError("give either network (one) or networks (a mapping of names to them)")
        tests = [n for n, s in self.splits.items() if s.role == "test"]
        if not tests:
            raise ValueError("splits: none has role 'test'; a reading is tested on at least one")
        if self.reference is not None and self.reference not in tests:
            raise ValueError(f"reference: {self.reference!r} is no test split; {choices(self.reference, tests)}")
        selects = [n for n, s in self.splits.items() if s.role == "select"]
        if self.select is not None and self.select not in selects:
            raise ValueError(f"select: {self.select!r} is no split with role 'select'; {choices(self.select, selects)}")
        fits = [n for n, s in self.splits.items() if s.role == "fit"]
        if len(fits) > 1:
            raise ValueError(f"splits: {', '.join(fits)} all have role 'fit'; one is fitted on")
        if not self.has_readings and self.rule is None and self.features is None and self.similarity is None:
            raise ValueError("nothing to test: give sites with families, readings, a rule, features, or similarity")
        self._comparable()
        for name in self.rule_splits:
            if name not in tests:
                raise ValueError(f"rule.splits: {name!r} is no test split; {choices(name, tests)}")
        for site, families in self.site_families.items():
            if families.empty:
                raise ValueError(
                    f"sites: {site} has no family; give families (svd: [1, 2, 4], ...), there or for all sites"
                )
        names = [r.name for r in self.readings]
        taken = {*names} & {"svd", "pca", "ib", "kmeans", "haar", "mean", "identity"}
        if twice := sorted({n for n in names if names.count(n) > 1} | taken):
            raise ValueError(f"readings: the name {twice[0]!r} is used twice, or is a family's; give each its own")
        if self.needs_fit and not fits:
            raise ValueError("splits: none has role 'fit', and something is fitted; give one that is")
        return self

    def _comparable(self) -> None:
        """Raise where similarity has nothing to compare."""
        if self.similarity is None:
            return
        alone = len(self.runs) == 1 and max(self.runs.values()) < RUNS_WITHIN
        if alone and all(a == b for a, b in self.similarity.places):
            raise ValueError(
                "similarity: there is one network, so nothing to compare; give networks, three training runs or more, "
                "or two sites as [first, second]"
            )

    def _files(self) -> None:
        """Raise where something is asked that activations in files cannot answer."""
        if other := [n for n, s in self.splits.items() if s.activations is None]:
            raise ValueError(
                f"splits: {other[0]!r} has no activations where others do; give them to all splits or to none"
            )
        if self.network is not None or self.networks:
            raise ValueError("splits give activations, so there is no network to run; leave network out")
        if self.has_readings or self.rule is not None:
            raise ValueError(
                "activations in files answer features and similarity alone; give these, and no sites, readings or rule"
            )
        if self.features is not None and self.features.function is not None:
            raise ValueError("features.function is asked for batches of a network; labels come from the files")

    @property
    def of_files(self) -> bool:
        """Whether activations come from files."""
        return any(s.activations is not None for s in self.splits.values())

    @property
    def every_network(self) -> dict[str, Network]:
        """Name -> network; one that has no name is called ``network``."""
        return dict(self.networks) if self.network is None else {"network": self.network}

    @property
    def runs(self) -> dict[str, int]:
        """Network -> number of its training runs; activations in files are one run of ``activations``."""
        return {n: len(k.sources) for n, k in self.every_network.items()} or {ACTIVATIONS: 1}

    @property
    def site_families(self) -> dict[str, Families]:
        """Site -> what is fitted there."""
        if isinstance(self.sites, Mapping):
            return {site: own or self.families for site, own in self.sites.items()}
        return dict.fromkeys(self.sites, self.families)

    @property
    def has_readings(self) -> bool:
        """Whether any site is replaced; a spec may ask for a rule alone."""
        return bool(self.site_families or self.readings)

    @property
    def rule_splits(self) -> tuple[str, ...]:
        """The splits on whose answers a rule is looked for."""
        return () if self.rule is None else self.rule.splits or self.tests

    @property
    def needs_fit(self) -> bool:
        """Whether anything is learned from the fit split."""
        fitted = [r for r in self.readings if isinstance(r, Circuit) and r.baseline != "zero"]
        probes = any(isinstance(r, Probe) for r in self.readings)
        return bool(self.site_families or fitted or probes or self.features)

    @property
    def fit_split(self) -> str:
        return next((n for n, s in self.splits.items() if s.role == "fit"), "")

    @property
    def notes(self) -> dict[str, str]:
        """Split -> the line that says what it is."""
        return {name: split.note for name, split in self.splits.items()}

    @property
    def scored(self) -> list[str]:
        """The splits that every edit is scored on: the tests, and the one that sizes are chosen on."""
        return [*self.tests, *([self.select] if self.select else [])]

    @property
    def tests(self) -> tuple[str, ...]:
        """The test splits, the reference first."""
        names = [n for n, s in self.splits.items() if s.role == "test"]
        first = self.reference or ("id" if "id" in names else names[0])
        return (first, *(n for n in names if n != first))


def read_spec(path: Path) -> Spec:
    """The spec in a YAML file. Raises `ConfigError` with the path of the field and the nearest valid names."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        raise ConfigError(f"there is no spec {path}; {choices(path.name, near)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    return parse_spec(read_plain(text, str(path)), str(path))


def parse_spec(raw: Mapping[str, Any], where: str) -> Spec:
    """A spec from plain data; `where` names its source in errors."""
    check_plain(raw, where)
    try:
        return Spec.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{where}: {'; '.join(_sentence(e) for e in error.errors())}") from None


def _sentence(item: Any) -> str:
    """One finding of pydantic: the field's path, what is wrong, and the nearest valid name."""
    loc = tuple(p for p in item["loc"])
    if item["type"] == "extra_forbidden":
        parents, tags = _parents(loc[:-1])
        path = ".".join(str(p) for i, p in enumerate(loc) if i not in tags)
        valid = [f.alias or n for m in parents for n, f in m.model_fields.items()]
        return f"unknown field {path!r}; {choices(str(loc[-1]), valid)}"
    _, tags = _parents(loc)
    path = ".".join(str(p) for i, p in enumerate(loc) if i not in tags)
    message = item["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if item["type"] in ("missing", "value_error"):
        return f"{path}: {message}" if path else message
    return f"{path}: {message}, got {short(item.get('input'))}"


def _parents(loc: tuple[Any, ...]) -> tuple[list[type[BaseModel]], set[int]]:
    """The models that a location in a spec leads to, and the places of those of its elements that name no field
    of the YAML."""
    models: list[type[BaseModel]] = [Spec]
    tags: set[int] = set()
    for place, step in enumerate(loc):
        fields = {f.alias or n: f for m in models for n, f in m.model_fields.items()}
        kinds = {get_args(m.model_fields["kind"].annotation)[0]: m for m in models if "kind" in m.model_fields}
        if step in kinds and len(kinds) > 1:  # before the fields: a kind of reading is called as a field of it is
            models, tags = [kinds[step]], tags | {place}
        elif step in fields:
            models = _models(fields[step].annotation)
        elif isinstance(step, str) and ("[" in step or step in ("str", "Families", "dict")):
            tags = tags | {place}  # which branch of a union was tried
    return models, tags


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Every model that an annotation mentions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType, tuple, dict, Annotated) or get_args(annotation):
        return list(dict.fromkeys(m for a in get_args(annotation) for m in _models(a)))
    return []
