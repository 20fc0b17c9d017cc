"""The simulated vCenter against the real pyVmomi: sessions and inventory. Simulated time throughout."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyVmomi import SoapStubAdapter, vim, vmodl

from reconciler.lab.tls import LabCa
from tests.unit.lab.vcenterkit import PC, Site, all_vms, object_spec, ref, spec


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> LabCa:
    return LabCa(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def site(tmp_path: Path, ca: LabCa) -> Iterator[Site]:
    made = Site(tmp_path, ca)
    made.vcenter.start()
    yield made
    made.vcenter.stop()


# ---- sessions -------------------------------------------------------------------------------------------------------------------------


def test_a_client_logs_in_and_learns_who_it_talks_to(site: Site) -> None:
    with site.client() as si:
        assert si._stub.version == "vim.version.v8_0_2_0"
        about = si.content.about
        assert (about.apiType, about.apiVersion, about.instanceUuid) == ("VirtualCenter", "8.0.2.0", site.vcenter.instance_uuid)
        assert si.CurrentTime() == site.clock.now()
        assert si.content.sessionManager.currentSession.userName == site.vcenter.user
        assert site.vcenter.calls["SessionManager.Login"] == 1


def test_every_answer_carries_the_sites_own_time(site: Site) -> None:
    connection = http.client.HTTPSConnection("127.0.0.1", site.vcenter.port, context=site.context, timeout=5)
    site.pass_time(3600)
    connection.request("GET", "/sdk/vimServiceVersions.xml")
    response = connection.getresponse()
    assert b"<version>8.0.2.0</version>" in response.read()
    connection.close()
    assert response.headers["Date"] == "Sun, 01 Mar 2026 13:00:00 GMT"


def test_a_document_type_is_refused(site: Site) -> None:
    connection = http.client.HTTPSConnection("127.0.0.1", site.vcenter.port, context=site.context, timeout=5)
    connection.request("POST", "/sdk", b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', {"SOAPAction": "urn:vim25/8.0.2.0"})
    response = connection.getresponse()
    assert response.status == 500 and b"InvalidRequest" in response.read()
    connection.close()


def test_a_wrong_password_is_refused_and_a_stranger_may_read_nothing(site: Site) -> None:
    with site.stranger() as si:
        assert si.content.sessionManager.currentSession is None
        with pytest.raises(vim.fault.InvalidLogin):
            si.content.sessionManager.Login(site.vcenter.user, "wrong")
        with pytest.raises(vim.fault.NotAuthenticated):
            all_vms(si)
        with pytest.raises(vim.fault.NotAuthenticated):
            si.content.rootFolder.name  # noqa: B018


def test_the_certificate_is_trusted_through_the_ca_only(site: Site) -> None:
    stub = SoapStubAdapter("127.0.0.1", site.vcenter.port, sslContext=ssl.create_default_context())
    with pytest.raises(ssl.SSLCertVerificationError):
        vim.ServiceInstance("ServiceInstance", stub).RetrieveContent()
    pinned = SoapStubAdapter("127.0.0.1", site.vcenter.port, thumbprint=site.vcenter.thumbprint_sha256)
    assert vim.ServiceInstance("ServiceInstance", pinned).RetrieveContent().about.apiType == "VirtualCenter"
    pinned.DropConnections()


def test_an_idle_session_expires_and_takes_its_views_with_it(site: Site) -> None:
    with site.client() as si:
        view = all_vms(si)
        site.pass_time(1799)
        assert len(view.view) == 5
        site.pass_time(1801)
        with pytest.raises(vim.fault.NotAuthenticated):
            view.view  # noqa: B018
        si.content.sessionManager.Login(site.vcenter.user, site.vcenter.password)
        with pytest.raises(vmodl.fault.ManagedObjectNotFound):
            view.view  # noqa: B018


def test_a_logout_ends_the_session(site: Site) -> None:
    with site.client() as si:
        si.content.sessionManager.Logout()
        with pytest.raises(vim.fault.NotAuthenticated):
            si.CurrentTime()


# ---- inventory ------------------------------------------------------------------------------------------------------------------------


def test_the_inventory_comes_in_pages_and_is_complete(site: Site) -> None:
    with site.client() as si:
        collector, view = si.content.propertyCollector, all_vms(si)
        pages, result = [], collector.RetrievePropertiesEx([spec(view)], PC.RetrieveOptions())
        while result is not None:
            pages.append([{p.name: p.val for p in o.propSet} for o in result.objects])
            result = collector.ContinueRetrievePropertiesEx(result.token) if result.token else None
        assert [len(p) for p in pages] == [2, 2, 1]
        found = [vm for page in pages for vm in page]
        assert [vm["name"] for vm in found] == ["vm-0", "vm-1", "vm-2", "vm-3", "vm-4%2fx"]
        assert [vm["config.uuid"] for vm in found] == [vm.uuid for vm in site.world.vms.values()]
        assert all("snapshot" not in vm and "config.annotation" not in vm for vm in found)  # unset is absent
        small = collector.RetrievePropertiesEx([spec(view, ["name"])], PC.RetrieveOptions(maxObjects=1))
        assert len(small.objects) == 1
        collector.CancelRetrievePropertiesEx(small.token)
        with pytest.raises(vmodl.fault.InvalidArgument):
            collector.ContinueRetrievePropertiesEx(small.token)


def test_disks_and_cards_are_typed_as_vsphere_types_them(site: Site) -> None:
    with site.client() as si:
        devices = ref(site, si, 1).config.hardware.device
        (disk,) = [d for d in devices if isinstance(d, vim.vm.device.VirtualDisk)]
        (controller,) = [d for d in devices if d.key == disk.controllerKey]
        (card,) = [d for d in devices if isinstance(d, vim.vm.device.VirtualEthernetCard)]
        assert isinstance(controller, vim.vm.device.VirtualAHCIController)
        assert isinstance(disk.backing, vim.vm.device.VirtualDisk.FlatVer2BackingInfo)
        assert (disk.backing.fileName, disk.backing.uuid) == ("[ds-fast] vm-1/vm-1.vmdk", site.vm(1).disks[0].uuid)
        assert disk.backing.parent is None and disk.backing.keyId is None
        assert card.macAddress.startswith("00:50:56:")
        assert isinstance(card, vim.vm.device.VirtualVmxnet3)
        (network,) = ref(site, si, 1).network
        assert card.backing.port.portgroupKey == network._moId == vim.dvs.DistributedVirtualPortgroup(network._moId, si._stub).key


def test_chains_encryption_and_raw_disks_show_in_the_backing(site: Site) -> None:
    disk = site.vm(0).disks[0]
    disk.parents, disk.key_id = ("[ds-fast] vm-0/vm-0-000001.vmdk", "[ds-fast] vm-0/vm-0.vmdk"), "key-1"
    site.vm(1).disks[0].kind = "RawDiskMappingVer1"
    with site.client() as si:
        backing = next(d for d in ref(site, si, 0).config.hardware.device if isinstance(d, vim.vm.device.VirtualDisk)).backing
        assert backing.keyId.keyId == "key-1"
        assert [backing.parent.fileName, backing.parent.parent.fileName, backing.parent.parent.parent] == [*disk.parents, None]
        raw = next(d for d in ref(site, si, 1).config.hardware.device if isinstance(d, vim.vm.device.VirtualDisk)).backing
        assert isinstance(raw, vim.vm.device.VirtualDisk.RawDiskMappingVer1BackingInfo)


def test_the_tree_can_be_walked_by_traversal_specs(site: Site) -> None:
    with site.client() as si:
        again = PC.SelectionSpec(name="folder")
        folders = PC.TraversalSpec(name="folder", type=vim.Folder, path="childEntity", selectSet=[again, PC.SelectionSpec(name="dc")])
        dc = PC.TraversalSpec(name="dc", type=vim.Datacenter, path="vmFolder", selectSet=[again])
        start = PC.ObjectSpec(obj=si.content.rootFolder, skip=False, selectSet=[folders, dc])
        kinds = [PC.PropertySpec(type=kind, pathSet=["name", "parent"]) for kind in (vim.Folder, vim.Datacenter, vim.VirtualMachine)]
        found = si.content.propertyCollector.RetrieveProperties([PC.FilterSpec(objectSet=[start], propSet=kinds)])
        names = [p.val for o in found for p in o.propSet if p.name == "name"]
        assert sorted(names) == sorted(["Datacenters", "DC1", "vm", "Shop", *(f"vm-{n}" for n in range(4)), "vm-4%2fx"])
        shop = si.content.searchIndex.FindByInventoryPath("DC1/vm/Shop")
        assert [p.name for p in (shop, shop.parent, shop.parent.parent)] == ["Shop", "vm", "DC1"]
        found_vm = si.content.searchIndex.FindByUuid(None, site.vm(2).instance_uuid, True, True)
        assert found_vm._moId == f"vm-{site.vm(2).key}"
        assert si.content.searchIndex.FindByInventoryPath("DC1/vm/nothing") is None


def test_what_may_not_be_read_is_missing_and_what_does_not_exist_is_an_error(site: Site) -> None:
    site.vcenter.reader.denied.add("config")
    with site.client() as si:
        (found,) = si.content.propertyCollector.RetrieveProperties([object_spec(ref(site, si, 0), ["name", "config.uuid"])])
        assert [p.name for p in found.propSet] == ["name"]
        assert [(m.path, type(m.fault)) for m in found.missingSet] == [("config.uuid", vim.fault.NoPermission)]
        with pytest.raises(vmodl.query.InvalidProperty):
            si.content.propertyCollector.RetrieveProperties([object_spec(ref(site, si, 0), ["runtime.colour"])])
        with pytest.raises(vmodl.fault.ManagedObjectNotFound):
            si.content.propertyCollector.RetrieveProperties([object_spec(vim.VirtualMachine("vm-999999"), ["name"])])
