"""Datastore access of the simulated vCenter over HTTP, as a plain HTTP client sees it: ranges, locks, credentials, faults."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reconciler.lab import sparse
from reconciler.lab.clock import WallClock
from reconciler.lab.machines import Power
from reconciler.lab.tls import LabCa
from reconciler.lab.vcenter.estate import build_shop_estate
from reconciler.lab.vcenter.server import VCenter
from reconciler.lab.world import World

BATCH = "/folder/batch-01/batch-01-flat.vmdk?dcPath=DC1&dsName=ds-bulk"
WEB = "/folder/web-01/web-01-flat.vmdk?dcPath=DC1&dsName=ds-fast"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = World(tmp_path_factory.mktemp("world"), WallClock())
    build_shop_estate(made)
    return made


@pytest.fixture(scope="module")
def vcenter(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VCenter]:
    ca = LabCa(tmp_path_factory.mktemp("ca"))
    made = VCenter(world, ca, world.clock)
    made.start()
    yield made
    made.stop()


def connect(vcenter: VCenter) -> http.client.HTTPSConnection:
    context = ssl.create_default_context(cafile=str(vcenter.ca_path))
    return http.client.HTTPSConnection("127.0.0.1", vcenter.port, context=context, timeout=5)


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()}


def ask(
    vcenter: VCenter, target: str, headers: dict[str, str] | None = None, method: str = "GET"
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = connect(vcenter)
    try:
        connection.request(method, target, headers={**basic(vcenter.user, vcenter.password), **(headers or {})})
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def test_ranges_are_the_bytes_of_the_file(vcenter: VCenter, world: World) -> None:
    data = world.vm("batch-01").disks[0].path.read_bytes()
    size = len(data)
    for header, start, end in [
        ("bytes=0-511", 0, 512),
        (f"bytes={sparse.MIB - 1}-{3 * sparse.MIB + 7}", sparse.MIB - 1, 3 * sparse.MIB + 8),
        (f"bytes={size - 5}-", size - 5, size),
        ("bytes=-512", size - 512, size),
        (f"bytes={size - 10}-{size + 1000}", size - 10, size),
    ]:
        response, body = ask(vcenter, BATCH, {"Range": header})
        assert response.status == 206
        assert response.headers["Content-Range"] == f"bytes {start}-{end - 1}/{size}"
        assert body == data[start:end]
    response, body = ask(vcenter, BATCH)
    assert (response.status, body == data) == (200, True)
    response, body = ask(vcenter, BATCH, {"Range": f"bytes={size}-{size + 1}"})
    assert (response.status, response.headers["Content-Range"], body) == (416, f"bytes */{size}", b"")
    response, body = ask(vcenter, BATCH, method="HEAD")
    assert (response.status, response.headers["Content-Length"], body) == (200, str(size), b"")


def test_connections_stay_open_and_many_read_at_once(vcenter: VCenter, world: World) -> None:
    data = world.vm("batch-01").disks[0].path.read_bytes()
    step = 4 * sparse.MIB

    def read(worker: int) -> dict[int, bytes]:
        connection, got = connect(vcenter), {}
        connection.connect()
        door = connection.sock
        for offset in range(worker * step, len(data), 4 * step):
            headers = {**basic(vcenter.user, vcenter.password), "Range": f"bytes={offset}-{offset + step - 1}"}
            connection.request("GET", BATCH, headers=headers)
            got[offset] = connection.getresponse().read()
        assert connection.sock is door
        connection.close()
        return got

    with ThreadPoolExecutor(4) as pool:
        parts = {k: v for each in pool.map(read, range(4)) for k, v in each.items()}
    assert b"".join(parts[k] for k in sorted(parts)) == data


def test_a_running_machines_disk_is_locked_until_it_is_off(vcenter: VCenter, world: World) -> None:
    web = world.vm("web-01")
    response, body = ask(vcenter, WEB, {"Range": "bytes=0-511"})
    assert response.status == 500 and b"Failed to lock the file" in body
    world.power_off(web)
    try:
        response, body = ask(vcenter, WEB, {"Range": "bytes=0-511"})
        assert (response.status, body) == (206, web.disks[0].path.read_bytes()[:512])
    finally:
        world.power_on(web)
    assert ask(vcenter, WEB)[0].status == 500


def test_the_descriptor_is_a_text_file_and_never_locked(vcenter: VCenter, world: World) -> None:
    response, body = ask(vcenter, WEB.replace("-flat", ""))
    assert response.status == 200
    assert f'RW {96 * 2048} VMFS "web-01-flat.vmdk"' in body.decode()


@pytest.mark.parametrize(
    "target",
    [
        BATCH.replace("batch-01-flat", "nothing-flat"),
        BATCH.replace("ds-bulk", "ds-fast"),
        BATCH.replace("DC1", "DC2"),
        "/folder/../../etc/passwd?dcPath=DC1&dsName=ds-bulk",
        "/folder/batch-01/batch-01-flat.vmdk",
    ],
)
def test_what_is_not_there_is_not_found(vcenter: VCenter, target: str) -> None:
    assert ask(vcenter, target)[0].status == 404


def test_names_are_url_encoded(vcenter: VCenter, world: World) -> None:
    legacy = world.vm("Legacy App_01")
    world.power_off(legacy)
    try:
        response, body = ask(vcenter, "/folder/Legacy%20App_01/Legacy%20App_01-flat.vmdk?dcPath=DC1&dsName=ds-fast", {"Range": "bytes=0-9"})
        assert (response.status, body) == (206, legacy.disks[0].path.read_bytes()[:10])
    finally:
        world.power_on(legacy)


def test_only_who_may_log_in_may_read(vcenter: VCenter, world: World) -> None:
    for headers in ({"Authorization": ""}, basic(vcenter.user, "wrong"), {"Authorization": "Basic !!!"}):
        response, _ = ask(vcenter, BATCH, headers)
        assert response.status == 401 and response.headers["WWW-Authenticate"].startswith("Basic")
    with world.lock:
        session = vcenter.sessions.login(vcenter.user)
    cookie = {"Authorization": "", "Cookie": f'vmware_soap_session="{session.key}"', "Range": "bytes=0-0"}
    assert ask(vcenter, BATCH, cookie)[0].status == 206
    vcenter.faults.script("E")
    assert ask(vcenter, BATCH, cookie)[0].status == 401
    assert ask(vcenter, BATCH, cookie)[0].status == 401


def test_faults_on_a_read(vcenter: VCenter, world: World) -> None:
    head = {"Range": "bytes=0-1048575"}
    only = lambda label: label == "GET /folder/batch-01/batch-01-flat.vmdk"  # noqa: E731
    vcenter.faults.script("T", only)
    with pytest.raises(http.client.IncompleteRead) as cut:
        ask(vcenter, BATCH, head)
    assert len(cut.value.partial) == 524288
    vcenter.faults.script("B", only)
    response, _ = ask(vcenter, BATCH, head)
    assert (response.status, response.headers["Retry-After"]) == (503, "1")
    vcenter.faults.script("L", only)
    with pytest.raises(http.client.RemoteDisconnected):
        ask(vcenter, BATCH, head)
    assert ask(vcenter, BATCH, head)[0].status == 206


def test_a_snapshot_leaves_old_bytes_in_the_base_and_no_raw_image_on_top(vcenter: VCenter, world: World) -> None:
    batch, web = world.vm("batch-01"), world.vm("web-01")
    world.power_on(batch)
    snapshots = [(vm, world.create_snapshot(vm, "user's own")) for vm in (batch, web)]
    old = batch.disks[0].layers[0].path.read_bytes()
    world.tick()
    try:
        assert ask(vcenter, BATCH)[1] == old  # NFS: the base of a running machine can be opened
        assert ask(vcenter, WEB)[0].status == 500  # VMFS: it cannot
        redo = BATCH.replace("-flat", "-000001-sesparse")
        assert ask(vcenter, redo)[0].status == 500
        world.power_off(batch)
        assert ask(vcenter, redo)[1][:8] == (0xCAFEBABE).to_bytes(8, "little")
        assert b"SESPARSE" in ask(vcenter, BATCH.replace("-flat", "-000001"))[1]
        assert ask(vcenter, BATCH)[1] == old != batch.disks[0].path.read_bytes()
    finally:
        for vm, snapshot in snapshots:
            world.remove_snapshot(vm, snapshot.key)
    assert ask(vcenter, BATCH)[1] == batch.disks[0].path.read_bytes() != old
    assert ask(vcenter, redo)[0].status == 404


def test_names_with_slashes_are_asked_for_as_vsphere_escapes_them(tmp_path: Path) -> None:
    world = World(tmp_path, WallClock())
    dc = world.add_datacenter("DC/West")
    vm = world.add_vm("a", world.add_host("esxi", world.add_cluster("C", dc)))
    world.add_disk(vm, world.add_datastore("ds", dc), 1)
    vcenter = VCenter(world, LabCa(tmp_path / "ca"), world.clock)
    vcenter.start()
    try:
        assert ask(vcenter, "/folder/a/a-flat.vmdk?dcPath=DC%252fWest&dsName=ds")[0].status == 200
        assert ask(vcenter, "/folder/a/a-flat.vmdk?dcPath=DC/West&dsName=ds")[0].status == 404
    finally:
        vcenter.stop()


def test_the_estate_is_what_the_examples_expect(world: World) -> None:
    db = world.vm("db-01")
    assert (db.firmware, [d.capacity_bytes // sparse.MIB for d in db.disks]) == ("efi", [128, 64])
    assert [d.datastore.name for d in db.disks] == ["ds-fast", "ds-bulk"]
    assert {vm.name for vm in world.vms.values() if vm.power is Power.ON} >= {"web-01", "db-01", "Legacy App_01"}
    assert world.vm("batch-01").power is Power.OFF
    macs = [nic.mac for vm in world.vms.values() for nic in vm.nics]
    assert len(set(macs)) == len(macs)
    assert {d.bus for vm in world.vms.values() for d in vm.disks} == {"pvscsi", "sata", "nvme"}


def test_a_client_that_never_shakes_hands_does_not_hold_up_the_end(tmp_path: Path) -> None:
    world = World(tmp_path, WallClock())
    vcenter = VCenter(world, LabCa(tmp_path / "ca"), world.clock)
    vcenter.start()
    with socket.create_connection(("127.0.0.1", vcenter.port)):
        assert ask(vcenter, "/nothing")[0].status == 404  # others are served meanwhile
        before = time.monotonic()
        vcenter.stop()
        assert time.monotonic() - before < 5


def test_a_stopped_vcenter_comes_back_on_the_same_port(tmp_path: Path) -> None:
    world = World(tmp_path, WallClock())
    vcenter = VCenter(world, LabCa(tmp_path / "ca"), world.clock)
    before = threading.active_count()
    for _ in range(2):
        vcenter.start()
        port = vcenter.port
        vcenter.stop()
        assert vcenter.port == port
    assert threading.active_count() == before


def test_who_reads_a_redo_file_gets_its_own_bytes_and_no_disk(vcenter: VCenter, world: World) -> None:
    batch = world.vm("batch-01")
    snapshot = world.create_snapshot(batch, "s")
    try:
        target = BATCH.replace("-flat", f"-{batch.disks[0].deltas:06d}-sesparse")
        response, body = ask(vcenter, target, {"Range": "bytes=512-4607"})
        assert (response.status, len(body)) == (206, 4096) and body != batch.disks[0].path.read_bytes()[512:4608]
        assert ask(vcenter, target, {"Range": f"bytes={sparse.MIB}-"})[0].status == 416
    finally:
        world.remove_snapshot(batch, snapshot.key)


@pytest.mark.parametrize(
    ("kind", "readable", "off", "running"), [("VMFS", True, 206, 206), ("NFS", False, 206, 500), ("vsan", None, 404, 404)]
)
def test_each_datastore_has_its_own_rule_for_the_base(tmp_path: Path, kind: str, readable: bool | None, off: int, running: int) -> None:
    world = World(tmp_path, WallClock())
    dc = world.add_datacenter("DC1")
    vm = world.add_vm("a", world.add_host("esxi", world.add_cluster("C", dc)))
    world.add_disk(vm, world.add_datastore("ds", dc, kind, base_readable=readable), 1)
    vcenter = VCenter(world, LabCa(tmp_path / "ca"), world.clock)
    vcenter.start()
    target, part = "/folder/a/a-flat.vmdk?dcPath=DC1&dsName=ds", {"Range": "bytes=0-511"}
    try:
        assert ask(vcenter, target, part)[0].status == off
        world.power_on(vm)
        assert ask(vcenter, target, part)[0].status == (404 if kind == "vsan" else 500)
        snapshot = world.create_snapshot(vm, "s")
        assert ask(vcenter, target, part)[0].status == running
        world.remove_snapshot(vm, snapshot.key)  # the base is the running file again
        assert ask(vcenter, target, part)[0].status == (404 if kind == "vsan" else 500)
        body = ask(vcenter, target.replace("-flat", ""))[1].decode()
        assert ("vsan://" in body) == (kind == "vsan")
    finally:
        vcenter.stop()
