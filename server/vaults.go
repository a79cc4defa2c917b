package server

import (
	"innate/resources"
	"innate/store"
	"innate/vault"
)

// vaultWritten tells the vault what its resource says of it: there it is made,
// changed, or brought back.
func (s *Server) vaultWritten(tx store.Tx, _, now *resources.Resource) error {
	if !now.ID.Is(resources.TypeVault) {
		return nil
	}
	said := now.Vault()
	set := vault.Settings{
		Retention: said.Retention, Protected: said.Protected, InTime: said.InTime, ByPolicy: said.ByPolicy,
	}
	for _, p := range said.Policies {
		set.Policies = append(set.Policies, vault.Policy(p))
	}
	return s.vault.Put(tx, now.ID, set)
}

// vaultGone puts a deleted vault's secrets where only its recovery reaches them.
func (s *Server) vaultGone(tx store.Tx, gone *resources.Resource) error {
	if !gone.ID.Is(resources.TypeVault) {
		return nil
	}
	return s.vault.PutAway(tx, gone.ID)
}
