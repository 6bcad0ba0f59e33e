"""What `heldout show SPEC.yaml` prints: the configuration, the splits, and every site of the network with its shape."""

from __future__ import annotations

import json
from pathlib import Path

from heldout.audits.spec import Spec, read_spec
from heldout.audits.steps import steps
from heldout.errors import HeldoutError, NetworkError

ITEMS = 3  # of the reference split, that are run to see shapes
LARGE = 1_000_000  # positions: all of them in one batch


def describe_spec(path: Path) -> str:
    """The text. Loads the network and the splits, and runs a few items. Raises what an audit would raise."""
    import numpy as np

    from heldout.activations.listing import sites
    from heldout.audits.material import load_network, load_splits

    spec, folder = read_spec(path), path.resolve().parent
    lines = [f"{spec.name}: {path}", "", "configuration", *_fields(spec)]
    kinds: dict[str, int] = {}
    for step in steps(spec, folder):
        kinds[step.function.__name__] = kinds.get(step.function.__name__, 0) + 1
    lines += ["", "steps", *(f"  {n} x {kind}" for kind, n in kinds.items()), "", "splits"]
    if spec.of_files:
        return "\n".join([*lines, *_files(spec, folder)])
    splits = load_splits(spec.splits, folder, kind=spec.scoring.kind)
    for name, split in splits.items():
        lines.append(f"  {name:<18} {split.role:<7} {len(split):>9,} items  {split.note}".rstrip())
    reference = splits[spec.tests[0]]
    batch = next(reference.batches(LARGE, order=np.arange(min(len(reference), ITEMS))))
    for name, network in spec.every_network.items():
        field = "network" if spec.network is not None else f"networks.{name}"
        loaded = load_network(network, 0, folder, kind=spec.scoring.kind, field=field)
        total = sum(p.numel() for p in loaded.parameters())
        runs = len(network.sources)
        lines += ["", f"sites of {name} ({type(loaded).__name__}, {total:,} parameters, {runs} run{'s'[: runs > 1]})"]
        try:
            listed = sites(loaded, batch)
        except HeldoutError:
            raise
        except Exception as error:
            raise NetworkError(
                f"{field}: {type(loaded).__name__} failed on {len(batch)} items of split {reference.name!r}: "
                f"{type(error).__name__}: {error}"
            ) from error
        width = max((len(row.site) for row in listed), default=0)
        for row in listed:
            calls = f"  runs {row.calls} times: name one, {row.site}#0" if row.calls > 1 else ""
            shape = f"not available: {row.unavailable}" if row.unavailable else f"{row.shape}"
            lines.append(f"  {row.site:<{width}}  {shape}  {row.module}{calls}")
    lines += ["", f"shapes are those of {len(batch)} items of {reference.name}"]
    return "\n".join(lines)


def _files(spec: Spec, folder: Path) -> list[str]:
    """The arrays and the columns of every split."""
    from heldout.audits.labelled import read_arrays, read_table

    lines = []
    for name, split in spec.splits.items():
        arrays, table = read_arrays(name, split, folder), read_table(name, split, folder)
        rows = len(next(iter(table.values())))
        lines += [f"  {name:<18} {split.role:<7} {rows:>9,} rows  {split.note}".rstrip()]
        lines += [f"    {key}  {array.shape}" for key, array in arrays.items()]
        lines += [f"    labels: {', '.join(table)}"]
    return lines


def _fields(spec: Spec) -> list[str]:
    """Every field with its value and where that comes from."""
    found = []
    for field, value in spec.model_dump(mode="json", by_alias=True).items():
        given = field in spec.model_fields_set
        if not given and value in (None, {}, [], ()):
            continue
        if isinstance(value, dict) and value:
            found.append(f"  {field}")
            own = {k: _brief(v) for k, v in value.items()}
            found += [f"    {k} = {json.dumps(v, ensure_ascii=False)}" for k, v in own.items()]
        else:
            found.append(f"  {field} = {json.dumps(value, ensure_ascii=False)}  ({'given' if given else 'default'})")
    return found


def _brief(value: object) -> object:
    """Nested parts without what is empty."""
    if isinstance(value, dict):
        return {k: _brief(v) for k, v in value.items() if v not in (None, {}, [], "")}
    return value
