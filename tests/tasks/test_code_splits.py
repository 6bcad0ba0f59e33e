from __future__ import annotations

import gzip
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heldout.errors import ConfigError, SplitError
from heldout.tasks.base import check_disjoint
from heldout.tasks.code.baselines import baseline_losses, count_pairs
from heldout.tasks.code.corpora import find_corpus, fingerprint
from heldout.tasks.code.settings import CodeSettings
from heldout.tasks.code.splits import code, content_key
from heldout.tasks.code.vocabulary import BOS, PAD
from heldout.tasks.code.windows import Windows

WINDOW = 16


def unique_text(seed: int, lines: int = 12) -> str:
    rng = np.random.default_rng(seed)
    return "".join(f"value_{rng.integers(10**9)} = call_{rng.integers(10**9)}({i})\n" for i in range(lines))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Forty packages of Python, twelve of C with two files each."""
    for i in range(40):
        file = tmp_path / "home" / f"package{i}" / "module.py"
        file.parent.mkdir(parents=True)
        file.write_text(unique_text(i))
    for i in range(12):
        for k in range(2):
            file = tmp_path / "c" / f"library{i}" / f"part{k}.h"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(unique_text(1000 + 10 * i + k))
    return tmp_path


@pytest.fixture
def packages(tree: Path) -> CodeSettings:
    globs = {"train": ("home/**/*.py",), "c_cpp": ("c/**/*.h",)}
    options: dict[str, Any] = {"window": WINDOW, "windows": 36, "units": 12, "per_file": 3, "fit_windows": 50}
    return CodeSettings(source="folder", path=str(tree), globs=globs, least_characters=100, **options)


def test_splits_share_no_file_and_no_package(packages: CodeSettings) -> None:
    task = code(packages)
    assert list(task.splits) == ["train", "fit", "train_sample", "id_select", "id", "c_cpp"]
    check_disjoint([w.split() for w in task.splits.values()])
    for name in ("id", "id_select"):
        assert not set(task.splits[name].units) & set(task.splits["train"].units)
    assert not set(task.splits["id"].units) & set(task.splits["id_select"].units)


def test_evaluation_windows_are_balanced_over_units(packages: CodeSettings) -> None:
    windows = code(replace(packages, per_file=50)).splits["c_cpp"]
    counts = Counter(windows.units.tolist())
    assert len(counts) == 12
    assert len(windows) == 36
    assert set(counts.values()) == {3}


def test_no_file_gives_more_windows_than_allowed(packages: CodeSettings) -> None:
    windows = code(replace(packages, per_file=1, windows=100)).splits["c_cpp"]
    assert max(Counter(windows.keys.tolist()).values()) == 1
    assert len(windows) == 24


def test_the_same_text_is_in_one_split_only(tree: Path, packages: CodeSettings) -> None:
    copied = (tree / "home" / "package0" / "module.py").read_text()
    for i in range(12):  # spaced differently, and in every place where it could be tested on
        (tree / "c" / f"library{i}" / "copy.h").write_text(copied.replace(" ", "  \n"))
    task = code(packages)
    key = content_key(copied)
    holding = [n for n in ("train", "id_select", "id", "c_cpp") if key in task.splits[n].keys]
    assert len(holding) == 1
    record = next(r for r in task.composition["splits"] if r["split"] == "c_cpp")
    assert record["refused"].get("same content", 0) + record["refused"].get("copies of training files", 0) > 0


def test_a_copy_of_training_text_that_differs_a_little_is_refused(tree: Path, packages: CodeSettings) -> None:
    kept = code(packages).splits["train"]
    trained = next(
        p for i in range(40) if content_key((p := tree / "home" / f"package{i}" / "module.py").read_text()) in kept.keys
    )
    for i in range(12):
        for k in range(2):
            (tree / "c" / f"library{i}" / f"part{k}.h").write_text(trained.read_text() + f"int extra{i}{k};\n")
    task = code(packages)
    assert "c_cpp" not in task.splits
    assert "24 copies of training files" in task.composition["left_out"]["c_cpp"]


def test_minified_files_are_counted_and_left_out(tree: Path, packages: CodeSettings) -> None:
    for i in range(12):
        for k in range(2):
            (tree / "c" / f"library{i}" / f"part{k}.h").write_text(unique_text(i * 7 + k).replace("\n", ";") * 3)
    task = code(packages)
    assert "24 minified or data" in task.composition["left_out"]["c_cpp"]


def test_a_split_with_little_text_is_left_out_with_the_reason(packages: CodeSettings) -> None:
    task = code(replace(packages, least_characters=10**6))
    assert task.composition["left_out"]["c_cpp"].endswith("characters found, 1,000,000 needed")


def test_the_same_files_and_seed_give_the_same_windows(packages: CodeSettings) -> None:
    first, second = code(packages), code(packages)
    other = code(replace(packages, seed=1))
    assert first.composition == second.composition
    assert all(np.array_equal(w.targets, second.splits[n].targets) for n, w in first.splits.items())
    assert first.composition != other.composition


def test_windows_begin_with_bos_and_pad_on_the_right(packages: CodeSettings) -> None:
    windows = code(packages).splits["id"]
    batch = windows.split(("word", "position")).items.take(np.arange(len(windows)))
    assert (batch.inputs[:, 0] == BOS).all()
    assert (batch.inputs[:, 1:] == batch.targets[:, :-1]).all()
    assert set(batch.strata) == {"word", "position"}
    if batch.mask is not None:
        assert ((batch.targets == PAD) == ~batch.mask).all()


def test_a_short_file_is_padded_and_masked(packages: CodeSettings) -> None:
    targets = np.full((2, 4), PAD, dtype=np.uint8)
    targets[0], targets[1, :2] = 5, 7
    batch = Windows("id", "test", "", targets, np.array(["a", "b"]), np.arange(2)).split().items.take(np.arange(2))
    assert batch.mask is not None
    assert batch.mask.tolist() == [[True] * 4, [True, True, False, False]]


def test_windows_are_read_back_as_written(packages: CodeSettings, tmp_path: Path) -> None:
    windows = code(packages).splits["id"]
    windows.save(tmp_path)
    again = Windows.load(tmp_path / "id.npz")
    assert again.describe() == windows.describe()
    assert set(again.labels) == set(windows.labels)
    assert all(np.array_equal(again.labels[a], windows.labels[a]) for a in windows.labels)
    with pytest.raises(SplitError, match="unknown axis"):
        again.split(("words",))


def test_a_bigram_table_learns_what_always_follows() -> None:
    always = Windows("train", "fit", "", np.tile([0, 1], (50, 20)).astype(np.uint8), np.arange(50), np.arange(50))
    losses = baseline_losses(count_pairs(always), always)
    # Of each row of 40: once 0 after BOS, twenty times 1 after 0, nineteen times 0 after 1; one count added everywhere.
    by_hand = (np.log(150 / 51) + 20 * np.log(1100 / 1001) + 19 * np.log(1050 / 951)) / 40
    assert losses["unigram"] == pytest.approx(np.log(2100 / 1001))
    assert losses["bigram"] == pytest.approx(by_hand)


def test_the_fingerprint_sees_a_changed_size_and_a_new_file(tree: Path, packages: CodeSettings) -> None:
    before = fingerprint(packages)
    assert fingerprint(packages) == before
    (tree / "c" / "library0" / "more.h").write_text("x")
    after = fingerprint(packages)
    assert after != before


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"source": "instaled"}, "unknown source 'instaled'"),
        ({"window": 2}, "window must be at least 8"),
        ({"source": "codesearchnet"}, "needs a path"),
        ({"source": "folder", "path": "x"}, "needs globs with a split train"),
        ({"globs": {"train": ("*",)}}, "globs belong to source 'folder'"),
    ],
)
def test_settings_that_are_not_accepted(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        CodeSettings(**given)


def test_a_pattern_without_files_and_a_missing_folder_are_named(tree: Path) -> None:
    with pytest.raises(SplitError, match=r"no file below .* matches .*\.zig"):
        find_corpus(CodeSettings(source="folder", path=str(tree), globs={"train": ("**/*.zig",)}))
    with pytest.raises(ConfigError, match="there is no folder"):
        find_corpus(CodeSettings(source="folder", path=str(tree / "none"), globs={"train": ("*",)}))


def test_too_few_packages_to_hold_out_are_an_error(tree: Path) -> None:
    globs = {"train": ("home/package1/*.py", "home/package2/*.py")}
    with pytest.raises(SplitError, match="to hold some out at least 6 are needed"):
        code(CodeSettings(source="folder", path=str(tree), globs=globs, window=WINDOW))


def functions(language: str, part: str, count: int, archive: bool) -> list[dict[str, Any]]:
    rows = []
    for i in range(count):
        text, repository = unique_text(hash((language, part, i)) % 2**32, 6), f"{language}-{part}/{i // 3}"
        if archive:
            rows.append({"code": text, "language": language, "partition": part, "repo": repository})
        else:
            row = {"func_code_string": text, "language": language, "split_name": part}
            rows.append(row | {"repository_name": repository})
    return rows


@pytest.mark.parametrize("archive", [True, False])
def test_codesearchnet_is_read_from_both_of_its_formats(tmp_path: Path, archive: bool) -> None:
    rows = functions("java", "train", 60, archive) + functions("java", "test", 60, archive)
    rows += functions("go", "test", 60, archive) + functions("go", "train", 5, archive)
    if archive:
        with gzip.open(tmp_path / "all.jsonl.gz", "wt") as file:
            file.write("\n".join(json.dumps(row) for row in rows))
    else:
        import pandas as pd

        pd.DataFrame(rows).to_parquet(tmp_path / "all.parquet")
    task = code(
        CodeSettings(
            "codesearchnet", str(tmp_path), window=WINDOW, windows=24, units=10, fit_windows=20, least_characters=1
        )
    )
    assert set(task.splits) == {"train", "fit", "train_sample", "id_select", "id", "go"}
    found = {row["pool"]: row["files"] for row in task.composition["found"]}
    assert found == {"home": 60, "held_out": 60, "go": 60}


def test_codesearchnet_without_files_columns_or_language(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no \.parquet or \.jsonl\.gz file"):
        find_corpus(CodeSettings("codesearchnet", str(tmp_path)))
    with gzip.open(tmp_path / "all.jsonl.gz", "wt") as file:
        file.write(json.dumps({"code": "x", "lang": "java"}))
    with pytest.raises(ConfigError, match="func_code_string"):
        find_corpus(CodeSettings("codesearchnet", str(tmp_path)))
    with gzip.open(tmp_path / "all.jsonl.gz", "wt") as file:
        file.write("\n".join(json.dumps(r) for r in functions("go", "test", 3, True)))
    with pytest.raises(ConfigError, match="no training functions of 'java'"):
        find_corpus(CodeSettings("codesearchnet", str(tmp_path)))


def test_the_hub_is_asked_only_by_name_and_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install datasets"):
        find_corpus(CodeSettings("codesearchnet_hub"))


def test_the_installed_corpus_has_other_languages_and_says_what_it_left_out() -> None:
    task = code(CodeSettings(train_characters=60_000, window=32, windows=24, units=12, fit_windows=20))
    assert {"id", "id_select", "python_packages", "c_cpp"} <= set(task.splits)
    assert all(r["hash"] for r in task.composition["splits"])
    pools = {row["pool"] for row in task.composition["found"]}
    assert pools <= {*task.composition["left_out"], *task.splits, "home"}
    for windows in task.splits.values():
        assert len(np.unique(windows.units)) >= 10 or windows.name in ("train", "fit", "train_sample")
