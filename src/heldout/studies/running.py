"""From the words of a command to a finished run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from heldout.errors import ConfigError
from heldout.runs import Run, execute
from heldout.statistics.claims import claims_hash
from heldout.studies.base import Config, find_study, not_judged_because, overrides_of


def run_study(
    name: str,
    *,
    preset: str = "laptop",
    seeds: int | None = None,
    settings: Sequence[str] = (),
    runs: Path = Path("runs"),
    engine: str = "local",
    workers: int | None = None,
    address: str | None = None,
    device: str = "auto",
    fresh: Sequence[str] = (),
    together: bool | None = None,
) -> Run:
    """Run a study, or go on with it; the directory is named after what was asked for, so the same words resume it."""
    study = find_study(name)
    overrides = overrides_of(settings, seeds)
    config, changed = study.configure(preset, overrides)
    device = pick_device(device)
    why_not = not_judged_because(preset, changed)
    manifest = {
        "preset": preset,
        "overridden": changed,
        "not_judged": why_not,
        "config": config.model_dump(mode="json"),
        "seeds": config.seed_list(),
        "claims_hash": claims_hash(study.claims()),
    }
    return execute(
        name,
        study.steps(config, why_not),
        out=runs / directory_name(name, preset, config, overrides),
        engine=engine,
        workers=workers,
        address=address,
        device=device,
        fresh=fresh,
        together=together,
        manifest=manifest,
    )


def directory_name(study: str, preset: str, config: Config, overrides: dict[str, object]) -> str:
    """``digits-laptop``, and with replaced fields ``digits-laptop-seeds=9`` (a hash where that gets long)."""
    import hashlib

    if not overrides:
        return f"{study}-{preset}"
    words = ",".join(f"{k}={getattr(config, k)}" for k in sorted(overrides))
    plain = "".join(c if c.isalnum() or c in "=,.-_" else "_" for c in words)
    if len(plain) > 60:
        plain = hashlib.sha256(words.encode()).hexdigest()[:12]
    return f"{study}-{preset}-{plain}"


def pick_device(device: str) -> str:
    """The device that ``auto`` means: CUDA where it is there, else the CPU. MPS only where it is asked for by name."""
    if device == "cpu":
        return device
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device {device!r} cannot be used here: {str(error).splitlines()[0]}; try --device cpu"
        ) from None
    return device
