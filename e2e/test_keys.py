# SPDX-License-Identifier: Apache-2.0
"""Keys as a person makes, lists and revokes them, and as the SDK shows them; what is secret stays so."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import aiohttp
import pytest
from microsandbox import PythonSandbox

from host import PROGRAMS, Server, clean_environment, descendants, need_everything
from keys import RFC_3339, expired_key, keygen, listed, msb, secret_of

# How long the note of a key's use may take to appear, in seconds.
NOTED_SECONDS = 10
NOBODY = 65534


@pytest.fixture(scope="module")
def guarded(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Give a server that asks for keys and tells its log everything; the common one runs before it."""
    need_everything()
    assert server.url
    home = tmp_path_factory.mktemp("keys") / "home"
    options = ("--allow-host-image", "--allowed-host", "sandbox.example.com")
    own = Server.start(home, *options, dev=False, log_level="trace")
    yield own
    own.end()


async def use(server: Server, key: str | None, name: str) -> str:
    """Do something with a sandbox, and return what it printed."""
    async with PythonSandbox.create(server_url=server.url, api_key=key, name=name) as sandbox:
        return await (await sandbox.run("print(6 * 7)")).output()


async def refusal(server: Server, key: str | None) -> tuple[int, str]:
    """Return the code and the text with which a key is refused."""
    sandbox = PythonSandbox(server_url=server.url, api_key=key)
    with pytest.raises(RuntimeError) as caught:
        await sandbox.start()
    return caught.value.code, str(caught.value)  # type: ignore[attr-defined]


async def test_the_sdk_works_with_a_key_given_or_in_the_environment(
    guarded: Server, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = keygen(guarded.home)
    assert await use(guarded, key.text, name) == "42"
    monkeypatch.setenv("MSB_API_KEY", key.text)
    assert await use(guarded, None, name) == "42"


async def test_without_a_good_key_a_call_is_refused_with_what_to_do(guarded: Server) -> None:
    code, text = await refusal(guarded, None)
    assert (code, "Invalid credentials" in text) == (1001, True)
    assert "msb server keygen" in text
    for bad in ("msb_a.b.c", keygen(guarded.home).text + "x", keygen(guarded.home).text.lower()):
        code, text = await refusal(guarded, bad)
        assert (code, "Invalid or expired token" in text) == (1004, True)
        assert bad not in text
    assert (await refusal(guarded, "nonsense"))[0] == 1001


async def test_a_key_made_without_a_server_works_on_the_one_that_comes(server: Server, tmp_path: Path) -> None:
    home = tmp_path / "home"
    key = keygen(home, "-n", "default")
    own = Server.start(home, "--allow-host-image", dev=False)
    try:
        assert await use(own, key.text, "first") == "42"
        assert "no key exists" not in own.log.read_text()
    finally:
        own.end()
    assert server.url


async def test_a_revoked_key_stops_at_once_and_others_go_on(guarded: Server, name: str) -> None:
    first, second = keygen(guarded.home), keygen(guarded.home)
    assert await use(guarded, first.text, name) == "42"
    revoked = msb(guarded.home, "revoke", first.id)
    assert (revoked.returncode, revoked.stdout) == (0, f"revoked {first.id}: it no longer works\n")
    assert (await refusal(guarded, first.text))[0] == 1004
    assert await use(guarded, second.text, name) == "42"
    again = msb(guarded.home, "revoke", first.id)
    assert (again.returncode, again.stdout) == (0, f"{first.id} was revoked before\n")
    row = listed(guarded.home, first)
    assert row["state"] == "revoked"
    assert re.fullmatch(RFC_3339, row["revoked"])


async def test_an_expired_key_is_refused_and_told_as_such(guarded: Server) -> None:
    key = expired_key(guarded.home)
    assert (await refusal(guarded, key))[0] == 1004
    table = msb(guarded.home, "keys").stdout
    assert re.search(r"  never +expired$", table, re.MULTILINE), table
    short = keygen(guarded.home, "--expire", "1s")
    assert 0 <= short.expires.timestamp() - time.time() + 1 <= 2


async def test_the_list_shows_what_a_key_is_and_its_last_use(guarded: Server, name: str) -> None:
    key = keygen(guarded.home, "--namespace", "default", "--expire", "7d")
    before = listed(guarded.home, key)
    assert set(before) == {"id", "namespace", "made", "expires", "last_used", "revoked", "state"}
    assert (before["namespace"], before["state"], before["last_used"]) == ("default", "active", None)
    made, expires = (datetime.fromisoformat(before[at].replace("Z", "+00:00")) for at in ("made", "expires"))
    assert (expires - made).days == 7
    assert expires == key.expires
    await use(guarded, key.text, name)
    deadline = time.monotonic() + NOTED_SECONDS
    while (used := listed(guarded.home, key)["last_used"]) is None:
        assert time.monotonic() < deadline, "the use of a key is noted soon"
    ago = datetime.now(timezone.utc) - datetime.fromisoformat(used.replace("Z", "+00:00"))
    assert 0 <= ago.total_seconds() < 30
    lines = msb(guarded.home, "keys").stdout.splitlines()
    assert lines[0].split() == ["ID", "NAMESPACE", "MADE", "EXPIRES", "LAST", "USED", "STATE"]
    (line,) = (line for line in lines if line.startswith(key.id))
    assert line.split() == [key.id, "default", before["made"], before["expires"], used, "active"]
    assert key.text not in "".join(lines)


def test_lifetimes_and_namespaces_that_cannot_be_meant_are_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for arguments, text in [
        (("--expire", "abc"), "Invalid duration: abc. No numeric value found."),
        (("--expire", "0"), "Invalid duration: 0."),
        (("--expire", "101y"), "at most 100y"),
        (("--expire", "5x"), "one of s, m, h, d, w, mo, y"),
        (("-n", "a/b"), "Namespace name can only contain"),
    ]:
        refused = msb(home, "keygen", *arguments)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert text in refused.stderr
    assert not home.exists()


def test_revoking_what_is_no_key_names_the_way_to_the_list(tmp_path: Path) -> None:
    home = tmp_path / "home"
    key = keygen(home)
    for wrong in ("0000000000000000", "nonsense", key.text):
        refused = msb(home, "revoke", wrong)
        assert refused.returncode == 1
        assert "no key has that id" in refused.stderr
        assert "msb server keys" in refused.stderr
        assert key.text not in refused.stderr
    assert listed(home, key)["state"] == "active"


def test_an_empty_list_says_how_to_make_a_key(tmp_path: Path) -> None:
    empty = msb(tmp_path / "home", "keys")
    assert (empty.returncode, "msb server keygen" in empty.stdout) == (0, True)
    assert json.loads(msb(tmp_path / "home", "keys", "--json").stdout) == []


def test_many_at_once_in_a_new_home_agree_on_one_secret(tmp_path: Path) -> None:
    home = tmp_path / "home"
    command = [PROGRAMS / "msb", "server", "keygen", "--home", home]
    makers = [subprocess.Popen(command, stdout=subprocess.PIPE, env=clean_environment()) for _ in range(12)]
    outputs = [maker.communicate(timeout=60)[0].decode() for maker in makers]
    assert [maker.returncode for maker in makers] == [0] * 12
    secret = secret_of(home)
    for output in outputs:
        signed, _, signature = output.split("\n")[0].removeprefix("Token: msb_").rpartition(".")
        digest = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
        assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == signature
    assert len(json.loads(msb(home, "keys", "--json").stdout)) == 12
    assert not [entry for entry in home.iterdir() if entry.name.startswith(".")]


def test_keys_need_no_root() -> None:
    need_everything()
    with tempfile.TemporaryDirectory(prefix="msb-e2e-") as own:
        os.chown(own, NOBODY, NOBODY)
        home = Path(own, "home")
        key = keygen(home, user=NOBODY)
        assert (home / "server.key").stat().st_uid == NOBODY
        # Root may use what is an ordinary user's, and leaves it usable to them.
        keygen(home)
        rows = json.loads(msb(home, "keys", "--json", user=NOBODY).stdout)
        assert key.id in {row["id"] for row in rows}
        assert len(rows) == 2
        assert msb(home, "revoke", key.id, user=NOBODY).returncode == 0


def test_what_is_secret_is_private(guarded: Server) -> None:
    keygen(guarded.home)
    assert stat.S_IMODE(guarded.home.stat().st_mode) == 0o700
    names = {entry.name for entry in guarded.home.iterdir()}
    assert {"server.key", "state.db"} <= names
    for entry in guarded.home.iterdir():
        if entry.name.startswith(("server.key", "state.db")):
            assert stat.S_IMODE(entry.stat().st_mode) == 0o600, entry
    assert re.fullmatch(rb"[A-Za-z0-9]{32}", secret_of(guarded.home))


@pytest.mark.parametrize(("name", "mode"), [("server.key", 0o644), ("state.db", 0o660), (".", 0o755)])
def test_what_others_can_reach_is_refused_with_what_to_do(tmp_path: Path, name: str, mode: int) -> None:
    home = tmp_path / "home"
    keygen(home)
    (home / name).chmod(mode)
    for command in (("keygen",), ("keys",), ("start", "--port", "0")):
        refused = msb(home, *command)
        assert (refused.returncode, refused.stdout) == (1, ""), refused
        assert "chmod" in refused.stderr
        assert secret_of(home).decode() not in refused.stderr


async def test_the_operators_name_of_the_server_is_its_own(guarded: Server) -> None:
    key = keygen(guarded.home)
    call = {"jsonrpc": "2.0", "method": "sandbox.metrics.get", "params": {"namespace": "default"}, "id": 1}
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key.text}"}) as session:
        for host, status in [("sandbox.example.com", 200), ("Sandbox.Example.com:443", 200), ("example.com", 403)]:
            async with session.post(f"{guarded.url}/api/v1/rpc", json=call, headers={"Host": host}) as response:
                assert response.status == status, host


def test_a_server_without_keys_gets_no_name_by_accident(tmp_path: Path) -> None:
    refused = msb(tmp_path / "home", "start", "--dev", "--port", "0", "--allowed-host", "sandbox.example.com")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "sandbox.example.com" in refused.stderr
    assert "--dev-on-network" in refused.stderr


async def test_nothing_secret_is_on_a_command_line_or_in_the_log(guarded: Server, name: str) -> None:
    key, expired = keygen(guarded.home), expired_key(guarded.home)
    async with PythonSandbox.create(server_url=guarded.url, api_key=key.text, name=name) as sandbox:
        await sandbox.run("print(1)")
        processes = {guarded.process.pid} | descendants(guarded.process.pid)
        assert len(processes) > 1
        for pid in processes:
            for what in ("cmdline", "environ"):
                text = Path(f"/proc/{pid}/{what}").read_bytes()
                assert secret_of(guarded.home) not in text, (pid, what)
                assert b"msb_" not in text, (pid, what)
    assert (await refusal(guarded, expired))[0] == 1004
    assert (await refusal(guarded, key.text[:-3]))[0] == 1004
    log = guarded.log.read_text()
    assert "a key was refused" in log, "the log tells what there is to tell"
    assert "no key exists that works" in log, "the first start had none"
    assert secret_of(guarded.home).decode() not in log
    assert "msb_" not in log
    assert "eyJ" not in log
