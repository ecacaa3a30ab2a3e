"""The progress line: what a user sees of a run while it goes on."""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from collections import deque

from hpcmsm.summary import number, summary_table

__all__ = ["Progress", "summary_table"]

REDRAW_SECONDS = 0.1
LINE_SECONDS = 30.0
LINE_FRACTION = 0.1
RATE_SECONDS = 20.0
BAR_WIDTH = 20
LAUNCHERS = ("mpirun", "mpiexec", "mpiexec.hydra", "orterun", "orted", "prterun", "prted", "hydra_pmi_proxy")


class Progress:
    """How far the run is: one live line on a terminal, a few quiet lines elsewhere. For one rank.

    Args:
        total_steps: number of steps; None where only the end time is known (adaptive steps).
        end_time: time at the end of the run in s.
        stream: where to write; standard error where None.
        quiet: write nothing at all.
        clock: seconds that only ever grow; for tests.
    """

    def __init__(self, total_steps, end_time, stream=None, quiet=False, clock=time.monotonic):
        self.total_steps = total_steps
        self.end_time = end_time
        self.stream = stream if stream is not None else sys.stderr
        self.quiet = quiet
        self.clock = clock
        self.terminal = None if quiet else terminal_of(self.stream)
        self._latest = None
        self._shown = True
        self._drawn_at = self._drawn_fraction = -math.inf
        self._recent = deque()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def update(self, step: int, time: float, dt: float, accepted_fraction: float | None = None) -> None:
        """Tell that `step` steps are done, up to `time` s; cheap enough for every step.

        Args:
            step: steps done since the start of the case, over all restarts.
            time, dt: time reached and size of the last step in s.
            accepted_fraction: part of the cells that the surrogate answered, 0 to 1; None without one.
        """
        if self.quiet:
            return
        now = self.clock()
        self._latest = (step, time, dt, accepted_fraction)
        self._shown = False
        self._remember(now, self._fraction())
        if self._due(now):
            self._draw(now)

    def say(self, text: str) -> None:
        """Write a line of its own without tearing the live line apart."""
        if self.quiet:
            return
        self.stream.write(f"\r\x1b[K{text}\n" if self.terminal else f"{text}\n")
        self.stream.flush()
        if self.terminal and self._latest:
            self._draw(self.clock())

    def close(self) -> None:
        """Show the last step, if it is not shown yet, and end the live line."""
        if self.quiet or self._latest is None:
            return
        if not self._shown:
            self._draw(self.clock())
        if self.terminal:
            self.stream.write("\n")
            self.stream.flush()
        self._latest = None

    def _fraction(self) -> float:
        step, time = self._latest[:2]
        done = step / self.total_steps if self.total_steps else time / self.end_time if self.end_time else 1.0
        return min(max(done, 0.0), 1.0)

    def _due(self, now: float) -> bool:
        waited, gained = now - self._drawn_at, self._fraction() - self._drawn_fraction
        if self.terminal:
            return waited >= REDRAW_SECONDS
        return waited >= LINE_SECONDS or gained >= LINE_FRACTION - 1e-9

    def _remember(self, now: float, fraction: float) -> None:
        """Keep the recent past: a surrogate that has learnt makes the first steps a bad guide."""
        if self._recent and now - self._recent[-1][0] < REDRAW_SECONDS:
            return
        self._recent.append((now, fraction))
        while len(self._recent) > 2 and now - self._recent[0][0] > RATE_SECONDS:
            self._recent.popleft()

    def _seconds_left(self, now: float) -> float | None:
        then, fraction = self._recent[0]
        gained = self._fraction() - fraction
        return (1.0 - self._fraction()) * (now - then) / gained if gained > 0 else None

    def _draw(self, now: float) -> None:
        text = self._line(now)
        if self.terminal:
            # One column stays free: a full line would make some terminals wrap.
            text = "\r" + text[: terminal_width(self.terminal) - 1] + "\x1b[K"
        self.stream.write(text if self.terminal else text + "\n")
        self.stream.flush()
        self._drawn_at, self._drawn_fraction, self._shown = now, self._fraction(), True

    def _line(self, now: float) -> str:
        step, time, dt, accepted = self._latest
        fraction = self._fraction()
        total = f"/{self.total_steps}" if self.total_steps else ""
        parts = [
            f"{100 * fraction:3.0f} %",
            f"step {step}{total}",
            f"t {number(time)}/{number(self.end_time)} s",
            f"dt {number(dt)} s",
        ]
        if accepted is not None and math.isfinite(accepted):
            parts.append(f"accepted {100 * accepted:.1f} %")
        left = self._seconds_left(now)
        if left is not None and fraction < 1.0:
            parts.append(f"ETA {duration(left)}")
        return (f"{bar(fraction, self.stream)} " if self.terminal else "") + "  ".join(parts)


def bar(fraction: float, stream=None) -> str:
    """A bar of fixed width; plain characters where the stream cannot encode blocks."""
    full = round(fraction * BAR_WIDTH)
    blocks = "utf" in (getattr(stream, "encoding", None) or "").lower()
    done, open_ = ("█", "░") if blocks else ("#", ".")
    return done * full + open_ * (BAR_WIDTH - full)


def terminal_of(stream) -> str | None:
    """Path of the terminal that shows what is written to stream, None if there is none.

    mpirun hands the ranks a pipe as standard error and writes on to its own, so where our parents
    are launchers their standard error is the one that counts.
    """
    if stream.isatty():
        try:
            return os.ttyname(stream.fileno())
        except (OSError, ValueError, AttributeError):
            return "terminal"
    if stream is not sys.stderr:
        return None
    process = os.getppid()
    while _process_name(process) in LAUNCHERS:
        target = _link(f"/proc/{process}/fd/2")
        if target.startswith(("/dev/pts/", "/dev/tty")):
            return target
        if not target.startswith("pipe:"):
            return None
        process = _parent(process)
    return None


def _process_name(process: int) -> str:
    try:
        with open(f"/proc/{process}/comm") as file:
            return file.read().strip()
    except OSError:
        return ""


def _parent(process: int) -> int:
    try:
        with open(f"/proc/{process}/stat") as file:
            # The name, in brackets, may hold spaces: count the fields behind it.
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def terminal_width(path: str) -> int:
    """Columns of the terminal at path; the user's COLUMNS, or 80, where it cannot be asked."""
    try:
        device = os.open(path, os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return shutil.get_terminal_size().columns
    try:
        return os.get_terminal_size(device).columns or 80
    except OSError:
        return 80
    finally:
        os.close(device)


def duration(seconds: float) -> str:
    """Seconds as 0:07, 12:34 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
