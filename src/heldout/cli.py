"""The command line: thin, no logic."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from heldout.errors import ConfigError, HeldoutError

app = typer.Typer(
    name="heldout",
    help="Does what you read off a network still hold where you have not looked?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

INTERRUPTED = 130  # the exit code that typer gives Ctrl-C

Preset = Annotated[str, typer.Option(help="smoke, laptop, paper, or another that `heldout show STUDY` names.")]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replace a field; repeatable.")]
Runs = Annotated[Path, typer.Option(help="Where runs and their store are kept.")]
Workers = Annotated[int | None, typer.Option(help="Processes; one for each processor where not given.")]
Address = Annotated[
    str | None,
    typer.Option(help="host:port of a running Ray cluster, or auto, for --engine ray; one is started where not given."),
]


@app.command("list")
def list_() -> None:
    """Studies, tasks, proxies and analyses, one line each."""
    from heldout.studies.catalogue import catalogue

    for heading, entries in catalogue().items():
        typer.echo(heading)
        for name, line in entries.items():
            typer.echo(f"  {name:<16} {line}")


@app.command()
def show(
    study: Annotated[str, typer.Argument(metavar="STUDY|SPEC.yaml")],
    preset: Annotated[str | None, typer.Option(help="smoke, laptop (where not given), paper, ...")] = None,
    set_: Settings = None,
    seeds: Annotated[int | None, typer.Option(help="Number of training seeds.")] = None,
) -> None:
    """The full configuration of a study, its steps and its claims; of a SPEC.yaml, also the network's sites with shapes."""
    if study.endswith((".yaml", ".yml")):
        given = {"--set": set_, "--seeds": seeds, "--preset": preset}
        if ignored := [option for option, value in given.items() if value]:
            raise ConfigError(f"{ignored[0]} is about studies; {study} is a spec: write what you want in it")
        from heldout.audits.showing import describe_spec

        typer.echo(describe_spec(Path(study)))
        return
    from heldout.studies.base import describe_study

    typer.echo(describe_study(study, preset or "laptop", set_ or [], seeds))


@app.command()
def run(
    study: str,
    preset: Preset = "laptop",
    seeds: Annotated[int | None, typer.Option(help="Number of training seeds.")] = None,
    set_: Settings = None,
    runs: Runs = Path("runs"),
    engine: Annotated[str, typer.Option(help="local (worker processes), inline (this process) or ray.")] = "local",
    workers: Workers = None,
    address: Address = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0, ...")] = "auto",
    fresh: Annotated[list[str] | None, typer.Option(help="Steps to compute again (a pattern); repeatable.")] = None,
    together: Annotated[
        bool | None,
        typer.Option(
            "--together/--apart", help="Train seeds as one computation where they can be; the default on accelerators."
        ),
    ] = None,
) -> None:
    """Run a study, or go on with it, and write its page."""
    from heldout.studies.running import run_study

    finished = run_study(
        study,
        preset=preset,
        seeds=seeds,
        settings=set_ or [],
        runs=runs,
        engine=engine,
        workers=workers,
        address=address,
        device=device,
        fresh=fresh or [],
        together=together,
    )
    _report(finished.path, claims=True)


@app.command()
def audit(
    spec: Annotated[Path, typer.Argument(metavar="SPEC.yaml")],
    runs: Annotated[
        Path | None, typer.Option(help="Where runs are kept; the spec's out, or runs, where left out.")
    ] = None,
    engine: Annotated[str, typer.Option(help="inline (this process), local (worker processes) or ray.")] = "inline",
    workers: Workers = None,
    address: Address = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, ...; the spec's where not given.")] = None,
    fresh: Annotated[list[str] | None, typer.Option(help="Steps to compute again (a pattern); repeatable.")] = None,
) -> None:
    """Test your own readings of your own network on your own splits, or go on with it, and write the page.

    Runs the functions that the spec names.
    """
    from heldout.audits.running import run_audit

    finished = run_audit(
        spec, runs=runs, device=device, engine=engine, workers=workers, address=address, fresh=fresh or []
    )
    _report(finished.path, claims=False)


@app.command()
def rule(
    predictions: Annotated[Path, typer.Argument(metavar="PREDICTIONS.csv")],
    operation: Annotated[
        str, typer.Option(help="What was asked for: add, subtract, multiply, mod_add, mod_multiply.")
    ] = "add",
    modulus: Annotated[int | None, typer.Option(help="Of mod_add and mod_multiply.")] = None,
    base: Annotated[int, typer.Option(help="Of the numerals, 2 to 36.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the halves and the shuffles.")] = 0,
    a: Annotated[str, typer.Option("--a", metavar="COLUMN", help="Column of the first operand.")] = "a",
    b: Annotated[str, typer.Option("--b", metavar="COLUMN", help="Column of the second operand.")] = "b",
    answer: Annotated[str, typer.Option("--answer", metavar="COLUMN", help="Column of the answers.")] = "answer",
    examples: Annotated[int, typer.Option(help="Pairs shown that follow the rule, and that do not.")] = 6,
    probes: Annotated[int, typer.Option(help="Pairs shown that would separate the rules that are left.")] = 0,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write what was found.")] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write rule and truth, pair by pair.")
    ] = None,
) -> None:
    """The relation behind a model's answers to arithmetic, how sure it is, or that there is none."""
    from heldout.analyses.equivalence.of_file import describe_predictions

    typer.echo(
        describe_predictions(
            predictions,
            operation=operation,
            modulus=modulus,
            base=base,
            seed=seed,
            columns=(a, b, answer),
            examples=examples,
            probes=probes,
            record=json,
            table=csv,
        )
    )


@app.command()
def report(
    path: Annotated[Path, typer.Argument(metavar="RUN")],
    claims: Annotated[bool, typer.Option("--claims", help="Print the claims instead of the page's place.")] = False,
) -> None:
    """Write a run's page again and name it, or print its claims."""
    _report(path, claims=claims)


@app.command()
def compare(first: Path, second: Path) -> None:
    """What differs between two runs: their configurations, and their estimates with intervals."""
    from heldout.studies.comparing import compare_runs

    typer.echo(compare_runs(first, second))


@app.command()
def doctor(device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto") -> None:
    """Test the device against float64 on the CPU."""
    from heldout.analyses.doctor import examine

    lines, healthy = examine(device)
    typer.echo("\n".join(lines))
    if not healthy:
        raise HeldoutError(f"device {device!r} computes something else than the CPU in float64; do not trust it")


def _report(path: Path, *, claims: bool) -> None:
    from heldout.report.of_run import render_run

    page, target = render_run(path)
    if claims:
        for j in page.judgements:
            where = f"{j.value:+.3f}" if j.seeds else ""
            where += f" [{j.low:+.3f}, {j.high:+.3f}]" if j.seeds > 1 else ""
            typer.echo(f"{j.id:<4} {j.verdict:<13} {where:<26} {j.title}")
            if j.reason:
                typer.echo(f"     {j.reason}")
    typer.echo(f"page: {target}")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; errors that a user can mend end with exit code 2 and no traceback (``--debug`` shows it)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    try:
        app(args=arguments, prog_name="heldout")
    except HeldoutError as error:
        if debug:
            raise
        typer.echo("\n  ".join([f"error: {error}", *getattr(error, "__notes__", ())]), err=True)
        raise SystemExit(2) from None
    except SystemExit as leave:
        if leave.code == INTERRUPTED:
            typer.echo("stopped; what was finished is kept, and the same command goes on from there", err=True)
        raise


__all__ = ["ConfigError", "app", "main"]
