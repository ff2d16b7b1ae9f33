# SPDX-License-Identifier: Apache-2.0
"""What the package shows: names, signatures, defaults and kinds are those of the reference."""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
from importlib import resources

import pytest

import microsandbox
from microsandbox import (
    Command,
    CommandExecution,
    CommandTimeout,
    Execution,
    Metrics,
    MicrosandboxError,
    NodeSandbox,
    PythonSandbox,
    ServerUnreachableError,
    StartTimeoutError,
)

ERRORS = [
    shown
    for name in microsandbox.__all__
    if isinstance(shown := getattr(microsandbox, name), type) and issubclass(shown, Exception)
]
EMPTY = inspect.Parameter.empty
IDENTITY = {"server_url": None, "namespace": "default", "name": None, "api_key": None}


def defaults(function: object) -> dict[str, object]:
    parameters = inspect.signature(function).parameters.values()  # type: ignore[arg-type]
    return {p.name: p.default for p in parameters if p.name != "self" and p.kind is not p.KEYWORD_ONLY}


def test_all_is_sorted_and_complete() -> None:
    public = {name for name, value in vars(microsandbox).items() if inspect.isclass(value) and name[0] != "_"}
    assert microsandbox.__all__ == sorted(public)


def test_everything_public_is_documented_and_names_the_package() -> None:
    for name in microsandbox.__all__:
        shown = getattr(microsandbox, name)
        assert shown.__module__ == "microsandbox"
        assert shown.__doc__
        for member, value in vars(shown).items():
            if not member.startswith("_") and (callable(value) or isinstance(value, (property, classmethod))):
                assert inspect.getdoc(value), f"{name}.{member}"


def test_the_package_says_that_it_is_typed() -> None:
    assert resources.files(microsandbox).joinpath("py.typed").is_file()


@pytest.mark.parametrize("kind", [PythonSandbox, NodeSandbox])
def test_signatures_are_those_of_the_reference(kind: type[PythonSandbox]) -> None:
    assert defaults(kind) == IDENTITY
    assert list(defaults(kind)) == list(IDENTITY)
    assert defaults(kind.create) == IDENTITY
    assert defaults(kind.start) == {"image": None, "memory": 512, "cpus": 1.0, "timeout": 180.0}
    assert defaults(kind.stop) == {}
    assert defaults(kind.run) == {"code": EMPTY}


def test_create_takes_what_start_takes_as_keywords() -> None:
    parameters = inspect.signature(PythonSandbox.create).parameters.values()
    start = inspect.signature(PythonSandbox.start).parameters.values()
    wanted = {p.name: p.default for p in start if p.name != "self"}
    assert {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY} == wanted


def test_what_the_reference_does_not_have_is_keyword_only() -> None:
    start = inspect.signature(PythonSandbox.start).parameters.values()
    assert {p.name: p.default for p in start if p.kind is p.KEYWORD_ONLY} == {
        "disk": None,
        "volumes": (),
        "network": None,
        "ports": (),
    }


def test_command_run_has_the_signature_of_the_reference() -> None:
    assert defaults(Command.run) == {"command": EMPTY, "args": None, "timeout": None}


def test_methods_are_coroutines_and_properties_where_the_reference_says_so() -> None:
    coroutines = [
        *(getattr(PythonSandbox, name) for name in ("start", "stop", "run")),
        *(getattr(Execution, name) for name in ("output", "error")),
        *(getattr(CommandExecution, name) for name in ("output", "error")),
        *(getattr(Metrics, name) for name in ("cpu", "memory", "disk", "is_running", "all")),
        Command.run,
    ]
    assert all(inspect.iscoroutinefunction(function) for function in coroutines)
    assert not inspect.iscoroutinefunction(Execution.has_error)
    for kind, names in {
        PythonSandbox: ("command", "metrics", "is_started", "name"),
        Execution: ("status", "language"),
        CommandExecution: ("exit_code", "success", "command", "args"),
    }.items():
        assert all(isinstance(inspect.getattr_static(kind, name), property) for name in names)


def test_errors_form_the_tree_that_is_drawn() -> None:
    assert issubclass(MicrosandboxError, RuntimeError)
    for kind, also in {
        StartTimeoutError: TimeoutError,
        CommandTimeout: TimeoutError,
        ServerUnreachableError: ConnectionError,
    }.items():
        assert issubclass(kind, MicrosandboxError)
        assert issubclass(kind, also)
    drawn = inspect.getdoc(MicrosandboxError) or ""
    for kind in ERRORS:
        assert issubclass(kind, MicrosandboxError)
        assert f" {kind.__name__}" in drawn


@pytest.mark.parametrize("kind", ERRORS)
def test_errors_keep_what_they_carry_when_they_are_copied(kind: type[MicrosandboxError]) -> None:
    error = kind("what happened", code=5002, request_id="r1", cause="c", remedy="do this")
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is kind
        assert str(twin) == "what happened"
        assert (twin.code, twin.request_id, twin.cause, twin.remedy) == (5002, "r1", "c", "do this")


def test_a_sandbox_can_be_made_without_an_event_loop() -> None:
    sandbox = PythonSandbox(name="early")
    assert (sandbox.name, sandbox.is_started) == ("early", False)
    with pytest.raises(RuntimeError, match="not started"):
        asyncio.run(sandbox.run("1"))


def test_attributes_that_programs_touch_keep_their_names() -> None:
    sandbox = PythonSandbox("http://h:1/", "team", "box", "key")
    assert sandbox._server_url == "http://h:1"
    assert sandbox._namespace == "team"
    assert sandbox._name == "box"
    assert sandbox._api_key == "key"
    assert sandbox._session is None
    assert sandbox._is_started is False
    assert "key" not in repr(sandbox)
