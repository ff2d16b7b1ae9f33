# SPDX-License-Identifier: Apache-2.0
"""A server that an ordinary user starts: what works, what it says is missing, what of the host is in reach."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from microsandbox import MicrosandboxError, NodeSandbox, PythonSandbox

from host import GONE_SECONDS, PROGRAMS, Server, children, clean_environment, command_line, need, need_everything

# A user and a group that the tests make up; they are in no file of the host.
USER = 61234
# A range of ids that no host gives to anybody.
RANGE = 3_000_000_000
# What a user can never have.
OFF = {"id_range", "idmapped_layers", "disk_limit", "inode_limit"}
# Lines of the attack list that the walls do not withstand yet (see test_selftest.py).
GAPS = {"exhaust-watchers", "exhaust-timers", "exhaust-queues", "deep-tree"}
# Lines that say something for a user too: alone in a user namespace he can do these without a wall.
ALWAYS = {
    "mount-tmpfs",
    "unshare-user",
    "clone-user",
    "setns-pidfd",
    "ptrace-seize",
    "agent-mem-read",
    "image-proc-host",
}
# What depends on whether the host delegated a cgroup to the user.
OF_CGROUPS = {"memory_limit", "swap_limit", "cpu_limit", "io_weight"}


@dataclass
class User:
    """Somebody without rights, with programs that he can read and a home."""

    folder: Path
    with_range: bool
    servers: list[Server] = field(default_factory=list)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def command(self, *words: object) -> list[str]:
        """Return a command line that does this as the user.

        With a range of ids, it happens in a mount namespace in which the files that give him one are in the place of
        the host's: those are never changed.
        """
        ids = ["--reuid", str(USER), "--regid", str(USER), "--clear-groups"]
        own = ["setpriv", *ids, "env", f"HOME={self.folder}", *map(str, words)]
        if not self.with_range:
            return own
        binds = [f"mount --bind {self.folder / name} /etc/{name}" for name in ("passwd", "subuid", "subgid")]
        script = " && ".join(["mount --make-rprivate /", *binds, 'exec "$@"'])
        return ["unshare", "--mount", "sh", "-c", script, "sh", *own]

    def run(self, *words: object, check: bool = False) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words),
            capture_output=True,
            text=True,
            timeout=600,
            env=clean_environment(),
            cwd=self.folder,
            check=check,
        )

    def msb(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return self.run(self.folder / "bin" / "msb", *arguments)

    def start(self, *arguments: str, home: Path | None = None) -> Server:
        server = Server.start(home or self.home, *arguments, inside=self.command(), programs=self.folder / "bin")
        self.servers.append(server)
        return server


def make_user(folder: Path, with_range: bool) -> User:
    need_everything()
    need(Path("/usr/bin/setpriv").exists(), "setpriv is needed: Debian's package util-linux")
    folder.chmod(0o755)
    programs = folder / "bin"
    programs.mkdir()
    programs.chmod(0o755)
    for name in ("msb", "msb-jail", "msb-agent", "msb-probe"):
        shutil.copy(PROGRAMS / name, programs / name)
        (programs / name).chmod(0o755)
    home = folder / "home"
    home.mkdir(mode=0o700)
    os.chown(home, USER, USER)
    if with_range:
        need(Path("/usr/bin/newuidmap").exists(), "newuidmap is needed: Debian's package uidmap")
        (folder / "passwd").write_text(f"root:x:0:0::/root:/bin/sh\nann:x:{USER}:{USER}::{folder}:/bin/sh\n")
        for name in ("subuid", "subgid"):
            (folder / name).write_text(f"ann:{RANGE}:65536\n")
    return User(folder, with_range)


@pytest.fixture(scope="module", params=["one id", "a range"])
def user(request: pytest.FixtureRequest) -> Iterator[User]:
    # Not among pytest's own folders: those are closed to others.
    folder = Path(tempfile.mkdtemp(prefix="msb-user-"))
    yield make_user(folder, request.param == "a range")
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def own(user: User) -> Iterator[Server]:
    """Give a server of that user; in the end it must go and leave nothing behind."""
    server = user.start()
    yield server
    server.end()


@pytest.fixture
async def python(own: Server, name: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PythonSandbox]:
    monkeypatch.setenv("MSB_SERVER_URL", own.url)
    async with PythonSandbox.create(name=name) as sandbox:
        yield sandbox


@pytest.fixture
async def node(own: Server, name: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[NodeSandbox]:
    monkeypatch.setenv("MSB_SERVER_URL", own.url)
    async with NodeSandbox.create(name=f"{name}-node") as sandbox:
        yield sandbox


async def shell(sandbox: PythonSandbox | NodeSandbox, script: str) -> str:
    done = await sandbox.command.run("sh", ["-c", script])
    return f"{await done.output()}{await done.error()}"


async def found(sandbox: PythonSandbox, code: str) -> Any:
    execution = await sandbox.run(f"{code}\nimport json\nprint(json.dumps(found))")
    assert not execution.has_error(), await execution.error()
    return json.loads((await execution.output()).splitlines()[-1])


# What works


async def test_code_runs_and_its_state_is_kept(python: PythonSandbox, node: NodeSandbox) -> None:
    await python.run("x = 42")
    assert await (await python.run("print(f'Hello, {x}!')")).output() == "Hello, 42!"
    await node.run("let y = 7")
    assert await (await node.run("console.log(`Hello, ${y}!`)")).output() == "Hello, 7!"


async def test_commands_are_root_inside_and_can_work(python: PythonSandbox) -> None:
    assert (await shell(python, "id -u; id -g")).split() == ["0", "0"]
    script = "echo a > /root/f && mkdir /etc/d && cat /root/f && mktemp && ls -d /etc/d && echo > /dev/null"
    script += " && head -c 3 /dev/zero | wc -c"
    words = (await shell(python, script)).split()
    assert (words[0], words[2:]) == ("a", ["/etc/d", "3"])


async def test_a_program_can_be_installed(python: PythonSandbox) -> None:
    script = """
    mkdir -p /tmp/p && cd /tmp/p && echo 'VALUE = 9' > owned.py
    printf 'from setuptools import setup\\nsetup(name="owned", version="1", py_modules=["owned"])\\n' > setup.py
    python3 setup.py --quiet install --user >/dev/null 2>&1 || cp owned.py /usr/local/lib/
    cp owned.py /usr/local/bin/ && ls /usr/local/bin/owned.py
    """
    assert "/usr/local/bin/owned.py" in await shell(python, script)


async def test_what_a_sandbox_has_are_the_ids_of_the_user(user: User, own: Server, python: PythonSandbox) -> None:
    agents = [pid for pid in children(own.process.pid) if "msb-agent" in command_line(pid)]
    assert agents
    for pid in agents:
        lines = Path(f"/proc/{pid}/uid_map").read_text().splitlines()
        wanted = [[0, USER, 1], [1, RANGE, 65535]] if user.with_range else [[0, USER, 1]]
        assert [[int(word) for word in line.split()] for line in lines] == wanted
        status = Path(f"/proc/{pid}/status").read_text()
        assert re.search(rf"^Uid:\s+{USER}\s+{USER}\s+{USER}\s+{USER}$", status, re.MULTILINE)
    others = await shell(python, "setpriv --reuid 1234 --regid 1234 --clear-groups id -u")
    assert (others.strip() == "1234") == user.with_range, others


async def test_files_of_other_ids_are_removed_too(user: User, own: Server, name: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("MSB_SERVER_URL", own.url)
    async with PythonSandbox.create(name=name) as sandbox:
        script = "mkdir -p /tmp/a/b && echo x > /tmp/a/b/c && chmod 000 /tmp/a/b /tmp/a && mkdir -m 0 /root/closed"
        await shell(sandbox, script)
        script = "touch /tmp/other && chown 1234:1234 /tmp/other && mkdir -m 700 /tmp/d && chown 77 /tmp/d"
        told = await shell(sandbox, script)
        assert ("Invalid argument" in told) != user.with_range, told
        assert await sandbox.metrics.disk() is not None
        assert len(list((user.home / "sandboxes").iterdir())) >= 1
        before = {entry.name for entry in (user.home / "sandboxes").iterdir()}
    left = {entry.name for entry in (user.home / "sandboxes").iterdir()}
    assert len(left) < len(before)


async def test_a_volume_is_what_the_user_may_have(user: User, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, closed = user.folder / "mine", user.folder / "closed"
    for path in (mine, closed):
        path.mkdir()
    os.chown(mine, USER, USER)
    (mine / "file").write_text("mine")
    (closed / "file").write_text("root's")
    closed.chmod(0o700)
    server = user.start("--allow-volume", str(user.folder), home=user.home / "volumes")
    monkeypatch.setenv("MSB_SERVER_URL", server.url)
    try:
        async with PythonSandbox.create(name=name, volumes=[f"{mine}:/mine:rw"]) as sandbox:
            assert "mine" in await shell(sandbox, "cat /mine/file; echo new > /mine/new")
            assert (mine / "new").stat().st_uid == USER
        with pytest.raises(MicrosandboxError):
            async with PythonSandbox.create(name=name, volumes=[f"{closed}:/closed"]) as sandbox:
                assert "root's" not in await shell(sandbox, "cat /closed/file")
                raise MicrosandboxError("it started, and nothing could be read")
    finally:
        server.end()


# What it says


def test_the_doctor_tells_a_user_what_he_has_and_what_is_missing(user: User) -> None:
    done = user.msb("doctor", "--json", "--home", user.home, "--min-isolation", "contained")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["root"] is False
    off = {one["name"]: one for one in told["isolation"]["protections"] if not one["on"]}
    assert OFF <= set(off) <= OFF | OF_CGROUPS
    for one in off.values():
        assert one["why"], one
        assert one["mend"], one
    why = off["id_range"]["why"]
    assert ("the same ids" in why) if user.with_range else ("one id inside" in why)
    on = {one["name"]: one for one in told["isolation"]["protections"] if one["on"]}
    assert str(USER) in on["user_namespace"]["why"]
    text = user.msb("doctor", "--home", user.home, "--min-isolation", "any").stdout
    assert "as an ordinary user" in text


async def test_a_sandbox_says_the_same_as_the_doctor(user: User, python: PythonSandbox) -> None:
    told = json.loads(user.msb("doctor", "--json", "--home", user.home, "--min-isolation", "any").stdout)
    info = await python.get_info()
    assert info.isolation is not None
    assert {one.name: one.on for one in info.isolation.protections} == {
        one["name"]: one["on"] for one in told["isolation"]["protections"]
    }


def test_a_level_that_is_not_reached_is_refused_with_what_is_missing(user: User) -> None:
    told = json.loads(user.msb("doctor", "--json", "--home", user.home, "--min-isolation", "any").stdout)
    need(told["level"] == "contained", "a cgroup was delegated to the tests: every limit is there")
    home = user.folder / "home" / "limited"
    done = user.msb("server", "start", "--dev", "--port", "0", "--home", home, "--min-isolation", "limited")
    assert done.returncode == 3
    for part in ("memory_limit", "cpu_limit", "root"):
        assert part in done.stderr
    assert "disk_limit" not in done.stderr


# The walls


async def test_nothing_of_the_host_is_there_that_the_user_could_not_read(user: User, python: PythonSandbox) -> None:
    secret = user.folder / "secret"
    secret.write_text("not for sandboxes")
    secret.chmod(0o644)
    # Readable to the user outside, but nothing of the host is inside but its programs.
    code = f"""
import os
found = [os.path.exists({str(secret)!r}), os.path.exists({str(user.home)!r}), os.listdir('/home')]
found.append([line for line in open('/proc/self/mountinfo') if {str(user.folder)!r} in line])
found.append([open(path).read() for path in ('/etc/shadow', '/etc/gshadow') if os.path.exists(path)])
"""
    assert await found(python, code) == [False, False, [], [], []]


async def test_root_inside_can_change_no_program_of_the_host(python: PythonSandbox) -> None:
    shell_before = Path("/usr/bin/dash").stat()
    told = await shell(
        python, "echo x >> /usr/bin/dash; chmod 777 /usr/bin/dash; rm /usr/bin/dash; chown 0 /usr/bin/dash"
    )
    assert "enied" in told or "not permitted" in told
    assert Path("/usr/bin/dash").stat() == shell_before


async def test_root_inside_has_no_right_outside(python: PythonSandbox) -> None:
    code = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def attempt(act):
    try:
        return act()
    except OSError as error:
        return error.errno
def call(name, *arguments):
    return 'done' if getattr(libc, name)(*arguments) == 0 else ctypes.get_errno()
found = [
    call('mount', b'none', b'/tmp', b'tmpfs', 0, None),
    call('unshare', 0x10000000),
    call('sethostname', b'other', 5),
    attempt(lambda: os.mknod('/tmp/mem', 0o020666, os.makedev(1, 1))),
    attempt(lambda: os.kill(-1, 0) or 'only own'),
    attempt(lambda: os.chmod('/dev/null', 0o600)),
    attempt(lambda: os.remove('/dev/null')),
    attempt(lambda: open('/dev/new', 'w')),
    attempt(lambda: open('/proc/sys/kernel/core_pattern', 'w')),
]
"""
    mount, unshare, name, node, kill, chmod, remove, new, pattern = await found(python, code)
    assert (mount, unshare, name, node) == (1, 1, 1, 1)
    assert kill in ("only own", 3)
    assert chmod in (1, 30)
    assert remove in (16, 30)
    assert new == 30
    assert pattern in (13, 30)


async def test_the_user_outside_and_his_other_sandboxes_are_out_of_reach(
    user: User, own: Server, python: PythonSandbox, node: NodeSandbox
) -> None:
    outside = subprocess.Popen(user.command("sleep", "120"))
    try:
        code = "import os\nfound = sorted(int(name) for name in os.listdir('/proc') if name.isdigit())"
        seen = await found(python, code)
        assert len(seen) < 10
        assert outside.pid not in seen
        assert "sleep" not in await shell(python, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
        await shell(python, "kill -9 -1")
        assert outside.poll() is None
        assert await (await node.run("console.log('alive')")).output() == "alive"
    finally:
        outside.kill()
        outside.wait()


async def test_processes_are_limited_for_all_ids_together(user: User, python: PythonSandbox) -> None:
    code = """
import os, time
def fork_all(ids):
    made = 0
    for number in range(2000):
        try:
            pid = os.fork()
        except BlockingIOError:
            break
        if pid == 0:
            try:
                if ids:
                    os.setgroups([]); os.setuid(1000 + number)
                time.sleep(3)
            finally:
                os._exit(0)
        made += 1
    return made
found = fork_all({ids})
""".replace("{ids}", str(user.with_range))
    limits = (await python.get_info()).isolation
    assert limits is not None
    assert limits.has("pids_limit")
    assert 100 < await found(python, code) < 600


# The end


async def test_a_killed_server_leaves_nothing_to_the_next_one(user: User, name: str, monkeypatch: Any) -> None:
    home = user.folder / "home" / "killed"
    server = user.start(home=home)
    monkeypatch.setenv("MSB_SERVER_URL", server.url)
    sandbox = PythonSandbox(name=name)
    await sandbox.start()
    await shell(sandbox, "mkdir -p /tmp/a/b && chmod 000 /tmp/a")
    agents = [pid for pid in children(server.process.pid) if "msb-agent" in command_line(pid)]
    assert len(agents) == 1
    assert json.loads(next((home / "sandboxes").glob("*/process")).read_text())["pid"] == agents[0]
    server.kill()
    with pytest.raises(MicrosandboxError):
        await sandbox.stop()
    assert "msb-agent" in command_line(agents[0])
    again = user.start(home=home)
    monkeypatch.setenv("MSB_SERVER_URL", again.url)
    assert "msb-agent" not in command_line(agents[0])
    deadline = time.monotonic() + GONE_SECONDS
    while list((home / "sandboxes").iterdir()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert list((home / "sandboxes").iterdir()) == []
    async with PythonSandbox.create(name=name) as fresh:
        assert await (await fresh.run("print(1)")).output() == "1"
    again.end()


# Images


def small_image(path: Path) -> None:
    """Write a root file system whose files belong to many, and some of it is closed to their owner."""
    with tarfile.open(path, "w") as tar:

        def add(name: str, kind: bytes, mode: int, owner: int, content: bytes = b"") -> None:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.uid, entry.gid, entry.size = kind, mode, owner, owner, len(content)
            tar.addfile(entry, io.BytesIO(content))

        add("bin", tarfile.DIRTYPE, 0o755, 0)
        add("bin/busybox", tarfile.REGTYPE, 0o755, 0, Path("/bin/busybox").read_bytes())
        for name in ("sh", "ls", "cat", "stat", "rm", "touch"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        add("locked", tarfile.DIRTYPE, 0o555, 1234)
        add("locked/below", tarfile.DIRTYPE, 0, 1234)
        add("locked/below/file", tarfile.REGTYPE, 0, 99, b"deep")


async def test_an_image_is_unpacked_for_the_user_and_removed_again(
    user: User, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    need(Path("/bin/busybox").exists(), "busybox is needed: Debian's package busybox-static")
    archive = user.folder / "small.tar"
    small_image(archive)
    home = user.home / "images-only"
    words = [archive, "--reference", "local/small:1", "--rootfs", "--home", home]
    loaded = user.msb("image", "load", *words)
    assert loaded.returncode == 0, loaded.stderr
    server = user.start(home=home)
    monkeypatch.setenv("MSB_SERVER_URL", server.url)
    async with PythonSandbox.create(name=name, image="local/small:1") as sandbox:
        assert await shell(sandbox, "cat /locked/below/file; stat -c ' %u %g' /locked/below/file /locked") == (
            "deep 0 0\n 0 0"
        )
        assert await shell(sandbox, "touch /locked/new && rm -r /locked && ls -d /locked") != "/locked"
    server.end()
    removed = user.msb("image", "rm", "local/small:1", "--home", home)
    assert removed.returncode == 0, removed.stderr
    pruned = user.msb("image", "prune", "--all", "--home", home)
    assert pruned.returncode == 0, pruned.stderr
    assert not list(home.rglob("locked"))


# The attack list


def test_the_walls_withstand_the_attack_list(user: User) -> None:
    home = user.home / "selftest"
    done = user.msb("selftest", "--json", "--quick", "--home", home)
    assert done.returncode in (0, 1), done.stderr
    lines = json.loads(done.stdout)["lines"]
    failed = {line["id"]: line["why"] for line in lines if line["verdict"] == "fail"}
    assert {line: why for line, why in failed.items() if line not in GAPS} == {}
    silent = {line["id"]: line["why"] for line in lines if line["verdict"] == "not-applicable"}
    assert all(silent.values())
    assert {line["id"] for line in lines if line["verdict"] == "pass"} >= ALWAYS
    assert list(home.iterdir()) == []
