package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// benchRounds is how often the program and the limit take turns in a row.
const benchRounds = 3

// A benchRow is one line of what 'innate bench' prints.
type benchRow struct {
	name, unit string
	aim        string // what we want of it, for people
	prepare    func(context.Context, *bench) (contest, error)
}

// benchRows is what there is to measure. Another row is another line here.
var benchRows = []benchRow{
	{"token-cached", "requests/s", "ratio ≥ 0.80", tokenCached},
	{"token-cached-conn", "requests/s", "ratio ≥ 0.85", tokenCachedFresh},
	{"token-cached-cpu", "µs", "ratio ≥ 0.67", tokenCachedCPU},
	{"issue-rs256", "requests/s", "ratio ≥ 0.95", issueRS256},
	{"issue-es256", "requests/s", "ratio ≥ 0.70", issueES256},
	{"issue-assertion-rs256", "requests/s", "ratio ≥ 0.95", issueAssertion("RS256")},
	{"issue-assertion-es256", "requests/s", "ratio ≥ 0.70", issueAssertion("ES256")},
	{"issue-of-1k", "µs", "", issueOf(1_000)},
	{"issue-of-1m", "µs", "≤ 1.1 × issue-of-1k", issueOf(1_000_000)},
	{"decide-1k", "ns", "≤ 1000 ns", decide(1_000)},
	{"decide-1m", "ns", "≤ 1000 ns", decide(1_000_000)},
	{"secret-get", "requests/s", "ratio ≥ 0.50", secretGet},
	{"secret-set-1", "writes/s", "", secretSet(1)},
	{"secret-set-64", "writes/s", "", secretSet(64)},
	{"write-1", "writes/s", "ratio ≥ 0.50", write(1)},
	{"write-64", "writes/s", "≥ 10 × write-1", write(64)},
	{"first-token", "ms", "", firstToken},
	{"pg-select", "transactions/s", "ratio ≥ 0.97", pgSelect},
	{"pg-connect", "log-ins/s", "ratio ≥ 0.85", pgConnect},
	{"agent-idle-200", "% core", "≤ 2 % core", agentIdle},
	{"agent-memory-app", "KiB", "", agentMemory},
}

// A contest is what a row measures: the program and the limit, in turns.
type contest struct {
	ours  func(context.Context, time.Duration) (float64, error)
	limit func(context.Context, time.Duration) (float64, error) // nil: the machine knows none
	less  bool                                                  // the smaller value is the better one: a time, and not a rate
	end   func() error

	cost, limitCost *cost // of the rounds so far; nil where nobody counts
}

// A measurement is a row that was measured: medians of the rounds.
type measurement struct {
	Name  string   `json:"name"`
	Unit  string   `json:"unit"`
	Value float64  `json:"value"`
	Limit *float64 `json:"limit"`
	Ratio *float64 `json:"ratio"` // how near Value comes to Limit; 1 is all the way, whatever the unit
}

// benchCommand measures this program beside what the machine can do without it.
func (s *session) benchCommand() *cobra.Command {
	var seconds float64
	var only []string
	cmd := &cobra.Command{
		Use: "bench", Short: "Measure this machine and this program", Args: cobra.NoArgs,
		Long: `Measures what the program does beside the most that this machine could do: a
bare handler that writes the same bytes, one signature, one look-up in a map, one
write and its fsync. The two take turns, and each number is the median of its
rounds.

RATIO says how near the program comes to the limit, and more is better in every
row: VALUE/LIMIT for rates, LIMIT/VALUE for times. Compare ratios: rates drift
with whatever else the machine does.

It works in a temporary folder (TMPDIR says on which disk) and on loopback, and
takes about six minutes. As an ordinary user it measures the same rows,
token-cached with the weaker proof.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			rows, err := chooseRows(only)
			if err != nil {
				return err
			}
			if seconds < 0.05 || seconds > 60 {
				return fmt.Errorf("--seconds %v: want 0.05 to 60", seconds)
			}
			return s.bench(cmd.Context(), rows, time.Duration(seconds*float64(time.Second)))
		},
	}
	cmd.Flags().Float64Var(&seconds, "seconds", 2, "`length` of each round")
	cmd.Flags().StringSliceVar(&only, "only", nil, "`names` of the rows to measure")
	cmd.RegisterFlagCompletionFunc("only", cobra.FixedCompletions(rowNames(), cobra.ShellCompDirectiveNoFileComp))
	cmd.AddCommand(s.benchLoadCommand())
	return cmd
}

func rowNames() (names []string) {
	for _, r := range benchRows {
		names = append(names, r.name)
	}
	return names
}

// chooseRows returns the rows with those names, or all of them.
func chooseRows(names []string) (rows []benchRow, err error) {
	if len(names) == 0 {
		return benchRows, nil
	}
	for _, name := range names {
		i := slices.IndexFunc(benchRows, func(r benchRow) bool { return r.name == name })
		if i < 0 {
			return nil, fmt.Errorf("--only %q: want %s", name, strings.Join(rowNames(), ", "))
		}
		rows = append(rows, benchRows[i])
	}
	return rows, nil
}

// A bench is what the rows of one run share.
type bench struct {
	session *session
	dir     string // temporary
	program string // this program, where every uid may start it
	round   time.Duration
	stage   *stage // the platform, once a row needs it
}

// bench measures rows and prints them. One that cannot be measured here says
// why on standard error and is left out.
func (s *session) bench(ctx context.Context, rows []benchRow, round time.Duration) (err error) {
	b := &bench{session: s, round: round}
	if b.dir, err = temporary("innate-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	if b.program, err = publicCopy(b.dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.stage.close()) }()

	measured := []measurement{}
	table := [][]string{}
	for _, r := range rows {
		m, err := b.measure(ctx, r)
		if ctx.Err() != nil {
			return fmt.Errorf("ended at %s, before the last row", r.name)
		}
		if err != nil {
			b.progress("%s: not measured: %v", r.name, err)
			continue
		}
		measured = append(measured, m)
		table = append(table, m.row(r.aim))
	}
	if len(measured) == 0 {
		return errors.New("nothing could be measured; the lines above say why")
	}
	return s.print(measured, "NAME UNIT VALUE LIMIT RATIO AIM", table)
}

// progress tells whoever waits what is going on.
func (b *bench) progress(format string, args ...any) {
	fmt.Fprintf(b.session.diagnostics, "bench: "+format+"\n", args...)
}

// measure runs the rounds of a row.
func (b *bench) measure(ctx context.Context, r benchRow) (m measurement, err error) {
	b.progress("%s", r.name)
	c, err := r.prepare(ctx, b)
	if err != nil {
		return m, err
	}
	if c.end != nil {
		defer func() { err = errors.Join(err, c.end()) }()
	}
	runtime.GC() // what the row before has left is not this one's burden
	var ours, limit []float64
	for range benchRounds {
		v, err := c.ours(ctx, b.round)
		if err != nil {
			return m, err
		}
		ours = append(ours, v)
		if c.limit == nil {
			continue
		}
		if v, err = c.limit(ctx, b.round); err != nil {
			return m, fmt.Errorf("measuring the limit: %w", err)
		}
		limit = append(limit, v)
	}
	if c.cost != nil {
		b.progress("%s: an answer cost %s", r.name, c.cost)
	}
	if c.limitCost != nil {
		b.progress("%s: the limit's cost %s", r.name, c.limitCost)
	}
	m = measurement{Name: r.name, Unit: r.unit, Value: median(ours)}
	if c.limit != nil {
		l := median(limit)
		ratio := m.Value / l
		if c.less {
			ratio = l / m.Value
		}
		m.Limit, m.Ratio = &l, &ratio
	}
	return m, nil
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// row is a measurement as a line of the table.
func (m measurement) row(aim string) []string {
	r := []string{m.Name, m.Unit, digits(m.Value), "", "", aim}
	if m.Limit != nil {
		r[3], r[4] = digits(*m.Limit), strconv.FormatFloat(*m.Ratio, 'f', 2, 64)
	}
	return r
}

// digits writes a number with three of them, which is all that it means.
func digits(v float64) string {
	if v >= 100 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}
