package hosts

import (
	"encoding/json"
	"strconv"
	"strings"

	"innate/resources"
)

// instanceElements says which of a VM's own properties its instance metadata shows, and
// where (managed-identity-endpoints §1.9). What says who the VM is, its name and
// ids, comes from none of them.
var instanceElements = map[string]string{
	"compute.additionalCapabilities.hibernationEnabled":     "additionalCapabilities.hibernationEnabled",
	"compute.evictionPolicy":                                "evictionPolicy",
	"compute.host.id":                                       "host.id",
	"compute.licenseType":                                   "licenseType",
	"compute.offer":                                         "storageProfile.imageReference.offer",
	"compute.osProfile.adminUsername":                       "osProfile.adminUsername",
	"compute.osProfile.computerName":                        "osProfile.computerName",
	"compute.osProfile.disablePasswordAuthentication":       "osProfile.linuxConfiguration.disablePasswordAuthentication",
	"compute.osType":                                        "storageProfile.osDisk.osType",
	"compute.priority":                                      "priority",
	"compute.publisher":                                     "storageProfile.imageReference.publisher",
	"compute.securityProfile.encryptionAtHost":              "securityProfile.encryptionAtHost",
	"compute.securityProfile.secureBootEnabled":             "securityProfile.uefiSettings.secureBootEnabled",
	"compute.securityProfile.securityType":                  "securityProfile.securityType",
	"compute.securityProfile.virtualTpmEnabled":             "securityProfile.uefiSettings.vTpmEnabled",
	"compute.sku":                                           "storageProfile.imageReference.sku",
	"compute.storageProfile.imageReference.exactVersion":    "storageProfile.imageReference.exactVersion",
	"compute.storageProfile.imageReference.id":              "storageProfile.imageReference.id",
	"compute.storageProfile.imageReference.offer":           "storageProfile.imageReference.offer",
	"compute.storageProfile.imageReference.publisher":       "storageProfile.imageReference.publisher",
	"compute.storageProfile.imageReference.sku":             "storageProfile.imageReference.sku",
	"compute.storageProfile.imageReference.version":         "storageProfile.imageReference.version",
	"compute.storageProfile.osDisk.caching":                 "storageProfile.osDisk.caching",
	"compute.storageProfile.osDisk.createOption":            "storageProfile.osDisk.createOption",
	"compute.storageProfile.osDisk.diskSizeGB":              "storageProfile.osDisk.diskSizeGB",
	"compute.storageProfile.osDisk.managedDisk.id":          "storageProfile.osDisk.managedDisk.id",
	"compute.storageProfile.osDisk.name":                    "storageProfile.osDisk.name",
	"compute.storageProfile.osDisk.osType":                  "storageProfile.osDisk.osType",
	"compute.storageProfile.osDisk.writeAcceleratorEnabled": "storageProfile.osDisk.writeAcceleratorEnabled",
	"compute.version":                                       "storageProfile.imageReference.version",
	"compute.virtualMachineScaleSet.id":                     "virtualMachineScaleSet.id",
	"compute.vmSize":                                        "hardwareProfile.vmSize",
}

// instanceEnvelope is instanceElements for members beside the properties.
var instanceEnvelope = map[string]string{
	"compute.plan.name":      "plan.name",
	"compute.plan.product":   "plan.product",
	"compute.plan.publisher": "plan.publisher",
	"compute.zone":           "zones.0",
}

// instance is what a VM's own properties tell in its instance metadata, by
// element; nil if they tell nothing.
func instance(vm *resources.Resource) map[string]string {
	told := map[string]string{}
	for _, from := range []struct {
		elements map[string]string
		members  map[string]json.RawMessage
	}{{instanceElements, vm.Properties}, {instanceEnvelope, vm.Extra}} {
		for element, path := range from.elements {
			if value := scalar(from.members, path); value != "" {
				told[element] = value
			}
		}
	}
	if len(told) == 0 {
		return nil
	}
	return told
}

// scalar is the string, number or boolean at a path, as text; empty where there is none.
func scalar(members map[string]json.RawMessage, path string) string {
	name, below, more := strings.Cut(path, ".")
	raw := members[name]
	if more {
		members, ok := object(raw)
		if !ok {
			return ""
		}
		return scalar(members, below)
	}
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	if s := string(raw); s == "true" || s == "false" {
		return s
	}
	var number json.Number
	if json.Unmarshal(raw, &number) == nil {
		return number.String()
	}
	return ""
}

// object is the members of an object, or of an array by index.
func object(raw json.RawMessage) (members map[string]json.RawMessage, ok bool) {
	if json.Unmarshal(raw, &members) == nil {
		return members, true
	}
	var array []json.RawMessage
	if json.Unmarshal(raw, &array) != nil {
		return nil, false
	}
	members = map[string]json.RawMessage{}
	for i, raw := range array {
		members[strconv.Itoa(i)] = raw
	}
	return members, true
}
