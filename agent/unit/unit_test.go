package unit_test

import (
	"slices"
	"strings"
	"testing"

	"innate/agent/unit"
)

// read reads a file of variables as systemd does (parse_env_file of its src/basic/env-file.c).
func read(t *testing.T, text string) (env []string) {
	t.Helper()
	for text != "" {
		name, rest, ok := strings.Cut(text, "=\"")
		if !ok {
			t.Fatalf("no assignment: %q", text)
		}
		var value strings.Builder
		for rest[0] != '"' {
			if rest[0] == '\\' {
				if rest = rest[1:]; !strings.ContainsRune("\"\\`$", rune(rest[0])) {
					t.Fatalf("an escape of %q", rest[0])
				}
			}
			value.WriteByte(rest[0])
			rest = rest[1:]
		}
		if text, ok = strings.CutPrefix(rest, "\"\n"); !ok {
			t.Fatalf("after the value of %s: %q", name, rest)
		}
		env = append(env, name+"="+value.String())
	}
	return env
}

func TestWhatSystemdWouldDropOrOurProgramLoadIsRefused(t *testing.T) {
	for v, want := range map[string]string{
		"Logging:Level=x":       "systemd wants letters",
		"=x":                    "systemd wants letters",
		"A\nB=x":                "systemd wants letters",
		"A=\xff":                "wants UTF-8",
		"A=a\x00":               "wants UTF-8",
		"LD_PRELOAD=/tmp/x":     "may not have it",
		"GLIBC_TUNABLES=x=y":    "may not have it",
		"PGHOST=h":              "",
		"A=\"$x`\\\n# no\r\t é": "",
	} {
		b, err := unit.Variables([]string{v})
		switch {
		case want == "" && err != nil, want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: %v, want %q", v, err, want)
		case want == "" && !slices.Equal(read(t, string(b)), []string{v}):
			t.Errorf("%q is written as %q", v, b)
		}
	}
}

func FuzzVariables(f *testing.F) {
	for _, s := range []string{"A=b", "A=\"\nB=\"x\"", "A=\\", "A=$(x)`y`", "A=\nB=c"} {
		f.Add(s, "C=d")
	}
	f.Fuzz(func(t *testing.T, one, other string) {
		env := []string{one, other}
		b, err := unit.Variables(env)
		if err != nil {
			return
		}
		for i, v := range env {
			if !strings.Contains(v, "=") {
				env[i] += "="
			}
		}
		if got := read(t, string(b)); !slices.Equal(got, env) {
			t.Errorf("%q reads as %q", b, got)
		}
	})
}

func FuzzShown(f *testing.F) {
	for _, s := range []string{
		"Id=api.service\nLoadState=loaded\nUser=app\nUID=[not set]\n",
		"Id=api.service\nUID=4711\nControlGroup=/system.slice/api.service\n",
		"Id=x\nExecStartPreEx={ path=/bin/x ; argv[]=/bin/x ; flags=privileged ; start_time=[n/a] }\n",
		"UID=-1\n", "=", "",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := unit.Parse([]byte(text))
		if err != nil {
			return
		}
		if err := unit.CheckName(s.Name); err != nil {
			t.Errorf("%q: %v", text, err)
		}
		if s.Check("/usr/bin/innate") == nil && !s.Dynamic && s.User == "" {
			t.Errorf("%q: a unit of root's may be an app", text)
		}
	})
}
