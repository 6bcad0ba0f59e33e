"""The task: scalar properties of nuclei from their proton and neutron numbers, with splits by nucleus, edge or vintage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from heldout.errors import ConfigError, SplitError
from heldout.tasks.base import Role, Split, check_disjoint
from heldout.tasks.nuclear import leaks
from heldout.tasks.nuclear.chains import FIRST_LONG_CHAIN, REGIONS, ends_of_chains, regions
from heldout.tasks.nuclear.energies import CONTROLS, ENERGIES, PER_NUCLEON, derive
from heldout.tasks.nuclear.files import Radii
from heldout.tasks.nuclear.nuclides import VINTAGES, Nuclides, check_keV, masses, nucleus_keys
from heldout.tasks.nuclear.settings import NuclearSettings
from heldout.tasks.rows import Rows, check_trained, lengthen, make_split, random_parts, scorable, trained_tokens

COLUMNS = ("z", "n")
PRECISE = 100.0  # keV


class Nuclear:
    """The task: `settings`, `seed`, and `splits` by name.

    =================  ======  ====================================================================================
    ``train``          fit     nuclei to train on, by the evaluation `vintage`
    ``select``         select  other nuclei of it at random: for choosing a size or when to stop
    ``id``             test    the rest of them
    ``extrapolation``  test    kind ``extrapolation``: both ends of every chain from Z = 28 on
    ``new``            test    kind ``vintage``: nuclei that the newer evaluation is the first of the two to have measured,
                               with its values
    =================  ======  ====================================================================================

    Inputs are (B, 2) int64, z and n as they are, or (B, 3) with the target's number in `settings.targets` where there are
    several; targets are (B, 1) float32 in physical units. Strata are ``z``, ``n``, ``target`` and ``region`` (the index into
    `REGIONS`: where a new nucleus lies relative to the chain that was measured before). The key is the nucleus: all of its
    targets are in one split. The unit of resampling is the isotopic chain. `seed` draws the splits and nothing else.

    Further attributes:

    - `rows`: split -> `Rows`, in the order of its items, with uncertainties.
    - `unscorable`: split -> `Rows` that have a token no training row has (every ``new element``); they are in no split.
    - `removed`: `Rows` left out of ``train`` because they would give a held-out mass away.
    - `nuclides`, `newer`: the evaluations, whole; `newer` is None but for kind ``vintage``.
    - `dropped`: nuclei measured in the one trained on and no longer in the newer; they stay where they are.
    - `sizes`: the least number of tokens of each input column; `tokens`: column -> those trained, sorted.

    `evaluations` adds to those in the package, by year; `radii` are needed for the target ``radius``.
    """

    def __init__(
        self,
        settings: NuclearSettings,
        seed: int = 0,
        *,
        evaluations: Mapping[int, Nuclides] | None = None,
        radii: Radii | None = None,
    ) -> None:
        self.settings, self.seed, self.targets = settings, seed, settings.targets
        self._radii = radii
        if "radius" in settings.targets and radii is None:
            raise ConfigError(
                "nuclear: target 'radius' needs radii, as read_radii gives them; the package carries none"
            )
        evaluations = {year: check_keV(table) for year, table in (evaluations or {}).items()}
        self.nuclides = _evaluation(settings.vintage, evaluations)
        self.newer = self._find_newer(evaluations) if settings.kind == "vintage" else None
        parts = self._parts()
        train = self._without_leaks(parts)
        self.rows: dict[str, Rows] = {}
        self.unscorable: dict[str, Rows] = {}
        for name, (_, _, rows) in parts.items():
            known = scorable(rows, train)
            self.rows[name], self.unscorable[name] = (train if name == "train" else rows.take(known)), rows.take(~known)
        self.unscorable["train"] = self.unscorable["train"].take(np.zeros(len(self.unscorable["train"]), dtype=bool))
        self.splits: dict[str, Split] = {
            name: make_split(
                name, role, note, self.rows[name], COLUMNS, self.targets, region=self.regions(self.rows[name].key)
            )
            for name, (role, note, _) in parts.items()
        }
        check_disjoint(list(self.splits.values()))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Tokens of each input column: one more than the largest of the evaluations; last, the targets, if several."""
        tables = [self.nuclides] if self.newer is None else [self.nuclides, self.newer]
        largest = [max(int(getattr(t, column).max()) for t in tables) + 1 for column in COLUMNS]
        return (*largest, len(self.targets)) if len(self.targets) > 1 else tuple(largest)

    @property
    def tokens(self) -> dict[str, np.ndarray]:
        """Column -> sorted tokens that some training row has; a table's other rows were never trained."""
        return dict(zip(COLUMNS, trained_tokens(self.rows["train"]), strict=True))

    @property
    def dropped(self) -> Nuclides:
        """Nuclei in range measured in the evaluation trained on, and not in the newer."""
        if self.newer is None:
            raise ConfigError(
                f"nuclear: only kind 'vintage' knows what was dropped; this is kind {self.settings.kind!r}"
            )
        ours = self.nuclides.only(self._selected(self.nuclides))
        return ours.only(~np.isin(ours.keys, self.newer.keys[self.newer.measured]))

    def unit(self, target: str) -> str:
        """``keV per nucleon``, ``keV``, ``fm``, or nothing for a control without unit."""
        if target in PER_NUCLEON and self.settings.per_nucleon:
            return "keV per nucleon"
        return "fm" if target == "radius" else "keV" if target in (*ENERGIES, "semf") else ""

    def encode(self, z: np.ndarray, n: np.ndarray, target: str | None = None) -> np.ndarray:
        """(B, C) int64 inputs for nuclei of your choice. Raises `ConfigError` for a z or n that was not trained."""
        tokens = check_trained({"z": np.asarray(z), "n": np.asarray(n)}, self.tokens, "nuclear")
        if len(self.targets) == 1:
            return tokens
        if target not in self.targets:
            raise ConfigError(f"nuclear: say which target, one of {', '.join(self.targets)}; got {target!r}")
        return np.column_stack([tokens, np.full(len(tokens), self.targets.index(target))])

    def leaking(self) -> dict[str, dict[str, int]]:
        """Split -> target -> number of its values that training values determine; see `leaks.determined`."""
        out = {}
        for name, rows in self.rows.items():
            if name != "train":
                given_away = rows.target[leaks.determined(rows, self.rows["train"], self.targets)]
                out[name] = {t: int((given_away == i).sum()) for i, t in enumerate(self.targets)}
        return out

    def composition(self) -> list[dict[str, Any]]:
        """One row a split: what it is made of, as plain data.

        `unscorable` nuclei are counted apart, all other figures are of those in the split; `precise` are those whose mass
        is known to `PRECISE` keV.
        """
        out = []
        for name, split in self.splits.items():
            keys, left = np.unique(self.rows[name].key), np.unique(self.unscorable[name].key)
            table = self.newer if name == "new" and self.newer is not None else self.nuclides
            regions = np.bincount(self.regions(keys), minlength=len(REGIONS)).tolist()
            out.append(
                {
                    "split": name,
                    "role": split.role,
                    "note": split.note,
                    "rows": len(split),
                    "nuclei": len(keys),
                    "unscorable": len(left),
                    "precise": int((table.uncertainty[table.find(keys)] <= PRECISE).sum()),
                    "by_region": dict(zip(REGIONS, regions, strict=True)),
                    "by_target": dict(zip(self.targets, np.bincount(self.rows[name].target).tolist(), strict=True)),
                }
            )
        return out

    def regions(self, keys: np.ndarray) -> np.ndarray:
        """(N,) int64 into `REGIONS`, by what the evaluation trained on has measured, in range."""
        return regions(keys, self.nuclides.keys[self._selected(self.nuclides)])

    def _find_newer(self, evaluations: Mapping[int, Nuclides]) -> Nuclides:
        years = sorted({*VINTAGES, *evaluations})
        year = years[-1] if self.settings.newer is None else self.settings.newer
        if year <= self.settings.vintage:
            raise ConfigError(
                f"nuclear: kind 'vintage' trains on the evaluation of {self.settings.vintage}, and none is later. There are "
                f"those of {', '.join(map(str, years))}; choose an earlier vintage, or give a newer one in evaluations"
            )
        return _evaluation(year, evaluations)

    def _selected(self, table: Nuclides) -> np.ndarray:
        """(N,) bool: in range, and measured where estimates do not count."""
        s = self.settings
        return np.asarray((table.z > s.above_z) & (table.n > s.above_n) & (table.measured | s.include_estimated))

    def _all_rows(self, table: Nuclides) -> Rows:
        """The values of every selected nucleus."""
        at = self._selected(table)
        z, n, value, uncertainty = table.z[at], table.n[at], [], []
        for target in self.targets:
            if target in ENERGIES:
                found = derive(
                    table,
                    target,
                    include_estimated=self.settings.include_estimated,
                    per_nucleon=self.settings.per_nucleon,
                )
                value.append(found.value[at])
                uncertainty.append(found.uncertainty[at])
            elif target in CONTROLS:
                over = z + n if target in PER_NUCLEON and self.settings.per_nucleon else 1
                value.append(CONTROLS[target](z, n) / over)
                uncertainty.append(np.full(len(z), np.nan))
            else:
                assert self._radii is not None
                row = dict(
                    zip(nucleus_keys(self._radii.z, self._radii.n).tolist(), range(len(self._radii.z)), strict=True)
                )
                place = np.array([row.get(key, -1) for key in nucleus_keys(z, n).tolist()])
                value.append(np.where(place < 0, np.nan, self._radii.radius[place]))
                uncertainty.append(np.where(place < 0, np.nan, self._radii.uncertainty[place]))
        return lengthen(np.stack([z, n], 1), nucleus_keys(z, n), z, np.stack(value, 1), np.stack(uncertainty, 1))

    def _parts(self) -> dict[str, tuple[Role, str, Rows]]:
        """Role, note and rows of every split, with nothing removed yet."""
        s = self.settings
        rows = self._all_rows(self.nuclides)
        if not len(rows):
            raise SplitError(
                f"nuclear: {self.nuclides.name} has no nucleus of more than {s.above_z} protons and {s.above_n} neutrons "
                f"with a value of {', '.join(s.targets)}; lower above_z and above_n"
            )
        outside: dict[str, tuple[Role, str, Rows]] = {}
        if s.kind == "extrapolation":
            at = ends_of_chains(rows.key, s.edge)
            note = f"the {s.edge} lightest and heaviest isotopes of every element from Z = {FIRST_LONG_CHAIN} on"
            outside["extrapolation"], rows = ("test", note, rows.take(at)), rows.take(~at)
        if self.newer is not None:
            later = self._all_rows(self.newer)
            old = self.nuclides.keys[self.nuclides.measured]
            note = f"measured in {self.newer.name} and not in {self.nuclides.name}, values of {self.newer.name}"
            outside["new"] = ("test", note, later.take(~np.isin(later.key, old)))
        part = random_parts(rows.key, (s.train, s.select), self.seed)
        whose = f"nuclei of {self.nuclides.name}"
        return {
            "train": ("fit", f"{whose} to train on", rows.take(part == 0)),
            "select": ("select", f"other {whose}, at random", rows.take(part == 1)),
            "id": ("test", f"the rest of the {whose}", rows.take(part == 2)),
            **outside,
        }

    def _without_leaks(self, parts: Mapping[str, tuple[Role, str, Rows]]) -> Rows:
        """The training rows; where several energies are asked for, without those that involve a held-out nucleus.

        What is left knows no held-out mass, alone or as part of a difference, so it determines no held-out value.
        One energy alone determines no other value of itself: its links form no circle.
        """
        train = parts["train"][2]
        several = sum(target in ENERGIES for target in self.targets) > 1
        held_out = np.concatenate([rows.key for name, (_, _, rows) in parts.items() if name != "train"])
        at = np.zeros(len(train), dtype=bool)
        if several and self.settings.leaks == "remove":
            at = leaks.involves(train, self.targets, held_out)
        self.removed = train.take(at)
        return train.take(~at)


def _evaluation(year: int, evaluations: Mapping[int, Nuclides]) -> Nuclides:
    return evaluations[year] if year in evaluations else masses(year)
