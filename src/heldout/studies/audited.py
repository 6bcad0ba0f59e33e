"""The audits of a study's networks, read together: what judging steps of studies of simplified networks share."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heldout.analyses.estimates import Scores
from heldout.analyses.summary import Chosen
from heldout.evidence import Estimate, write_estimates
from heldout.statistics.claims import Gate
from heldout.statistics.verdict import Finding, Judgement, judge
from heldout.studies.judging import Judging, Who

AUDIT, AUDITS, CLAIMS, ESTIMATES = "audit.json", "audits.json", "claims.json", "estimates.parquet"


@dataclass(frozen=True, eq=False)
class Audited(Judging):
    """Scores and records of every audited network, by (network, seed)."""

    records: Mapping[tuple[str, int], Mapping[str, Any]]
    chosen: Chosen

    @staticmethod
    def read(folders: Mapping[tuple[str, int], Path], *, reference: str, more: Iterable[Path] = ()) -> Audited:
        """From the folders that audit steps wrote: score parts and `AUDIT`; `more` are folders with further score parts."""
        records = {who: json.loads((folder / AUDIT).read_text()) for who, folder in folders.items()}
        return Audited(Scores.read([*folders.values(), *more]), records, Chosen.from_records(records, reference))

    @property
    def everyone(self) -> Sequence[Who]:
        return list(self.records)

    def accuracy_gate(self, name: str, split: str, least: float, *, site: Mapping[str, str], edit: str) -> Gate:
        """Every network's own accuracy on `split` reaches `least`; `site` (by network) and `edit` name any scored cell."""
        found = {
            who: float(self.point(who).ratio("net_correct", split=split, edit=edit, site=site[who[0]])[0])
            for who in self.records
        }
        worst = min(found, key=lambda who: found[who])
        text = f"least accuracy on {split} {found[worst]:.3f} ({worst[0]}, seed {worst[1]}); {least} needed"
        return Gate(name, found[worst] >= least, text)

    def reached_gate(self, name: str, families: Sequence[str]) -> Gate:
        """Every choice of the rank rule reached its threshold on the select split."""
        choices = [c for r in self.records.values() for c in r["chosen"] if c["family"] in families]
        short = [c for c in choices if not c["reached"]]
        lowest = min((c["agreement"] for c in choices), default=float("nan"))
        text = f"{len(choices) - len(short)} of {len(choices)} sizes reach the threshold; lowest agreement {lowest:.3f}"
        return Gate(name, not short, text)

    def null_gate(self, name: str, families: Sequence[str] = ()) -> Gate:
        """Every null (of `families`, where given) agrees with its network on the reference as often as its edit."""
        every = [n for r in self.records.values() for n in r["nulls"]]
        nulls = [n for n in every if not families or n["edit"].partition("-")[0] in families]
        off = [n for n in nulls if n["reason"]]
        worst = max((abs(n["agreement"] - n["target"]) for n in nulls), default=0.0)
        return Gate(name, not off, f"{len(nulls) - len(off)} of {len(nulls)} match; largest difference {worst:.4f}")

    def write(
        self, out: Path, estimates: Sequence[Estimate], findings: Sequence[Finding], *, not_judged: str
    ) -> list[Judgement]:
        """Judge, and write the three files that a page is made from."""
        judgements = judge(findings, not_judged_because=not_judged)
        write_estimates(out / ESTIMATES, estimates)
        (out / CLAIMS).write_text(json.dumps([j.to_dict() for j in judgements]))
        rows = [{"network": network, "seed": seed, **record} for (network, seed), record in self.records.items()]
        (out / AUDITS).write_text(json.dumps(rows))
        return judgements
