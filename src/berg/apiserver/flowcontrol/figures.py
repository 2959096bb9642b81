"""What is counted of flow control: by schema and level, and by reads and writes.

Nothing is sampled: seats and requests are noted when they change, with the time that they stayed as they were, which
is what upstream's histograms of every nanosecond come to.

Source: k8s.io/apiserver pkg/util/flowcontrol/metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from berg.apiserver.flowcontrol.level import Level
from berg.machinery.metrics import Cell, Labels, Registry, Samples, observe_times

if TYPE_CHECKING:
    from berg.apiserver.flowcontrol.control import FlowControl

_SECONDS = (0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0)
_LENGTHS = (0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0)
_WATCHERS = (0.0, 1.0, 10.0, 100.0, 1000.0, 10_000.0)
_WIDTHS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0)
_SEATS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
_REQUESTS = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 1.0)
_DEMAND = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.7, 2.0, 2.8, 4.0, 6.0)
_PREFIX = "apiserver_flowcontrol"
_FLOW = ("flow_schema", "priority_level")


class Figures:
    """What requests of one schema do at one level."""

    __slots__ = ("asked", "began", "dispatched", "executing", "gave_up", "lengths", "rejected", "schema", "seats",
                 "took", "waited", "waiting", "watched", "widths")  # fmt: skip

    def __init__(self, schema: str) -> None:
        self.schema = schema
        self.executing = self.seats = self.waiting = self.asked = 0
        """requests and their seats that run, and that wait"""
        self.dispatched = 0
        self.rejected: dict[str, int] = {}
        self.waited, self.gave_up = Cell(_SECONDS), Cell(_SECONDS)
        """in a queue, until it could start, or in vain; what could start at once is in neither"""
        self.took, self.began = Cell(_SECONDS), Cell(_SECONDS)
        """until it was done; until a watch began"""
        self.lengths = Cell(_LENGTHS)
        self.watched = Cell(_WATCHERS)
        self.widths: dict[int, int] = {}
        """seats, where it is more than one → requests"""

    def at_once(self) -> int:
        return self.dispatched - self.waited.count


class LevelFigures:
    """For how long how much of a level was taken, as parts of what it had at that time."""

    def __init__(self) -> None:
        self.seats, self.demand = Cell(_SEATS), Cell(_DEMAND)
        self.running, self.waiting = Cell(_REQUESTS), Cell(_REQUESTS)

    def take(self, level: Level, now: float) -> None:
        """Before its limits change. What was asked for goes into its demand."""
        limit, nominal, room = max(level.limit, 1), max(level.limits.nominal, 1), max(level.room, 1)
        for (executing, running, waiting, asked), seconds in level.spent.taken(now).items():
            level.demand.add(executing + asked, seconds)
            observe_times(self.seats, executing / limit, seconds)
            observe_times(self.running, running / limit, seconds)
            observe_times(self.waiting, waiting / room, seconds)
            observe_times(self.demand, (executing + asked) / nominal, seconds)


def describe(control: FlowControl, r: Registry) -> None:
    def levels(read: Callable[[Level], float]) -> Callable[[], Samples]:
        return lambda: [((level.name,), read(level)) for level in control.current()]

    def flows(read: Callable[[Figures], float]) -> Callable[[], Samples]:
        return lambda: [((f.schema, level), read(f)) for (level, _), f in control.figures.items() if level]

    def rejections() -> Samples:
        for (level, schema), figures in control.figures.items():
            for reason, count in figures.rejected.items():
                yield (schema, level, reason), count

    limits = (
        ("nominal_limit_seats", "[BETA] Seats of each level.", lambda v: v.limits.nominal),
        ("current_limit_seats", "[ALPHA] Seats just now.", lambda v: v.limit),
        ("lower_limit_seats", "[ALPHA] Seats that are never lent.", lambda v: v.limits.least),
        ("upper_limit_seats", "[ALPHA] Seats at most.", lambda v: v.limits.most),
        ("target_seats", "[ALPHA] Seats that it should have had when they were last dealt.", lambda v: v.target),
        ("demand_seats_average", "[ALPHA] Seats asked for, on average.", lambda v: v.demand.average),
        ("demand_seats_stdev", "[ALPHA] Standard deviation of seats asked for.", lambda v: v.demand.deviation),
        ("demand_seats_smoothed", "[ALPHA] Seats asked for, smoothed.", lambda v: v.demand.smoothed),
        ("demand_seats_high_watermark", "[ALPHA] Seats asked for at most.", lambda v: v.demand.high),
    )  # fmt: skip
    for name, help, of_level in limits:
        r.gauge(f"{_PREFIX}_{name}", help, ("priority_level",), levels(of_level))
    now = (
        ("current_executing_requests", "[BETA] Requests under way now.", lambda f: f.executing),
        ("current_executing_seats", "[BETA] Seats taken now.", lambda f: f.seats),
        ("current_inqueue_requests", "[BETA] Requests that wait now.", lambda f: f.waiting),
        ("current_inqueue_seats", "[ALPHA] Seats waited for now.", lambda f: f.asked),
    )
    for name, help, of_flow in now:
        r.gauge(f"{_PREFIX}_{name}", help, _FLOW, flows(of_flow))
    help = "[BETA] Requests that were let start."
    r.total(f"{_PREFIX}_dispatched_requests_total", help, _FLOW, flows(lambda f: f.dispatched))
    r.total(f"{_PREFIX}_rejected_requests_total", "[BETA] Requests refused.", (*_FLOW, "reason"), rejections)
    help = "[ALPHA] The part of its target that each level was given when seats were last dealt."
    r.gauge(f"{_PREFIX}_seat_fair_frac", help, (), lambda: [((), control.fair)])
    _distributions(control, r)


def _distributions(control: FlowControl, r: Registry) -> None:
    def flows(read: Callable[[Figures], Cell | None], *more: str) -> Iterator[tuple[Labels, Cell]]:
        for (level, _), figures in control.figures.items():
            cell = read(figures) if level else None
            if cell is not None and cell.count:
                yield (figures.schema, level, *more), cell

    def of_levels(read: Callable[[LevelFigures], Cell], *more: str) -> Iterator[tuple[Labels, Cell]]:
        for level in control.current():
            yield (*more, level.name), read(control.taken(level))

    def queued(f: Figures, bounds: tuple[float, ...], cell: Cell, value: float) -> Cell:
        """With what found a seat at once: it would have been alone in its queue, for no time."""
        found = Cell(bounds)
        found.observe_many(value, f.at_once())
        return found.plus(cell)

    def widths(f: Figures) -> Cell:
        found = Cell(_WIDTHS)
        found.observe_many(1, f.dispatched - sum(f.widths.values()))
        for width, count in f.widths.items():
            found.observe_many(width, count)
        return found

    def waits() -> Iterator[tuple[Labels, Cell]]:
        yield from flows(lambda f: queued(f, _SECONDS, f.waited, 0.0), "true")
        yield from flows(lambda f: f.gave_up, "false")

    def executions() -> Iterator[tuple[Labels, Cell]]:
        yield from flows(lambda f: f.took, "regular")
        yield from flows(lambda f: f.began, "watch")

    def utilization() -> Iterator[tuple[Labels, Cell]]:
        yield from of_levels(lambda v: v.running, "executing")
        yield from of_levels(lambda v: v.waiting, "waiting")

    def tell(
        name: str,
        help: str,
        bounds: tuple[float, ...],
        labels: tuple[str, ...],
        read: Callable[[], Iterable[tuple[Labels, Cell]]],
    ) -> None:
        r.distribution(f"{_PREFIX}_{name}", help, bounds, labels, read)

    help = "[BETA] How long requests waited in queues."
    tell("request_wait_duration_seconds", help, _SECONDS, (*_FLOW, "execute"), waits)
    help = "[ALPHA] How long requests took; of watches, how long until they began."
    tell("request_execution_seconds", help, _SECONDS, (*_FLOW, "type"), executions)
    help = "[ALPHA] How long a queue was when a request had joined it."
    tell("request_queue_length_after_enqueue", help, _LENGTHS, _FLOW,
         lambda: flows(lambda f: queued(f, _LENGTHS, f.lengths, 1.0)))  # fmt: skip
    tell("watch_count_samples", "[ALPHA] Watchers of what was written.", _WATCHERS, _FLOW,
         lambda: flows(lambda f: f.watched))  # fmt: skip
    tell("work_estimated_seats", "[ALPHA] Seats that requests take.", _WIDTHS, _FLOW, lambda: flows(widths))
    level = ("priority_level",)
    help = "[ALPHA] Parts of a level's seats that were taken, each for how many nanoseconds."
    tell("priority_level_seat_utilization", help, _SEATS, ("phase", *level),
         lambda: of_levels(lambda v: v.seats, "executing"))  # fmt: skip
    help = "[ALPHA] Requests as parts of what a level could run or let wait, each for how many nanoseconds."
    tell("priority_level_request_utilization", help, _REQUESTS, ("phase", *level), utilization)
    help = "[ALPHA] Seats asked for as parts of what a level has, each for how many nanoseconds."
    tell("demand_seats", help, _DEMAND, level, lambda: of_levels(lambda v: v.demand))
