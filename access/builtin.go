package access

// Built-in roles under Azure's GUIDs.
const (
	Owner                      = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635"
	Contributor                = "b24988ac-6180-42a0-ab88-20f7382dd24c"
	Reader                     = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
	UserAccessAdministrator    = "18d7d88d-d35e-4fb5-a5c3-7773c20a72d9"
	RBACAdministrator          = "f58310d9-a9f6-439a-9e8d-f62e7b41a168"
	KeyVaultAdministrator      = "00482a5a-887f-4fb3-b363-3b7fe8e74483"
	KeyVaultSecretsOfficer     = "b86a8fe4-44ce-4948-aee5-eccb2c155cd7"
	KeyVaultSecretsUser        = "4633458b-17de-408a-b874-0445c86b69e6"
	KeyVaultReader             = "21090545-7ca7-4776-b22c-e363652d74d2"
	ManagedIdentityOperator    = "f1a07417-d97a-45cb-824c-7a7467783830"
	ManagedIdentityContributor = "e40ec5ca-96e0-45a2-b4ff-59039f2c2b59"
	VirtualMachineContributor  = "9980e02c-c2be-4d73-94e8-173b1dc7cf3c"
	WebsiteContributor         = "de139f84-1756-47ae-9be6-808fbbe84772"
)

// MachinePlacementOperator is ours: whoever has it at a machine may put VMs and
// plans on it.
const MachinePlacementOperator = "5d1c6f0e-3b7a-4e0c-9a52-6f2f4e7b8c10"

// TokenExchanger is ours: an API that has it at a resource may act as the managed
// identity that lives there, once that has called it; at the root, as whoever
// calls it (RFC 8693). Its action is a data action: no Owner has it by being one.
const TokenExchanger = "b3a0c1d8-6f52-4d0b-8a1e-94c7d25e1f63"

// PostgreSQLGateway is ours: the identity of the gateway beside a PostgreSQL
// server hears who may log in there, and nothing else.
const PostgreSQLGateway = "2f6b1c34-9d0e-4c67-8f8a-7a1b5e3d9c42"

// ExchangeToken is the action that it allows.
const ExchangeToken = "Innate.Tokens/exchange/action"

// vaultCommon are the control actions that each of Azure's Key Vault roles has.
var vaultCommon = []string{
	"Microsoft.Authorization/*/read",
	"Microsoft.Insights/alertRules/*",
	"Microsoft.Resources/deployments/*",
	"Microsoft.Resources/subscriptions/resourceGroups/read",
	"Microsoft.Support/*",
	"Microsoft.KeyVault/checkNameAvailability/read",
	"Microsoft.KeyVault/deletedVaults/read",
	"Microsoft.KeyVault/locations/*/read",
	"Microsoft.KeyVault/vaults/*/read",
	"Microsoft.KeyVault/operations/read",
}

// builtIn are the built-in roles with Azure's own lists, in the order in which
// they are proposed to whoever was refused: what reads before what writes, one
// service before all, resources before access to them.
var builtIn = []Role{{
	ID: Reader, Name: "Reader", BuiltIn: true,
	Description: "View all resources, but does not allow you to make any changes.",
	Actions:     []string{"*/read"},
}, {
	ID: KeyVaultReader, Name: "Key Vault Reader", BuiltIn: true,
	Description: "Read metadata of key vaults and its certificates, keys, and secrets. Cannot read sensitive values such as secret contents or key material.",
	Actions:     vaultCommon,
	DataActions: []string{"Microsoft.KeyVault/vaults/*/read", "Microsoft.KeyVault/vaults/secrets/readMetadata/action"},
}, {
	ID: KeyVaultSecretsUser, Name: "Key Vault Secrets User", BuiltIn: true,
	Description: "Read secret contents.",
	DataActions: []string{"Microsoft.KeyVault/vaults/secrets/getSecret/action", "Microsoft.KeyVault/vaults/secrets/readMetadata/action"},
}, {
	ID: MachinePlacementOperator, Name: "Machine Placement Operator", BuiltIn: true,
	Description: "Place virtual machines and app service plans on a machine.",
	Actions:     []string{"Microsoft.HybridCompute/machines/read", "Microsoft.HybridCompute/machines/place/action"},
}, {
	ID: PostgreSQLGateway, Name: "PostgreSQL Gateway", BuiltIn: true,
	Description: "Hear who may log in at a PostgreSQL server, as the gateway beside it does.",
	Actions:     []string{"Microsoft.DBforPostgreSQL/flexibleServers/gateway/action"},
}, {
	ID: TokenExchanger, Name: "Token Exchanger", BuiltIn: true,
	Description: "Exchange a token that an identity called with for one of the same identity to another service, and so act as it there.",
	DataActions: []string{ExchangeToken},
}, {
	ID: ManagedIdentityOperator, Name: "Managed Identity Operator", BuiltIn: true,
	Description: "Read and Assign User Assigned Identity",
	Actions: []string{
		"Microsoft.ManagedIdentity/userAssignedIdentities/*/read",
		"Microsoft.ManagedIdentity/userAssignedIdentities/*/assign/action",
		"Microsoft.Authorization/*/read",
		"Microsoft.Insights/alertRules/*",
		"Microsoft.Resources/subscriptions/resourceGroups/read",
		"Microsoft.Resources/deployments/*",
		"Microsoft.Support/*",
	},
}, {
	ID: ManagedIdentityContributor, Name: "Managed Identity Contributor", BuiltIn: true,
	Description: "Create, Read, Update, and Delete User Assigned Identity",
	Actions: []string{
		"Microsoft.ManagedIdentity/userAssignedIdentities/read",
		"Microsoft.ManagedIdentity/userAssignedIdentities/write",
		"Microsoft.ManagedIdentity/userAssignedIdentities/delete",
		"Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials/read",
		"Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials/write",
		"Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials/delete",
		"Microsoft.ManagedIdentity/userAssignedIdentities/revokeTokens/action",
		"Microsoft.Authorization/*/read",
		"Microsoft.Insights/alertRules/*",
		"Microsoft.Resources/subscriptions/resourceGroups/read",
		"Microsoft.Resources/deployments/*",
		"Microsoft.Support/*",
	},
}, {
	ID: KeyVaultSecretsOfficer, Name: "Key Vault Secrets Officer", BuiltIn: true,
	Description: "Perform any action on the secrets of a key vault, except manage permissions.",
	Actions:     vaultCommon,
	DataActions: []string{"Microsoft.KeyVault/vaults/secrets/*"},
}, {
	ID: KeyVaultAdministrator, Name: "Key Vault Administrator", BuiltIn: true,
	Description: "Perform all data plane operations on a key vault and all objects in it, including certificates, keys, and secrets. Cannot manage key vault resources or manage role assignments.",
	Actions:     vaultCommon,
	DataActions: []string{"Microsoft.KeyVault/vaults/*"},
}, {
	ID: WebsiteContributor, Name: "Website Contributor", BuiltIn: true,
	Description: "Lets you manage websites (not web plans), but not access to them.",
	Actions: []string{
		"Microsoft.Authorization/*/read",
		"Microsoft.Insights/alertRules/*",
		"Microsoft.Insights/components/*",
		"Microsoft.ResourceHealth/availabilityStatuses/read",
		"Microsoft.Resources/deployments/*",
		"Microsoft.Resources/subscriptions/resourceGroups/read",
		"Microsoft.Support/*",
		"Microsoft.Web/certificates/*",
		"Microsoft.Web/listSitesAssignedToHostName/read",
		"Microsoft.Web/serverFarms/join/action",
		"Microsoft.Web/serverFarms/read",
		"Microsoft.Web/sites/*",
	},
}, {
	ID: VirtualMachineContributor, Name: "Virtual Machine Contributor", BuiltIn: true,
	Description: "Lets you manage virtual machines, but not access to them, and not the virtual network or storage account they're connected to.",
	Actions: []string{
		"Microsoft.Authorization/*/read",
		"Microsoft.Compute/availabilitySets/*",
		"Microsoft.Compute/locations/*",
		"Microsoft.Compute/virtualMachines/*",
		"Microsoft.Compute/virtualMachineScaleSets/*",
		"Microsoft.Compute/cloudServices/*",
		"Microsoft.Compute/disks/write",
		"Microsoft.Compute/disks/read",
		"Microsoft.Compute/disks/delete",
		"Microsoft.DevTestLab/schedules/*",
		"Microsoft.Insights/alertRules/*",
		"Microsoft.Network/applicationGateways/backendAddressPools/join/action",
		"Microsoft.Network/loadBalancers/backendAddressPools/join/action",
		"Microsoft.Network/loadBalancers/inboundNatPools/join/action",
		"Microsoft.Network/loadBalancers/inboundNatRules/join/action",
		"Microsoft.Network/loadBalancers/probes/join/action",
		"Microsoft.Network/loadBalancers/read",
		"Microsoft.Network/locations/*",
		"Microsoft.Network/networkInterfaces/*",
		"Microsoft.Network/networkSecurityGroups/join/action",
		"Microsoft.Network/networkSecurityGroups/read",
		"Microsoft.Network/publicIPAddresses/join/action",
		"Microsoft.Network/publicIPAddresses/read",
		"Microsoft.Network/virtualNetworks/read",
		"Microsoft.Network/virtualNetworks/subnets/join/action",
		"Microsoft.RecoveryServices/locations/*",
		"Microsoft.RecoveryServices/Vaults/backupFabrics/backupProtectionIntent/write",
		"Microsoft.RecoveryServices/Vaults/backupFabrics/protectionContainers/protectedItems/*/read",
		"Microsoft.RecoveryServices/Vaults/backupFabrics/protectionContainers/protectedItems/read",
		"Microsoft.RecoveryServices/Vaults/backupFabrics/protectionContainers/protectedItems/write",
		"Microsoft.RecoveryServices/Vaults/backupPolicies/read",
		"Microsoft.RecoveryServices/Vaults/backupPolicies/write",
		"Microsoft.RecoveryServices/Vaults/read",
		"Microsoft.RecoveryServices/Vaults/usages/read",
		"Microsoft.RecoveryServices/Vaults/write",
		"Microsoft.ResourceHealth/availabilityStatuses/read",
		"Microsoft.Resources/deployments/*",
		"Microsoft.Resources/subscriptions/resourceGroups/read",
		"Microsoft.SqlVirtualMachine/*",
		"Microsoft.Storage/storageAccounts/listKeys/action",
		"Microsoft.Storage/storageAccounts/read",
		"Microsoft.Support/*",
	},
}, {
	ID: Contributor, Name: "Contributor", BuiltIn: true,
	Description: "Grants full access to manage all resources, but does not allow you to assign roles.",
	Actions:     []string{"*"},
	NotActions: []string{
		"Microsoft.Authorization/*/Delete",
		"Microsoft.Authorization/*/Write",
		"Microsoft.Authorization/elevateAccess/Action",
		"Microsoft.Blueprint/blueprintAssignments/write",
		"Microsoft.Blueprint/blueprintAssignments/delete",
		"Microsoft.Compute/galleries/share/action",
		"Microsoft.Purview/consents/write",
		"Microsoft.Purview/consents/delete",
		"Microsoft.Resources/deploymentStacks/manageDenySetting/action",
		"Microsoft.Subscription/cancel/action",
		"Microsoft.Subscription/enable/action",
		// Ours: here the directory is guarded by roles at "/". Whoever edits
		// groups and credentials could make itself anybody, an Owner included.
		"microsoft.directory/*",
	},
}, {
	ID: RBACAdministrator, Name: "Role Based Access Control Administrator", BuiltIn: true,
	Description: "Manage access to Azure resources by assigning roles using Azure RBAC. This role does not allow you to manage access using other ways, such as Azure Policy.",
	Actions: []string{
		"Microsoft.Authorization/roleAssignments/write",
		"Microsoft.Authorization/roleAssignments/delete",
		"*/read",
		"Microsoft.Support/*",
	},
}, {
	ID: UserAccessAdministrator, Name: "User Access Administrator", BuiltIn: true,
	Description: "Lets you manage user access to Azure resources.",
	Actions:     []string{"*/read", "Microsoft.Authorization/*", "Microsoft.Support/*"},
}, {
	ID: Owner, Name: "Owner", BuiltIn: true,
	Description: "Grants full access to manage all resources, including the ability to assign roles in Azure RBAC.",
	Actions:     []string{"*"},
}}
