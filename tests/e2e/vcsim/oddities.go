package main

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// collector answers second pages as a vCenter does. vcsim leaves properties without a value out of the first page only.
type collector struct {
	simulator.PropertyCollector
}

func (c *collector) ContinueRetrievePropertiesEx(ctx *simulator.Context, r *types.ContinueRetrievePropertiesEx) soap.HasFault {
	answer := c.PropertyCollector.ContinueRetrievePropertiesEx(ctx, r)
	if body, ok := answer.(*methods.ContinueRetrievePropertiesExBody); ok && body.Res != nil {
		for i := range body.Res.Returnval.Objects {
			object := &body.Res.Returnval.Objects[i]
			var set []types.DynamicProperty
			for _, one := range object.PropSet {
				if one.Val != nil {
					set = append(set, one)
				}
			}
			object.PropSet = set
		}
	}
	return answer
}

func withoutOddities(model *simulator.Model) {
	ours := new(collector)
	ours.Self = model.ServiceContent.PropertyCollector
	model.Map().Put(ours)
}
