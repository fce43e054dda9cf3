"""The private servers, really started, each time for a project folder of the test's own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest
import redis

from config import private_servers
from config.private_servers import PostgreSQL, PrivateServers, Valkey

PROJECT = Path(private_servers.__file__).parent.parent
only_as_root = pytest.mark.skipif(os.geteuid() != 0, reason="what only root has to care about")


@pytest.fixture(scope="module")
def used_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project folder several tests start their servers in: only the first waits for initdb."""
    with project_folder(tmp_path_factory.mktemp("used")) as root:
        yield root


@pytest.fixture
def servers(used_root: Path, unset: None) -> Iterator[PrivateServers]:
    """Servers that do not run, and may have run before."""
    servers = PrivateServers(used_root)
    yield servers
    servers.stop()


@pytest.fixture
def new_servers(tmp_path: Path, unset: None) -> Iterator[PrivateServers]:
    """Servers that never ran."""
    with project_folder(tmp_path) as root:
        yield PrivateServers(root)


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a machine that names no servers."""
    for name in ("DATABASE_URL", "REDIS_URL", "DEBUG"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def project_folder(parent: Path) -> Iterator[Path]:
    """A deep folder with spaces; what its servers leave elsewhere goes with it."""
    root = parent / "a projéct's folder" / ("deep " * 20) / "paperround"
    root.mkdir(parents=True)
    folder = PostgreSQL(root).folder
    try:
        yield root
        if not folder.is_symlink():
            PrivateServers(root).stop()
    finally:
        if folder.is_symlink():
            folder.unlink()
        elif folder.exists():
            shutil.rmtree(folder)


def forget_urls() -> None:
    for name in ("DATABASE_URL", "REDIS_URL"):
        os.environ.pop(name, None)


def urls() -> tuple[str, str]:
    return os.environ["DATABASE_URL"], os.environ["REDIS_URL"]


def ask_postgresql(statement: str, **other: str) -> str:
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True, **other) as connection:  # type: ignore[arg-type]
        cursor = connection.execute(statement.encode())
        return str((cursor.fetchone() or [""])[0]) if cursor.description else ""


def ask_valkey(*command: str) -> object:
    with closing(redis.Redis.from_url(os.environ["REDIS_URL"])) as client:
        return client.execute_command(*command)  # type: ignore[no-untyped-call]


def postgresql_pid(servers: PrivateServers) -> int:
    (note,) = PostgreSQL(servers.root).folder.glob("data-*/postmaster.pid")
    return int(note.read_text().split()[0])


def valkey_pid(servers: PrivateServers) -> int:
    return int((Valkey(servers.root).folder / "valkey.pid").read_text())


def processes_naming(text: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue  # it ended just now
        if os.fsencode(text) in command and int(path.parent.name) != os.getpid():
            found.append(int(path.parent.name))
    return found


def has_ended(pid: int) -> bool:
    """Ended, though the machine's first process may take a moment to notice (state Z)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "ZX"


def ensure_in_another_process(servers: PrivateServers) -> subprocess.Popen[str]:
    program = (
        "import os, pathlib, sys; from config.private_servers import PrivateServers; "
        "PrivateServers(pathlib.Path(sys.argv[1])).ensure(); "
        "print(os.environ['DATABASE_URL'], os.environ['REDIS_URL'])"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, str(servers.root)],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_it_starts_both_servers_and_names_them_in_the_environment(servers: PrivateServers) -> None:
    servers.ensure()

    assert os.environ["DEBUG"] == "1"
    assert ask_postgresql("SELECT current_user || ' ' || current_database()") == (
        "paperround paperround"
    )
    settings = {
        "TimeZone": "UTC",
        "server_encoding": "UTF8",
        "max_connections": "100",
        "fsync": "on",
        "synchronous_commit": "on",
        "listen_addresses": "127.0.0.1",
        "password_encryption": "scram-sha-256",
    }
    for name, value in settings.items():
        assert ask_postgresql(f"SHOW {name}") == value
    assert ask_postgresql("SELECT lower('ÅÉ')") == "åé"
    assert ask_postgresql("CREATE EXTENSION vector") == ""
    assert ask_valkey("PING") is True
    assert ask_valkey("CONFIG", "GET", "bind") == {b"bind": b"127.0.0.1"}


def test_it_lets_nobody_in_without_the_password(servers: PrivateServers) -> None:
    servers.ensure()

    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        ask_postgresql("SELECT 1", password="guess")
    with pytest.raises(psycopg.OperationalError, match="password"):
        ask_postgresql("SELECT 1", password="")
    port = os.environ["REDIS_URL"].rpartition(":")[2].partition("/")[0]
    with (
        closing(redis.Redis(port=int(port))) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()
    passwords = [url.split("@")[0].rpartition(":")[2] for url in urls()]
    for pid in [*processes_naming(str(servers.root)), postgresql_pid(servers)]:
        command = Path(f"/proc/{pid}/cmdline").read_text()
        assert not any(password in command for password in passwords)
    for path in servers.var.glob("*.json"):
        assert path.stat().st_mode & 0o777 == 0o600
    assert PostgreSQL(servers.root).folder.stat().st_mode & 0o777 == 0o700


def test_a_second_ensure_finds_them_and_starts_none(servers: PrivateServers) -> None:
    servers.ensure()
    first, running = urls(), postgresql_pid(servers)
    forget_urls()

    servers.ensure()

    assert urls() == first
    assert postgresql_pid(servers) == running


def test_it_leaves_alone_what_the_environment_names(
    new_servers: PrivateServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgres://elsewhere/paperround")
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere/0")

    new_servers.ensure()

    assert urls() == ("postgres://elsewhere/paperround", "redis://elsewhere/0")
    assert "DEBUG" not in os.environ
    assert not new_servers.var.exists()


def test_two_processes_at_once_end_with_one_server_each(new_servers: PrivateServers) -> None:
    processes = [ensure_in_another_process(new_servers) for _ in range(2)]
    outputs = {process.communicate(timeout=60)[0] for process in processes}

    assert [process.returncode for process in processes] == [0, 0]
    assert len(outputs) == 1
    assert len(processes_naming(str(PostgreSQL(new_servers.root).folder / "data-"))) == 1
    assert len(processes_naming(str(Valkey(new_servers.root).folder))) == 1


def test_they_outlive_the_process_that_started_them(servers: PrivateServers) -> None:
    process = ensure_in_another_process(servers)
    output = process.communicate(timeout=60)[0]

    os.environ["DATABASE_URL"], os.environ["REDIS_URL"] = output.split()
    assert ask_postgresql("SELECT 1") == "1"
    assert ask_valkey("PING") is True
    for pid in (postgresql_pid(servers), valkey_pid(servers)):
        # Ctrl-C reaches the terminal's session only.
        assert os.getsid(pid) not in (os.getsid(0), os.getsid(os.getppid()))


def test_stop_ends_both_and_keeps_what_they_hold(servers: PrivateServers) -> None:
    servers.ensure()
    ask_postgresql("CREATE TABLE kept AS SELECT 42 AS answer")
    ask_valkey("SET", "kept", "42")
    pids = [postgresql_pid(servers), valkey_pid(servers)]

    servers.stop()

    assert all(has_ended(pid) for pid in pids)
    servers.stop()  # and again: nothing to do
    forget_urls()
    servers.ensure()
    assert ask_postgresql("SELECT answer FROM kept") == "42"
    assert ask_valkey("GET", "kept") == b"42"


def test_killed_servers_are_started_again_with_what_was_committed(
    servers: PrivateServers,
) -> None:
    servers.ensure()
    ask_postgresql("CREATE TABLE survivor AS SELECT 42 AS answer")
    os.kill(postgresql_pid(servers), signal.SIGKILL)
    os.kill(valkey_pid(servers), signal.SIGKILL)

    forget_urls()
    servers.ensure()

    assert ask_postgresql("SELECT answer FROM survivor") == "42"
    assert ask_valkey("PING") is True


def test_after_a_reboot_others_may_have_the_numbers_and_the_ports(servers: PrivateServers) -> None:
    servers.ensure()
    (note,) = PostgreSQL(servers.root).folder.glob("data-*/postmaster.pid")
    lines = note.read_text().splitlines(keepends=True)
    old_urls = urls()
    old_ports = [int(url.rpartition(":")[2].partition("/")[0]) for url in old_urls]
    servers.stop()
    # The kind of process PostgreSQL itself takes for a server: alive, and its own user's.
    account = PostgreSQL._account() if os.geteuid() == 0 else None
    stranger = subprocess.Popen(
        ["/bin/sleep", "60"], user=account.pw_uid if account else None, cwd="/"
    )
    note.write_text("".join([f"{stranger.pid}\n", *lines[1:]]))
    (Valkey(servers.root).folder / "valkey.pid").write_text(f"{stranger.pid}\n")
    try:
        with socket.create_server(("127.0.0.1", old_ports[0])):
            forget_urls()
            servers.ensure()
            assert ask_postgresql("SELECT 1") == "1"
            assert ask_valkey("PING") is True
            servers.stop()
        assert stranger.poll() is None, "a process that is not ours was ended"
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("content", [None, "{", '{"port": 1, "password": "guess"}'])
def test_a_lost_or_damaged_state_file_heals(servers: PrivateServers, content: str | None) -> None:
    servers.ensure()
    for path in (PostgreSQL(servers.root).state_path, Valkey(servers.root).state_path):
        if content is None:
            path.unlink()
        else:
            path.write_text(content)

    forget_urls()
    servers.ensure()

    assert ask_postgresql("SELECT 1") == "1"
    assert ask_valkey("PING") is True
    assert len(processes_naming(str(PostgreSQL(servers.root).folder / "data-"))) == 1
    assert len(processes_naming(str(Valkey(servers.root).folder))) == 1


def test_a_crash_in_the_middle_of_initdb_heals(new_servers: PrivateServers) -> None:
    process = ensure_in_another_process(new_servers)
    new = PostgreSQL(new_servers.root).folder / "data.new"
    assert private_servers.wait_until(new.exists, 30)
    process.kill()
    process.communicate()
    for pid in processes_naming(str(new)):
        os.kill(pid, signal.SIGKILL)
    assert not list(PostgreSQL(new_servers.root).folder.glob("data-*"))

    new_servers.ensure()

    assert ask_postgresql("SELECT 1") == "1"
    assert not new.exists()


def test_without_the_wheels_it_says_what_to_do(new_servers: PrivateServers) -> None:
    program = new_servers.root / "config" / "private_servers.py"
    program.parent.mkdir()
    shutil.copy(private_servers.__file__, program)

    result = subprocess.run(
        [sys.executable, "-S", program, "start"],  # -S: no site-packages
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 1
    assert result.stderr == private_servers.WHEELS_MISSING + "\n"


@only_as_root
def test_root_starts_postgresql_as_nobody_and_changes_no_permission(
    new_servers: PrivateServers,
) -> None:
    folder = PostgreSQL(new_servers.root).folder
    parents = [folder.parent, *folder.parent.parents, new_servers.root, *new_servers.root.parents]
    before = [(path.stat().st_mode, path.stat().st_uid, path.stat().st_gid) for path in parents]

    new_servers.ensure()

    after = [(path.stat().st_mode, path.stat().st_uid, path.stat().st_gid) for path in parents]
    assert after == before
    assert (
        Path(f"/proc/{postgresql_pid(new_servers)}").stat().st_uid
        == PostgreSQL._account().pw_uid
        != 0
    )
    owners = {path.lstat().st_uid for path in [folder, *folder.rglob("*")]}
    assert owners == {PostgreSQL._account().pw_uid}


@only_as_root
@pytest.mark.parametrize("obstacle", ["symlink", "folder of root", "folder open to all"])
def test_root_refuses_a_folder_somebody_else_made(
    new_servers: PrivateServers, tmp_path: Path, obstacle: str
) -> None:
    folder = PostgreSQL(new_servers.root).folder
    account = PostgreSQL._account()
    if obstacle == "symlink":
        target = tmp_path / "target"
        target.mkdir(mode=0o700)
        os.chown(target, account.pw_uid, account.pw_gid)
        folder.symlink_to(target)
    else:
        folder.mkdir(mode=0o700)
        if obstacle == "folder open to all":
            os.chown(folder, account.pw_uid, account.pw_gid)
            folder.chmod(0o777)

    with pytest.raises(SystemExit, match="mode 0700, and it is not"):
        new_servers.ensure()

    assert not list(folder.iterdir())
    # Out of the way, for the fixture's stop() refuses it too.
    folder.unlink() if folder.is_symlink() else folder.rmdir()


@only_as_root
def test_root_copies_the_programs_of_a_new_version(servers: PrivateServers) -> None:
    servers.ensure()
    folder = PostgreSQL(servers.root).folder
    (copy,) = folder.glob("programs-*")
    servers.stop()
    copy.rename(folder / "programs-18.0.0")

    forget_urls()
    servers.ensure()

    assert list(folder.glob("programs-*")) == [copy]
    assert ask_postgresql("SELECT 1") == "1"
