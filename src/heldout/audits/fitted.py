"""What is learned from the fit split: fitted once in one pass, kept as tensors, and made into the same edits later."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from heldout.activations.accumulators import Moments, Reservoir
from heldout.activations.capture import Accumulator, capture
from heldout.activations.edits import Edit, Reconstructs
from heldout.activations.sites import Site, module_at
from heldout.activations.tap import Tap
from heldout.analyses.faithfulness import Subject
from heldout.audits.parts import AnyReading, Families, Probe
from heldout.audits.readings import ROWS, Tensors, class_direction, edits_of, sites_of, wants_mean, wants_rows
from heldout.evidence import Origin
from heldout.proxies.clusters import KMeans
from heldout.proxies.controls import Mean, RandomSubspace
from heldout.proxies.fit import DERIVED, FAMILIES, SAMPLED, Family, derived, fit_edits
from heldout.proxies.interaction import InteractionBasis
from heldout.proxies.svd import SVD
from heldout.tasks.base import Split, require_fit
from heldout.training.checkpoints import read_tensors, write_tensors

CONTROLS = ("haar", "mean")  # fitted for comparison; they get no null of their own


@dataclass(frozen=True)
class _Proxy:
    """One fitted proxy: where it belongs, and under which names its tensors are kept."""

    site: str
    family: str
    parameter: int | None
    draw: int
    tensors: Mapping[str, str]


def fit(
    subject: Subject,
    split: Split | None,
    sites: Mapping[str, Families],
    readings: Sequence[AnyReading],
    folder: Path,
    *,
    seed: int,
    batch_size: int,
) -> None:
    """Fit everything that is fitted on `split` (None: nothing is) and write it to `folder`.

    Raises `SiteError` for a site that does not exist before anything runs, and what fitting raises.
    """
    for site in [*sites, *(s for r in readings for s in sites_of(r))]:
        module_at(subject.network, Site.parse(site))
    tensors: Tensors = {}
    proxies: list[_Proxy] = []
    if split is not None:
        require_fit(split, "this audit")
        families = {str(Site.parse(site)): families_of(own) for site, own in sites.items()}
        moments = {
            place: Moments() for place in [*families, *(s for r in readings if wants_mean(r) for s in sites_of(r))]
        }
        samples = {
            (place, f.draw): Reservoir(sites[given].sample, seed=seed, shard=f.draw)
            for (place, own), given in zip(families.items(), sites, strict=True)
            for f in own
            if f.name in SAMPLED
        }
        rows = {s: Reservoir(ROWS, seed=seed) for r in readings if wants_rows(r) for s in sites_of(r)}
        wanted: dict[str, list[Accumulator]] = {place: [m] for place, m in moments.items()}
        for (place, _), drawn in samples.items():
            wanted.setdefault(place, []).append(drawn)
        for place, seen_rows in rows.items():
            wanted.setdefault(place, []).append(seen_rows)
        if wanted:
            capture(subject.network, split, wanted, batch_size=batch_size, device=subject.device)
        tensors |= {f"mean:{p}": m.mean.cpu() for p, m in moments.items() if m.mean is not None}
        tensors |= {f"rows:{p}": r.rows.cpu() for p, r in rows.items()}
        for reading in readings:
            if isinstance(reading, Probe) and reading.classes is not None:
                tensors[f"probe:{reading.name}"] = class_direction(
                    subject.network, split, reading, batch_size=batch_size, device=subject.device
                )
        at = output_site(subject, split) if any(f.name in DERIVED for own in families.values() for f in own) else ""
        for (place, own), given in zip(families.items(), sites, strict=True):
            for family in own:
                seen: Any = samples[place, family.draw] if family.name in SAMPLED else moments[place]
                if family.name in DERIVED:
                    seen = derived(
                        subject.network,
                        split,
                        place,
                        replace(family, options={"output": at}),
                        sample=sites[given].sample,
                        batch_size=batch_size,
                        device=subject.device,
                    )
                for parameter, proxy in FAMILIES[family.name](family, seen):
                    size = None if parameter is None else int(parameter)
                    kept = _keep(proxy, f"{place}:{family.name}:{family.draw}:{size}", tensors)
                    proxies.append(_Proxy(place, family.name, size, family.draw, kept))
    record = {"fit_split": "" if split is None else split.name, "proxies": [vars(p) for p in proxies]}
    write_tensors(folder / "fitted.safetensors", tensors, {})
    (folder / "fitted.json").write_text(json.dumps(record))


def fitted_edits(folder: Path, readings: Sequence[AnyReading], spec_folder: Path, *, device: str) -> list[Edit]:
    """The edits of `fit`'s output, always in the same order: proxies by site, then readings."""
    record = json.loads((folder / "fitted.json").read_text())
    tensors, _ = read_tensors(folder / "fitted.safetensors")
    edits = []
    for p in (_Proxy(**row) for row in record["proxies"]):
        origin = Origin(p.family, p.site, record["fit_split"], p.parameter)
        edits.append(Edit.from_proxy(p.site, _restore(p, tensors), origin))
    for reading in readings:
        edits += edits_of(reading, tensors, spec_folder, fit_split=record["fit_split"], device=device)
    return edits


def oracle_edits(
    subject: Subject,
    half: Split,
    sites: Mapping[str, Families],
    chosen: Sequence[Origin],
    *,
    seed: int,
    batch_size: int,
) -> list[Edit]:
    """The edits of `chosen` that come of families (controls apart), fitted on `half` of a test split, one draw each."""
    given = {str(Site.parse(site)): own for site, own in sites.items()}
    at = output_site(subject, half) if any(o.name in DERIVED for o in chosen) else ""
    edits: list[Edit] = []
    for place, own in given.items():
        sizes = [(o.name, int(o.parameter or 0)) for o in chosen if o.site == place and o.name in FAMILIES]
        if sizes:
            edits += fit_edits(
                subject.network,
                half,
                [place],
                [Family(name, (size,), options={"output": at} if name in DERIVED else {}) for name, size in sizes],
                oracle=True,
                sample=own.sample,
                seed=seed,
                batch_size=batch_size,
                device=subject.device,
            )
    return edits


def families_of(own: Families) -> list[Family]:
    """The families of a site, one entry a draw."""
    found = [Family(name, sizes) for name in ("svd", "pca", "ib") if (sizes := getattr(own, name))]
    found += [Family("kmeans", own.kmeans, draw=d) for d in range(own.kmeans_draws) if own.kmeans]
    found += [Family("haar", own.haar, draw=d) for d in range(own.haar_draws) if own.haar]
    return found + ([Family("mean")] if own.mean else [])


def output_site(subject: Subject, split: Split) -> str:
    """The site of the part of the network's output that is scored."""
    batch = split.items.take(split.batch_indices(1)[0]).to(subject.device)
    with Tap(subject.network) as tap:
        part = subject.scoring.part(tap(batch).output)
    return f".[{part}]" if part else "."


def _keep(proxy: Any, name: str, tensors: Tensors) -> dict[str, str]:
    """Add a proxy's fitted tensors; those that several ranks share are kept once."""
    kept = {}
    for attribute, value in vars(proxy).items():
        if isinstance(value, Tensor):
            shared = next((k for k, t in tensors.items() if t is value), None)
            kept[attribute] = shared or f"{name}:{attribute}"
            tensors[kept[attribute]] = value
    return kept


def _restore(p: _Proxy, tensors: Mapping[str, Tensor]) -> Reconstructs:
    """The proxy with its fitted tensors put back."""
    size = p.parameter or 0
    made: dict[str, Any] = {
        "svd": lambda: SVD(size),
        "pca": lambda: SVD(size, centred=True),
        "ib": lambda: InteractionBasis(tensors[p.tensors["metric"]], size),
        "kmeans": lambda: KMeans(size, seed=p.draw),
        "haar": lambda: RandomSubspace(size, seed=p.draw),
        "mean": Mean,
    }
    proxy: Any = made[p.family]()
    for attribute, key in p.tensors.items():
        setattr(proxy, attribute, tensors[key])
    found: Reconstructs = proxy
    return found
