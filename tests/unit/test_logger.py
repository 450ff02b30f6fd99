"""The progress lines of `snakemake --logger ghostgrad`."""

from __future__ import annotations

import logging
import sys
from types import SimpleNamespace

import pytest

from snakemake_logger_plugin_ghostgrad import LogHandler, duration_text


def record(
    event: str | None = None, level: int = logging.INFO, text: str = "", **fields
) -> logging.LogRecord:
    made = logging.LogRecord("snakemake", level, "", 0, text, None, None)
    made.__dict__.update(fields, event=event)
    return made


def job(jobid: int, rule: str = "simulate", **wildcards) -> logging.LogRecord:
    wildcards = {
        "scale": "smoke",
        "experiment": "net",
        "variant": "a",
        "seed": str(jobid),
    } | wildcards
    return record(
        "job_info", jobid=jobid, rule_name=rule, wildcards=wildcards, log=[f"{jobid}.log"]
    )


@pytest.fixture
def handler(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    handler = LogHandler(SimpleNamespace(dryrun=False), None)
    handler.emit(record("run_info", stats={"simulate": 2, "table": 1}))
    return handler


def test_one_line_per_finished_run_with_totals_and_time_left(handler, tmp_path, capsys):
    folder = tmp_path / "results/smoke/runs/net/a-s1"
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text("status,diverged_at,test_accuracy\ndone,,91.25\n")
    for number, rule in ((1, "classify"), (2, "simulate"), (3, "table")):
        handler.emit(job(number, rule, artifact="ghost.fig5"))
        handler.emit(record("job_finished", job_id=number))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2, "tables are not runs"
    assert lines[0].startswith("[1/2] net/a-s1")
    assert "test accuracy 91.2 %" in lines[0]
    assert "left" in lines[0]
    assert lines[1].startswith("[2/2] net/a-s2")
    assert lines[1].endswith("all runs done")


def test_a_detector_reports_its_average_precision(handler, tmp_path, capsys):
    folder = tmp_path / "results/smoke/runs/net/a-s1"
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text("status,diverged_at,box_ap,mask_ap\ndone,,4.957,2.1\n")
    handler.emit(job(1, "detect"))
    handler.emit(record("job_finished", job_id=1))
    assert "box AP 5.0 %" in capsys.readouterr().err


def test_a_diverged_run_says_so(handler, tmp_path, capsys):
    folder = tmp_path / "results/smoke/runs/net/a-s1"
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text("status,diverged_at,test_accuracy\ndiverged,17,10\n")
    handler.emit(job(1))
    handler.emit(record("job_finished", job_id=1))
    assert "diverged at step 17" in capsys.readouterr().err


def test_a_stopped_run_has_not_failed(handler, tmp_path, capsys):
    """Ctrl-C reaches the run too; it saves itself and exits with 75, which Snakemake reports as an
    error."""
    (tmp_path / "1.log").write_text(
        "line\n2026-11-22 10:00:00 stopped by SIGINT; state folder state/smoke/net/a-s1@0\n"
    )
    handler.emit(job(1))
    handler.emit(
        record(
            "job_error", jobid=1, rule_name="simulate", log=["1.log"], shellcmd="ghostgrad run x"
        )
    )
    assert (
        capsys.readouterr().err
        == "stopped net/a-s1; it is saved: start the same build again to continue it\n"
    )


def test_a_failed_job_names_run_log_and_command(handler, tmp_path, capsys):
    (tmp_path / "1.log").write_text("line\n" * 30 + "the reason\n")
    handler.emit(job(1))
    handler.emit(
        record(
            "job_error", jobid=1, rule_name="simulate", log=["1.log"], shellcmd="ghostgrad run x"
        )
    )
    output = capsys.readouterr().err
    assert "FAILED net/a-s1 (rule simulate)" in output
    assert "log: 1.log" in output
    assert "| the reason" in output
    assert "command: ghostgrad run x" in output
    assert output.count("| line") == 11, "only the tail"
    assert output.splitlines()[-1].endswith("snakemake --config scale=smoke partial=true")


def test_a_failed_data_rule_advises_the_scale_that_was_asked_for(handler, capsys, monkeypatch):
    """The data rule has no wildcard for the scale, so the advice takes it from the command line."""
    monkeypatch.setattr(sys, "argv", ["snakemake", "ghost", "--config", "scale=paper"])
    handler.emit(
        record("job_info", jobid=1, rule_name="data", wildcards={"name": "cifar10"}, log=[])
    )
    handler.emit(
        record("job_error", jobid=1, rule_name="data", log=[], shellcmd="ghostgrad data cifar10")
    )
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .endswith("snakemake --config scale=paper partial=true")
    )


def test_warnings_are_passed_on_and_chatter_is_not(handler, capsys):
    handler.emit(record(text="Building DAG of jobs..."))
    handler.emit(record(level=logging.WARNING, text="disk is nearly full"))
    handler.emit(record("error", level=logging.ERROR, text="CalledProcessError in file x"))
    assert capsys.readouterr().err == "disk is nearly full\n"


def test_duration_texts():
    assert [duration_text(s) for s in (3.2, 89, 200, 7200)] == ["3 s", "89 s", "3 min", "2.0 h"]


def test_a_dry_run_lists_jobs_with_what_they_ask_for(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    handler = LogHandler(SimpleNamespace(dryrun=True), None)
    handler.emit(record("run_info", text="before", stats={"simulate": 1}))
    wildcards = {"scale": "paper", "experiment": "net", "variant": "a", "seed": "1"}
    resources = {"gpu": 1, "mem_mb": 8000, "runtime": 120, "tmpdir": "/tmp"}
    job = {
        "jobid": 1,
        "rule_name": "simulate",
        "wildcards": wildcards,
        "log": [],
        "resources": resources,
    }
    handler.emit(record("job_info", **job))
    handler.emit(record("run_info", text="Job stats: 1", stats={"simulate": 1}))
    first, second = capsys.readouterr().err.splitlines()
    assert first.split() == ["simulate", "paper/net/a-s1", "gpu=1", "mem_mb=8000", "runtime=120"]
    assert second == "Job stats: 1"
