"""What a person sees while a run goes on: a bar on a terminal, elsewhere one line a finished step."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, TextIO

Event = Mapping[str, Any]
Listener = Callable[[Event], None]


@contextmanager
def listening(progress: Listener | Literal["auto"] | None) -> Iterator[Listener]:
    """The listener for a run: the one given, none, or what suits standard error."""
    if progress is None:
        yield lambda event: None
    elif progress != "auto":
        yield progress
    elif sys.stderr.isatty():
        with bars() as listener:
            yield listener
    else:
        yield lines(sys.stderr)


def lines(stream: TextIO) -> Listener:
    """One line a finished step, and one for whatever needs attention."""
    started, done, total = time.monotonic(), 0, 0

    def listen(event: Event) -> None:
        nonlocal done, total
        match event["event"]:
            case "start":
                total, text = event["steps"], f"{event['study']}: {event['steps']} steps"
            case "reused":
                done += 1
                text = f"[{done}/{total}] {event['step']} is in the store"
            case "finished":
                done += 1
                text = f"[{done}/{total}] {event['step']} {event['wall_seconds']:.1f} s"
            case _:
                text = attention(event)
        if text:
            print(f"{text} (elapsed {time.monotonic() - started:.0f} s)", file=stream, flush=True)

    return listen


def attention(event: Event) -> str:
    """The sentence for an event that a person should see whatever the display; empty for the others."""
    match event["event"]:
        case "damaged":
            return f"{event['step']}: {event['fault']}; moved to {event['moved_to']} and computed again"
        case "lost":
            return f"{event['step']}: its worker was lost ({event['losses']}); started again"
        case "failed":
            return f"{event['step']} failed; what is running is finished first"
        case "finished" if event["outcome"] == "replaced":
            return f"{event['step']}: computed anew, and its bytes differ from before"
    return ""


@contextmanager
def bars() -> Iterator[Listener]:
    """A bar for the run with rate and estimate, and one for each running step that reports its progress."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True)) as display:
        whole = display.add_task("steps", total=None, rate="", note="")
        running: dict[str, Any] = {}

        def listen(event: Event) -> None:
            match event["event"]:
                case "start":
                    display.update(whole, total=event["steps"])
                case "progress":
                    task = running.get(event["step"])
                    if task is None:
                        task = running[event["step"]] = display.add_task(f"  {event['step']}", rate="", note="")
                    display.update(task, completed=event["done"], total=event["total"], note=event["note"])
                case "finished" | "reused":
                    display.advance(whole)
            if event["event"] in ("finished", "failed", "lost") and event["step"] in running:
                display.remove_task(running.pop(event["step"]))
            for task in display.tasks:
                display.update(task.id, rate=f"{task.speed:.2g}/s" if task.speed else "")
            if text := attention(event):
                display.console.print(text, markup=False, highlight=False)

        yield listen
