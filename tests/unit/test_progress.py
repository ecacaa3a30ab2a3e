"""The progress line on a terminal and elsewhere, and the table at the end of a run."""

import io
import re

import pytest

from hpcmsm import progress
from hpcmsm.progress import Progress, bar, duration, summary_table


class Clock:
    """A clock that tests move by hand."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    """A stream that calls itself a terminal."""

    encoding = "utf-8"

    def isatty(self):
        return True


def run(stream, nsteps=100, seconds_per_step=0.25, accepted=0.9, first=1, quiet=False):
    """Drive a Progress through all its steps, one second of simulated time each."""
    clock = Clock()
    with Progress(nsteps, float(nsteps), stream, quiet, clock) as shown:
        for step in range(first, nsteps + 1):
            clock.now += seconds_per_step
            shown.update(step, float(step), 1.0, accepted)
    return stream.getvalue()


def test_a_file_gets_a_line_about_every_tenth_of_the_run():
    lines = run(io.StringIO()).splitlines()
    steps = [int(re.search(r"step (\d+)/100", line)[1]) for line in lines]
    assert steps == [1, 11, 21, 31, 41, 51, 61, 71, 81, 91, 100]
    assert "\r" not in "".join(lines)
    assert "\x1b" not in "".join(lines)


def test_a_file_gets_a_line_every_half_minute_of_a_slow_run():
    lines = run(io.StringIO(), nsteps=1000, seconds_per_step=20.0).splitlines()
    # 20 s a step: every second step is due, long before a tenth of the run is done.
    assert len(lines) == 501
    assert "step 3/1000" in lines[1]


def test_the_line_tells_step_time_accepted_and_what_is_left():
    line = run(io.StringIO()).splitlines()[5]
    # 49 steps of 0.25 s are left.
    assert line == " 51 %  step 51/100  t 51/100 s  dt 1 s  accepted 90.0 %  ETA 0:12"


def test_without_a_surrogate_nothing_is_said_about_it():
    assert "accepted" not in run(io.StringIO(), accepted=None)
    assert "accepted" not in run(io.StringIO(), accepted=float("nan"))


def test_a_resumed_run_counts_only_its_own_steps_for_what_is_left():
    lines = run(io.StringIO(), first=61).splitlines()
    assert lines[0].startswith(" 61 %")
    assert "ETA" not in lines[0]
    assert lines[1].endswith("ETA 0:07")  # 29 steps of 0.25 s


def test_a_terminal_is_redrawn_at_most_ten_times_a_second():
    text = run(Terminal(), nsteps=1000, seconds_per_step=0.01)
    # The clock adds 0.01 in binary, so a redraw may come a step late.
    assert 90 <= text.count("\r") <= 101
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert "step 1000/1000" in text.split("\r")[-1]


def test_lines_on_a_terminal_fit_into_it(monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    drawn = [part.split("\x1b")[0] for part in run(Terminal()).split("\r")[1:]]
    assert {len(line) for line in drawn} == {49}


def test_the_bar_fills_with_the_run_and_needs_no_utf_8():
    assert bar(0.5) == "##########.........."
    assert bar(0.25, Terminal()) == "█" * 5 + "░" * 15


def test_a_note_does_not_tear_the_live_line():
    stream, clock = Terminal(), Clock()
    shown = Progress(10, 1.0, stream, clock=clock)
    shown.update(1, 0.1, 0.1, None)
    shown.say("surrogate 1 trained")
    before, after = stream.getvalue().split("surrogate 1 trained\n")
    assert before.endswith("\r\x1b[K")
    assert after.startswith("\r")
    assert "step 1/10" in after


def test_quiet_writes_nothing():
    assert run(io.StringIO(), quiet=True) == ""
    assert run(Terminal(), quiet=True) == ""


def test_a_run_of_adaptive_steps_goes_by_time():
    stream, clock = io.StringIO(), Clock()
    shown = Progress(None, 8.0, stream, clock=clock)
    shown.update(3, 2.0, 0.5, None)
    shown.close()
    assert stream.getvalue() == " 25 %  step 3  t 2/8 s  dt 0.5 s\n"


def test_behind_a_launcher_the_terminal_of_the_launcher_counts(monkeypatch):
    names = {10: "hydra_pmi_proxy", 11: "mpirun"}
    links = {"/proc/10/fd/2": "pipe:[1]", "/proc/11/fd/2": "/dev/pts/7"}
    stream = io.StringIO()
    monkeypatch.setattr(progress.sys, "stderr", stream)
    monkeypatch.setattr(progress.os, "getppid", lambda: 10)
    monkeypatch.setattr(progress, "_process_name", lambda process: names.get(process, "bash"))
    monkeypatch.setattr(progress, "_parent", lambda process: process + 1)
    monkeypatch.setattr(progress, "_link", links.get)
    assert progress.terminal_of(stream) == "/dev/pts/7"
    assert progress.terminal_of(io.StringIO()) is None
    links["/proc/11/fd/2"] = "/home/user/log.txt"
    assert progress.terminal_of(stream) is None


def test_the_parent_of_a_process_is_read_from_the_system():
    assert progress._parent(progress.os.getpid()) == progress.os.getppid()
    assert progress._process_name(progress.os.getpid()).startswith(("python", "pytest"))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (754, "12:34"), (3723, "1:02:03")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


SUMMARY = {
    "case": "wall",
    "hpcmsm": "0.1.0",
    "nranks": 2,
    "steps": 200,
    "time": 120.0,
    "wall_time": 41.234,
    "closure": {"calls": 8000, "accepted": 7000, "audited": 200, "fallback": 800, "versions": 4},
    "audit_error": {"mean_signed": -1.25e-5, "p50": 1e-4, "p99": 9e-4, "max": 2.5e-3},
    "tolerance": 1e-3,
    "coverage": {"asked": 0.99, "obtained": 0.985},
    "phases": {
        "macro": {"min": 1.0, "mean": 2.0, "max": 3.0, "calls": 200},
        "micro": {"min": 5.0, "mean": 6.0, "max": 7.0, "calls": 150},
    },
    "fields": {"temperature": {"unit": "K", "min": 293.15, "max": 512.5}},
    "files": {"summary": "results/wall/summary.json", "snapshots": ["a.vtkhdf", "b.vtkhdf"]},
}


def cells_of(text: str, start: str) -> list[str]:
    """The columns of the line that begins with start."""
    line = next(line for line in text.splitlines() if line.startswith(start))
    return re.split(r"\s{2,}", line)


def test_the_summary_states_counts_errors_times_fields_and_files():
    text = summary_table(SUMMARY)
    assert text.startswith("wall: 200 steps to t = 120 s in 41.23 s wall time on 2 ranks\n")
    assert cells_of(text, "asked") == ["asked", "8000", "100.00 %"]
    assert cells_of(text, "answered by")[1:] == ["7000", "87.50 %"]
    assert cells_of(text, "audited (")[1:] == ["200", "2.50 %"]
    assert cells_of(text, "fallback")[1:] == ["800", "10.00 %"]
    assert cells_of(text, "surrogate versions")[1:] == ["4"]
    assert cells_of(text, "mean, signed, relative")[1:] == ["-1.25e-05"]
    assert cells_of(text, "99th percentile")[1:] == ["0.0009"]
    assert cells_of(text, "audits within")[1:] == ["98.5 % (asked 99.0 %)"]
    assert cells_of(text, "micro")[1:] == ["6.000", "5.000", "7.000", "75.0 %", "150"]
    assert text.index("\nmicro") < text.index("\nmacro")  # the dearest phase first
    assert cells_of(text, "temperature")[1:] == ["K", "293.15", "512.5"]
    assert [line.split()[-1] for line in text.splitlines()[-3:]] == [
        "results/wall/summary.json",
        "a.vtkhdf",
        "b.vtkhdf",
    ]


def test_the_summary_is_aligned_and_narrow():
    lines = summary_table(SUMMARY).splitlines()
    assert max(map(len, lines)) < 100
    start = next(i for i, line in enumerate(lines) if line.startswith("wall time of a rank"))
    assert len({len(line) for line in lines[start : start + 4]}) == 1


def test_a_run_without_surrogate_has_no_audit_table():
    summary = SUMMARY | {
        "closure": {"calls": 8000, "accepted": 0, "audited": 0, "fallback": 8000, "versions": None},
        "audit_error": None,
        "coverage": None,
        "tolerance": None,
    }
    text = summary_table(summary)
    assert "audited error" not in text
    assert "surrogate versions" not in text
    assert "by the surrogate" not in text
    assert cells_of(text, "asked, answered by the micro model")[1:] == ["8000", "100.00 %"]


def test_an_empty_summary_is_a_line_and_nothing_else():
    assert summary_table({}) == "run: - steps to t = - s in - s wall time on 1 rank"
