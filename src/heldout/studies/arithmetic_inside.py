"""Inside a network of the arithmetic study: the classes of its activations, whether they hold out of distribution, and
whether accuracy hangs on them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from heldout.activations.accumulators import Moments
from heldout.analyses.equivalence.ablation import class_removal, random_equal_rank, random_equal_variance
from heldout.analyses.equivalence.answers import add_scores
from heldout.analyses.equivalence.centroids import Centroids
from heldout.analyses.equivalence.edited import score_edits
from heldout.analyses.equivalence.passes import Sequences, activations, collect, forced
from heldout.analyses.equivalence.representation import (
    CONTROL,
    REPRESENTATIVE,
    distance_ratio,
    distances,
    matched_control,
    same_class,
)
from heldout.analyses.equivalence.spectrum import spectrum
from heldout.analyses.equivalence.structure import ClassStructure, permuted_hits, silhouettes
from heldout.analyses.equivalence.swap import swap
from heldout.analyses.equivalence.transfer import Probe, crossed_values, probe_origin
from heldout.analyses.tables import Folder
from heldout.evidence import Cell, Origin
from heldout.runs import StepContext
from heldout.studies.arithmetic import Trained, length_split
from heldout.studies.arithmetic_claims import CLASS_SITE
from heldout.studies.arithmetic_train import (
    answers_of,
    build_network,
    by_rule,
    kind_of,
    labels_of,
    load_network,
    low_parts,
    sequences,
    task_of,
    truth,
)
from heldout.tasks.arithmetic import Arithmetic, Pairs, numerals
from heldout.tasks.arithmetic.numerals import Digits
from heldout.tasks.arithmetic.operations import carries

INSIDE, POINTS = "inside.json", "points.npz"
STRUCTURE, REMOVED = "class structure", "classes removed"
RANDOM, SCALED = (
    "random directions",
    "as many random directions",
)  # each draw has cells of its own: a percentile is taken
SAME_CLASS = "d_same_class"
PERMUTED = 0.95  # percentile of the permuted labels that a structure is set against
BESIDE = 5  # draws of random directions where no claim is judged
LOOKED = 500  # items behind distances, silhouettes and swaps
PLANE = 40  # operands along each side of the plane that is drawn
PROBLEMS = ((349, 705), (128, 256))  # the paper's, whose high digits are then set


@dataclass(frozen=True, eq=False)
class Place:
    """One split as the inside of a network is asked about it: problems with the rule's answers, and their classes."""

    sequences: Sequences
    partner: Tensor  # (N, T) the same answers behind the operands' low parts
    units: Tensor  # (N,) the class: the units digit of the rule's answer, which is the truth's too
    labels: Mapping[str, np.ndarray]
    facts: Mapping[str, np.ndarray]  # what probes are asked for

    @staticmethod
    def of(task: Arithmetic, split: str, n: int | None = None) -> Place:
        size = len(task.pairs[split].a) if n is None else min(n, len(task.pairs[split].a))
        pairs = task.pairs[split].take(np.arange(size))
        rule = by_rule(task, pairs)
        labels = {name: values[:size] for name, values in labels_of(task, split).items()}
        n_digits = task.settings.digits
        facts: dict[str, np.ndarray] = {
            "units": rule[:, 0],
            "carry_out": carries(pairs, n_digits, base=task.settings.base).out,
        }
        facts |= {"ignored_digit": pairs.a[:, n_digits], "first_digit": pairs.a[:, 0]}
        own = sequences(task, pairs, rule, labels)
        partner = sequences(task, low_parts(task, pairs), rule).tokens
        facts = {name: values.astype(np.int64) for name, values in facts.items()}
        return Place(own, partner, torch.from_numpy(facts["units"]), labels, facts)


def look_inside(ctx: StepContext) -> None:
    """Structure, distances, spectrum, probes, removal and swaps; scores where they add up, `INSIDE` for the rest."""
    s, kind = ctx.settings, kind_of(ctx.settings)
    task = task_of(kind)
    network = load_network(s, ctx.inputs["weights"], ctx.device)
    untrained = build_network(s, task, s["seed"]).to(ctx.device).eval()
    fit = Place.of(task, "train", s["fit_pairs"])
    splits = ["id", *(length_split(lengths) for lengths in (*kind.longer, *kind.farther[:1]))]
    places = {name: Place.of(task, name) for name in splits}
    here = _Inside(network, untrained, fit, places, task, kind, s, ctx.device)
    parts = (here.structure, here.removal, here.probes, here.swaps, here.geometry)
    record: dict[str, Any] = {}
    with Folder(ctx.out) as folder:
        for i, part in enumerate(parts):
            ctx.progress(i, len(parts), part.__name__)
            record |= part(folder)
    (ctx.out / INSIDE).write_text(json.dumps(record))
    np.savez_compressed(ctx.out / POINTS, **here.pictures())  # type: ignore[arg-type]


class _Inside:
    """One network and its untrained self, with the places where they are looked at."""

    def __init__(
        self,
        network: nn.Module,
        untrained: nn.Module,
        fit: Place,
        places: Mapping[str, Place],
        task: Arithmetic,
        kind: Trained,
        s: Mapping[str, Any],
        device: str,
    ) -> None:
        self.networks = {"trained": network, "untrained": untrained}
        self.fit, self.places, self.task, self.kind, self.s, self.device = fit, places, task, kind, s, device
        self.last = fit.sequences.steps[0]  # the last position of the prompt: it predicts the units digit
        blocks = [f"blocks.{i}" for i in range(len(network.blocks))]  # type: ignore[arg-type]
        self.sites = [*blocks, CLASS_SITE]
        self.used, self.spare = _positions(task)
        self.rng = np.random.default_rng([s["seed"], 5])
        self._kept: dict[tuple[int, str, str], Tensor] = {}
        self.fitted = {who: self._fitted(net) for who, net in self.networks.items()}

    def _fitted(self, network: nn.Module) -> dict[str, tuple[Moments, Centroids]]:
        """Moments and class centroids of every site at the last prompt position, on the fit split."""
        found = {site: (Moments(), Centroids(self.task.settings.base)) for site in self.sites}
        stream = activations(network, self.fit.sequences, self.sites, [self.last], device=self.device)
        for cut, rows in stream:
            for site, (moments, centroids) in found.items():
                moments.update(rows[site][:, 0])
                centroids.update(rows[site][:, 0], self.fit.units[cut])
        return found

    def _rows(self, place: Place, site: str, who: str = "trained") -> Tensor:
        """(N, D) a site's rows at the last prompt position; kept, because structure and probes ask for the same."""
        key = (id(place), site, who)
        if key not in self._kept:
            self._kept[key] = collect(self.networks[who], place.sequences, site, self.last, device=self.device)
        return self._kept[key]

    def _cell(self, split: str, origin: Origin) -> Cell:
        return Cell("arithmetic", self.kind.name, self.s["seed"], split, origin)

    # -- C5 -------------------------------------------------------------------------------------------------------

    def structure(self, folder: Folder) -> dict[str, Any]:
        """Nearest fitted centroid, with both nulls as columns of the same cell; silhouettes beside."""
        found = []
        for site in self.sites:
            fits = {who: ClassStructure.fit(*of[site], rank=self.s["components"]) for who, of in self.fitted.items()}
            for split, place in self.places.items():
                rows = {who: self._rows(place, site, who) for who in fits}
                values = fits["trained"].values(rows["trained"], place.units)
                values["untrained"] = fits["untrained"].values(rows["untrained"], place.units)["nearest"]
                values["permuted"] = self._permuted(fits["trained"].nearest(rows["trained"]), place)
                add_scores(folder, self._cell(split, Origin(STRUCTURE, site, "train")), place.labels, values)
                scores = {"site": site, "split": split, "explained": fits["trained"].explained}
                some = slice(0, LOOKED)
                scores["silhouette"] = float(silhouettes(rows["trained"][some], place.units[some]).mean())
                inside = fits["trained"].silhouettes(rows["trained"][some], place.units[some])
                scores["silhouette_components"] = float(inside.mean())
                found.append(scores)
        return {"structure": found}

    def _permuted(self, nearest: np.ndarray, place: Place) -> np.ndarray:
        """(N,) hits of that permutation of the labels which does as well as 95% of them."""
        labels = place.units.numpy()
        draws = permuted_hits(nearest, labels, draws=self.s["null_draws"], rng=self.rng)
        order = draws.mean(axis=1).argsort(kind="stable")
        return np.asarray(draws[order[int(np.ceil(PERMUTED * len(draws))) - 1]], dtype=np.float64)

    # -- C4 -------------------------------------------------------------------------------------------------------

    def removal(self, folder: Folder) -> dict[str, Any]:
        """The class subspace removed, and random ones: of equal variance (each draw on its own) and of equal rank."""
        record = []
        for site in self.sites:
            moments, centroids = self.fitted["trained"][site]
            own = class_removal(centroids, moments)
            displaced = own.displacement(moments)
            length = self.fit.sequences.fed
            edits = [own.edit(site, [self.last], length, Origin(REMOVED, site, "train"))]
            overlaps, ranks = [], []
            for draw in range(self.s["random_draws"] if site == CLASS_SITE else min(BESIDE, self.s["random_draws"])):
                control = random_equal_variance(moments, displaced, seed=draw)
                overlaps.append(own.overlap(control))
                ranks.append(control.rank)
                edits.append(control.edit(site, [self.last], length, Origin(f"{RANDOM} {draw}", site, "train")))
                scaled = random_equal_rank(moments, displaced, own.rank, seed=draw)
                edits.append(scaled.edit(site, [self.last], length, Origin(f"{SCALED} {draw}", site, "train")))
            for split, place in self.places.items():
                checked = score_edits(
                    self.networks["trained"],
                    place.sequences,
                    edits if split == "id" else edits[: 1 + 2 * BESIDE],  # one class removal, and pairs of controls
                    folder,
                    self._cell(split, edits[0].origin),
                    device=self.device,
                ).check
            share = displaced / float(moments.scatter().trace() / moments.count)
            found = {"site": site, "rank": own.rank, "share": share, "overlap": float(np.mean(overlaps))}
            found |= {"control_rank": float(np.mean(ranks)), "scale": float(scaled.weights[0])}
            record.append(found | {"identity": asdict(checked)})
        return {"removal": record}

    # -- beside the claims ----------------------------------------------------------------------------------------

    def probes(self, folder: Folder) -> dict[str, Any]:
        """Linear probes fitted on train; of the digit that the rule ignores, on half of each split."""
        for site in self.sites:
            fit = self._rows(self.fit, site).numpy()
            known = ("units", "carry_out", "first_digit")
            probes = {fact: Probe(fit, self.fit.facts[fact], rng=self.rng) for fact in known}
            for split, place in self.places.items():
                rows = self._rows(place, site).numpy()
                for fact, probe in probes.items():
                    values = probe.values(rows, place.facts[fact])
                    add_scores(folder, self._cell(split, probe_origin(site, fact, "train")), place.labels, values)
                ignored = place.facts["ignored_digit"]
                if len(np.unique(ignored)) > 1:
                    values = crossed_values(rows, ignored, np.asarray(place.labels["unit"]), rng=self.rng)
                    origin = probe_origin(site, "ignored_digit", split, oracle=True)
                    add_scores(folder, self._cell(split, origin), place.labels, values)
        return {}

    def swaps(self, folder: Folder) -> dict[str, Any]:
        """Spare positions swapped between x and h(x); used positions between x and another prompt, as positive control."""
        split = length_split(self.kind.longer[0])
        place = Place.of(self.task, split, LOOKED)
        other = place.sequences.tokens.roll(1, dims=0)
        sites = ["embed", *self.sites[:-1]]
        for name, partner, positions in (("spare", place.partner, self.spare), ("used", other, self.used)):
            found = swap(self.networks["trained"], place.sequences, partner, sites, positions, device=self.device)
            for site, values in found.items():
                add_scores(folder, self._cell(split, Origin(f"{name} positions swapped", site)), place.labels, values)
        return {}

    def geometry(self, folder: Folder) -> dict[str, Any]:
        """Fourier spectrum of the centroids, and how far h(x) is from x beside a control that changes as many tokens."""
        spectra, ratios = [], []
        for site in self.sites:
            shape = spectrum(self.fitted["trained"][site][1])
            spectra.append({"site": site, "energy": shape.energy.tolist(), "n": shape.n})
        place = Place.of(self.task, length_split(self.kind.longer[0]), LOOKED)
        control = matched_control(
            place.sequences.tokens,
            place.partner,
            self.used,
            self._units_digit,
            digits=torch.arange(self.task.settings.base),
            rng=self.rng,
        )
        others = {REPRESENTATIVE: place.partner, CONTROL: control}
        others[SAME_CLASS] = place.sequences.tokens[same_class(place.facts["units"], rng=self.rng)]
        classes = place.facts["units"]
        for who, network in self.networks.items():
            found = distances(network, place.sequences, others, self.sites, [self.last], device=self.device)
            for site, by in found.items():
                near, far, apart = (by[name][:, 0] for name in others)
                ratio = {"ratio": distance_ratio(near, far, classes).value}
                within = distance_ratio(near, apart, classes)
                ratio |= {"ratio_same_class": within.value, "p_same_class": within.p}
                ratios.append({"network": who, "site": site, "distance": float(near.mean())} | ratio)
        return {"spectrum": spectra, "distances": ratios}

    def _units_digit(self, tokens: Tensor) -> Tensor:
        """(M,) the units digit of the sum, which the last prompt position predicts."""
        w = self.task.layout.width
        return (tokens[:, w - 1] + tokens[:, 2 * w - 1]) % self.task.settings.base

    def pictures(self) -> dict[str, np.ndarray]:
        """What is drawn of one network: components in and out of distribution, and by the operands' units; answers over the
        plane of operands; probabilities along the answer."""
        structure = ClassStructure.fit(*self.fitted["trained"][CLASS_SITE], rank=self.s["components"])
        found = {}
        for split in ("id", length_split(self.kind.longer[0])):
            place = Place.of(self.task, split, LOOKED)
            found[f"{split}/points"] = structure.project(self._rows(place, CLASS_SITE)).numpy()
            found[f"{split}/units"] = place.units.numpy()
            found |= {f"{split}/{key}": values for key, values in self._by_units(structure, split).items()}
        pairs, ticks = self._plane()
        network = self.networks["trained"]
        answers = answers_of(network, self.task, pairs)
        found["plane/ticks"] = ticks
        said = np.where(answers.parsable, numerals.to_int64(answers.digits, self.task.settings.base), -1)
        numbers = {"answer": said, "truth": _ints(self.task, truth(self.task, pairs))}
        numbers["rule"] = _ints(self.task, by_rule(self.task, pairs))
        found |= {f"plane/{name}": values.reshape(PLANE, PLANE) for name, values in numbers.items()}
        return found | self._probabilities()

    def _by_units(self, structure: ClassStructure, split: str) -> dict[str, np.ndarray]:
        """Mean components (K, base, base) by the units of both operands, and how many pairs are behind each (base, base)."""
        base, at = self.task.settings.base, structure.project(self._rows(self.places[split], CLASS_SITE)).numpy()
        pairs = self.task.pairs[split]
        cell = pairs.a[:, 0].astype(np.int64) * base + pairs.b[:, 0]
        counts = np.bincount(cell, minlength=base**2)
        sums = np.stack([np.bincount(cell, weights=column, minlength=base**2) for column in at.T])
        with np.errstate(invalid="ignore"):
            return {"by_units": (sums / counts).reshape(-1, base, base), "counts": counts.reshape(base, base)}

    def _plane(self) -> tuple[Pairs, np.ndarray]:
        """Operands up to one digit too long, one at random from each of `PLANE` equal ranges, against each other. Round
        numbers would hide rules that differ in the lower digits alone."""
        base, n = self.task.settings.base, self.kind.digits
        edges = np.linspace(0, base ** (n + 1), PLANE + 1).astype(np.int64)
        ticks = self.rng.integers(edges[:-1], edges[1:])
        a, b = (m.ravel() for m in np.meshgrid(ticks, ticks, indexing="ij"))
        return Pairs(*(numerals.from_ints(x, base, width=self.task.layout.width) for x in (a, b))), ticks

    def _probabilities(self) -> dict[str, np.ndarray]:
        """Of the paper's eight problems: the probability of every digit at every step, given the network's own answer."""
        base, n, width = self.task.settings.base, self.kind.digits, self.task.layout.width
        unit = base**n
        low = [(a % unit, b % unit) for a, b in PROBLEMS]
        high = [[(0, 0), (1, 0), (0, 2), (1, 2)], [(0, 0), (3, 0), (0, 4), (3, 4)]]
        asked = [(a + x * unit, b + y * unit) for (a, b), more in zip(low, high, strict=True) for x, y in more]
        pairs = Pairs(*(numerals.from_ints(x, base, width=width) for x in zip(*asked, strict=True)))
        network = self.networks["trained"]
        given = sequences(self.task, pairs, answers_of(network, self.task, pairs).digits)
        with torch.no_grad():
            tokens = given.tokens.to(self.device)
            found = forced(network(tokens[:, : given.fed]), tokens, given.steps)
        return {"probabilities": found.log_p.exp().cpu().numpy(), "problems": np.array(asked)}


def _ints(task: Arithmetic, digits: Digits) -> np.ndarray:
    return numerals.to_int64(digits, task.settings.base)


def _positions(task: Arithmetic) -> tuple[list[int], list[int]]:
    """Positions of the operands' lowest n digits, and of the digits that are never used in training."""
    w, n = task.layout.width, task.settings.digits
    places = [operand * w + i for operand in range(2) for i in range(w)]
    used = [p for p in places if p % w >= w - n]
    return used, [p for p in places if p not in used]
