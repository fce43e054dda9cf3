"""How a counter grew: a small plot as an SVG's numbers. No Django."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

WIDTH, HEIGHT = 340, 130
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 24  # room for the numbers beside and below
# The width of a digit beside the axis, and how far from it the numbers end.
DIGIT, GAP = 8, 6
# Lines are told apart by more than colour; after these, they begin anew.
STYLES = {
    "solid": "", "dashed": "6 4", "dotted": "2 3", "dash-dotted": "9 3 2 3", "long-dashed": "16 5",
    "dash-dot-dotted": "9 3 2 3 2 3",
}  # fmt: skip
MOST_POINTS = 200  # of a line: more than its pixels could show
MOST_ROWS = 60  # of the table: days, the newest ones

Observation = tuple[datetime, int]


@dataclass(frozen=True, slots=True)
class Line:
    """What one source counted. points: of an SVG polyline; style: one of STYLES."""

    source: str
    style: str
    points: str
    first: int
    last: int

    @property
    def dashes(self) -> str:
        return STYLES[self.style]


@dataclass(frozen=True, slots=True)
class Plot:
    """One counter over time. low, high: what its vertical axis begins and ends with; left: where it
    stands.

    rows: the last observations of each day, as the table below the plot has them: the day, and for
    each line a number, or None.
    """

    counter: str
    lines: Sequence[Line]
    low: int
    high: int
    left: int
    since: datetime
    until: datetime
    rows: Sequence[tuple[date, Sequence[int | None]]]

    @property
    def numbers_end(self) -> int:
        return self.left - GAP


def shown_at(observed_at: datetime, now: datetime) -> datetime:
    """When something was counted, as it is shown: readers' votes are counted for the end of an
    hour, and nothing is shown that has not come; the same for a minute, for who asks again."""
    return observed_at if observed_at <= now else now.replace(second=0, microsecond=0)


def plot(counter: str, observed: Mapping[str, Sequence[Observation]]) -> Plot | None:
    """The plot of a counter by source, each in the order of time; None where none was counted at
    two times."""
    lines = {source: seen for source, seen in observed.items() if _times(seen) > 1}
    if not lines:
        return None
    moments = [at for seen in lines.values() for at, _ in seen]
    values = [value for seen in lines.values() for _, value in seen]
    since, until = min(moments), max(moments)
    # From nothing, unless that would press the line against the top.
    low = 0 if min(values) <= max(values) / 2 else min(values)
    high = max(max(values), low + 1)
    left = max(LEFT, DIGIT * len(str(high)) + GAP)
    drawn = []
    for place, (source, seen) in enumerate(lines.items()):
        points = " ".join(
            f"{left + (at - since) / (until - since) * (WIDTH - left - RIGHT):.1f},"
            f"{HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM):.1f}"
            for at, value in _thinned(seen)
        )
        style = [*STYLES][place % len(STYLES)]
        drawn.append(Line(source, style, points, seen[0][1], seen[-1][1]))
    return Plot(counter, drawn, low, high, left, since, until, _table(lines.values()))


def _times(seen: Sequence[Observation]) -> int:
    return len({at for at, _ in seen})


def _thinned(seen: Sequence[Observation]) -> list[Observation]:
    """Without what lies between two equal neighbours, and of many points every so many."""
    bends = [
        point
        for index, point in enumerate(seen)
        if index in (0, len(seen) - 1) or not seen[index - 1][1] == point[1] == seen[index + 1][1]
    ]
    step = -(-len(bends) // MOST_POINTS)
    return [*bends[:-1:step], bends[-1]]


def _table(
    lines: Iterable[Sequence[Observation]],
) -> list[tuple[date, Sequence[int | None]]]:
    by_day = [{at.date(): value for at, value in seen} for seen in lines]
    days = sorted({day for line in by_day for day in line}, reverse=True)[:MOST_ROWS]
    return [(day, [line.get(day) for line in by_day]) for day in days]
