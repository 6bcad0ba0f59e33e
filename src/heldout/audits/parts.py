"""The parts of a SPEC.yaml: networks, splits, scoring, families, readings, and what else may be asked. See `spec`.

Loads neither torch nor pandas: a mistake in a spec is found at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from heldout.analyses.similarity.names import NAMES
from heldout.errors import choices
from heldout.studies.schema import Schema

Sizes = tuple[PositiveInt, ...]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$", max_length=60)]
OneOrMore = str | tuple[str, ...]


class Part(Schema):
    """Base of every part of a spec: frozen, and unknown fields are errors."""

    model_config = ConfigDict(populate_by_name=True)


class Made(Part):
    """A module that a function makes: `from` is ``package.module:function``, `arguments` its keyword arguments, `weights`
    a safetensors file or a state dict (.pt, read with weights_only)."""

    from_: str = Field(alias="from")
    arguments: dict[str, Any] = Field(default_factory=dict)
    weights: str | None = None


class Network(Part):
    """A network, or several training runs of one: `weights` (or `huggingface`) may list one entry for each run.

    - `from`: ``package.module:function`` that returns a torch.nn.Module; `arguments` its keyword arguments.
    - `weights`: safetensors, or a state dict in .pt that is read with weights_only. Without, what the function returns.
    - `huggingface`: a local directory that save_pretrained has written; `head` which class it becomes (the scoring's own
      where left out), `dtype` the precision (the saved one where left out).
    """

    from_: str | None = Field(None, alias="from")
    arguments: dict[str, Any] = Field(default_factory=dict)
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
    arguments: dict[str, Any] = Field(default_factory=dict)
    file: str | None = None
    inputs: str | tuple[str, ...] | dict[str, str | tuple[str, ...]] | None = None
    targets: str | None = None
    mask: str | None = None
    scored: str | None = None
    units: str | None = None
    keys: str | None = None
    strata: dict[str, str] = Field(default_factory=dict)
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
    """Simplifications that are fitted at a site: ranks of svd, pca, ib (the interaction basis to the network's output) and
    haar (random subspaces, a control), clusters of kmeans, and mean (the floor). `sample`: the most rows that kmeans sees,
    and about the most positions on which ib takes derivatives; draws of the random ones add up."""

    svd: Sizes = ()
    pca: Sizes = ()
    ib: Sizes = ()
    kmeans: Sizes = ()
    haar: Sizes = ()
    mean: bool = False
    haar_draws: PositiveInt = 5
    kmeans_draws: PositiveInt = 1
    sample: PositiveInt = 20_000

    @property
    def empty(self) -> bool:
        """Whether nothing is asked for."""
        return not any((self.svd, self.pca, self.ib, self.kmeans, self.haar, self.mean))


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
    kinds: dict[str, Literal["binary", "categorical", "continuous"]] = Field(default_factory=dict)
    positions: Literal["all", "scored", "last"] = "all"
    groups: str | None = None
    before: dict[str, str] = Field(default_factory=dict)
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


class Similarity(Part):
    """How alike are networks, site by site and split by split? Every two networks are compared; a network of three training
    runs or more with itself too.

    - `sites`: a site that all networks have, or [site of the first network, site of the second]. Where there is one network
      (or files), the two sites (or arrays) are compared in it.
    - `measures`: see `heldout.analyses.similarity.measures`; debiased CKA is the default.
    - `positions`: of sites (B, T, D) one row an item: one position at random, the last, or the mean over all.
    - `groups`: the column of label files that names clusters of rows; one row of each is taken, as of the splits' units.
    - `rows`: at most so many of each split. `draws` of the bootstrap, `permutations` of the null.
    """

    sites: Annotated[tuple[str | tuple[str, str], ...], Field(min_length=1)]
    measures: Annotated[tuple[str, ...], Field(min_length=1)] = ("cka",)
    positions: Literal["one", "last", "mean"] = "one"
    groups: str | None = None
    rows: Annotated[int, Field(ge=20)] = 1_000
    draws: Annotated[int, Field(ge=100)] = 1_000
    permutations: Annotated[int, Field(ge=19)] = 199

    @model_validator(mode="after")
    def _known(self) -> Self:
        for name in self.measures:
            if name not in NAMES:
                raise ValueError(f"measures: unknown measure {name!r}; {choices(name, NAMES)}")
        return self

    @property
    def places(self) -> tuple[tuple[str, str], ...]:
        """(site of the first, site of the second) of each comparison."""
        return tuple((site, site) if isinstance(site, str) else site for site in self.sites)

    @property
    def every_site(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(site for pair in self.places for site in pair))
