package agent_test

import (
	"strings"
	"testing"

	"innate/agent"
)

const someVersion = "0000000000000001f86d5c8ac9e7a3b2"

func TestAReferenceIsReadAsAppServiceReadsIt(t *testing.T) {
	for value, want := range map[string]string{
		"@Microsoft.KeyVault(SecretUri=https://kv1.vault.innate.test/secrets/key)":                          "secret key of vault kv1",
		"@Microsoft.KeyVault(SecretUri=https://kv1.vault.innate.test/secrets/key/)":                         "secret key of vault kv1", // as portals print it
		"@Microsoft.KeyVault(SecretUri=https://KV1.vault.innate.test:8443/secrets/key/" + someVersion + ")": "version " + someVersion + " of secret key of vault kv1",
		"@Microsoft.KeyVault(VaultName=kv1;SecretName=Key)":                                                 "secret Key of vault kv1",
		"@Microsoft.KeyVault(SecretName=key; VaultName=kv1)":                                                "secret key of vault kv1",
		"@microsoft.keyvault(vaultname=KV1;secretname=key;secretversion=" + someVersion + ")":               "version " + someVersion + " of secret key of vault kv1",
		"@Microsoft.KeyVault(VaultName=kv1;SecretName=key;SecretVersion=)":                                  "secret key of vault kv1", // as templates leave it
	} {
		if words, is, err := agent.ParseReference(value); words != want || !is || err != nil {
			t.Errorf("%s: %q, %v, %v; want %q", value, words, is, err, want)
		}
	}
	for _, value := range []string{"", "@", "@Microsoft.KeyVault", " @Microsoft.KeyVault(VaultName=kv1;SecretName=key)", "see @Microsoft.KeyVault(…)"} {
		if _, is, err := agent.ParseReference(value); is || err != nil {
			t.Errorf("%q is no reference: %v, %v", value, is, err)
		}
	}
}

func TestAMistakeInAReferenceIsSaid(t *testing.T) {
	for value, word := range map[string]string{
		"@Microsoft.KeyVault(VaultName=kv1;SecretName=key":                                                    "closing parenthesis",
		"@Microsoft.KeyVault()":                                                                               "want SecretUri",
		"@Microsoft.KeyVault(VaultName=kv1;SecretName=key;)":                                                  "want SecretUri",
		"@Microsoft.KeyVault(VaultName=kv1;Name=key)":                                                         `"Name=key"`,
		"@Microsoft.KeyVault(VaultName=kv1;vaultname=kv2;SecretName=key)":                                     "twice",
		"@Microsoft.KeyVault(VaultName=kv1)":                                                                  `the secret ""`,
		"@Microsoft.KeyVault(SecretName=key)":                                                                 `the vault ""`,
		"@Microsoft.KeyVault(VaultName=kv1;SecretName=a/b)":                                                   `the secret "a/b"`,
		"@Microsoft.KeyVault(VaultName=kv1.vault.innate.test;SecretName=key)":                                 "the vault",
		"@Microsoft.KeyVault(VaultName=kv1;SecretName=key;SecretVersion=latest)":                              `the version "latest"`,
		"@Microsoft.KeyVault(SecretUri=http://kv1.vault.innate.test/secrets/key)":                             "https://VAULT.vault.innate.test/",
		"@Microsoft.KeyVault(SecretUri=https://kv1.vault.innate.test/secrets/key;SecretName=key)":             "leave the rest out",
		"@Microsoft.KeyVault(SecretUri=https://kv1.vault.innate.test/keys/key)":                               "want /secrets/NAME",
		"@Microsoft.KeyVault(SecretUri=https://kv1.vault.innate.test/secrets/)":                               `the secret ""`,
		"@Microsoft.KeyVault(SecretUri=https://kv1.vault.innate.test/secrets/key/" + someVersion + "/backup)": "the version",
		"@Microsoft.KeyVault(SecretUri=https://kv1.vault.innate.test/secrets/key?api-version=7.4)":            "with /VERSION or without",
		"@Microsoft.KeyVault(SecretUri=https://kv1.vault.innate.test@evil.example/secrets/key)":               "with /VERSION or without", // a user, and another host
		"@Microsoft.KeyVault(SecretUri=https://kv1.vault.innate.test.evil.example/secrets/key)":               "no vault of this platform",
		"@Microsoft.KeyVault(SecretUri=https://evil.example/x.vault.innate.test/secrets/key)":                 "no vault of this platform",
		"@Microsoft.KeyVault(SecretUri=https://a.b.vault.innate.test/secrets/key)":                            `the vault "a.b"`,
	} {
		_, is, err := agent.ParseReference(value)
		if !is || err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v, %v; want words with %q", value, is, err, word)
		}
	}
}

// Whatever is taken for a reference is one again in its shortest form.
func FuzzReference(f *testing.F) {
	for _, seed := range []string{
		"@Microsoft.KeyVault(VaultName=kv1;SecretName=key)",
		"@Microsoft.KeyVault(VaultName=kv1;SecretName=key;SecretVersion=" + someVersion + ")",
		"@Microsoft.KeyVault(SecretUri=https://kv1.vault.innate.test/secrets/key/" + someVersion + ")",
		"@Microsoft.KeyVault(SecretUri=https://kv1.vault.innate.test:443/secrets/key/)", "@Microsoft.KeyVault(;=)", "hunter2",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		words, is, err := agent.ParseReference(value)
		if !is || err != nil {
			return
		}
		of := strings.Fields(words)
		short := "VaultName=" + of[len(of)-1] + ";SecretName=" + of[len(of)-4]
		if of[0] == "version" {
			short += ";SecretVersion=" + of[1]
		}
		if again, is, err := agent.ParseReference("@Microsoft.KeyVault(" + short + ")"); again != words || !is || err != nil {
			t.Errorf("%q is %s, and %s is %q, %v, %v", value, words, short, again, is, err)
		}
	})
}
