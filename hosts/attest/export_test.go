package attest

// ParseAttest reads a statement that nobody has signed.
var ParseAttest = parseAttest
