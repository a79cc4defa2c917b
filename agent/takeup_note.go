package agent

import (
	"encoding/json"
	"os"
	"time"

	"innate"
	"innate/agent/appservice"
	"innate/agent/opener"
)

// A generationNote is what the next agent knows a generation by.
type generationNote struct {
	birth
	Instance string          `json:"instance"`
	Share    float64         `json:"share"`
	Kept     appservice.Kept `json:"kept"`
	Secrets  *secretsNote    `json:"secrets,omitempty"`
}

// note writes a generation down.
func (g *Generation) note(r program) error {
	n := generationNote{birth: g.birth, Instance: r.instance, Share: g.share}
	var err error
	if n.Kept, err = g.endpoint.Kept(); err != nil {
		return err
	}
	if g.secrets != nil {
		n.Secrets = g.secrets.note()
	}
	b, err := json.Marshal(n)
	if err != nil {
		return err
	}
	var files []*os.File
	if r.told != nil {
		files = append(files, r.told)
	}
	return g.home.Note(b, files...)
}

// An instanceNote is what the next agent knows an instance by. Its files are the
// program's standard input, output and error, where it has its own.
type instanceNote struct {
	App     innate.ResourceID `json:"app"`
	By      uint32            `json:"by"`
	Restart Restart           `json:"restart"`
	Check   []string          `json:"check,omitempty"`
	Detach  bool              `json:"detach,omitempty"`
	Args    []string          `json:"args"`
	Dir     string            `json:"dir"`
	Env     []string          `json:"env"`
	Shape   appservice.Shape  `json:"shape,omitempty"`
	Isolate bool              `json:"isolate,omitempty"`
	User    string            `json:"user,omitempty"`

	Home   string `json:"home"` // of the generation that serves
	Ended  bool   `json:"ended,omitempty"`
	Status int    `json:"status,omitempty"`
	Why    string `json:"why,omitempty"` // there is no status
}

// write writes an instance down as it is now: n has what changes.
func (i *Instance) write(n instanceNote) {
	a, r := i.apps.agent, i.program
	if a.local != nil {
		return
	}
	n.App, n.By, n.Restart, n.Check, n.Detach = i.App, i.by, i.restart, i.check, i.journal != nil
	n.Args, n.Dir, n.Env, n.Shape, n.Isolate, n.User = r.args, r.dir, r.env, r.shape, r.isolate, r.user
	b, err := json.Marshal(n)
	if err == nil {
		var files []*os.File
		if !n.Ended && !n.Detach {
			files = []*os.File{r.stdin, r.stdout, r.stderr}
		}
		err = opener.Keep(a.opener, i.ID, b, files...)
	}
	if err != nil {
		a.config.Log.Error("writing down what runs: a restart of the agent will end it", "app", i.App, "err", err)
	}
}

// settled throws away what was written down of an instance that is over. One that
// was taken up waits for its client first, who wants to hear how it ended.
func (i *Instance) settled() {
	if i.client != nil {
		late := time.NewTimer(rejoining)
		defer late.Stop()
		select {
		case <-i.client:
		case <-i.agentEnds:
		case <-late.C:
		}
	}
	if a := i.apps.agent; a.local == nil {
		if err := opener.Forget(a.opener, i.ID); err != nil {
			a.config.Log.Warn("forgetting what ran", "app", i.App, "err", err)
		}
	}
}
