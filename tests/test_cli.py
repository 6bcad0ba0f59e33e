"""The command line: what it prints, how fast it starts, and what every kind of bad input gets."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import heldout
from heldout.cli import main
from heldout.runs import Run

HEAVY = ("torch", "pandas", "scipy", "sklearn", "plotly", "numpy")
SMALL = ["--preset", "smoke", "--set", 'networks=["mlp"]', "--seeds", "1", "--engine", "inline", "--device", "cpu"]


def call(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of one command, in this process."""
    code: object = 0
    try:
        main([str(a) for a in arguments])
    except SystemExit as leave:
        code = leave.code or 0
    out, err = capsys.readouterr()
    assert isinstance(code, int)
    return code, out, err


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The message of a command that must end with exit code 2, one line of error and no traceback."""
    code, out, err = call(capsys, *arguments)
    assert code == 2, (out, err)
    lines = [line for line in err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small finished run."""
    runs = tmp_path_factory.mktemp("runs")
    with pytest.raises(SystemExit) as leave:
        main(["run", "digits", *SMALL, "--runs", str(runs)])
    assert not leave.value.code
    (path,) = runs.glob("digits-smoke-*")
    return path


def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of the run with its store, to be damaged."""
    shutil.copytree(finished.parent, tmp_path / "runs")
    return tmp_path / "runs" / finished.name


# ---- what it says


def test_list_names_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "list")
    assert code == 0
    for name in ("studies", "digits", "tasks", "proxies", "svd", "kmeans", "analyses", "faithfulness"):
        assert name in out


def test_show_prints_the_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "show", "digits", "--preset", "smoke", "--set", "shift=2", "--seeds", "3")
    assert code == 0
    assert "  shift = 2  (given)" in out
    assert "  seeds = 3  (given)" in out


@pytest.mark.parametrize("option", [("--preset", "smoke"), ("--seeds", "3"), ("--set", "a=1")])
def test_show_of_a_spec_takes_no_option_of_studies(option: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "show", "mine.yaml", *option)
    assert (code, out) == (2, "")
    assert err == f"error: {option[0]} is about studies; mine.yaml is a spec: write what you want in it\n"


def test_doctor_finds_the_cpu_healthy(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "doctor", "--device", "cpu")
    assert code == 0
    assert "WRONG" not in out
    assert "matrix product" in out


def test_report_names_the_page_and_prints_the_claims(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (finished / "report.html").read_bytes()
    code, out, _ = call(capsys, "report", finished)
    assert (code, out.splitlines()[-1]) == (0, f"page: {finished / 'report.html'}")
    assert (finished / "report.html").read_bytes() == before
    code, out, _ = call(capsys, "report", finished, "--claims")
    assert code == 0
    for claim in ("H1", "H2", "H3"):
        assert f"{claim}   not judged" in out
    assert "the smoke preset is too small to judge anything" in out


def test_compare_with_itself_finds_nothing(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "compare", finished, finished)
    assert code == 0
    assert "  the same" in out
    assert ", 0 differ" in out


# ---- what it costs to start


def fresh_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    "code",
    [
        "import heldout",
        "import heldout; dir(heldout); heldout.__version__",
        "from heldout.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass",
        "from heldout.cli import main\ntry: main(['list'])\nexcept SystemExit: pass",
        "from heldout.cli import main\ntry: main(['show', 'digits'])\nexcept SystemExit: pass",
    ],
    ids=["import", "dir", "help", "list", "show"],
)
def test_starting_loads_nothing_heavy(code: str) -> None:
    light = [m for m in HEAVY if m != "numpy" or "import heldout" in code]
    done = fresh_python(f"{code}\nimport sys\nprint([m for m in {light} if m in sys.modules], file=sys.stderr)")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "[]"


def test_the_package_can_be_run() -> None:
    done = subprocess.run([sys.executable, "-m", "heldout", "--help"], capture_output=True, text=True, check=True)
    assert "heldout" in done.stdout
    assert all(c in done.stdout for c in ("list", "show", "run", "report", "compare", "doctor"))
    assert heldout.__version__


# ---- what bad input gets


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "digit"], ["unknown study 'digit'", "digits"]),
        (["run", "digit"], ["unknown study 'digit'", "digits"]),
        (["show", "digits", "--preset", "labtop"], ["preset 'labtop'", "laptop"]),
        (["run", "digits", "--preset", "labtop"], ["preset 'labtop'", "laptop"]),
        (["show", "digits", "--set", "rotatoin=3"], ["field 'rotatoin'", "rotation"]),
        (["run", "digits", "--set", "rotatoin=3"], ["field 'rotatoin'", "rotation"]),
        (["show", "digits", "--set", "rotation"], ["key=value"]),
        (["run", "digits", "--set", "rotation=steep"], ["rotation", "'steep'"]),
        (["run", "digits", "--seeds", "0"], ["seeds", "got 0"]),
        (["run", "digits", "--set", "ranks=[1000]"], ["rank 1000", "width", "at most 128"]),
        (["run", "digits", "--set", "clusters=[1000]"], ["1000 clusters of 500 points"]),
        (["run", "digits", "--set", 'networks=["rnn"]'], ["'mlp' or 'cnn'", "'rnn'"]),
        (["run", "digits", "--device", "nonsense"], ["'nonsense'", "--device cpu"]),
        (["doctor", "--device", "nonsense"], ["'nonsense'", "--device cpu"]),
        (["report", "/nowhere/at/all"], ["/nowhere/at/all", "not a run directory"]),
        (["compare", "/nowhere/at/all", "/nor/here"], ["/nowhere/at/all", "not a run directory"]),
    ],
)
def test_what_is_not_accepted(
    arguments: list[str], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if arguments[0] == "run":
        arguments = [*arguments, "--runs", str(tmp_path)]
    message = refused(capsys, *arguments)
    assert all(word in message for word in words), message
    assert list(tmp_path.iterdir()) == []  # and nothing was begun


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--engine", "locl"], ["engine 'locl'", "local"]),
        (["--workers", "0"], ["workers is 0", "at least 1"]),
        (["--fresh", "digits-trian-*"], ["step 'digits-trian-*'"]),
    ],
)
def test_how_it_cannot_be_run(
    more: list[str], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, "run", "digits", *SMALL, "--runs", tmp_path, *more)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    "arguments", [["shw"], ["show"], ["show", "digits", "--nope"], ["run", "digits", "--seeds", "x"]]
)
def test_a_command_that_does_not_exist_is_explained(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, *arguments)
    assert code == 2
    assert "Usage: heldout" in err
    assert "Error" in err
    assert "Traceback" not in err


def test_a_place_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    message = refused(capsys, "run", "digits", *SMALL, "--runs", tmp_path / "file" / "runs")
    assert "cannot write" in message
    assert "file/runs" in message
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_of_other_things_is_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "thesis.tex").write_text("mine")
    assert "is no store" in refused(capsys, "run", "digits", *SMALL, "--runs", tmp_path)


def test_a_store_of_another_version(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = copied(finished, tmp_path)
    (run.parent / "store" / "store.json").write_text('{"heldout_store": 99}')
    message = refused(capsys, "run", "digits", *SMALL, "--runs", run.parent)
    assert "made by another version" in message
    assert "99" in message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"run_format": 99}, ["another version", "99"]),
        ({"study": "digitz"}, ["unknown study 'digitz'", "digits"]),
        ({"config": {"a_field_of_tomorrow": 1}}, ["another version", "a_field_of_tomorrow"]),
    ],
)
def test_a_run_of_another_version(
    finished: Path, tmp_path: Path, change: dict[str, object], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(finished, tmp_path)
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(manifest | change))
    message = refused(capsys, "report", run)
    assert all(word in message for word in words), message


def test_a_folder_that_is_no_run(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "not a run directory" in refused(capsys, "report", tmp_path)
    assert "not a run directory" in refused(capsys, "compare", finished, tmp_path)
    (tmp_path / "manifest.json").write_text("{torn")
    assert "not a run directory" in refused(capsys, "report", tmp_path)


def weights(run: Path) -> Path:
    return Run.open(run).output("digits-train-mlp-s0") / "weights.safetensors"


def test_torn_weights_are_set_aside_and_trained_again(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(finished, tmp_path)
    path, whole = weights(run), weights(run).read_bytes()
    path.write_bytes(whole[:100])
    code, _, _ = call(capsys, "run", "digits", *SMALL, "--runs", run.parent)
    assert code == 0
    assert weights(run).read_bytes() == whole


def test_weights_that_were_overwritten_are_refused(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(finished, tmp_path)
    path = weights(run)
    path.write_bytes(b"\xff" * path.stat().st_size)
    message = refused(capsys, "run", "digits", *SMALL, "--runs", run.parent, "--fresh", "digits-audit-*")
    assert "weights.safetensors" in message


def test_an_output_that_is_gone_is_named(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = copied(finished, tmp_path)
    shutil.rmtree(Run.open(run).output("digits-judge"))
    message = refused(capsys, "report", run)
    assert "'digits-judge'" in message
    assert "run the same command again" in message


def test_a_page_that_cannot_be_written(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = copied(finished, tmp_path)
    (run / "report.html").unlink()
    (run / "report.html").mkdir()
    assert "report.html" in refused(capsys, "report", run)


def test_debug_shows_the_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "heldout", "show", "digit", "--debug"], capture_output=True, text=True, check=False
    )
    assert "Traceback" in done.stderr
    assert "ConfigError" in done.stderr
    plain = subprocess.run(
        [sys.executable, "-m", "heldout", "show", "digit"], capture_output=True, text=True, check=False
    )
    assert (plain.returncode, plain.stdout) == (2, "")
    assert plain.stderr.startswith("error: unknown study 'digit'")
    assert len(plain.stderr.splitlines()) == 1


def test_what_was_stopped_says_how_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*arguments: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("heldout.studies.base.describe_study", stop)
    code, _, err = call(capsys, "show", "digits")
    assert code == 130
    assert "the same command goes on from there" in err


def test_an_error_of_a_step_says_which(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    given = ["run", "digits", "--preset", "smoke", "--set", 'networks=["mlp"]', "--engine", "inline", "--device", "cpu"]
    given += ["--set", "learning_rate=1e30", "--runs", str(tmp_path)]
    code, _, err = call(capsys, *given)
    assert code == 2
    assert err.splitlines()[-1] == "  in step 'digits-train-mlp-s0'"
    assert err.splitlines()[-2].startswith("error: the training loss is nan at update 2 of 60")
    code, _, err = call(capsys, *given, "--together")
    assert code == 2
    assert err.splitlines()[-3].startswith("error: the training loss of seed 0, seed 1 is NaN or infinite at update 2")
    assert err.splitlines()[-2:] == [
        "  in step 'digits-train-mlp-s0, digits-train-mlp-s1'",
        "  trained together; --apart trains them one by one, and keeps those that end",
    ]
