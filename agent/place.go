package agent

import "innate/agent/opener"

// A Place says where on the host a VM is met.
type Place = opener.Place
