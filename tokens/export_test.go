package tokens

// Claims are a token's, for the test of how they are written.
type Claims = claims

// Encode is what a token with c has.
func (c *claims) Encode() ([]byte, error) { return c.encode(nil) }

// Form is what is read of a body.
func Form(body string) (map[string]string, error) {
	form, err := parseForm(body)
	read := map[string]string{}
	for _, p := range form {
		read[p.name] = p.value
	}
	return read, err
}
