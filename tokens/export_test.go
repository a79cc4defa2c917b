package tokens

// Claims are a token's, for the test of how they are written.
type Claims = claims

// Encode is what a token with c has.
func (c *claims) Encode() ([]byte, error) { return c.encode() }
