"""Networks of one training loss and different learning coefficients: is the lower one the better one on unseen images?

Within a seed all networks start from the same weights and see the same small set of handwritten digits; they differ in the
way they are trained (optimiser, learning rate, batch, momentum, weight decay) and stop where the training loss is `level`.
Their learning coefficients are those of the behavioural loss (KL) on these training images; held-out images are the other
half of the data, the same for all seeds.

Within a seed, theta is the rank correlation of 2 x LLC with the held-out loss. It compares the ways listed and says nothing
of others; and a correlation over ways of training is no proof that the coefficient is the cause.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from heldout.analyses.degeneracy.llc import LearningCoefficient, learning_coefficient
from heldout.analyses.degeneracy.sgld import Sampling
from heldout.analyses.scoring import Scoring
from heldout.errors import ConfigError, StatisticsError, unknown
from heldout.networks.mlp import MLP
from heldout.runs import StepContext
from heldout.studies.seeds import SeedTheta
from heldout.tasks.base import Rectangular, Split
from heldout.tasks.digits import CLASSES, digits
from heldout.training.checkpoints import load_weights, save_weights
from heldout.training.losses import cross_entropy
from heldout.training.matched import train_to
from heldout.training.seeds import generator, initialised
from heldout.training.settings import TrainSettings

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

PIXELS = 64
UNSEEN = ("id_select", "id", "unseen_classes")  # of the digits task: its other half, images as they are
TRAINED, MEASURED, LOSSES = "trained.json", "population.parquet", "losses.npz"
PREDICTORS = ("n_eff", "quadratic", "weight_norm")  # the first is the claim's
COEFFICIENT = (  # columns of the table that `coefficient_row` fills
    *("n_eff", "n_eff_low", "n_eff_high", "quadratic", "expected"),
    *("n", "cut", "r_hat", "effective_draws", "drift_p"),
)
FEWEST = 4  # networks of a seed, below which ranks say nothing
SMALL = 4_096  # parameters up to which the curvature is exact
Settings = Mapping[str, Any]


class Images(NamedTuple):
    """A seed's own training images, and the held-out ones that all seeds share."""

    train: Split
    held: Split


# -- data and networks -----------------------------------------------------------------------------------------------


def images_of(s: Settings) -> Images:
    """`items` training images drawn by `seed` from half of the digits; the other half is held out."""
    splits = digits()
    pool = splits["train"]
    if not 0 < s["items"] <= len(pool):
        raise ConfigError(f"items must be from 1 to {len(pool)} training images, got {s['items']}")
    drawn = np.sort(generator(s["seed"], "data").permutation(len(pool))[: s["items"]])
    batch = pool.items.take(drawn)
    train = Split("train", "fit", Rectangular(batch.inputs, batch.targets), "training images drawn by the seed")
    parts = [splits[name].items.take(np.arange(len(splits[name]))) for name in UNSEEN]
    targets = torch.cat([p.targets for p in parts if p.targets is not None])
    held = Rectangular(torch.cat([p.inputs for p in parts]), targets)
    return Images(train, Split("held", "test", held, "images of the other half, of every class"))


def network_of(s: Settings) -> MLP:
    """The seed's network, freshly initialised: every way of training starts from the same weights."""
    return initialised(lambda: MLP((PIXELS, *s["hidden"], CLASSES)), s["seed"])


def training_of(way: Settings, s: Settings) -> tuple[int, TrainSettings]:
    """The batch and the training settings of one way: ``optimizer``, ``learning_rate``, ``batch`` and, where they are not
    0, ``momentum`` and ``weight_decay``."""
    known = {"optimizer", "learning_rate", "batch", "momentum", "weight_decay"}
    for name in way:
        if name not in known:
            raise ConfigError(unknown("setting of a way of training", name, sorted(known)))
    own = {"weight_decay": 0.0, **{k: v for k, v in way.items() if k != "batch"}}
    settings = TrainSettings(steps=s["steps"], schedule="constant", clip=None, seed=s["seed"], **own)
    return min(way["batch"], s["items"]), settings


def sampling_of(s: Settings) -> Sampling:
    """`sampling` (see `Sampling`) with chains drawn from the study's own seed.

    The networks of a seed share their noise, which takes it out of their order, and seeds do not. Refusals are shared too:
    where chains are refused by chance, that depends on the noise and hardly on the network, and takes most of a seed.
    """
    return Sampling(**s["sampling"], seed=s["seed"])


# -- steps -----------------------------------------------------------------------------------------------------------


def train_population(ctx: StepContext) -> None:
    """One seed: a network for every way of training, each stopped at the training loss `level`.

    Reads `seed`, `items`, `hidden` (widths), `ways` (name -> see `training_of`), `level` (nats), `tolerance` (a share of the
    level) and `steps` (the most updates). Writes the weights of each way, and where its training ended.
    """
    s = ctx.settings
    train = images_of(s).train
    ended = {}
    for i, (name, way) in enumerate(s["ways"].items()):
        ctx.progress(i, len(s["ways"]), name)
        network = network_of(s)
        batch, settings = training_of(way, s)
        found = train_to(
            network, train, cross_entropy, s["level"], batch=batch, settings=settings, tolerance=s["tolerance"]
        )
        save_weights(network, ctx.out / f"{name}.safetensors", {"way": name, "seed": s["seed"]})
        ended[name] = asdict(found)
    (ctx.out / TRAINED).write_text(json.dumps(ended))


def measure_population(ctx: StepContext) -> None:
    """One seed: training and held-out loss, learning coefficient and quadratic count of each of its networks.

    Reads `seed`, `items`, `hidden`, `sampling` (see `sampling_of`) and the input ``weights``. Writes a table of one row a
    network and the held-out losses (networks, images), nats. A network that did not reach the level has its reason under
    ``unmatched``, one whose chains disagree under ``reason``; neither has a learning coefficient.
    """
    import pandas as pd

    s, folder = ctx.settings, ctx.inputs["weights"]
    images = images_of(s)
    trained = json.loads((folder / TRAINED).read_text())
    rows, losses = [], []
    for i, (way, ended) in enumerate(trained.items()):
        ctx.progress(i, len(trained), way)
        network = network_of(s).eval()
        load_weights(network, folder / f"{way}.safetensors")
        row, each = measured(network, images, None if ended["reason"] else sampling_of(s))
        trained_to = {"train_loss": ended["loss"], "updates": ended["updates"], "unmatched": ended["reason"]}
        rows.append({"seed": s["seed"], "way": way, **trained_to, **row})
        losses.append(each)
    pd.DataFrame(rows).to_parquet(ctx.out / MEASURED, index=False)
    np.savez_compressed(ctx.out / LOSSES, losses=np.stack(losses))


def measured(network: MLP, images: Images, sampling: Sampling | None) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """One network's row of the table, and its held-out losses (images,). Without `sampling` no coefficient is taken."""
    batch = images.held.items.take(np.arange(len(images.held)))
    with torch.no_grad():
        answers = Scoring().predictions(network(batch.inputs), batch)
        norm = math.sqrt(sum(float(p.double().square().sum()) for p in network.parameters()))
    each = answers.loss.double().numpy()
    row = {"held_loss": float(each.mean()), "held_accuracy": float(answers.correct.double().mean())}
    if sampling is None:
        return {**row, "weight_norm": norm, **dict.fromkeys(COEFFICIENT, math.nan), "reason": "not taken"}, each
    found = learning_coefficient(network, images.train, loss="kl", sampling=sampling, small=SMALL)
    return {**row, "weight_norm": norm, **coefficient_row(found), "reason": found.reason}, each


def coefficient_row(found: LearningCoefficient) -> dict[str, float]:
    """2 x LLC with its interval, the quadratic count and what these chains would show of it, `n` and `cut`, diagnostics."""
    count, d = found.effective, found.diagnostics
    values = (
        *(count.value, count.low, count.high, found.quadratic.value, found.expected.value),
        *(found.n, found.cut, d.r_hat, d.effective_draws, d.drift_p),
    )
    return dict(zip(COEFFICIENT, map(float, values), strict=True))


# -- the claim -------------------------------------------------------------------------------------------------------


def population_theta(folders: Iterable[Path], *, predictor: str = "n_eff") -> list[SeedTheta]:
    """Spearman's correlation of `predictor` with the held-out loss over each seed's networks, from the outputs of
    `measure_population`. From -1 to 1; the claim predicts above 0.

    `predictor`: ``n_eff`` (2 x LLC) or, beside it, ``quadratic`` or ``weight_norm``. Networks that did not reach the
    training loss are left out and, for ``n_eff``, those whose chains disagree; where fewer than 4 are left, or one of the
    two does not vary over them, the seed has no value.
    """
    return [_theta(rows, predictor, losses.mean(1)) for rows, losses in _read(folders)]


def population_variance(
    folders: Iterable[Path], *, predictor: str = "n_eff", draws: int = 1_000, seed: int = 0
) -> tuple[float, int]:
    """The bootstrap variance of the mean of theta over seeds, and the number of held-out images that it resamples.

    Every draw of images is shared by all networks and seeds, which were tested on the same images in the same order.
    Seeds without a value play no part; raises `StatisticsError` where none has one.
    """
    kept = [(rows, losses) for rows, losses in _read(folders) if not _theta(rows, predictor, losses.mean(1)).reason]
    if not kept:
        raise StatisticsError("no seed has a rank correlation; there is nothing to resample")
    sizes = {losses.shape[1] for _, losses in kept}
    if len(sizes) > 1:
        raise StatisticsError(f"seeds were tested on different numbers of images: {sorted(sizes)}")
    (n,) = sizes
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=draws).T / n
    thetas = [_spearman(rows, predictor, losses @ weights) for rows, losses in kept]
    return float(np.var(np.mean(thetas, axis=0), ddof=1)), n


def left_out(folders: Iterable[Path]) -> dict[str, int]:
    """How many ``networks`` there are, how many of them are ``unmatched`` (did not reach the training loss), and how many of
    the others have no learning coefficient (``withheld``)."""
    tables = [rows for rows, _ in _read(folders)]
    matched = [rows[rows["unmatched"] == ""] for rows in tables]
    networks = sum(map(len, tables))
    withheld = sum(int((rows["reason"] != "").sum()) for rows in matched)
    return {"networks": networks, "unmatched": networks - sum(map(len, matched)), "withheld": withheld}


def _read(folders: Iterable[Path]) -> Iterator[tuple[pd.DataFrame, NDArray[np.float64]]]:
    import pandas as pd

    for folder in folders:
        with np.load(folder / LOSSES) as arrays:
            yield pd.read_parquet(folder / MEASURED), arrays["losses"]


def _theta(rows: pd.DataFrame, predictor: str, held: NDArray[np.float64]) -> SeedTheta:
    """Of one seed, whose networks have mean held-out losses `held` (networks,)."""
    seed, usable = int(rows["seed"].iloc[0]), _usable(rows, predictor)
    count = int(usable.sum())
    if count < FEWEST:
        why = f"{count} of {len(rows)} networks have the training loss and a value of {predictor}; {FEWEST} are needed"
        return SeedTheta(seed, math.nan, count, why)
    if any(np.ptp(values[usable]) == 0 for values in (rows[predictor].to_numpy(dtype=np.float64), held)):
        return SeedTheta(seed, math.nan, count, f"{predictor} or the held-out loss is the same for all networks")
    return SeedTheta(seed, float(_spearman(rows, predictor, held[:, None])[0]), count)


def _usable(rows: pd.DataFrame, predictor: str) -> NDArray[np.bool_]:
    """(networks,) those at the training loss and, for ``n_eff``, with a coefficient."""
    if predictor not in PREDICTORS:
        raise ConfigError(unknown("predictor", predictor, PREDICTORS))
    usable = (rows["unmatched"] == "").to_numpy()
    if predictor == "n_eff":
        usable = usable & (rows["reason"] == "").to_numpy()
    return np.asarray(usable)


def _spearman(rows: pd.DataFrame, predictor: str, held: NDArray[np.float64]) -> NDArray[np.float64]:
    """(R,) rank correlations of the predictor with R rows of held-out losses (networks, R)."""
    from scipy.stats import rankdata

    usable = _usable(rows, predictor)
    x = rankdata(rows[predictor].to_numpy(dtype=np.float64)[usable])
    y = rankdata(held[usable], axis=0)
    x, y = x - x.mean(), y - y.mean(axis=0)
    return np.asarray(x @ y / np.sqrt((x @ x) * (y * y).sum(axis=0)))
