"""Nuclear masses, what follows from them, and networks' splits of them by nucleus, edge and vintage."""

from heldout.tasks.nuclear.chains import REGIONS
from heldout.tasks.nuclear.energies import CONTROLS, ENERGIES, REACTIONS, TARGETS, derive
from heldout.tasks.nuclear.files import Radii, parse_mass_table, read_mass_table, read_radii
from heldout.tasks.nuclear.nuclides import VINTAGES, Nuclides, masses, nucleus_keys
from heldout.tasks.nuclear.settings import NuclearSettings
from heldout.tasks.nuclear.task import COLUMNS, Nuclear

__all__ = [
    "COLUMNS",
    "CONTROLS",
    "ENERGIES",
    "REACTIONS",
    "REGIONS",
    "TARGETS",
    "VINTAGES",
    "Nuclear",
    "NuclearSettings",
    "Nuclides",
    "Radii",
    "derive",
    "masses",
    "nucleus_keys",
    "parse_mass_table",
    "read_mass_table",
    "read_radii",
]
