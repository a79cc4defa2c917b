package block_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"innate/gateway/postgres/block"
)

const mark block.Mark = "# BEGIN ours: for people"

func TestABlockIsFoundByItsMarksAlone(t *testing.T) {
	for name, c := range map[string]struct {
		content, before, after string
		lines                  []string
		found                  bool
		fault                  string
	}{
		"an empty file":           {},
		"none":                    {content: "a\nb", before: "a\nb"},
		"an end alone":            {content: "# END ours\n", before: "# END ours\n"},
		"another's":               {content: "# BEGIN ours too: x\n# END ours too\n", before: "# BEGIN ours too: x\n# END ours too\n"},
		"between theirs":          {content: "a\r\n# BEGIN ours: other words\n1\n2\n# END ours\nb", before: "a\r\n", after: "b", lines: []string{"1", "2"}, found: true},
		"empty, at the end":       {content: "a\n# BEGIN ours:\n# END ours", before: "a\n", found: true},
		"twice":                   {content: "# BEGIN ours:\n# END ours\n# BEGIN ours:\n# END ours\n", fault: "twice"},
		"one in another":          {content: "# BEGIN ours:\n# BEGIN ours:\n# END ours\n", fault: "twice"},
		"one that does not end":   {content: "# BEGIN ours:\na\n", fault: `no "# END ours"`},
		"one whose end is spaced": {content: "# BEGIN ours:\na\n # END ours\n", fault: `no "# END ours"`},
	} {
		t.Run(name, func(t *testing.T) {
			before, lines, after, found, err := mark.Cut(c.content)
			if c.fault != "" {
				if err == nil || !strings.Contains(err.Error(), c.fault) {
					t.Errorf("got %v, want an error that says %q", err, c.fault)
				}
				return
			}
			if err != nil || before != c.before || after != c.after || found != c.found || !slices.Equal(lines, c.lines) {
				t.Errorf("got %q %q %q %v %v", before, lines, after, found, err)
			}
		})
	}
}

func TestALinkStaysOneWhenItsFileIsReplaced(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := os.WriteFile(file, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	if err := block.Write(link, "new"); err != nil {
		t.Fatal(err)
	}
	if to, err := os.Readlink(link); err != nil || to != file {
		t.Errorf("the link leads to %q (%v)", to, err)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "new" {
		t.Errorf("the file has %q (%v)", b, err)
	}
	if all, _ := filepath.Glob(filepath.Join(dir, ".*")); len(all) > 0 {
		t.Errorf("left behind: %q", all)
	}
}

// What is outside of a block is never changed, and what was written is read back.
func FuzzCut(f *testing.F) {
	f.Add("")
	f.Add("a\n# BEGIN ours: x\nb\r\n# END ours\r\nc")
	f.Add("# BEGIN ours:\n# END ours\n# BEGIN ours:")
	f.Fuzz(func(t *testing.T, content string) {
		before, lines, after, found, err := mark.Cut(content)
		if err != nil {
			return
		}
		if !found {
			if before != content || after != "" {
				t.Fatalf("%q has no block, and is %q and %q", content, before, after)
			}
			return
		}
		if !strings.HasPrefix(content, before+"# BEGIN ours:") || !strings.HasSuffix(content, after) || len(before)+len(after) > len(content) {
			t.Fatalf("%q is %q and %q", content, before, after)
		}
		again, same, behind, found, err := mark.Cut(before + mark.Text(lines) + after)
		if err != nil || !found || again != before || behind != after || !slices.Equal(same, lines) {
			t.Fatalf("%q, written again, is %q %q %q %v %v", content, again, same, behind, found, err)
		}
	})
}
