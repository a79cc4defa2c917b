package main

import (
	"fmt"
	"runtime"
	"time"
)

// A cost is what answers took of this process, the asking included.
type cost struct {
	answers        int
	cpu            time.Duration
	mallocs, bytes uint64
}

// spentNow is what the process has used since it began.
func spentNow() cost {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return cost{cpu: cpuTime(), mallocs: m.Mallocs, bytes: m.TotalAlloc}
}

// add counts what was used since before, for that many answers.
func (c *cost) add(before cost, answers int) {
	now := spentNow()
	c.answers += answers
	c.cpu += now.cpu - before.cpu
	c.mallocs += now.mallocs - before.mallocs
	c.bytes += now.bytes - before.bytes
}

// micros is the µs of CPU that one answer took.
func (c *cost) micros() float64 { return float64(c.cpu.Nanoseconds()) / 1000 / float64(c.answers) }

func (c *cost) String() string {
	n := uint64(max(c.answers, 1))
	return fmt.Sprintf("%s µs of CPU, %d allocations of %d bytes", digits(c.micros()), c.mallocs/n, c.bytes/n)
}
