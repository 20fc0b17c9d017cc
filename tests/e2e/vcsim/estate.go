package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/event"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/session"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/view"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// equip gives each machine what the contract expects of its own: tools that run, and for the first a second disk.
func (e *estate) equip() error {
	var machines []mo.VirtualMachine
	if err := e.retrieve("VirtualMachine", &machines, "name"); err != nil {
		return err
	}
	ctx := e.model.Service.Context
	for _, one := range machines {
		vm := ctx.Map.Get(one.Self).(*simulator.VirtualMachine)
		ctx.Update(vm, []types.PropertyChange{{Name: "guest.toolsRunningStatus", Val: "guestToolsRunning"}})
	}
	first := object.NewVirtualMachine(e.client.Client, machines[0].Self)
	devices, err := first.Device(e.ctx)
	if err != nil {
		return err
	}
	controller, err := devices.FindDiskController("")
	if err != nil {
		return err
	}
	old := devices.SelectByType((*types.VirtualDisk)(nil))[0].(*types.VirtualDisk)
	store := old.Backing.(*types.VirtualDiskFlatVer2BackingInfo).Datastore
	disk := devices.CreateDisk(controller, *store, "")
	disk.CapacityInKB = 8 << 10
	return first.AddDevice(e.ctx, disk)
}

// estate answers the test: GET /world, POST /do?what=...&vm=...
type estate struct {
	ctx    context.Context
	client *govmomi.Client
	model  *simulator.Model
}

func (e *estate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var answer any
	var err error
	if r.URL.Path == "/world" {
		answer, err = e.world()
	} else {
		answer, err = e.do(r.URL.Query().Get("what"), r.URL.Query().Get("vm"), r.URL.Query().Get("to"))
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_ = json.NewEncoder(w).Encode(answer)
}

func (e *estate) retrieve(kind string, into any, paths ...string) error {
	v, err := view.NewManager(e.client.Client).CreateContainerView(e.ctx, e.client.ServiceContent.RootFolder, []string{kind}, true)
	if err != nil {
		return err
	}
	defer func() { _ = v.Destroy(e.ctx) }()
	return v.Retrieve(e.ctx, []string{kind}, paths, into)
}

func (e *estate) world() (map[string]any, error) {
	var machines []mo.VirtualMachine
	if err := e.retrieve("VirtualMachine", &machines, "name", "config", "runtime", "guest", "snapshot", "summary"); err != nil {
		return nil, err
	}
	var stores []mo.Datastore
	if err := e.retrieve("Datastore", &stores, "name", "summary"); err != nil {
		return nil, err
	}
	var nets []mo.Network
	if err := e.retrieve("Network", &nets, "name"); err != nil {
		return nil, err
	}
	var servers []mo.HostSystem
	if err := e.retrieve("HostSystem", &servers, "name"); err != nil {
		return nil, err
	}
	networks, hosts := map[string]string{}, map[string]string{}
	for _, net := range nets {
		networks[net.Self.Value] = net.Name
	}
	for _, host := range servers {
		hosts[host.Self.Value] = host.Name
	}
	kinds := map[string]string{}
	for _, store := range stores {
		kinds[store.Name] = store.Summary.Type
	}
	var groups []mo.DistributedVirtualPortgroup
	if err := e.retrieve("DistributedVirtualPortgroup", &groups, "name", "key"); err != nil {
		return nil, err
	}
	keys := map[string]string{}
	for _, group := range groups {
		keys[group.Key] = group.Name
	}
	list := []map[string]any{}
	for i := range machines {
		list = append(list, describe(&machines[i], keys))
	}
	events, err := e.events(machines)
	if err != nil {
		return nil, err
	}
	return map[string]any{"vms": list, "datastores": kinds, "networks": networks, "hosts": hosts, "events": events, "about": e.client.ServiceContent.About}, nil
}

func describe(vm *mo.VirtualMachine, groups map[string]string) map[string]any {
	disks, nics := []map[string]any{}, []map[string]any{}
	for _, device := range vm.Config.Hardware.Device {
		if disk, ok := device.(*types.VirtualDisk); ok {
			if backing, ok := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo); ok {
				disks = append(disks, map[string]any{
					"uuid": backing.Uuid, "bytes": disk.CapacityInBytes, "mode": backing.DiskMode, "file": backing.FileName,
				})
			}
		}
		if card, ok := device.(types.BaseVirtualEthernetCard); ok {
			nic := card.GetVirtualEthernetCard()
			name := ""
			switch backing := nic.Backing.(type) {
			case *types.VirtualEthernetCardNetworkBackingInfo:
				name = backing.DeviceName
			case *types.VirtualEthernetCardDistributedVirtualPortBackingInfo:
				name = groups[backing.Port.PortgroupKey]
			}
			nics = append(nics, map[string]any{"mac": nic.MacAddress, "network": name})
		}
	}
	secure := vm.Config.BootOptions != nil && vm.Config.BootOptions.EfiSecureBootEnabled != nil && *vm.Config.BootOptions.EfiSecureBootEnabled
	snapshots := []string{}
	if vm.Snapshot != nil {
		for _, root := range vm.Snapshot.RootSnapshotList {
			snapshots = append(snapshots, root.Name)
		}
	}
	return map[string]any{
		"id": vm.Self.Value, "name": vm.Name, "uuid": vm.Config.Uuid, "instanceUuid": vm.Config.InstanceUuid,
		"power": vm.Runtime.PowerState, "tools": vm.Guest != nil && vm.Guest.ToolsRunningStatus == "guestToolsRunning",
		"firmware": vm.Config.Firmware, "secureBoot": secure, "cpus": vm.Config.Hardware.NumCPU, "cores": vm.Config.Hardware.NumCoresPerSocket,
		"memoryMiB": vm.Config.Hardware.MemoryMB, "guestId": vm.Config.GuestId, "guestName": vm.Config.GuestFullName,
		"template": vm.Config.Template, "connection": vm.Runtime.ConnectionState, "disks": disks, "nics": nics, "snapshots": snapshots,
	}
}

// events asks for one machine at a time: vcsim answers with its latest page only.
func (e *estate) events(machines []mo.VirtualMachine) ([]map[string]any, error) {
	list := []map[string]any{}
	for _, vm := range machines {
		found, err := event.NewManager(e.client.Client).QueryEvents(e.ctx, types.EventFilterSpec{
			Entity:      &types.EventFilterSpecByEntity{Entity: vm.Self, Recursion: types.EventFilterSpecRecursionOptionSelf},
			EventTypeId: []string{"VmPoweredOnEvent", "VmPoweredOffEvent", "VmGuestShutdownEvent"},
		})
		if err != nil {
			return nil, err
		}
		for _, one := range found {
			kind := strings.TrimPrefix(fmt.Sprintf("%T", one), "*types.")
			list = append(list, map[string]any{"vm": vm.Self.Value, "kind": kind, "key": one.GetEvent().Key})
		}
	}
	return list, nil
}

func (e *estate) do(what, id, to string) (any, error) {
	vm := object.NewVirtualMachine(e.client.Client, types.ManagedObjectReference{Type: "VirtualMachine", Value: id})
	var task *object.Task
	var err error
	switch what {
	case "power_on":
		task, err = vm.PowerOn(e.ctx)
	case "power_off":
		task, err = vm.PowerOff(e.ctx)
	case "reset":
		task, err = vm.Reset(e.ctx)
	case "snapshot":
		task, err = vm.CreateSnapshot(e.ctx, to, "", false, false)
	case "rename":
		task, err = vm.Rename(e.ctx, to)
	case "delete":
		task, err = vm.Destroy(e.ctx)
	case "clone":
		return e.clone(vm, to)
	case "tools":
		machine := e.model.Map().Get(vm.Reference()).(*simulator.VirtualMachine)
		e.model.Service.Context.Update(machine, []types.PropertyChange{{Name: "guest.toolsRunningStatus", Val: to}})
		return nil, nil
	case "expire":
		return nil, e.expire()
	default:
		return nil, fmt.Errorf("cannot do %q", what)
	}
	if err != nil {
		return nil, err
	}
	return nil, task.Wait(e.ctx)
}

func (e *estate) clone(vm *object.VirtualMachine, name string) (any, error) {
	var host mo.VirtualMachine
	if err := property.DefaultCollector(e.client.Client).RetrieveOne(e.ctx, vm.Reference(), []string{"parent", "resourcePool", "runtime"}, &host); err != nil {
		return nil, err
	}
	folder := object.NewFolder(e.client.Client, *host.Parent)
	task, err := vm.Clone(e.ctx, folder, name, types.VirtualMachineCloneSpec{Location: types.VirtualMachineRelocateSpec{Pool: host.ResourcePool, Host: host.Runtime.Host}})
	if err != nil {
		return nil, err
	}
	info, err := task.WaitForResult(e.ctx)
	if err != nil {
		return nil, err
	}
	return info.Result.(types.ManagedObjectReference).Value, nil
}

// grow clones one machine until there are that many.
func (e *estate) grow(count int) error {
	var machines []mo.VirtualMachine
	if err := e.retrieve("VirtualMachine", &machines, "name"); err != nil {
		return err
	}
	last := object.NewVirtualMachine(e.client.Client, machines[len(machines)-1].Self)
	numbers, failed := make(chan int), make(chan error, count)
	var group sync.WaitGroup
	for range 32 {
		group.Go(func() {
			for number := range numbers {
				if _, err := e.clone(last, fmt.Sprintf("clone-%05d", number)); err != nil {
					failed <- err
				}
			}
		})
	}
	for number := len(machines); number < count; number++ {
		numbers <- number
	}
	close(numbers)
	group.Wait()
	close(failed)
	return <-failed
}

// expire ends every session but this one, as an administrator may.
func (e *estate) expire() error {
	manager := session.NewManager(e.client.Client)
	own, err := manager.UserSession(e.ctx)
	if err != nil {
		return err
	}
	var all mo.SessionManager
	if err := property.DefaultCollector(e.client.Client).RetrieveOne(e.ctx, *e.client.ServiceContent.SessionManager, []string{"sessionList"}, &all); err != nil {
		return err
	}
	for _, one := range all.SessionList {
		if own == nil || one.Key != own.Key {
			if err := manager.TerminateSession(e.ctx, []string{one.Key}); err != nil {
				return err
			}
		}
	}
	return nil
}
