"""The section of the nuclear page on simplified networks: do they still say what the network says?"""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from heldout.figures import Figure, lines
from heldout.figures.page import IdentityCheck, Section, Table
from heldout.proxies.helix_fit import COMPONENTS
from heldout.studies import nuclear_baselines as baselines
from heldout.studies import nuclear_faithful as simple
from heldout.studies.features_shown import interval, share
from heldout.studies.nuclear import FAITHFUL_TO
from heldout.studies.nuclear_page_components import REFERENCE, WHOLE
from heldout.studies.nuclear_page_errors import SPLITS
from heldout.studies.nuclear_shown import Shown, kev

SITES = {simple.TABLES: "both tables", simple.LAYER: "penultimate layer"}
FAMILIES = {
    simple.PCA: "principal components",
    simple.HELIX: "helix and its residual",
    simple.DRIFT: "its drift and the residual",
    simple.HAAR: "random subspace",
}
SIMPLER = FAMILIES | {
    simple.REST: "first three components on the helix, the others as they are",
    simple.MEAN: "nothing but the mean",
}
GAPS = ("alike_gap", "alike_null_gap", "alike_excess_gap")
CHANGES = {"alike": share, "rms_changed": kev, "rms_whole": kev}


def faithful(here: Shown) -> Section:
    networks = here.trained(FAITHFUL_TO)
    text = (
        "A simplified network is compared with the network itself, and not only with measured energies. Predictions are "
        f"alike where they differ by at most {here.config.alike:g} keV per nucleon, about what networks err by. "
        "Simplifications are fitted on training nuclei (penultimate layer) or on trained tokens (tables of embeddings, "
        "both at once) and judged on nuclei that were not trained on.",
        "Of the embeddings: principal components; the fitted helix, to which components of what it leaves (its residual) "
        f"are added, largest first; and the same with the helix's drift, a parabola, in its place. In "
        f"{COMPONENTS} dimensions the helix stands alone; with all of the residual it would be the table itself. "
        "If the helix is how the network holds its numbers, it takes fewer dimensions than principal components do.",
    )
    figures = (agreement(here, networks), errors(here, networks))
    title = "Do simplified networks say what the network says?"
    return Section("faithful", title, text, figures=figures, tables=(chosen(here, networks), singles(here, networks)))


def curves(here: Shown, networks: list[str], quantity: str) -> pd.DataFrame:
    """One line a family and panel, of a panel a network, split and site: panel, name, x, y, low, high."""
    rows = here.rows(quantity)
    parts = []
    for network in networks:
        for split in (simple.REFERENCE, *simple.tests_of(network)):
            for site, place in SITES.items():
                own = rows[(rows["network"] == network) & (rows["split"] == split) & (rows["site"] == site)]
                for family, name in FAMILIES.items():
                    line = own[(own["edit"] == family) & own["parameter"].notna()]
                    named = {"panel": panel(here, network, split, place), "name": name}
                    parts.append(line.rename(columns={"value": "y"}).assign(x=line["parameter"].astype(float), **named))
    return pd.concat(parts)[["panel", "name", "x", "y", "low", "high"]]


def panel(here: Shown, network: str, split: str, place: str) -> str:
    return f"{trained_on(here, network)}, {SPLITS[split]}: {place}"


def agreement(here: Shown, networks: list[str]) -> Figure:
    return lines(
        curves(here, networks, "alike"),
        id="faithful",
        title="Predictions alike, by dimensions kept",
        x="dimensions kept",
        y="share of nuclei predicted alike",
        caption=(
            f"Means over n = {len(here.seeds)} networks; bands: 95% interval over seeds and isotopic chains. Random "
            f"subspaces: {simple.SUBSPACES} of each dimension. Logarithmic axis.",
            "Alike does not mean right, and a share does not say by how much the others differ.",
        ),
        thin=(FAMILIES[simple.HAAR],),
        log_x=True,
    )


def errors(here: Shown, networks: list[str]) -> Figure:
    frame = curves(here, networks, "rms_whole")
    whole, levels = here.rows("rms_whole"), []
    rms = here.rows("rms")
    for network in networks:
        for split in (simple.REFERENCE, *simple.tests_of(network)):
            own = whole[(whole["network"] == network) & (whole["split"] == split) & (whole["edit"] == "full")]
            source = "baselines-vintage" if network == "vintage" else "baselines"
            formula = rms[
                (rms["network"] == baselines.FORMULA) & (rms["reference"] == source) & (rms["split"] == split)
            ]
            for place in SITES.values():
                for name, value in ((WHOLE, own["value"].iloc[0]), (REFERENCE, formula["value"].iloc[0])):
                    ends = (frame["x"].min(), frame["x"].max())
                    levels.append(
                        pd.DataFrame({"panel": panel(here, network, split, place), "name": name, "x": ends, "y": value})
                    )
    return lines(
        pd.concat([frame, *levels]).sort_values("panel", key=lambda p: p.map(order(frame)), kind="stable"),
        id="faithful-errors",
        title="Error of simplified networks, by dimensions kept",
        x="dimensions kept",
        y="RMS error, keV",
        caption=(
            f"Of whole nuclei, against measured energies. Means over n = {len(here.seeds)} networks; bands: 95% interval "
            "over seeds and isotopic chains. Both axes are logarithmic.",
            "A simplified network can be right where the network is wrong: see the share alike.",
        ),
        thin=(FAMILIES[simple.HAAR], WHOLE, REFERENCE),
        log_x=True,
        log_y=True,
    )


def order(frame: pd.DataFrame) -> dict[str, int]:
    return {name: i for i, name in enumerate(dict.fromkeys(frame["panel"]))}


def records(here: Shown, network: str) -> list[dict[str, Any]]:
    """What the examination of each seed's network returned."""
    return [json.loads((folder / simple.RECORD).read_text()) for folder in here.each(f"faithful-{network}")]


def identity(here: Shown) -> tuple[IdentityCheck, ...]:
    """What an edit that changes nothing changes, keV per nucleon, of every network that was simplified."""
    return tuple(
        IdentityCheck(
            label=f"{network}, seed {seed}",
            site=", ".join(found["sites"]),
            max_abs_difference=found["difference"],
            tolerance=found["tolerance"],
            passed=found["difference"] <= found["tolerance"],
            replay=found["replay"],
        )
        for network in here.trained(FAITHFUL_TO)
        for seed, record in zip(here.seeds, records(here, network), strict=True)
        for found in [record["identity"]]
    )


def chosen(here: Shown, networks: list[str]) -> Table:
    """Every simplification at the rank that the rule chose."""
    found = {
        tuple(r[k] for k in ("network", "site", "edit", "split", "quantity")): r
        for r in here.rows("chosen_alike", "chosen_rms_whole", "random_alike", *GAPS).to_dict("records")
    }
    rows = []
    for network in networks:
        of_seeds = records(here, network)
        for site, place in SITES.items():
            for family in simple.RANKED[site]:
                picks = [pick(record, site, family) for record in of_seeds]
                alike, random, rms = (
                    found[network, site, family, simple.REFERENCE, q]["value"]
                    for q in ("chosen_alike", "random_alike", "chosen_rms_whole")
                )
                lost, noise, more = ("", ""), ("", ""), ("", "")
                for split in simple.tests_of(network):  # one at most
                    lost, noise, more = (interval(found[network, site, family, split, q], share) for q in GAPS)
                rows.append(
                    (
                        *(trained_on(here, network), place, FAMILIES[family]),
                        ", ".join(f"{p['parameter']:g}{'' if p['reached'] else '*'}" for p in picks),
                        *(share(alike), share(random), kev(rms), lost[0], noise[0], bracketed(more)),
                    )
                )
    return Table(
        title="The smallest simplifications that say what the network says",
        columns=(
            *("trained on", "place", "simplification", "dimensions, by seed", "alike", "random", "RMS, keV"),
            *("lost on new", "by noise", "beyond noise"),
        ),
        rows=rows,
        caption=f"Dimensions: the fewest tried that are alike on {simple.THRESHOLD:.0%} of select; with * none is, and the "
        "most stand there. Alike and RMS (whole nuclei) on id; random: alike in random subspaces of as many dimensions. "
        "Lost on new: the share alike on id minus that on nuclei measured later; beside it the same of random noise at the "
        "same place, as large as makes it as often alike on id, and the difference with its 95% interval.",
    )


def pick(record: dict[str, Any], site: str, family: str) -> dict[str, Any]:
    """What the rank rule chose in one network."""
    found: dict[str, Any] = next(c for c in record["chosen"] if (c["site"], c["family"]) == (site, family))
    return found


def trained_on(here: Shown, network: str) -> str:
    return f"AME{here.config.old if network == 'vintage' else here.config.table}"


def bracketed(written: tuple[str, str]) -> str:
    """A value with its interval, where it has one."""
    value, between = written
    return f"{value} [{between}]" if between else value


def singles(here: Shown, networks: list[str]) -> Table:
    """Simplifications at a size of their own: the helix alone, the helix with all else as it is, and what they are set
    beside."""
    alone = {
        (simple.HELIX, COMPONENTS): "helix alone",
        (simple.DRIFT, simple.PLANE): "its drift alone",
        (simple.PCA, COMPONENTS): f"first {COMPONENTS} components",
        (simple.HAAR, COMPONENTS): f"random subspace of {COMPONENTS} dimensions",
        (simple.REST, None): SIMPLER[simple.REST],
        (simple.MEAN, None): SIMPLER[simple.MEAN],
    }
    found = here.rows(*CHANGES)
    found = found[found["site"] == simple.TABLES]
    rows = []
    for network in networks:
        for split in (simple.REFERENCE, *simple.tests_of(network)):
            own = found[(found["network"] == network) & (found["split"] == split)]
            for (family, size), words in alone.items():
                same = own["parameter"].isna() if size is None else own["parameter"] == size
                one = own[(own["edit"] == family) & same].set_index("quantity")
                if one.empty:
                    continue  # a size that this run does not have
                cells = [bracketed(interval(one.loc[q].to_dict(), show)) for q, show in CHANGES.items()]
                rows.append((trained_on(here, network), SPLITS[split], words, *cells))
    return Table(
        title="The helix alone, and what it is set beside",
        columns=(
            "trained on",
            "nuclei",
            "both tables hold",
            "alike",
            "RMS change of the prediction, keV",
            "RMS error, keV",
        ),
        rows=rows,
        caption="Of whole nuclei; in brackets 95% intervals over seeds and isotopic chains. The first three components "
        "hold the helix and what lies off it within them. Everything not named is at its mean over tokens.",
    )
