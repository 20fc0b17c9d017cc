"""vcsim as the source contract's site: its process, and a world that is what govmomi's own client sees behind the SOAP API.

What it is: suite_source.Site's handles on a simulator that nobody here wrote. What it is not: a wider simulator; what vcsim cannot be
brought to do raises Lacking, and test_vcsim.py names those tests.
"""

from __future__ import annotations

import json
import re
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from reconciler.lab.machines import Happening
from reconciler.lab.machines import Power as LabPower
from tests.e2e import parts
from tests.e2e.proxy import Answer

POWER = {"poweredOn": LabPower.ON, "poweredOff": LabPower.OFF, "suspended": LabPower.SUSPENDED}
HAPPENINGS = {
    "VmPoweredOnEvent": Happening.ON,
    "VmPoweredOffEvent": Happening.OFF,
    "VmGuestShutdownEvent": Happening.GUEST_SHUTDOWN,
}
_CALL = re.compile(rb"Body[^>]*>\s*<(?:\w+:)?(\w+)[^>]*>\s*<(?:\w+:)?_this[^>]*\btype=\"(\w+)\"")
_EXPIRED = """<?xml version="1.0" encoding="UTF-8"?>
<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
<soapenv:Body><soapenv:Fault><faultcode>ServerFaultCode</faultcode><faultstring>The session is not authenticated.</faultstring>
<detail><NotAuthenticatedFault xmlns="urn:vim25" xsi:type="NotAuthenticated"><object type="ServiceInstance">ServiceInstance</object>
<privilegeId>System.View</privilegeId></NotAuthenticatedFault></detail></soapenv:Fault></soapenv:Body></soapenv:Envelope>"""


class Lacking(Exception):
    """vcsim has no such thing."""


class Soap:
    """proxy.Dialect of a vCenter: requests by managed object type and method, refusals as its front end gives them."""

    def label(self, method: str, path: str, body: bytes) -> str:
        found = _CALL.search(body)
        return f"{found[2].decode()}.{found[1].decode()}" if found else f"{method} {path}"

    def refusal(self, letter: str) -> Answer | None:
        xml = {"Content-Type": "text/xml; charset=utf-8"}
        return {"R": None, "B": Answer(503, b"busy"), "E": Answer(500, _EXPIRED.encode(), xml)}[letter]


class Vcsim:
    """The process. It ends when its standard input does, so it cannot outlive a killed test."""

    def __init__(self, program: Path, folder: Path, pki: Path, user: str, password: str, machines: int, *, esxi: bool = False) -> None:
        secret = folder / "password"
        secret.touch(mode=0o600)
        secret.write_text(password)
        flags = {"cert": pki / "vcsim.crt", "key": pki / "vcsim.key", "user": user, "password-file": secret, "vms": machines}
        switches = ["-esxi"] if esxi else []
        command = [str(program), *switches, *(f"-{name}={value}" for name, value in flags.items())]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.stop()
            parts.missing("vcsim to start")
        told = json.loads(line)
        self.url, self._door = told["url"], told["door"]

    def stop(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.wait()

    def world(self) -> Mapping[str, Any]:
        return self._ask("/world")

    def do(self, what: str, vm: str = "", to: str = "") -> Any:
        return self._ask("/do?" + urllib.parse.urlencode({"what": what, "vm": vm, "to": to}))

    def _ask(self, where: str) -> Any:
        with urllib.request.urlopen(self._door + where, timeout=30) as reply:
            return json.load(reply)


class VcsimWorld:
    """The names that the contract uses of lab.world.World. Each look is a fresh one, into the same records."""

    def __init__(self, vcsim: Vcsim) -> None:
        self._vcsim = vcsim
        self._records: dict[str, Any] = {}

    def now(self) -> datetime:
        return datetime.now(UTC)

    @property
    def vms(self) -> dict[str, Any]:
        seen = self._vcsim.world()
        for vm in seen["vms"]:
            record = self._records.setdefault(vm["id"], SimpleNamespace(tools=True))
            vars(record).update(vars(_machine(vm, seen["datastores"])))
        return {vm["id"]: self._records[vm["id"]] for vm in seen["vms"]}

    def vm(self, name: str) -> Any:
        return next(vm for vm in self.vms.values() if vm.name == name)

    @property
    def networks(self) -> dict[str, Any]:
        return {id_: SimpleNamespace(name=name) for id_, name in self._vcsim.world()["networks"].items()}

    @property
    def hosts(self) -> dict[str, Any]:
        return {id_: SimpleNamespace(name=name) for id_, name in self._vcsim.world()["hosts"].items()}

    @property
    def datastores(self) -> dict[str, Any]:
        return {name: SimpleNamespace(name=name) for name in self._vcsim.world()["datastores"]}

    @property
    def history(self) -> list[Any]:
        events = self._vcsim.world()["events"]
        return [SimpleNamespace(vm=e["vm"], kind=HAPPENINGS[e["kind"]]) for e in events if e["kind"] in HAPPENINGS]

    def power_on(self, machine: Any, actor: str = "", cause: str = "user") -> None:
        if cause != "user":
            raise Lacking("DRS and HA power nothing on in vcsim")
        self._vcsim.do("power_on", machine.key)

    def power_off(self, machine: Any, actor: str = "") -> None:
        self._vcsim.do("power_off", machine.key)

    def reset(self, machine: Any) -> None:
        self._vcsim.do("reset", machine.key)

    def add_vm(self, name: str, host: Any) -> Any:
        """A clone of the first machine, with its disks."""
        made = self._vcsim.do("clone", next(iter(self.vms)), name)
        return self.vms[made]

    def add_disk(self, machine: Any, store: Any, capacity_mib: int) -> None:
        """The clone has some."""

    def changed(self, machine: Any) -> None:
        """A new name, or tools that no longer run."""
        self._vcsim.do("tools", machine.key, "guestToolsRunning" if machine.tools else "guestToolsNotRunning")
        live = next(vm for vm in self._vcsim.world()["vms"] if vm["id"] == machine.key)
        if machine.name != live["name"]:
            self._vcsim.do("rename", machine.key, machine.name)

    def delete(self, machine: Any) -> None:
        if self.vms[machine.key].power is LabPower.ON:
            self.power_off(machine)
        self._vcsim.do("delete", machine.key)


def _machine(vm: Mapping[str, Any], stores: Mapping[str, str]) -> Any:
    return SimpleNamespace(
        key=vm["id"],
        name=vm["name"],
        instance_uuid=vm["instanceUuid"],
        uuid=vm["uuid"],
        power=POWER[vm["power"]],
        tools_running=vm["tools"],
        firmware=vm["firmware"],
        secure_boot=vm["secureBoot"],
        tpm=False,
        cpus=vm["cpus"],
        cores_per_socket=vm["cores"],
        memory_mib=vm["memoryMiB"],
        guest_id=vm["guestId"],
        guest_name=vm["guestName"],
        template=vm["template"],
        connected=vm["connection"] == "connected",
        host=None,
        snapshots=[SimpleNamespace(name=name) for name in vm["snapshots"]],
        nics=[SimpleNamespace(mac=nic["mac"], network=SimpleNamespace(name=nic["network"])) for nic in vm["nics"]],
        disks=[_disk(disk, stores) for disk in vm["disks"]],
    )


def _disk(disk: Mapping[str, Any], stores: Mapping[str, str]) -> Any:
    store = disk["file"].partition("]")[0].removeprefix("[")
    return SimpleNamespace(
        uuid=disk["uuid"],
        capacity_bytes=disk["bytes"],
        mode=disk["mode"],
        datastore=SimpleNamespace(name=store, kind=stores[store]),
        kind="FlatVer2",
        backing=disk["file"],
        parents=(),
        key_id=None,
    )
