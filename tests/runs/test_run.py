"""Runs: what is computed and what is reused, what the directory says, and what happens when something fails."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dummy_study
import pytest
from dummy_study import evidence, steps

from heldout.errors import ConfigError, HeldoutError, NonFiniteError, StoreError
from heldout.runs import Run, Step, StepFailed, execute
from heldout.runs.progress import lines

HERE = Path(__file__).parent


class Heard(list[Mapping[str, Any]]):
    """A listener that keeps what it hears."""

    def __call__(self, event: Mapping[str, Any]) -> None:
        self.append(event)

    def names(self, kind: str) -> set[str]:
        return {event["step"] for event in self if event["event"] == kind}


def run(out: Path, study: list[Step] | None = None, **options: Any) -> tuple[Run, Heard]:
    heard = Heard()
    return execute("dummy", study or steps(), out=out, **({"engine": "inline", "progress": heard} | options)), heard


def events(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]


ALL = {step.name for step in steps()}


def test_workers_and_this_process_leave_the_same_evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    if "torch" in sys.modules:
        monkeypatch.setattr(sys.modules["torch"], "get_num_threads", lambda: 1)
    there, _ = run(tmp_path / "a" / "run", engine="local", workers=2)
    here, _ = run(tmp_path / "b" / "run")
    assert evidence(there) == evidence(here)
    assert len(evidence(there)) == 6 * 2 + 3  # a result and a record each, and the samples' notes


def test_the_manifest_says_what_was_run(tmp_path: Path) -> None:
    given = {"config": {"rank": 2}, "preset": "smoke", "seeds": [0, 1], "claims_hash": "abc"}
    done, _ = run(tmp_path / "run", manifest=given, device="cpu")
    assert {field: done.manifest[field] for field in given} == given
    assert done.manifest["study"] == "dummy"
    assert done.manifest["status"] == "done"
    assert done.manifest["store"] == "../store"
    assert done.manifest["versions"]["torch"][0].isdigit()
    assert set(done.steps()) == ALL
    for step in done.steps():
        listed = done.manifest["steps"][step]
        assert listed["wall_seconds"] == done.record(step)["wall_seconds"] > 0
        assert listed["reused"] is False
        assert done.output(step) == (tmp_path / "store" / listed["key"])
    assert done.record("sum-01")["inputs"]["a"] == done.manifest["steps"]["sample-0"]["key"]
    assert json.loads((done.output("sample-0") / "notes.json").read_text()) == {"events": [{"drawn": 1000}]}
    with pytest.raises(ConfigError, match="fields steps are written by the run"):
        run(tmp_path / "other", manifest={"steps": 3})
    with pytest.raises(ConfigError, match="unknown engine 'lokal'"):
        run(tmp_path / "other", engine="lokal")
    assert not (tmp_path / "other").exists()


def test_only_what_is_missing_is_computed(tmp_path: Path) -> None:
    first, heard = run(tmp_path / "run")
    assert heard.names("finished") == ALL
    before = evidence(first)
    _, heard = run(tmp_path / "run")
    assert heard.names("reused") == ALL
    shutil.rmtree(first.output("sum-12"))
    again, heard = run(tmp_path / "run")
    assert heard.names("finished") == {"sum-12"}
    assert evidence(again) == before
    changed = [
        Step("all", dummy_study.total, {"pause": 0.0}, s.inputs, version=2) if s.name == "all" else s for s in steps()
    ]
    _, heard = run(tmp_path / "run", changed)
    assert heard.names("finished") == {"all"}


def test_two_studies_share_equal_steps(tmp_path: Path) -> None:
    run(tmp_path / "one")
    heard = Heard()
    execute("another", steps()[:3], out=tmp_path / "two", engine="inline", progress=heard)
    assert heard.names("reused") == {"sample-0", "sample-1", "sample-2"}


def test_fresh_computes_a_step_and_what_is_built_on_it(tmp_path: Path) -> None:
    first, _ = run(tmp_path / "run")
    before = evidence(first)
    again, heard = run(tmp_path / "run", fresh=["sample-2"])
    assert heard.names("finished") == {"sample-2", "sum-12", "all"}
    assert {e["outcome"] for e in heard if e["event"] == "finished"} == {"identical"}
    assert evidence(again) == before
    with pytest.raises(ConfigError, match=r"unknown step 'sampel-2'.*sample-2"):
        run(tmp_path / "run", fresh=["sampel-2"])


def test_nothing_is_reused_that_was_computed_from_other_bytes(tmp_path: Path) -> None:
    study = [
        Step("clock", dummy_study.unsteady),
        Step("sum", dummy_study.total, inputs={"a": "clock"}),
        Step("sums", dummy_study.total, inputs={"a": "sum"}),
    ]
    first, _ = run(tmp_path / "run", study)
    shutil.rmtree(first.output("clock"))
    _, heard = run(tmp_path / "run", study)
    assert heard.names("finished") == {"clock", "sum", "sums"}
    _, heard = run(tmp_path / "another", study[:1], fresh=["clock"])
    assert [e["outcome"] for e in heard if e["event"] == "finished"] == ["replaced"]
    with pytest.raises(StoreError, match=r"earlier output of its input 'a'.*run the same command again"):
        Run.open(tmp_path / "run").output("sum")
    _, heard = run(tmp_path / "run", study)
    assert heard.names("finished") == {"sum", "sums"}


@pytest.mark.parametrize(("content", "verify"), [(b"torn", False), (b"\0" * 8, True)])
def test_a_damaged_file_is_computed_again_and_said(tmp_path: Path, content: bytes, verify: bool) -> None:
    first, _ = run(tmp_path / "run")
    before = evidence(first)
    (first.output("sum-01") / "total.bin").write_bytes(content)
    again, heard = run(tmp_path / "run", verify=verify)
    assert heard.names("finished") == heard.names("damaged") == {"sum-01"}
    assert evidence(again) == before
    [said] = [e for e in events(tmp_path / "run") if e["event"] == "damaged"]
    assert "total.bin" in said["fault"]
    assert (Path(said["moved_to"]) / "total.bin").read_bytes() == content


def test_a_step_s_error_travels_and_leaves_the_others_results(tmp_path: Path) -> None:
    pair = [Step("slow", dummy_study.sample, {"seed": 0, "size": 3, "pause": 0.5}), Step("bad", dummy_study.nonfinite)]
    never = Step("never", dummy_study.total, inputs={"a": "bad"})
    with pytest.raises(NonFiniteError, match="loss is NaN at step 7") as caught:
        run(tmp_path / "run", [*pair, never], engine="local", workers=2)
    assert caught.value.__notes__ == ["in step 'bad'"]
    broken = Run.open(tmp_path / "run")
    assert broken.manifest["status"] == "unfinished"
    assert broken.output("slow").is_dir()
    with pytest.raises(StoreError, match=r"step 'never' .* not in the store"):
        broken.output("never")
    assert not list((tmp_path / "store" / ".tmp").iterdir())


@pytest.mark.parametrize("engine", ["inline", "local"])
@pytest.mark.parametrize(
    ("function", "error", "said"),
    [
        (dummy_study.odd, HeldoutError, "odd"),
        (dummy_study.defect, StepFailed, r"(?s)step 'a' failed.*dummy_study.py.*ZeroDivisionError: a defect"),
        (dummy_study.greedy, StoreError, "wrote step.json, a name that the store uses"),
        (dummy_study.wrong_name, ConfigError, "unknown setting of step 'a' 'sise'; choose from size"),
    ],
)
def test_every_error_of_a_step_reaches_the_driver(
    tmp_path: Path, engine: str, function: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        run(tmp_path / "run", [Step("a", function, {"size": 1})], engine=engine, workers=1)


def test_workers_have_one_compute_thread(tmp_path: Path) -> None:
    done, _ = run(tmp_path / "run", [Step("a", dummy_study.environment)], engine="local", workers=1)
    facts = json.loads((done.output("a") / "facts.json").read_text())
    assert facts["pid"] != os.getpid()
    assert (facts["threads"], facts["omp"], done.record("a")["threads"]) == (1, "1", 1)


def test_running_steps_report_their_progress(tmp_path: Path) -> None:
    study = [Step("slow", dummy_study.sample, {"seed": 0, "size": 3, "pause": 1.0})]
    _, heard = run(tmp_path / "run", study, engine="local", workers=1)
    reports = [e for e in heard if e["event"] == "progress"]
    assert {(e["step"], e["total"], e["note"]) for e in reports} == {("slow", 10, "lingering")}
    assert 0 < reports[0]["done"] < 10
    assert not [e for e in events(tmp_path / "run") if e["event"] == "progress"]


def test_lines_count_every_step(tmp_path: Path) -> None:
    stream = io.StringIO()
    run(tmp_path / "run", progress=lines(stream))
    said = stream.getvalue().splitlines()
    assert said[0].startswith("dummy: 6 steps")
    assert [line.split()[0] for line in said[1:]] == [f"[{i}/6]" for i in range(1, 7)]
    assert "(elapsed 0 s)" in said[1]


def test_bars_show_steps_notes_and_what_needs_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    from heldout.runs.progress import bars

    monkeypatch.setenv("COLUMNS", "160")
    stream = io.StringIO()
    stream.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", stream)
    with bars() as listen:
        listen({"event": "start", "study": "dummy", "steps": 2})
        listen({"event": "progress", "step": "train", "done": 3, "total": 9, "note": "loss 0.5 [bold]"})
        listen({"event": "lost", "step": "train", "losses": 1})
        listen({"event": "finished", "step": "train", "wall_seconds": 1.0, "outcome": "stored"})
    assert "train: its worker was lost (1)" in stream.getvalue()
    assert "1/2" in stream.getvalue()


def test_a_second_driver_is_refused_at_once(tmp_path: Path) -> None:
    out = tmp_path / "run"
    code = "import sys, dummy_study; dummy_study.main(*sys.argv[1:])"
    first = subprocess.Popen([sys.executable, "-c", code, str(out), "0.2"], cwd=HERE)
    while not (out / "manifest.json").exists():
        assert first.poll() is None
        time.sleep(0.01)
    started = time.monotonic()
    with pytest.raises(StoreError, match=f"in use by process {first.pid};"):
        run(out, steps(0.2))
    assert time.monotonic() - started < 0.5
    assert first.wait() == 0
    assert Run.open(out).manifest["status"] == "done"


def test_directories_that_are_not_ours(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not a run directory"):
        Run.open(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match="holds other files"):
        run(tmp_path)
    done, _ = run(tmp_path / "run")
    with pytest.raises(StoreError, match="holds a run of study 'dummy', not 'digits'"):
        execute("digits", steps(), out=done.path, engine="inline", progress=None)
    with pytest.raises(ConfigError, match="unknown step 'al'; choose from"):
        done.output("al")
    (done.path / "manifest.json").write_text(json.dumps({**done.manifest, "run_format": 99}))
    for use in (Run.open, run):
        with pytest.raises(StoreError, match=r"another version .run format 99"):
            use(done.path)


def test_evidence_older_than_the_source_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done, _ = run(tmp_path / "run")
    assert done.stale == ()
    monkeypatch.setattr("heldout.runs.directory.source_hash", lambda: "newer")
    assert set(done.stale) == ALL
    monkeypatch.setattr("heldout.runs.worker.source_hash", lambda: "newer")
    again, _ = run(tmp_path / "run", fresh=["sum-*"])  # identical bytes, but now known to be this source's
    assert set(again.stale) == {"sample-0", "sample-1", "sample-2"}


def test_a_log_torn_in_the_middle_of_a_line_goes_on(tmp_path: Path) -> None:
    run(tmp_path / "run")
    with (tmp_path / "run" / "events.jsonl").open("a") as file:
        file.write('{"event": "fini')
    run(tmp_path / "run")
    whole = [line for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines() if line.endswith("}")]
    assert json.loads(whole[-1])["event"] == "done"
    assert sum(json.loads(line)["event"] == "start" for line in whole) == 2


def test_a_disk_that_fills_up_keeps_what_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, left = os.rename, [2]

    def rename(*args: Any, **kwargs: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        with pytest.raises(StoreError, match=r"cannot write .*No space left on device. Finished steps are kept"):
            run(tmp_path / "run")
    done, heard = run(tmp_path / "run")
    assert len(heard.names("reused")) == 2
    undisturbed, _ = run(tmp_path / "elsewhere" / "run")
    assert evidence(done) == evidence(undisturbed)


DISK = """
set -e
mkdir -p "$1"; mount -t tmpfs -o size=1m tmpfs "$1"
echo mounted
"$2" -c "$3" "$1/run" && exit 9
mount -o remount,ro "$1"
"$2" -c "$3" "$1/run" && exit 8
mount -o remount,rw,size=64m "$1"
"$2" -c "$3" "$1/run"
"""
DISK_STUDY = """
import sys; from pathlib import Path; import dummy_study as d; from heldout.runs import Step, execute
study = [Step("small", d.sample, {"seed": 0, "size": 10}), Step("big", d.big, {"megabytes": 8}, {"after": "small"})]
try:
    run = execute("disk", study, out=Path(sys.argv[1]), workers=1, progress=None)
    print(run.manifest["steps"]["small"]["reused"], run.output("big").is_dir())
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def test_a_real_disk_full_then_read_only_then_mended(tmp_path: Path) -> None:
    private = ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*private, "true"], capture_output=True).returncode:
        pytest.skip("no private mounts here (unshare is missing or not permitted)")
    command = [*private, "bash", "-c", DISK, "bash", str(tmp_path / "disk"), sys.executable, DISK_STUDY]
    result = subprocess.run(command, capture_output=True, text=True, cwd=HERE)
    if "mounted" not in result.stdout:
        pytest.skip(f"a small disk cannot be mounted here: {result.stderr.strip()}")
    assert result.returncode == 0, result.stderr
    full, read_only = result.stderr.strip().splitlines()
    assert full.startswith(f"StoreError: cannot write {tmp_path / 'disk' / 'store'}: No space left on device")
    assert read_only.startswith(f"StoreError: cannot write {tmp_path / 'disk'}")
    assert "Read-only file system" in read_only
    assert result.stdout.split() == ["mounted", "True", "True"]


def test_a_run_that_is_not_there_is_named_beside_those_that_are(tmp_path: Path) -> None:
    for name in ("digits-smoke", "digits-smoke-rotation=30.0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text("{}")
    with pytest.raises(StoreError, match=r"in .*: choose from digits-smoke, digits-smoke-rotation=30\.0"):
        Run.open(tmp_path / "digits-smoke-rotation=30")
    with pytest.raises(StoreError, match="name one that a run has written"):
        Run.open(tmp_path / "nowhere" / "run")
