# SPDX-License-Identifier: Apache-2.0
"""Keys as `msb server` makes, lists and revokes them, and as somebody who has the secret could."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
import sqlite3
import subprocess
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from host import PROGRAMS, clean_environment

RFC_3339 = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


def msb(home: Path, *arguments: str, user: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run one `msb server` command on a home."""
    command = [PROGRAMS / "msb", "server", *arguments, "--home", home]
    return subprocess.run(
        command,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
    )


@dataclass(frozen=True)
class Key:
    """What `msb server keygen` printed."""

    text: str
    expires: datetime
    namespace: str
    id: str


def keygen(home: Path, *arguments: str, user: int | None = None) -> Key:
    made = msb(home, "keygen", *arguments, user=user)
    assert (made.returncode, made.stderr) == (0, ""), made
    form = rf"Token: (msb_[\w.-]+)\nToken expires: ({RFC_3339})\nNamespace: (\S+)\nKey id: ([0-9a-f]{{16}})\n"
    found = re.fullmatch(form, made.stdout)
    assert found, made.stdout
    return Key(found[1], datetime.fromisoformat(found[2].replace("Z", "+00:00")), found[3], found[4])


def listed(home: Path, key: Key) -> dict[str, Any]:
    """Return what `msb server keys` knows of a key."""
    answer = msb(home, "keys", "--json")
    assert answer.returncode == 0, answer
    (found,) = (row for row in json.loads(answer.stdout) if row["id"] == key.id)
    return found


def secret_of(home: Path) -> bytes:
    return (home / "server.key").read_bytes()


def signed(secret: bytes, claims: dict[str, Any]) -> str:
    """Return a key of these claims, as whoever has this secret makes it."""
    parts = [json.dumps(part, separators=(",", ":")).encode() for part in ({"typ": "JWT", "alg": "HS256"}, claims)]
    text = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    signature = base64.urlsafe_b64encode(hmac.new(secret, text, hashlib.sha256).digest()).rstrip(b"=")
    return f"msb_{(text + b'.' + signature).decode()}"


def expired_key(home: Path, ago: int = 3600) -> str:
    """Return a key that was good until so many seconds ago: what a real one is after its time."""
    now = int(time.time())
    claims = {"exp": now - ago, "iat": now - ago - 3600, "namespace": "*", "jti": secrets.token_hex(8)}
    with closing(sqlite3.connect(home / "state.db")) as store:
        row = (claims["jti"], "*", claims["iat"], claims["exp"])
        store.execute("insert into keys (id, namespace, made, expires) values (?, ?, ?, ?)", row)
        store.commit()
    return signed(secret_of(home), claims)
