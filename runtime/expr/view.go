package expr

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/interpreter"

	"github.com/waybill-dev/waybill/runtime/message"
)

// A View is what an expression sees: one message, or an item or page of a poll. Its data is parsed when an expression first asks for it and
// never again, however many expressions follow. One goroutine at a time uses a View.
//
// A View borrows the bytes that it looks at: it is released, or forgotten, no later than they are.
type View struct {
	scope Scope
	msg   *message.Message
	page  *Page
	body  *View // of an item: the page that it is from

	state state
	err   error
	text  []byte
	nodes []node
	plain ref.Val // the data where it is no JSON

	wide map[*node]map[string]*node
	long map[*node][]*node

	home    *View          // of a JSON text that an expression parses: the view that it is evaluated on
	doubles []types.Double // the nodes' boxes

	// Of the evaluation that goes on.
	ctx    context.Context
	budget int // what it may still cost
	most   int // how long the text may become that it appends to
	rounds int
	locals []local
	boxes  []boxes
}

// begin prepares for an evaluation.
func (v *View) begin(ctx context.Context) {
	v.ctx, v.budget, v.most, v.locals = ctx, maxCost, maxOutput, v.locals[:0]
	v.boxes, v.doubles = nil, nil
}

type state uint8

const (
	unparsed state = iota
	parsed         // nodes hold the data
	opaque         // plain holds the data
	failed         // err says why there is no data
)

var pool = sync.Pool{New: func() any { return new(View) }}

// For returns the view of m: the one that was kept from an earlier look at the same message, or a new one. Give it kept == nil for a
// message whose data or content type has changed.
func For(kept any, m *message.Message) *View {
	if v, ok := kept.(*View); ok {
		v.msg = m
		return v
	}
	v := pool.Get().(*View)
	v.scope, v.msg = Message, m
	return v
}

// Page is one answer of a polled source.
type Page struct {
	Body        []byte
	ContentType string
	Status      int
	Headers     map[string]string // names in lower case
}

// ForPage returns the view of a page.
func ForPage(p *Page) *View {
	v := pool.Get().(*View)
	v.scope, v.page = PageScope, p
	return v
}

// ForItem returns the view of one item, a JSON text, of the page that page is the view of.
func ForItem(page *View, item []byte) *View {
	v := pool.Get().(*View)
	v.scope, v.page, v.body, v.text = Item, page.page, page, item
	return v
}

// Release hands the view back for another message. Nobody uses it, or a value that was made from it, afterwards.
func (v *View) Release() {
	nodes, locals := v.nodes[:0], v.locals[:cap(v.locals)]
	if cap(nodes) > 4096 {
		nodes = nil
	}
	clear(locals)
	*v = View{nodes: nodes, locals: locals[:0]}
	pool.Put(v)
}

func (v *View) members(n *node) map[string]*node {
	if m, ok := v.wide[n]; ok {
		return m
	}
	m := make(map[string]*node, n.count)
	n.each(func(member *node) bool { m[member.name()] = member; return true })
	if v.wide == nil {
		v.wide = make(map[*node]map[string]*node)
	}
	v.wide[n] = m
	return m
}

func (v *View) elements(n *node) []*node {
	if e, ok := v.long[n]; ok {
		return e
	}
	all := make([]*node, 0, n.count)
	n.each(func(e *node) bool { all = append(all, e); return true })
	if v.long == nil {
		v.long = make(map[*node][]*node)
	}
	v.long[n] = all
	return all
}

const errNoData = saying("the message has no data")

// load parses the data if that was not done yet.
func (v *View) load() state {
	if v.state != unparsed {
		return v.state
	}
	var contentType string
	what := "the item"
	switch {
	case v.scope == Message:
		v.text, contentType, what = v.msg.Data, v.msg.DataContentType, "the message's data"
		if len(v.text) == 0 {
			v.state, v.err = failed, errNoData
			return v.state
		}
	case v.scope == PageScope:
		v.text, contentType, what = v.page.Body, v.page.ContentType, "the body"
	}
	switch form(contentType) {
	case formJSON:
		var err error
		if v.scope != Message {
			// A page may be so large that growing the nodes step by step would hold several times what they need.
			n := countValues(v.text)
			if n > maxPageValues {
				v.state, v.err = failed, saying(fmt.Sprintf("%s has more than %d values, which is all that is read of one page: ask the server for smaller pages", what, maxPageValues))
				return v.state
			}
			v.nodes = slices.Grow(v.nodes[:0], n)
		}
		if v.nodes, err = parse(v, v.text, v.nodes[:0]); err != nil {
			v.state, v.err = failed, errors.New(what+" is "+err.Error())
			return v.state
		}
		v.state = parsed
	case formText:
		if utf8.Valid(v.text) {
			v.plain, v.state = types.String(alias(v.text)), opaque
			break
		}
		fallthrough
	default:
		v.plain, v.state = types.Bytes(v.text), opaque
	}
	return v.state
}

// data is the data as CEL sees it: a node, a CEL value or an error.
func (v *View) data() any {
	switch v.load() {
	case parsed:
		return v.nodes[0].native()
	case opaque:
		return v.plain
	default:
		return types.WrapErr(v.err)
	}
}

type contentForm uint8

const (
	formJSON contentForm = iota
	formText
	formBytes
)

// form tells from a content type what data is. CloudEvents reads data without one as JSON.
func form(contentType string) contentForm {
	switch contentType {
	case "", "application/json":
		return formJSON
	}
	t, _, err := mime.ParseMediaType(contentType)
	switch {
	case err != nil:
		return formBytes
	case strings.HasSuffix(t, "/json"), strings.HasSuffix(t, "+json"):
		return formJSON
	case strings.HasPrefix(t, "text/"):
		return formText
	}
	return formBytes
}

// ResolveName gives CEL the variables of the view's scope, and of the loops on the direct way that CEL is called from.
func (v *View) ResolveName(name string) (any, bool) {
	for i := len(v.locals) - 1; i >= 0; i-- {
		if l := &v.locals[i]; l.name == name {
			return l.val.native(), true
		}
	}
	if v.scope == Message {
		return v.messageVariable(name)
	}
	switch name {
	case "item":
		if v.scope == Item {
			return v.data(), true
		}
	case "body":
		if v.scope == Item {
			return v.body.data(), true
		}
		return v.data(), true
	case "status":
		return types.Int(v.page.Status), true
	case "headers":
		return v.page.Headers, true
	}
	return nil, false
}

func (v *View) messageVariable(name string) (any, bool) {
	if name == "data" {
		return v.data(), true
	}
	if name == "attributes" {
		return (*attributes)(&v.msg.Attributes), true
	}
	if get := attribute(name); get != nil {
		return types.String(get(v.msg)), true
	}
	return nil, false
}

// attribute finds the attribute that the variable called name stands for. What it gives is "" where a message has none.
func attribute(name string) func(*message.Message) string {
	switch name {
	case "id":
		return func(m *message.Message) string { return m.ID }
	case "source":
		return func(m *message.Message) string { return m.Source }
	case "type":
		return func(m *message.Message) string { return m.Type }
	case "subject":
		return func(m *message.Message) string { return m.Subject }
	case "time":
		return func(m *message.Message) string { return m.Time }
	case "datacontenttype":
		return func(m *message.Message) string { return m.DataContentType }
	case "dataschema":
		return func(m *message.Message) string { return m.DataSchema }
	case "key":
		return func(m *message.Message) string { return m.Key }
	}
	return nil
}

// Parent makes a View a CEL activation; it has none.
func (v *View) Parent() interpreter.Activation { return nil }
