# SPDX-License-Identifier: Apache-2.0
"""Images from a registry: pulled, unpacked, and used as their configuration says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from microsandbox import MicrosandboxError, NotFoundError, PythonSandbox

from conftest import Wire
from host import Server, command_line, descendants, need, need_everything
from registries import Registry, layout, tree

BUSYBOX = Path("/bin/busybox")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Give a registry with the image `tiny:1`: two layers, a user, a working directory, an environment."""
    need(BUSYBOX.exists(), "/bin/busybox is needed: Debian's package busybox-static")
    folder = tmp_path_factory.mktemp("hub")
    names = {f"bin/{name}": "->busybox" for name in ("sh", "cat", "id", "pwd", "env", "ls", "touch", "sleep")}
    lower = tree(
        {
            "bin": "",
            "bin/busybox": BUSYBOX.read_bytes(),
            **names,
            "etc": "",
            "etc/passwd": b"root:x:0:0::/root:/bin/sh\nweb:x:1000:1000::/home/web:/bin/sh\n",
            "etc/group": b"root:x:0:\nweb:x:1000:\nextra:x:1001:web\n",
            "srv": "",
            "srv/gone": b"lower",
            "srv/kept": b"lower",
        },
        {"etc/passwd": 0o644, "etc/group": 0o644},
    )
    upper = tree({"srv": "", "srv/.wh.gone": b"", "srv/kept": b"upper"})
    config = {"User": "web", "WorkingDir": "/srv", "Env": ["PATH=/bin", "FROM_IMAGE=yes", "BOTH=image"]}
    layout(folder / "tiny", [lower, upper], config)
    running = Registry.start(folder / "registry")
    running.fill(folder / "tiny", "team/tiny:1")
    yield running
    running.end()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    need_everything()
    # Registries of these tests are on loopback, where clients reach only what the operator names.
    server = Server.start(tmp_path_factory.mktemp("images") / "home", "--trusted-registry", "127.0.0.1")
    yield server
    server.end()


async def call(server: Server, method: str, **params: object) -> dict[str, object]:
    async with aiohttp.ClientSession() as session:
        answer = await Wire(server.url, session).call(method, params)
    assert answer.status == 200, answer.text
    return answer.body["result"]


async def sh(sandbox: PythonSandbox, script: str) -> str:
    result = await sandbox.command.run("sh", ["-c", script])
    assert result.success, await result.error()
    return await result.output()


async def test_an_image_is_pulled_and_used_as_its_configuration_says(hub: Registry, images: Server, name: str) -> None:
    image = f"{hub.address}/team/tiny:1"
    async with PythonSandbox.create(name=name, server_url=images.url, image=image) as sandbox:
        assert await sh(sandbox, "id") == "uid=1000(web) gid=1000(web) groups=1001(extra)"
        assert await sh(sandbox, "pwd; ls; cat kept") == "/srv\nkept\nupper"
        assert "FROM_IMAGE=yes" in await sh(sandbox, "env")
        with pytest.raises(MicrosandboxError, match="python3"):
            await sandbox.run("1")
        assert await sh(sandbox, "touch /tmp/x 2>/dev/null; echo lives") == "lives"


async def test_what_is_pulled_once_is_used_without_the_registry(
    hub: Registry, images: Server, tmp_path: Path, name: str
) -> None:
    layout(tmp_path / "once", [tree({"bin": "", "bin/sh": BUSYBOX.read_bytes()})], {})
    gone = Registry.start(tmp_path / "gone")
    gone.fill(tmp_path / "once", "once:1")
    image = f"{gone.address}/once:1"
    pulled = await call(images, "image.pull", image=image)
    assert (pulled["reference"], pulled["layers"]) == (image, 1)
    gone.end()
    async with PythonSandbox.create(name=name, server_url=images.url, image=image) as sandbox:
        assert await sh(sandbox, "echo offline") == "offline"
        listed = (await call(images, "image.list"))["images"]
        assert image in [one["reference"] for one in listed]  # type: ignore[union-attr, index]
        removed = await call(images, "image.remove", image=image)
        assert removed["in_use"] is True
        assert await sh(sandbox, "echo still there") == "still there"
    with pytest.raises(NotFoundError, match="not in the image store"):
        await PythonSandbox(name=name, server_url=images.url).start(image=image)


async def test_a_sandbox_holds_its_image_until_it_ends_and_no_longer(
    hub: Registry, images: Server, tmp_path: Path, name: str
) -> None:
    layout(tmp_path / "held", [tree({"bin": "", "bin/sh": BUSYBOX.read_bytes()})], {})
    hub.fill(tmp_path / "held", "held:1")
    image = f"{hub.address}/held:1"
    async with PythonSandbox.create(name=name, server_url=images.url, image=image):
        assert (await call(images, "image.remove", image=image))["in_use"] is True
        await call(images, "image.pull", image=image)
    assert (await call(images, "image.remove", image=image))["in_use"] is False


async def test_what_a_registry_does_not_have_is_not_found(hub: Registry, images: Server, name: str) -> None:
    for image in (f"{hub.address}/team/missing:1", f"{hub.address}/team/tiny:2"):
        with pytest.raises(NotFoundError) as caught:
            await PythonSandbox(name=name, server_url=images.url).start(image=image)
        assert hub.address in str(caught.value)
        assert caught.value.remedy


async def test_an_image_is_inspected_by_reference_and_by_digest(hub: Registry, images: Server) -> None:
    image = f"{hub.address}/team/tiny:1"
    await call(images, "image.pull", image=image)
    seen = await call(images, "image.inspect", image=image)
    assert (seen["user"], seen["workdir"], seen["platform"]) == ("web", "/srv", "linux/amd64")
    assert "FROM_IMAGE=yes" in seen["envs"]  # type: ignore[operator]
    digest = str(seen["digest"])
    assert (await call(images, "image.inspect", image=digest))["reference"] == image


async def test_a_clients_environment_goes_before_the_images(hub: Registry, images: Server, name: str) -> None:
    image = f"{hub.address}/team/tiny:1"
    config = {"image": image, "envs": ["BOTH=client"], "workdir": "/tmp"}
    await call(images, "sandbox.start", sandbox=name, namespace="default", config=config)
    run = {"sandbox": name, "namespace": "default", "command": "sh", "args": ["-c", "pwd; echo $BOTH $FROM_IMAGE"]}
    result = await call(images, "sandbox.command.run", **run)
    assert [line["text"] for line in result["output"]] == ["/tmp", "client yes"]  # type: ignore[union-attr, index]
    await call(images, "sandbox.stop", sandbox=name, namespace="default")


async def test_a_hostile_layer_is_refused_and_leaves_nothing(
    hub: Registry, images: Server, tmp_path: Path, name: str
) -> None:
    layout(tmp_path / "hostile", [tree({"bin": "", "../../escaped": b"x"})], {})
    hub.fill(tmp_path / "hostile", "hostile:1")
    with pytest.raises(MicrosandboxError, match="escaped"):
        await PythonSandbox(name=name, server_url=images.url).start(image=f"{hub.address}/hostile:1")
    assert not list(images.home.rglob("escaped"))
    listed = (await call(images, "image.list"))["images"]
    assert all("hostile" not in one["reference"] for one in listed)  # type: ignore[union-attr, index]


async def test_a_hostile_configuration_is_refused_or_stays_inside(
    hub: Registry, images: Server, tmp_path: Path, name: str
) -> None:
    shell = tree({"bin": "", "bin/sh": BUSYBOX.read_bytes()})

    def image(title: str, config: dict[str, object]) -> str:
        layout(tmp_path / title, [shell], config)
        hub.fill(tmp_path / title, f"hostile/{title}:1")
        return f"{hub.address}/hostile/{title}:1"

    for title, config, says in [
        ("user", {"User": "../../x"}, "is no user"),
        ("envs", {"Env": ["PATH=/bin", "A=" + "x" * (1 << 20)]}, "cannot use the configuration"),
    ]:
        with pytest.raises(MicrosandboxError, match=says):
            await PythonSandbox(name=name, server_url=images.url).start(image=image(title, config))
    preload = image("preload", {"Env": ["PATH=/bin", "LD_PRELOAD=/evil.so", "LD_AUDIT=/evil.so"]})
    before = descendants(images.process.pid)
    async with PythonSandbox.create(name=name, server_url=images.url, image=preload) as sandbox:
        assert await sh(sandbox, "echo $LD_PRELOAD $LD_AUDIT") == "/evil.so /evil.so"
        started = descendants(images.process.pid) - before
        assert started
        for pid in [images.process.pid, *started]:
            assert b"evil" not in Path(f"/proc/{pid}/environ").read_bytes(), command_line(pid)
