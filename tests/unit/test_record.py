"""The files of a run, published beside those of an earlier one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ghostgrad.runs.record import FILES, publish


def write(folder: Path, text: str) -> Path:
    folder.mkdir()
    for name in FILES:
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("renames", range(len(FILES)))
def test_a_kill_between_two_files_leaves_no_mixture_that_counts(tmp_path, monkeypatch, renames):
    """A directory without metrics.csv is no run, and that file is missing until all are new."""
    source, target = write(tmp_path / "new", "new"), write(tmp_path / "old", "old")
    left = renames
    replace = Path.replace

    def stop_after(path: Path, to: os.PathLike[str]) -> Path:
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1
        return replace(path, to)

    monkeypatch.setattr(Path, "replace", stop_after)
    with pytest.raises(KeyboardInterrupt):
        publish(source, target)
    assert not (target / "metrics.csv").exists()
    monkeypatch.setattr(Path, "replace", replace)
    publish(source, target)
    published = {name: (target / name).read_text() for name in FILES}
    assert set(published.values()) == {"new"}
    assert {path.name for path in target.iterdir()} == set(FILES)
