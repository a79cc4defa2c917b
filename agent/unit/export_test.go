package unit

// Parse reads what 'systemctl show' prints.
func Parse(out []byte) (*Service, error) { return parse(out) }
