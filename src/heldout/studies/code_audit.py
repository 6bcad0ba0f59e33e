"""The steps of the code study on one network: the corpus, training, the audit, heads, and early warning."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch

from heldout.activations.edits import Edit
from heldout.analyses.audit import Plan, Wanted, audit
from heldout.analyses.faithfulness import Subject, faithfulness
from heldout.analyses.heads import HeadScore, head_scores, induction_and_random
from heldout.analyses.marginals import Categories, Marginals
from heldout.analyses.tables import Folder
from heldout.analyses.warning import auroc_estimates, fit_distances, warn
from heldout.evidence import Estimate, Origin, write_estimates
from heldout.networks.transformer import Transformer
from heldout.proxies.attention import FITTED, attention_edits
from heldout.proxies.fit import Family, fit_edits
from heldout.runs import StepContext
from heldout.studies import interaction
from heldout.studies.audited import AUDIT
from heldout.studies.code import ALL, DATA, FAMILIES, LAYERS, NETWORK, THRESHOLD
from heldout.tasks.base import Split, check_disjoint
from heldout.tasks.code.baselines import baseline_losses, count_pairs
from heldout.tasks.code.breakdown import AXES, classes, position_names
from heldout.tasks.code.settings import CodeSettings
from heldout.tasks.code.splits import code
from heldout.tasks.code.vocabulary import BOS, CHARACTERS, SIZE
from heldout.tasks.code.windows import Windows
from heldout.training.batching import shuffled
from heldout.training.checkpoints import load_weights, save_weights
from heldout.training.loop import train
from heldout.training.losses import cross_entropy
from heldout.training.seeds import initialised
from heldout.training.settings import TrainSettings

COMPOSITION, BASELINES, HEADS, SCORES, WARNINGS = (
    *("composition.json", "baselines.json", "heads.json", "scores", "warnings.parquet"),
)
INDUCTION, RANDOM = "highest induction scores", "as many other heads"
# Induction is scored on random strings of what words are made of: a head need not know characters that code seldom has.
LETTERS = np.flatnonzero(classes(CHARACTERS) == AXES["class"].index("letter")).tolist()
BATCH = 48  # windows a batch where nothing is trained


def make_corpus(ctx: StepContext) -> None:
    """Read the text, cut it, and keep windows, composition and baselines."""
    settings = {k: v for k, v in ctx.settings.items() if k != "fingerprint"}
    settings["globs"] = {name: tuple(patterns) for name, patterns in settings["globs"].items()}
    task = code(CodeSettings(**settings))
    for windows in task.splits.values():
        windows.save(ctx.out)
    pairs = count_pairs(task.splits["train"])
    losses = {name: baseline_losses(pairs, w) for name, w in task.splits.items() if name not in ("train", "fit")}
    check_disjoint([w.split() for w in task.splits.values()])
    (ctx.out / COMPOSITION).write_text(json.dumps(task.composition, sort_keys=True))
    (ctx.out / BASELINES).write_text(json.dumps(losses, sort_keys=True))


def train_network(ctx: StepContext) -> None:
    """One decoder on the training windows."""
    s = ctx.settings
    network = build_network(s["shape"], s["seed"]).to(ctx.device)
    looked_at = [load_split(ctx.inputs["corpus"], n) for n in ("train_sample", "id", *test_names(ctx.inputs["corpus"]))]

    def measured(net: torch.nn.Module) -> dict[str, float]:
        found: dict[str, float] = {}
        for split in looked_at:
            right, lost, total = 0.0, 0.0, 0
            for batch in split.batches(BATCH):
                batch = batch.to(ctx.device)
                assert batch.targets is not None
                logits = net(batch.inputs)
                mask = torch.ones_like(batch.targets, dtype=torch.bool) if batch.mask is None else batch.mask
                n = int(mask.sum())
                right += int(((logits.argmax(-1) == batch.targets) & mask).sum())
                lost, total = lost + float(cross_entropy(logits, batch)) * n, total + n
            found |= {f"{split.name}/accuracy": right / total, f"{split.name}/loss": lost / total}
        return found

    settings = TrainSettings(
        steps=s["training_steps"],
        learning_rate=s["learning_rate"],
        warmup=s["warmup"],
        evaluate_every=max(1, s["training_steps"] // 8),
        seed=s["seed"],
        precision=s.get("precision", "float32"),
    )
    history = train(
        network,
        shuffled(Windows.load(ctx.inputs["corpus"] / "train.npz").split(), s["batch"], seed=s["seed"]),
        cross_entropy,
        settings=settings,
        evaluate=measured,
        progress=lambda done, total, loss: ctx.progress(done, total, f"loss {loss:.3f}"),
    )
    save_weights(network, ctx.out / "weights.safetensors", {"shape": dict(s["shape"]), "seed": s["seed"]})
    history.frame().to_parquet(ctx.out / "history.parquet", index=False)


def audit_network(ctx: StepContext) -> None:
    """One network: the grid, the choice, the nulls and the oracles, at every site."""
    s, corpus = ctx.settings, ctx.inputs["corpus"]
    subject = load_subject(s, ctx)

    def build(subject: Subject, split: Split, oracle: bool, wanted: Wanted | None) -> list[Edit]:
        return all_edits(subject, split, s, oracle=oracle, wanted=wanted)

    plan = make_plan(s, corpus)
    splits = load_splits(corpus, labelled=True)
    with Folder(ctx.out) as folder, Marginals(folder, categories(s)) as sink:
        record = audit(subject, splits, plan, build, sink, seed=s["seed"], progress=ctx.progress)
    (ctx.out / AUDIT).write_text(json.dumps(record, sort_keys=True))


def study_heads(ctx: StepContext) -> None:
    """Scores of every head; each head simplified alone, and induction heads against as many random ones."""
    s, corpus = ctx.settings, ctx.inputs["corpus"]
    subject, shape = load_subject(s, ctx), s["shape"]
    splits = load_splits(corpus, labelled=True)
    length = min(len(LETTERS), (shape["window"] - 1) // 2)
    scores = head_scores(subject.network, modules(s), LETTERS, bos=BOS, length=length, device=ctx.device)
    chosen, sets = induction_and_random(scores, count=s["induction_heads"], draws=s["random_draws"], seed=s["seed"])
    whole = [
        attention_edits(
            subject.network,
            splits["fit"],
            module,
            [Family("svd", (s["head_rank"],))],
            heads=shape["heads"],
            batch_size=BATCH,
            device=ctx.device,
        )[0]
        for module in modules(s)
    ]
    edits = [of_heads(whole, [head], head_site(head)) for head in scores]
    edits.append(of_heads(whole, chosen, INDUCTION))
    edits += [of_heads(whole, drawn, RANDOM) for drawn in sets]
    (ctx.out / SCORES).mkdir()
    looked_at = [splits[n] for n in ("id", *test_names(corpus))]
    with Folder(ctx.out / SCORES) as folder, Marginals(folder, categories(s)) as sink:
        faithfulness(
            subject, looked_at, edits, sink, batch_size=BATCH, progress=lambda d, t: ctx.progress(d, t, "heads")
        )
    record = {"heads": [asdict(h) for h in scores], "induction": [asdict(h) for h in chosen]}
    (ctx.out / HEADS).write_text(json.dumps(record, sort_keys=True))


def warn_early(ctx: StepContext) -> None:
    """How well each score tells, within each split, where the chosen simplifications will disagree."""
    s, corpus = ctx.settings, ctx.inputs["corpus"]
    subject, splits = load_subject(s, ctx), load_splits(corpus)
    site = joint_site(s)
    chosen = json.loads((ctx.inputs["audit"] / AUDIT).read_text())["chosen"]
    wanted = {(site, c["family"], c["parameter"]) for c in chosen if c["site"] == site and c["family"] in DATA}
    edits = all_edits(subject, splits["fit"], s, oracle=False, wanted=wanted)
    names = ("id", *test_names(corpus))
    rows: list[Estimate] = []
    for number, edit in enumerate(edits):
        distances = fit_distances(subject, splits["fit"], edit.functions, batch_size=BATCH)
        for place, name in enumerate(names):
            ctx.progress(number * len(names) + place, len(edits) * len(names), "early warning")
            warned = warn(subject, splits[name], edit, distances, batch_size=BATCH)
            where = {"network": NETWORK, "seed": s["seed"], "split": name, "site": site, "edit": edit.origin.name}
            where |= {"parameter": edit.origin.parameter}
            rows += auroc_estimates(warned, where=where, rng=np.random.default_rng([s["seed"], number, place]))
    write_estimates(ctx.out / WARNINGS, rows)


def score_stream(ctx: StepContext) -> None:
    """The interaction basis of one network's residual stream, beside its principal components."""
    s, corpus = ctx.settings, ctx.inputs["corpus"]
    names = ("id", *test_names(corpus))
    asked = {**s, "sites": interaction.stream(s["shape"]["layers"])}
    splits = [load_split(corpus, name) for name in names]
    interaction.score_stream(ctx.out, load_subject(s, ctx), load_split(corpus, "fit"), splits, asked, batch_size=BATCH)


def join_stream(ctx: StepContext) -> None:
    asked = {**ctx.settings, "sites": interaction.stream(ctx.settings["shape"]["layers"])}
    folders = [folder for name, folder in ctx.inputs.items() if name != "corpus"]
    interaction.write_stream_estimates(ctx.out, folders, ("id", *test_names(ctx.inputs["corpus"])), asked)


def build_network(shape: Mapping[str, Any], seed: int) -> Transformer:
    """The untrained decoder of a seed."""
    return initialised(
        lambda: Transformer(
            SIZE,
            width=shape["width"],
            layers=shape["layers"],
            heads=shape["heads"],
            positions=shape["positions"],
            max_length=shape["window"],
        ),
        seed,
    )


def load_subject(s: Mapping[str, Any], ctx: StepContext) -> Subject:
    network = build_network(s["shape"], s["seed"])
    load_weights(network, ctx.inputs["weights"] / "weights.safetensors")
    return Subject(network.to(ctx.device).eval(), "code", NETWORK, s["seed"], device=ctx.device)


def test_names(corpus: Path) -> tuple[str, ...]:
    """The out-of-distribution splits of a corpus step, in its order."""
    splits = json.loads((corpus / COMPOSITION).read_text())["splits"]
    return tuple(w["split"] for w in splits if w["role"] == "test" and w["split"] != "id")


def load_split(corpus: Path, name: str, *, labelled: bool = False) -> Split:
    windows = Windows.load(corpus / f"{name}.npz")
    return windows.split(windows.labels if labelled else ())


def load_splits(corpus: Path, *, labelled: bool = False) -> dict[str, Split]:
    """Every split of a corpus step but the whole training text; where `labelled`, with all axes as strata."""
    names = ("fit", "train_sample", "id_select", "id", *test_names(corpus))
    return {name: load_split(corpus, name, labelled=labelled) for name in names}


def categories(s: Mapping[str, Any]) -> Categories:
    return Categories({**AXES, "position": position_names(s["shape"]["window"])})


def make_plan(s: Mapping[str, Any], corpus: Path) -> Plan:
    return Plan(
        reference="id",
        tests=test_names(corpus),
        also=("train_sample",),
        families=FAMILIES,
        oracles=DATA,
        threshold=THRESHOLD,
        null_draws=s["null_draws"],
        batch_size=BATCH,
    )


def modules(s: Mapping[str, Any]) -> list[str]:
    """The attention modules, first layer first."""
    return [f"blocks.{i}.attn" for i in range(s["shape"]["layers"])]


def joint_site(s: Mapping[str, Any]) -> str:
    """What the site of all layers' attention at once is called."""
    return " + ".join(modules(s))


def sites(s: Mapping[str, Any]) -> dict[str, list[str]]:
    """Site -> the modules that it edits."""
    found: dict[str, list[str]] = {}
    for name in s["sites"]:
        if name == LAYERS:
            found |= {module: [module] for module in modules(s)}
        else:
            found[joint_site(s) if name == ALL else name] = modules(s) if name == ALL else [name]
    return found


def grid(s: Mapping[str, Any], site: str) -> dict[str, tuple[float | None, ...]]:
    """Family -> parameters at one site."""
    usual = {"svd": tuple(s["ranks"]), "kmeans": tuple(s["clusters"])}
    if not site.endswith(".attn"):
        return {**usual, "mean": (None,)}
    more = {"weights": tuple(s["weight_ranks"]), "onehot": (None,), "haar": tuple(s["haar_ranks"]), "mean": (None,)}
    return {**usual, **more}


def all_edits(
    subject: Subject, split: Split, s: Mapping[str, Any], *, oracle: bool, wanted: Wanted | None
) -> list[Edit]:
    """The whole grid, or what is wanted of it; a module is fitted once for all the sites that it is part of."""
    draws = {"kmeans": s["kmeans_draws"], "haar": s["haar_draws"]} if wanted is None else {}
    asked = {
        site: [
            Family(family, tuple(int(p) for p in kept if p is not None), draw=d)
            for family, parameters in grid(s, site).items()
            if (kept := [p for p in parameters if wanted is None or (site, family, p) in wanted])
            for d in range(draws.get(family, 1))
        ]
        for site in sites(s)
    }
    edits: list[Edit] = []
    fitted: dict[str, dict[Key, Edit]] = {}
    for site, parts in sites(s).items():
        for module in parts:
            if module not in fitted:
                union = [f for other, members in sites(s).items() if module in members for f in asked[other]]
                fitted[module] = module_edits(subject, split, module, union, s, oracle=oracle)
        for key in (k for family in asked[site] for k in keys(family)):
            joined = reduce(lambda a, b: a.then(b), (fitted[module][key] for module in parts))
            edits.append(replace(joined, origin=replace(joined.origin, site=site)))
    return edits


Key = tuple[str, int, int | None]  # family, draw, parameter


def keys(family: Family) -> list[Key]:
    return [(family.name, family.draw, p) for p in family.parameters or (None,)]


def module_edits(
    subject: Subject, split: Split, module: str, families: Sequence[Family], s: Mapping[str, Any], *, oracle: bool
) -> dict[Key, Edit]:
    """The edits of one module, by family, draw and parameter; `families` may name the same more than once."""
    together: dict[tuple[str, int], list[int]] = {}
    for f in families:
        known = together.setdefault((f.name, f.draw), [])
        known += [p for p in f.parameters if p not in known]
    # One start of k-means: its draws, and the many code books of a network, say more than restarts of each.
    more = {"kmeans": {"restarts": 1}}
    asked = [Family(n, tuple(found), draw=d, options=more.get(n, {})) for (n, d), found in together.items()]
    options: dict[str, Any] = {"oracle": oracle, "sample": s["kmeans_sample"], "batch_size": BATCH}
    options["device"] = subject.device
    if not module.endswith(".attn"):
        made = fit_edits(subject.network, split, [module], asked, **options)
        return dict(zip([k for f in asked for k in keys(f)], made, strict=True))
    # Those that are fitted come first.
    asked.sort(key=lambda f: f.name not in FITTED)
    made = attention_edits(subject.network, split, module, asked, heads=s["shape"]["heads"], **options)
    return dict(zip([k for f in asked for k in keys(f)], made, strict=True))


def head_site(head: HeadScore) -> str:
    return f"{head.module} head {head.head}"


def of_heads(whole: Sequence[Edit], heads: Sequence[HeadScore], site: str) -> Edit:
    """The parts of some modules' edits that are of `heads`, under one name."""
    wanted = {(h.module, h.head) for h in heads}
    functions = {
        place: function
        for edit in whole
        for place, function in edit.functions.items()
        if (place.partition("@")[0], int(place.rpartition("[")[2].rstrip("]"))) in wanted
    }
    origin: Origin = whole[0].origin
    return Edit(functions, replace(origin, site=site))
