# SPDX-License-Identifier: Apache-2.0
"""Keys: what they are, where they are looked for, what each wrong one is answered, and what they reach."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from conformance.guest import PING, PYTHON, Guest, check_flat, out
from conformance.rows import case, row
from conftest import Answer, Wire
from host import Server
from keys import Key, expired_key, keygen, listed, msb, secret_of, signed

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def guarded(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Give a server that asks for keys; the common one, which counts what is there before it, is older."""
    assert server.url
    own = Server.start(tmp_path_factory.mktemp("access") / "home", "--allow-host-image", dev=False)
    yield own
    own.end()


@pytest.fixture(scope="module")
def key(guarded: Server) -> Key:
    """Give a key for every namespace."""
    return keygen(guarded.home)


@pytest.fixture(scope="module")
def scoped(guarded: Server) -> Key:
    """Give a key for one namespace."""
    return keygen(guarded.home, "-n", "mine")


@pytest.fixture
async def door(guarded: Server) -> AsyncIterator[Wire]:
    """Give a client that shows no key by itself."""
    async with aiohttp.ClientSession() as session:
        yield Wire(guarded.url, session)


async def ask(door: Wire, key: str | None, header: str = "Authorization", call: object = PING) -> Answer:
    return await door.send(json=call, headers={} if key is None else {header: key})


async def call(door: Wire, key: Key, method: str, **params: object) -> Answer:
    """Make one call with a key."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return await ask(door, f"Bearer {key.text}", call=body)


def decoded(key: str) -> list[Any]:
    """Return the header and the claims of a key."""
    parts = key.removeprefix("msb_").split(".")[:2]
    return [json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))) for part in parts]


@row("--dev needs no key")
async def test_a_development_server_asks_for_no_key(wire: Wire) -> None:
    assert (await ask(wire, None)).status == 200


@row("health needs no key")
async def test_health_is_for_everybody(door: Wire) -> None:
    answer = await door.send("GET", "/api/v1/health")
    assert (answer.status, answer.body) == (200, {"message": "Service is healthy"})


@pytest.mark.parametrize("path", [case("rpc needs a key", "/api/v1/rpc"), case("mcp needs a key", "/mcp")])
async def test_what_needs_a_key(door: Wire, key: Key, path: str) -> None:
    body = {**PING, "method": "ping"} if path == "/mcp" else PING
    check_flat(await door.send(path=path, json=body), 401, 1001, "Invalid credentials")
    headers = {"Authorization": f"Bearer {key.text}", "Accept": "application/json, text/event-stream"}
    assert (await door.send(path=path, json=body, headers=headers)).status == 200


@row("a key is msb_ and a JWT")
async def test_the_form_of_a_key(guarded: Server, key: Key, scoped: Key) -> None:
    for made, namespace in ((key, "*"), (scoped, "mine")):
        header, claims = decoded(made.text)
        assert header == {"typ": "JWT", "alg": "HS256"}
        assert set(claims) == {"exp", "iat", "namespace", "jti"}
        assert (claims["namespace"], claims["jti"], claims["exp"]) == (namespace, made.id, made.expires.timestamp())
        assert abs(claims["iat"] - time.time()) < 120


@row("signed with server.key")
async def test_a_key_is_signed_with_the_secret_of_the_home(guarded: Server, key: Key) -> None:
    secret = secret_of(guarded.home)
    assert re.fullmatch(rb"[A-Za-z0-9]{32}", secret)
    text, _, signature = key.text.removeprefix("msb_").rpartition(".")
    digest = hmac.new(secret, text.encode(), hashlib.sha256).digest()
    assert base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4)) == digest


@pytest.mark.parametrize("form", [case("Bearer key", "Bearer {}"), case("bare key", "{}")])
@pytest.mark.parametrize(
    "header",
    [case("Authorization", "Authorization"), case("Proxy-Authorization", "Proxy-Authorization")],
)
async def test_where_a_key_is_looked_for(door: Wire, key: Key, header: str, form: str) -> None:
    assert (await ask(door, form.format(key.text), header)).status == 200


@row("Proxy-Authorization comes first")
async def test_which_header_counts(door: Wire, key: Key) -> None:
    good, bad = f"Bearer {key.text}", "Bearer msb_a.b.c"
    first = await door.send(json=PING, headers={"Proxy-Authorization": good, "Authorization": bad})
    assert first.status == 200
    check_flat(await door.send(json=PING, headers={"Proxy-Authorization": bad, "Authorization": good}), 401, 1004)


@pytest.mark.parametrize(
    "shown",
    [
        case("absent", None),
        case("garbage", "nonsense"),
        case("garbage", "Bearer nonsense"),
        case("garbage", "Basic bXNiOg=="),
        case("garbage", ""),
        case("the word Bearer as it is", "bearer {}"),
        case("no prefix", "Bearer {bare}"),
        case("no prefix", "Bearer MSB_{bare}"),
    ],
)
async def test_what_is_no_key(door: Wire, key: Key, shown: str | None) -> None:
    text = shown and shown.format(key.text, bare=key.text.removeprefix("msb_"))
    answer = await ask(door, text)
    check_flat(answer, 401, 1001, "Invalid credentials")
    assert "msb server keygen" in answer.body["remedy"]


async def check_refused(door: Wire, text: str) -> None:
    answer = await ask(door, f"Bearer {text}")
    check_flat(answer, 401, 1004, "Invalid or expired token")
    assert text not in answer.text


@row("wrong signature")
async def test_a_signature_of_another_secret(door: Wire, key: Key) -> None:
    await check_refused(door, signed(b"x" * 32, decoded(key.text)[1]))
    await check_refused(door, key.text[:-5] + ("AAAAA" if not key.text.endswith("AAAAA") else "BBBBB"))


@pytest.mark.parametrize("text", ["msb_", "msb_a.b.c", "msb_a.b", "msb_....", "msb_a.b.c.d", "msb_" + "a" * 4000])
@row("broken JWT")
async def test_what_is_no_jwt(door: Wire, text: str) -> None:
    await check_refused(door, text)


@row("broken JWT")
async def test_a_jwt_without_a_signature(door: Wire, key: Key) -> None:
    head = base64.urlsafe_b64encode(b'{"typ":"JWT","alg":"none"}').rstrip(b"=").decode()
    await check_refused(door, f"msb_{head}.{key.text.split('.')[1]}.")


@row("expired")
async def test_a_key_whose_time_is_over(guarded: Server, door: Wire) -> None:
    await check_refused(door, expired_key(guarded.home, 90))


@row("60 s leeway on expiry")
async def test_a_clock_may_differ_a_little(guarded: Server, door: Wire) -> None:
    assert (await ask(door, f"Bearer {expired_key(guarded.home, 30)}")).status == 200


@row("unknown to the database")
async def test_a_good_signature_alone_is_not_enough(guarded: Server, door: Wire, key: Key) -> None:
    claims = decoded(key.text)[1]
    without = {name: value for name, value in claims.items() if name != "jti"}
    for forged in (without, {**claims, "jti": "0" * 16}, {**claims, "jti": ""}):
        await check_refused(door, signed(secret_of(guarded.home), forged))


@row("revoked")
async def test_a_revoked_key(guarded: Server, door: Wire) -> None:
    made = keygen(guarded.home)
    assert (await ask(door, made.text)).status == 200
    assert msb(guarded.home, "revoke", made.id).returncode == 0
    await check_refused(door, made.text)


@row("looked at before the body")
async def test_a_stranger_learns_nothing_of_the_body(door: Wire) -> None:
    for body in (b"", b"{", b"x" * 10_000):
        check_flat(await door.send(data=body, headers=JSON), 401, 1001)


@row("scope: own namespace")
async def test_a_scoped_key_reaches_its_namespace(door: Wire, scoped: Key, name: str) -> None:
    target: dict[str, object] = {"namespace": "mine", "sandbox": name}
    assert (await call(door, scoped, "sandbox.start", **target, config=PYTHON)).status == 200
    ran = await call(door, scoped, "sandbox.repl.run", **target, language="python", code="6 * 7")
    assert out(ran.body["result"]) == "42"
    assert (await call(door, scoped, "sandbox.metrics.get", namespace="mine")).status == 200
    assert (await call(door, scoped, "sandbox.stop", **target)).status == 200


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("sandbox.start", {"config": PYTHON}),
        ("sandbox.stop", {}),
        ("sandbox.repl.run", {"language": "python", "code": "1"}),
        ("sandbox.command.run", {"command": "true"}),
        ("sandbox.metrics.get", {}),
        ("sandbox.command.execute", {"command": "true"}),
        ("sandbox.getStatus", {}),
    ],
)
@row("scope: foreign namespace")
async def test_a_scoped_key_reaches_no_other(door: Wire, scoped: Key, method: str, params: dict[str, object]) -> None:
    for namespace in ("other", "default", "Mine", "mine-too"):
        answer = await call(door, scoped, method, namespace=namespace, sandbox="x", **params)
        check_flat(answer, 403, 3001, "Access denied")


@row("scope: namespace *")
async def test_a_scoped_key_does_not_reach_all(door: Wire, scoped: Key) -> None:
    check_flat(await call(door, scoped, "sandbox.metrics.get", namespace="*"), 403, 3001, "Access denied")


@row("scope: no params")
async def test_a_scoped_key_needs_params(door: Wire, scoped: Key) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "sandbox.metrics.get"}
    answer = await ask(door, scoped.text, call=body)
    check_flat(answer, 400, 2001, "Missing 'params' field in JSON-RPC request")


@row("scope: a run without a namespace is in default")
async def test_a_left_out_namespace_is_the_default_one_for_a_key_too(door: Wire, guarded: Server, scoped: Key) -> None:
    params: dict[str, object] = {"sandbox": "x", "language": "python", "code": "1"}
    check_flat(await call(door, scoped, "sandbox.repl.run", **params), 403, 3001, "Access denied")
    default = keygen(guarded.home, "-n", "default")
    check_flat(await call(door, default, "sandbox.repl.run", **params), 404, 4001)


@row("scope: in a batch")
async def test_a_scoped_key_in_a_batch(door: Wire, scoped: Key) -> None:
    calls = [{**PING, "id": n, "params": {"namespace": ns}} for n, ns in enumerate(["mine", "other", "*"])]
    answer = await ask(door, scoped.text, call=calls)
    by_id = {one["id"]: one for one in answer.body}
    assert by_id[0]["result"] == {"sandboxes": []}
    assert [by_id[n]["error"]["code"] for n in (1, 2)] == [3001, 3001]


@row("scope: tools of MCP")
async def test_a_scoped_key_at_mcp(door: Wire, scoped: Key) -> None:
    async def metrics(namespace: str) -> Answer:
        params = {"name": "sandbox_get_metrics", "arguments": {"namespace": namespace}}
        headers = {"Authorization": f"Bearer {scoped.text}", "Accept": "application/json, text/event-stream"}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        return await door.send(path="/mcp", json=body, headers=headers)

    assert not (await metrics("mine")).body["result"].get("isError", False)
    for namespace in ("other", "*"):
        result = (await metrics(namespace)).body["result"]
        assert result["isError"] is True
        assert "Access denied" in result["content"][0]["text"]


@row("key for every namespace")
async def test_a_key_for_all_reaches_all(door: Wire, key: Key) -> None:
    for namespace in ("mine", "other", "*"):
        assert (await call(door, key, "sandbox.metrics.get", namespace=namespace)).status == 200
    guest = Guest(door, "never-started")
    check_flat(await call(door, key, "sandbox.stop", **guest.target), 404, 4001)


@row("keygen: 24 h and every namespace by default")
def test_the_defaults_of_keygen(key: Key) -> None:
    claims = decoded(key.text)[1]
    assert (claims["exp"] - claims["iat"], key.namespace) == (24 * 3600, "*")


@pytest.mark.parametrize(
    ("text", "span"),
    [
        case("keygen: units", "90s", timedelta(seconds=90)),
        case("keygen: units", "3m", timedelta(minutes=3)),
        case("keygen: units", "2h", timedelta(hours=2)),
        case("keygen: units", "2d", timedelta(days=2)),
        case("keygen: units", "2w", timedelta(weeks=2)),
        case("keygen: units", "2mo", timedelta(days=60)),
        case("keygen: units", "2y", timedelta(days=730)),
        case("keygen: a bare number is hours", "5", timedelta(hours=5)),
    ],
)
def test_lifetimes(guarded: Server, text: str, span: timedelta) -> None:
    claims = decoded(keygen(guarded.home, "--expire", text).text)[1]
    assert claims["exp"] - claims["iat"] == span.total_seconds()


@row("keygen: durations that are none")
def test_a_duration_without_a_number(guarded: Server) -> None:
    refused = msb(guarded.home, "keygen", "--expire", "abc")
    assert refused.returncode != 0
    assert "Invalid duration: abc. No numeric value found." in refused.stderr


@row("keygen: before the first start")
def test_a_key_before_there_is_a_server(tmp_path: Path) -> None:
    """The first key makes the secret of its home; `--home` says which."""
    made = keygen(tmp_path / "home", "-n", "mine")
    assert made.namespace == "mine"
    assert listed(tmp_path / "home", made)["state"] == "active"
