package imds

// An element is one place of the instance tree: where, since which api-version,
// and what is there. Values are strings; what does not apply is "" and present
// (managed-identity-endpoints §1.9).
type element struct {
	path, since string
	of          func(vm) any
}

// value is what the VM's own properties tell, else what is so of every VM.
func (e element) value(m vm) any {
	if told, ok := m.Told[e.path]; ok {
		return told
	}
	return e.of(m)
}

func text(s string) func(vm) any { return func(vm) any { return s } }

var (
	empty = text("")
	list  = func(vm) any { return []any{} }
)

var elements = []element{
	{"compute.additionalCapabilities.hibernationEnabled", "2021-11-01", empty},
	{"compute.azEnvironment", "2018-10-01", empty}, // cloud-aware tools would go to the cloud it names
	{"compute.customData", "2019-02-01", empty},
	{"compute.evictionPolicy", "2020-12-01", empty},
	{"compute.extendedLocation.name", "2021-03-01", empty},
	{"compute.extendedLocation.type", "2021-03-01", empty},
	{"compute.host.id", "2021-11-15", empty},
	{"compute.hostGroup.id", "2021-11-15", empty},
	{"compute.isHostCompatibilityLayerVm", "2020-06-01", text("false")},
	{"compute.licenseType", "2020-09-01", empty},
	{"compute.location", "2017-04-02", func(m vm) any { return m.Location }},
	{"compute.name", "2017-04-02", func(m vm) any { return m.Resource.Name() }},
	{"compute.offer", "2017-04-02", empty},
	{"compute.osProfile.adminUsername", "2020-07-15", empty},
	{"compute.osProfile.computerName", "2020-07-15", func(m vm) any { return m.Resource.Name() }},
	{"compute.osProfile.disablePasswordAuthentication", "2020-10-01", empty},
	{"compute.osType", "2017-04-02", text("Linux")},
	{"compute.physicalZone", "2023-11-15", empty},
	{"compute.placementGroupId", "2017-08-01", empty},
	{"compute.plan.name", "2018-04-02", empty},
	{"compute.plan.product", "2018-04-02", empty},
	{"compute.plan.publisher", "2018-04-02", empty},
	{"compute.platformFaultDomain", "2017-04-02", empty},
	{"compute.platformSubFaultDomain", "2021-10-01", empty},
	{"compute.platformUpdateDomain", "2017-04-02", empty},
	{"compute.priority", "2020-12-01", empty},
	{"compute.provider", "2018-10-01", text("Microsoft.Compute")},
	{"compute.publicKeys", "2018-04-02", list},
	{"compute.publisher", "2017-04-02", empty},
	{"compute.resourceGroupName", "2017-08-01", func(m vm) any { return m.Resource.Group() }},
	{"compute.resourceId", "2019-03-11", func(m vm) any { return string(m.Resource) }},
	{"compute.securityProfile.encryptionAtHost", "2021-11-01", empty},
	{"compute.securityProfile.secureBootEnabled", "2020-06-01", empty},
	{"compute.securityProfile.securityType", "2021-12-13", empty},
	{"compute.securityProfile.virtualTpmEnabled", "2020-06-01", empty},
	{"compute.sku", "2017-04-02", empty},
	{"compute.storageProfile.dataDisks", "2019-06-01", list},
	{"compute.storageProfile.imageReference.communityGalleryImageId", "2023-07-01", empty},
	{"compute.storageProfile.imageReference.exactVersion", "2023-07-01", empty},
	{"compute.storageProfile.imageReference.id", "2019-06-01", empty},
	{"compute.storageProfile.imageReference.offer", "2019-06-01", empty},
	{"compute.storageProfile.imageReference.publisher", "2019-06-01", empty},
	{"compute.storageProfile.imageReference.sharedGalleryImageId", "2023-07-01", empty},
	{"compute.storageProfile.imageReference.sku", "2019-06-01", empty},
	{"compute.storageProfile.imageReference.version", "2019-06-01", empty},
	{"compute.storageProfile.osDisk.caching", "2019-06-01", empty},
	{"compute.storageProfile.osDisk.createOption", "2019-06-01", empty},
	{"compute.storageProfile.osDisk.diffDiskSettings.option", "2019-06-01", empty},
	{"compute.storageProfile.osDisk.diskSizeGB", "2019-06-01", empty},
	{"compute.storageProfile.osDisk.encryptionSettings.diskEncryptionKey.secretUrl", "2019-06-01", empty},
	{"compute.storageProfile.osDisk.encryptionSettings.diskEncryptionKey.sourceVault.id", "2019-06-01", empty},
	{"compute.storageProfile.osDisk.encryptionSettings.enabled", "2019-06-01", empty},
	{"compute.storageProfile.osDisk.encryptionSettings.keyEncryptionKey.keyUrl", "2019-06-01", empty},
	{"compute.storageProfile.osDisk.encryptionSettings.keyEncryptionKey.sourceVault.id", "2019-06-01", empty},
	{"compute.storageProfile.osDisk.image.uri", "2019-06-01", empty},
	{"compute.storageProfile.osDisk.managedDisk.id", "2019-06-01", empty},
	{"compute.storageProfile.osDisk.managedDisk.storageAccountType", "2019-06-01", empty},
	{"compute.storageProfile.osDisk.name", "2019-06-01", empty},
	{"compute.storageProfile.osDisk.osType", "2019-06-01", empty},
	{"compute.storageProfile.osDisk.vhd.uri", "2019-06-01", empty},
	{"compute.storageProfile.osDisk.writeAcceleratorEnabled", "2019-06-01", empty},
	{"compute.storageProfile.resourceDisk.size", "2021-02-01", empty},
	{"compute.subscriptionId", "2017-08-01", func(m vm) any { return m.Resource.Subscription() }},
	{"compute.tags", "2017-08-01", tagsText},
	{"compute.tagsList", "2019-06-04", tagsList},
	{"compute.userData", "2021-01-01", empty},
	{"compute.version", "2017-04-02", empty},
	{"compute.virtualMachineScaleSet.id", "2021-03-01", empty},
	{"compute.vmId", "2017-04-02", func(m vm) any { return m.VMID }},
	{"compute.vmScaleSetName", "2017-12-01", empty},
	{"compute.vmSize", "2017-04-02", empty},
	{"compute.zone", "2017-12-01", empty},
	{"network.interface", "2017-04-02", interfaces},
}
