package rest

import "strings"

const (
	maxFilter      = 4096 // bytes
	maxFilterDepth = 32   // nested parentheses, nots and anys
)

// ParseFilter reads a $filter; empty means everything. The grammar, with
// keywords in any case and a quote inside a string written twice:
//
//	or      = and *( "or" and )
//	and     = unary *( "and" unary )
//	unary   = "not" unary | "(" or ")" | any | call | compare
//	any     = name "/any(" name ":" or ")"
//	call    = name "(" [ operand *( "," operand ) ] ")"
//	compare = name ( "eq" | "ne" ) operand
//	operand = "'" string "'" | word
func ParseFilter(s string) (*Filter, error) {
	if len(s) > maxFilter {
		return nil, badFilter("%d bytes: want at most %d", len(s), maxFilter)
	}
	p := &filterParser{}
	if err := p.scan(s); err != nil {
		return nil, err
	}
	if len(p.tokens) == 0 {
		return &Filter{}, nil
	}
	root, err := p.or()
	if err != nil {
		return nil, err
	}
	if t := p.peek(); t.kind != end {
		return nil, badFilter("%s is left over at the end", t)
	}
	return &Filter{root}, nil
}

type kind byte

const (
	end    kind = iota
	word        // a name, a keyword, a number or a GUID
	quoted      // a string
	mark        // ( ) , :
)

type token struct {
	kind kind
	text string
}

func (t token) String() string {
	switch t.kind {
	case end:
		return "the end"
	case quoted:
		return "'" + clip(t.text) + "'"
	}
	return clip(t.text)
}

func (t token) is(keyword string) bool { return t.kind == word && strings.EqualFold(t.text, keyword) }
func (t token) mark(m string) bool     { return t.kind == mark && t.text == m }

type filterParser struct {
	tokens []token
	depth  int
}

func (p *filterParser) scan(s string) error {
	for s != "" {
		switch c := s[0]; {
		case c == ' ' || c == '\t':
			s = s[1:]
		case strings.IndexByte("(),:", c) >= 0:
			p.tokens = append(p.tokens, token{mark, s[:1]})
			s = s[1:]
		case c == '\'':
			text, n, err := unquote(s)
			if err != nil {
				return err
			}
			p.tokens = append(p.tokens, token{quoted, text})
			s = s[n:]
		default:
			n := strings.IndexAny(s, " \t(),:'")
			if n < 0 {
				n = len(s)
			}
			p.tokens = append(p.tokens, token{word, s[:n]})
			s = s[n:]
		}
	}
	return nil
}

// unquote reads the string that s begins with and says how long it is there.
func unquote(s string) (text string, n int, err error) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] != '\'':
			b.WriteByte(s[i])
		case i+1 < len(s) && s[i+1] == '\'':
			b.WriteByte('\'')
			i++
		default:
			return b.String(), i + 1, nil
		}
	}
	return "", 0, badFilter("a string has no closing quote: %s", clip(s))
}

func (p *filterParser) peek() token {
	if len(p.tokens) == 0 {
		return token{}
	}
	return p.tokens[0]
}

func (p *filterParser) next() token {
	t := p.peek()
	if t.kind != end {
		p.tokens = p.tokens[1:]
	}
	return t
}

// expect takes the mark m.
func (p *filterParser) expect(m string) error {
	if t := p.next(); !t.mark(m) {
		return badFilter("want %q, found %s", m, t)
	}
	return nil
}

func (p *filterParser) or() (node, error) {
	left, err := p.and()
	for err == nil && p.peek().is("or") {
		p.next()
		var right node
		right, err = p.and()
		left = or{left, right}
	}
	return left, err
}

func (p *filterParser) and() (node, error) {
	left, err := p.unary()
	for err == nil && p.peek().is("and") {
		p.next()
		var right node
		right, err = p.unary()
		left = and{left, right}
	}
	return left, err
}

func (p *filterParser) unary() (node, error) {
	if p.depth++; p.depth > maxFilterDepth {
		return nil, badFilter("nests deeper than %d", maxFilterDepth)
	}
	defer func() { p.depth-- }()
	t := p.next()
	switch {
	case t.mark("("):
		return p.enclosed()
	case t.is("not"):
		n, err := p.unary()
		return not{n}, err
	case t.kind != word:
		return nil, badFilter("want a condition, found %s", t)
	case p.peek().mark("("):
		p.next()
		if field, ok := strings.CutSuffix(t.text, "/any"); ok {
			return p.any(field)
		}
		return p.call(t.text)
	}
	return p.compare(t.text)
}

// enclosed reads up to the closing parenthesis of one already read.
func (p *filterParser) enclosed() (node, error) {
	n, err := p.or()
	if err != nil {
		return nil, err
	}
	return n, p.expect(")")
}

func (p *filterParser) compare(field string) (node, error) {
	op := p.next()
	if !op.is("eq") && !op.is("ne") {
		return nil, badFilter("want eq or ne after %s, found %s", clip(field), op)
	}
	value, err := p.operand()
	return equals{field, value, op.is("ne")}, err
}

func (p *filterParser) operand() (string, error) {
	t := p.next()
	if t.kind != word && t.kind != quoted {
		return "", badFilter("want a value, found %s", t)
	}
	return t.text, nil
}

func (p *filterParser) call(name string) (node, error) {
	var args []string
	for !p.peek().mark(")") {
		if len(args) > 0 {
			if err := p.expect(","); err != nil {
				return nil, err
			}
		}
		arg, err := p.operand()
		if err != nil {
			return nil, err
		}
		args = append(args, arg)
	}
	p.next()
	if !strings.EqualFold(name, "startswith") {
		return function{name, args}, nil
	}
	if len(args) != 2 {
		return nil, badFilter("startswith wants a property and a string")
	}
	return startsWith{args[0], args[1]}, nil
}

func (p *filterParser) any(field string) (node, error) {
	variable := p.next()
	if field == "" || variable.kind != word {
		return nil, badFilter("want collection/any(x:x eq 'value')")
	}
	if err := p.expect(":"); err != nil {
		return nil, err
	}
	of, err := p.enclosed()
	return anyOf{field, variable.text, of}, err
}
