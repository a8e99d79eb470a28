"""A machine whose process 1 is the real systemd, in namespaces of its own: for processes, mounts, the network, cgroups.

Its root is a tmpfs. Of the machine around it there are the programs (`/usr`), an interpreter and its packages, all of
them read-only, and nothing else; before systemd is started that is looked at once more. So nothing outlives it, and
nothing that systemd does as it starts a machine (it empties `/tmp`, for one) is done to the one that the tests run on.

The engine stands in `/opt/engine`, where docs/systemd.md puts it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SYSTEMD = Path("/usr/lib/systemd/systemd")
TOOLS = ("unshare", "nsenter", "pivot_root", "setpriv", "ip", "systemctl", "journalctl")
START_SECONDS = 40.0

MAKE_ROOT = """
set -eu
mount --make-rprivate /
mount -t tmpfs -o mode=755 none /mnt
cd /mnt
mkdir -p usr etc/systemd/system run var/lib var/log tmp var/tmp dev/shm proc sys root home old \\
    opt/engine opt/python opt/packages
chmod 1777 tmp var/tmp dev/shm
for name in bin sbin lib lib32 lib64 libx32; do [ ! -L "/$name" ] || cp -a "/$name" .; done
read_only() { mount --bind "$1" "$2"; mount -o remount,bind,ro "$2"; }
read_only /usr usr
read_only "$PYTHON" opt/python
read_only "$PACKAGES" opt/packages
for name in passwd group nsswitch.conf ld.so.cache; do [ ! -e "/etc/$name" ] || cp "/etc/$name" etc/; done
tr -d - < /proc/sys/kernel/random/uuid > etc/machine-id
cp -r "$SOURCE/daemon" "$SOURCE/enginekit" "$SOURCE/deploy" "$SOURCE/engine.toml" opt/engine/
mknod -m 666 dev/null c 1 3; mknod -m 666 dev/zero c 1 5; mknod -m 666 dev/full c 1 7
mknod -m 666 dev/random c 1 8; mknod -m 666 dev/urandom c 1 9; mknod -m 666 dev/tty c 5 0
ln -s /proc/self/fd dev/fd
mount -t proc none proc
mount --bind proc/sys proc/sys; mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro none sys
mount -t cgroup2 none sys/fs/cgroup
pivot_root . old
cd /
umount -l /old
rmdir /old
mount --make-rshared /
export PATH=/usr/sbin:/usr/bin
while read -r _ _ _ _ place options _; do
    case "$place" in
        / | /proc | /sys/fs/cgroup) ;;
        *) case "$options" in ro,* | ro) ;; *) echo "$place could be written: $options"; exit 1 ;; esac ;;
    esac
done < /proc/self/mountinfo
ip link set lo up
"""
_FILL_IT = """
export LD_LIBRARY_PATH=/opt/python/lib
"/opt/python/bin/$INTERPRETER" -m venv --without-pip /opt/engine/.venv
printf '/opt/engine\\n/opt/packages\\n' > "$(echo /opt/engine/.venv/lib/python3*/site-packages)/here.pth"
printf '#!/opt/engine/.venv/bin/python\\nfrom daemon.cli.main import main\\nmain()\\n' > /opt/engine/.venv/bin/engine
chmod 755 /opt/engine/.venv/bin/engine
cd /etc/systemd/system
mkdir engine.service.d
printf '[Service]\\nEnvironment=LD_LIBRARY_PATH=/opt/python/lib\\n' > engine.service.d/python.conf
for unit in sysinit basic network-online; do printf '[Unit]\\nDescription=nothing\\n' > $unit.target; done
for unit in /usr/lib/systemd/system/*.target.wants/*; do ln -sf /dev/null "${unit##*/}"; done
rm -f systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket
printf '[Unit]\\nRequires=systemd-journald.service\\nAfter=systemd-journald.service\\n' > little.target
cd /
exec env -i container=tests setpriv --bounding-set=-sys_module,-sys_time,-sys_rawio,-sys_boot \\
    /usr/lib/systemd/systemd --system --unit=little.target --log-target=journal --show-status=false
"""


class NoMachine(Exception):
    """There can be none here; the message says why."""


class Machine:
    """Boots, or raises NoMachine. `run` runs something in it; `end` takes it away."""

    def __init__(self) -> None:
        missing = [tool for tool in TOOLS if shutil.which(tool) is None]
        if not SYSTEMD.exists() or missing:
            raise NoMachine(f"systemd cannot be started here: there is no {', '.join(missing) or SYSTEMD}")
        if os.geteuid() != 0:
            raise NoMachine("systemd as process 1 of namespaces of its own needs root")
        self._group = _cgroup()
        join = f"echo $$ > {self._group}/cgroup.procs; "
        join += 'exec unshare --fork --kill-child --pid --mount --ipc --uts --net --cgroup bash -c "$1"'
        self._process = subprocess.Popen(
            ["bash", "-c", join, "bash", MAKE_ROOT + _FILL_IT],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "SOURCE": str(ROOT),
                "PYTHON": sys.base_prefix,
                "PACKAGES": sysconfig.get_path("purelib"),
                "INTERPRETER": Path(os.path.realpath(sys.executable)).name,
            },
        )
        self._inside = 0
        try:
            self._boot()
        except BaseException:
            self.end()
            raise

    def run(self, *command: str, status: int | None = 0) -> str:
        """What it prints. Fails where it ends otherwise than with `status` (None: however it likes)."""
        enter = ["nsenter", "--target", str(self._inside), "--all", "--"]
        environ = {"PATH": "/usr/sbin:/usr/bin", "LD_LIBRARY_PATH": "/opt/python/lib", "HOME": "/root"}
        done = subprocess.run([*enter, *command], capture_output=True, text=True, env=environ, timeout=120, check=False)
        if status is not None and done.returncode != status:
            raise AssertionError(
                f"{command} ended with {done.returncode}: {done.stdout}{done.stderr}\n{self.journal()}"
            )
        return done.stdout + done.stderr

    def journal(self) -> str:
        return self.run("journalctl", "-o", "cat", "--no-pager", "-n", "60", status=None)

    def becomes(self, wanted: str, *command: str) -> str:
        """Run it until it prints this."""
        deadline = time.monotonic() + 60
        while wanted not in (said := self.run(*command, status=None)):
            assert time.monotonic() < deadline, f"{command} says {said!r}, never {wanted!r}\n{self.journal()}"
            time.sleep(0.2)  # systemd is another process
        return said

    def end(self) -> None:
        """Its process 1 goes with its parent, and everything in it with that."""
        self._process.kill()
        self._process.communicate()
        for _ in range(100):  # until the kernel has taken its processes away
            for folder in sorted(self._group.rglob("*/"), key=lambda path: -len(path.parts)):
                with suppress(OSError):
                    folder.rmdir()
            with suppress(OSError):
                self._group.rmdir()
            if not self._group.exists():
                return
            time.sleep(0.05)

    def _boot(self) -> None:
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                output = self._process.stdout.read().decode() if self._process.stdout else ""
                raise NoMachine(f"systemd does not start in namespaces here: {output.strip()[-300:]}")
            with suppress(OSError):
                found = children.read_text().split()
                if found and Path(f"/proc/{found[0]}/comm").read_text().strip() == "systemd":
                    self._inside = int(found[0])
                    if self.run("systemctl", "is-active", "little.target", status=None).strip() == "active":
                        return
            time.sleep(0.1)
        raise NoMachine(f"systemd has not started its target within {START_SECONDS:g} s")


def _cgroup() -> Path:
    """One of its own, below which systemd finds all that there is."""
    for mount in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")):
        if (mount / "cgroup.procs").exists() and (mount / "cgroup.controllers").exists():
            group = mount / f"engine-tests-{os.getpid()}"
            try:
                group.mkdir()
            except OSError as error:
                raise NoMachine(f"systemd needs a cgroup of its own, and there can be none: {error}") from error
            return group
    raise NoMachine("systemd needs cgroups of version 2, which are not mounted here")
