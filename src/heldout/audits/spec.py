"""What a SPEC.yaml may say. Every field is typed, unknown ones are errors, and nothing but plain YAML is read.

Loads neither torch nor pandas: a mistake in a spec is found at once.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from heldout.errors import ConfigError, choices

Sizes = tuple[PositiveInt, ...]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$", max_length=60)]
ACTIVATIONS = "activations"  # what rows from files are called where a network's name stands
OneOrMore = str | tuple[str, ...]


class Part(BaseModel):
    """Base of every part of a spec: frozen, and unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Made(Part):
    """A module that a function makes: `from` is ``package.module:function``, `arguments` its keyword arguments, `weights`
    a safetensors file or a state dict (.pt, read with weights_only)."""

    from_: str = Field(alias="from")
    arguments: dict[str, Any] = {}
    weights: str | None = None


class Network(Part):
    """A network, or several training runs of one: `weights` (or `huggingface`) may list one entry for each run.

    - `from`: ``package.module:function`` that returns a torch.nn.Module; `arguments` its keyword arguments.
    - `weights`: safetensors, or a state dict in .pt that is read with weights_only. Without, what the function returns.
    - `huggingface`: a local directory that save_pretrained has written; `head` which class it becomes (the scoring's own
      where left out), `dtype` the precision (the saved one where left out).
    """

    from_: str | None = Field(None, alias="from")
    arguments: dict[str, Any] = {}
    weights: OneOrMore | None = None
    huggingface: OneOrMore | None = None
    head: Literal["causal_lm", "masked_lm", "sequence_classification", "token_classification", "none"] | None = None
    dtype: Literal["float32", "float64", "bfloat16", "float16"] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.from_ is None) == (self.huggingface is None):
            raise ValueError("give either from (package.module:function) or huggingface (a local directory)")
        if self.huggingface is not None and (self.weights is not None or self.arguments):
            raise ValueError("weights and arguments belong to from; a huggingface directory holds its own weights")
        if self.from_ is not None and self.head is not None:
            raise ValueError("head belongs to huggingface; from returns the whole network")
        if () in (self.weights, self.huggingface):
            raise ValueError("an empty list of weights or directories; leave it out, or name one")
        return self

    @property
    def sources(self) -> tuple[str | None, ...]:
        """One entry a training run: its weights, its directory, or None."""
        given = self.huggingface if self.huggingface is not None else self.weights
        return (given,) if given is None or isinstance(given, str) else given

    def of_run(self, run: int) -> Network:
        """The same network with the weights of one training run alone."""
        field = "weights" if self.huggingface is None else "huggingface"
        return self.model_copy(update={field: self.sources[run]})


class SplitSpec(Part):
    """A split and where its items come from: a function, or columns of a file.

    `function` (with `arguments`) returns a heldout Split, a mapping with the arguments of `heldout.split` (inputs,
    targets, mask, scored, units, keys, strata), or (inputs, targets). For `file` see `heldout.tasks.files.Columns`.
    `activations` and `table` are files of rows that somebody has read off a network: arrays (n, D) by site, and the labels
    of n rows; they serve `features` alone.
    """

    role: Literal["fit", "select", "test"]
    note: str = ""
    function: str | None = None
    arguments: dict[str, Any] = {}
    file: str | None = None
    inputs: str | tuple[str, ...] | dict[str, str | tuple[str, ...]] | None = None
    targets: str | None = None
    mask: str | None = None
    scored: str | None = None
    units: str | None = None
    keys: str | None = None
    strata: dict[str, str] = {}
    mask_argument: str | None = None
    padding_argument: str | None = None
    pad: int = 0
    activations: str | None = None
    table: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.activations is None) != (self.table is None):
            raise ValueError("activations (.npz, .safetensors) and table (.csv, .parquet, .jsonl) belong together")
        if sum(v is not None for v in (self.function, self.file, self.activations)) != 1:
            raise ValueError("give one of function (package.module:function), file, and activations with a table")
        if self.activations is not None:
            return self
        if self.file is not None and self.inputs is None:
            raise ValueError("a file needs inputs: a column, a list of columns, or argument: column")
        if self.function is not None:
            of_files = (
                "inputs",
                "targets",
                "mask",
                "scored",
                "units",
                "keys",
                "strata",
                "mask_argument",
                "padding_argument",
            )
            given = [k for k in of_files if getattr(self, k)]
            if given:
                raise ValueError(f"{given[0]} belongs to file; a function returns it")
        if self.file is not None and self.arguments:
            raise ValueError("arguments belong to function")
        if (self.mask_argument or self.padding_argument) and not isinstance(self.inputs, Mapping):
            raise ValueError("the mask is given by keyword, so inputs must be too; write inputs: {argument: column}")
        return self


class ScoringSpec(Part):
    """How outputs are scored.

    - `kind`: classification, next_token (targets are made from the tokens where there are none), regression, embedding.
    - `output`: the part of the network's output that is scored (``logits``, ``0``), where it has parts.
    - `candidates`: first class, and the one past the last, among which the prediction is chosen.
    - `tolerance` (regression): a share of the network's output scale. `neighbours`, `references` (embedding): how many
      nearest items are compared, and the size of the set in which they are sought.
    """

    kind: Literal["classification", "next_token", "regression", "embedding"] = "classification"
    output: str = ""
    candidates: tuple[NonNegativeInt, PositiveInt] | None = None
    tolerance: Annotated[float, Field(gt=0)] = 0.1
    neighbours: PositiveInt = 10
    references: Annotated[int, Field(ge=3)] = 1000


class Families(Part):
    """Simplifications that are fitted at a site: ranks of svd, pca and haar (random subspaces, a control), clusters of
    kmeans, and mean (the floor). `sample`: the most rows that kmeans sees; draws of the random ones add up."""

    svd: Sizes = ()
    pca: Sizes = ()
    kmeans: Sizes = ()
    haar: Sizes = ()
    mean: bool = False
    haar_draws: PositiveInt = 5
    kmeans_draws: PositiveInt = 1
    sample: PositiveInt = 20_000


class Vector(Part):
    """A vector (D,) in a safetensors file; `tensor` names it where the file holds several."""

    file: str
    tensor: str | None = None


class Reading(Part):
    name: Name


class Circuit(Reading):
    """Components to keep at each site; the others take the baseline: their train mean, zero, or those of a random row
    of the fit split (resample). `heads`: count components in blocks of width / heads (at the input of a projection)."""

    kind: Literal["circuit"]
    keep: Annotated[dict[str, tuple[NonNegativeInt, ...]], Field(min_length=1)]
    heads: PositiveInt | None = None
    baseline: Literal["mean", "zero", "resample"] = "mean"


class Probe(Reading):
    """A direction that is removed from a site, or alone kept; elsewhere the train mean stands. It comes from a file, or is
    the difference of the means of two classes (targets) on the fit split."""

    kind: Literal["probe"]
    site: str
    action: Literal["remove", "keep"] = "remove"
    direction: Vector | None = None
    classes: tuple[int, int] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.direction is None) == (self.classes is None):
            raise ValueError("give either direction (a file) or classes (two of them)")
        return self


class Steering(Reading):
    """alpha times a vector is added at a site, for each alpha."""

    kind: Literal["steering"]
    site: str
    vector: Vector
    alpha: Annotated[tuple[float, ...], Field(min_length=1)] = (1.0,)


class SparseAutoencoder(Reading):
    """A trained encoder and decoder in place of a site's activations."""

    kind: Literal["autoencoder"]
    site: str
    encoder: Made
    decoder: Made


class Function(Reading):
    """Any function (rows (B, ..., D), mask) -> rows; with arguments, a function of these that returns such a function."""

    kind: Literal["function"]
    site: str
    function: str
    arguments: dict[str, Any] | None = None


AnyReading = Annotated[Circuit | Probe | Steering | SparseAutoencoder | Function, Field(discriminator="kind")]


class Decode(Part):
    """How labels and tokens are written in the table of largest disagreements: by a function label -> text, by a text file
    with one name a line, or by the tokenizer in a local Hugging Face directory."""

    function: str | None = None
    names: str | None = None
    tokenizer: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(v is not None for v in (self.function, self.names, self.tokenizer)) != 1:
            raise ValueError("give one of function, names and tokenizer")
        return self


class Rule(Part):
    """The rule behind a network's answers to arithmetic is looked for (`heldout.discover_rule`), split by split.

    - `function`: ``package.module:function``, called as function(network, batch) for each batch of a split; it returns
      (a, b, answers), one of each for each item: whole numbers, or text.
    - `operation`, with `modulus` for the modular ones: what is asked for; `base` that of the numerals.
    - `splits`: test splits; all of them where left out.
    """

    function: str
    operation: Literal["add", "subtract", "multiply", "mod_add", "mod_multiply"] = "add"
    modulus: Annotated[int, Field(ge=2, le=1_000_000)] | None = None
    base: Annotated[int, Field(ge=2, le=36)] = 10
    splits: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _modular(self) -> Self:
        if self.operation.startswith("mod_") != (self.modulus is not None):
            wrong = "needs a modulus" if self.modulus is None else "takes no modulus; mod_add and mod_multiply do"
            raise ValueError(f"{self.operation} {wrong}")
        return self


class Features(Part):
    """Which labels do activations carry loudly, which quietly, and which matter? Split by split, at each site.

    - `sites`: sites of one and the same rows, items (B, D) or positions (B, T, D); with files, names of their arrays.
    - `labels`: strata of the splits, or columns of their files; all of them where left out. `kinds`: binary, categorical
      or continuous, where that is not to be inferred (two values, text or at most 16 whole numbers, other numbers).
    - `function`: ``package.module:function``, called as function(batch), returns label -> one value an item (B,) or a
      position (B, T); rows with NaN or -100 have no such label and are left out.
    - `positions`: all, scored, or the last of each item. `groups`: the column of label files that names clusters of rows;
      in networks the splits' units are.
    - `before`: site -> the site before its nonlinearity, for the band of each figure.
    - `rows`: at most about so many of each split. `draws`: permutations behind each null. `decode`: whether labels are
      also read by probes; `importance`: whether answers change when a label's directions are removed.
    """

    sites: Annotated[tuple[str, ...], Field(min_length=1)]
    labels: tuple[str, ...] = ()
    function: str | None = None
    kinds: dict[str, Literal["binary", "categorical", "continuous"]] = {}
    positions: Literal["all", "scored", "last"] = "all"
    groups: str | None = None
    before: dict[str, str] = {}
    rows: Annotated[int, Field(ge=20)] = 5_000
    draws: Annotated[int, Field(ge=19)] = 1_000
    decode: bool = True
    importance: bool = True

    @model_validator(mode="after")
    def _known(self) -> Self:
        for site in self.before:
            if site not in self.sites:
                raise ValueError(f"before: {site!r} is no site of features; {choices(site, self.sites)}")
        for label in self.kinds:
            if self.labels and label not in self.labels:
                raise ValueError(f"kinds: {label!r} is no label of features; {choices(label, self.labels)}")
        return self


class Spec(Part):
    """A whole SPEC.yaml; see docs/audit.md.

    - `sites`: a list of sites that share `families`, or a mapping site -> its own families.
    - `reference`: the test split that gaps are measured from; ``id`` where there is one, else the first.
    - `select`: the split on which the smallest size that keeps `threshold` of the predictions is chosen, for each site
      and family. Without it, every size stands on its own, each with its null.
    - `null_draws`: draws of equally damaging noise beside each edit that is looked at.
    - `oracle`: also fit what is looked at (svd, pca, kmeans) on one half of each test split, and score the other half.
    - `early_warning`: also ask how well reconstruction error, margin and distance tell where the edit disagrees.
    - `rule`: also look for the rule behind the network's answers to arithmetic; it needs no sites and no readings.
    - `features`: also ask which labels activations carry loudly, which quietly, and which matter; with activations from
      files there is no network, and nothing else to ask.
    - `batch_size`: positions a batch (items, where items have one size). `worst`: rows of the table of disagreements.
    """

    name: Name
    network: Network | None = None
    networks: dict[Name, Network] = {}
    splits: Annotated[dict[Name, SplitSpec], Field(min_length=1)]
    scoring: ScoringSpec = ScoringSpec()
    sites: tuple[str, ...] | dict[str, Families | None] = ()
    families: Families = Families()
    readings: tuple[AnyReading, ...] = ()
    rule: Rule | None = None
    features: Features | None = None
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
        if not self.has_readings and self.rule is None and self.features is None:
            raise ValueError("nothing to test: give sites with families, readings, a rule, or features")
        for name in self.rule_splits:
            if name not in tests:
                raise ValueError(f"rule.splits: {name!r} is no test split; {choices(name, tests)}")
        for site, families in self.site_families.items():
            if not any((families.svd, families.pca, families.kmeans, families.haar, families.mean)):
                raise ValueError(
                    f"sites: {site} has no family; give families (svd: [1, 2, 4], ...), there or for all sites"
                )
        names = [r.name for r in self.readings]
        taken = {*names} & {"svd", "pca", "kmeans", "haar", "mean", "identity"}
        if twice := sorted({n for n in names if names.count(n) > 1} | taken):
            raise ValueError(f"readings: the name {twice[0]!r} is used twice, or is a family's; give each its own")
        if self.needs_fit and not fits:
            raise ValueError("splits: none has role 'fit', and something is fitted; give one that is")
        return self

    def _files(self) -> None:
        """Raise where something is asked that activations in files cannot answer."""
        if other := [n for n, s in self.splits.items() if s.activations is None]:
            raise ValueError(
                f"splits: {other[0]!r} has no activations where others do; give them to all splits or to none"
            )
        if self.network is not None or self.networks:
            raise ValueError("splits give activations, so there is no network to run; leave network out")
        if self.has_readings or self.rule is not None or self.features is None:
            raise ValueError(
                "activations in files answer features alone; give features, and no sites, readings or rule"
            )
        if self.features.function is not None:
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
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no plain YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ConfigError(
            f"{path} holds {type(raw).__name__}; a mapping with name, network, splits and sites is needed"
        )
    return parse_spec(raw, str(path))


def parse_spec(raw: Mapping[str, Any], where: str) -> Spec:
    """A spec from plain data; `where` names its source in errors."""
    try:
        return Spec.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{where}: {'; '.join(_sentence(e) for e in error.errors())}") from None


def _sentence(item: Any) -> str:
    """One finding of pydantic: the field's path, what is wrong, and the nearest valid name."""
    loc = tuple(p for p in item["loc"])
    if item["type"] == "extra_forbidden":
        parents, tags = _parents(loc[:-1])
        path = ".".join(str(p) for p in loc if p not in tags)
        valid = [f.alias or n for m in parents for n, f in m.model_fields.items()]
        return f"unknown field {path!r}; {choices(str(loc[-1]), valid)}"
    _, tags = _parents(loc)
    path = ".".join(str(p) for p in loc if p not in tags)
    message = item["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if item["type"] in ("missing", "value_error"):
        return f"{path}: {message}" if path else message
    return f"{path}: {message}, got {item.get('input')!r}"


def _parents(loc: tuple[Any, ...]) -> tuple[list[type[BaseModel]], set[Any]]:
    """The models that a location in a spec leads to, and those of its elements that name no field of the YAML."""
    models: list[type[BaseModel]] = [Spec]
    tags: set[Any] = set()
    for step in loc:
        fields = {f.alias or n: f for m in models for n, f in m.model_fields.items()}
        kinds = {get_args(m.model_fields["kind"].annotation)[0]: m for m in models if "kind" in m.model_fields}
        if step in fields:
            models = _models(fields[step].annotation)
        elif step in kinds and len(kinds) > 1:
            models, tags = [kinds[step]], tags | {step}
        elif isinstance(step, str) and ("[" in step or step in ("str", "Families", "dict")):
            tags = tags | {step}  # which branch of a union was tried
    return models, tags


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Every model that an annotation mentions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType, tuple, dict, Annotated) or get_args(annotation):
        return list(dict.fromkeys(m for a in get_args(annotation) for m in _models(a)))
    return []
