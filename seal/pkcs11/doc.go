// Package pkcs11 keeps a master key in an HSM, by PKCS #11 (OASIS, v2.40): an
// AES key that never leaves the token encrypts it.
//
// It loads a vendor's library into the process and so needs cgo: it is empty
// unless built with -tags pkcs11. The token and the key in it are its operator's
// to make; what it keeps for whom is its caller's.
package pkcs11
