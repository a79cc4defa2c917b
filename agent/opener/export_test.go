package opener

import "strings"

// CheckRange is the rule for the uids of apps; subuid is the text of /etc/subuid.
func CheckRange(base uint32, subuid string) error { return checkRange(base, strings.NewReader(subuid)) }
