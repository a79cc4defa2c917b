package caller

// ParseReply is the parser of the kernel's answers, for fuzzing.
var ParseReply = parseReply
