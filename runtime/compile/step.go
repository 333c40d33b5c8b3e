package compile

import (
	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/expr"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// steps makes a Pipeline's steps.
func (c *compiler) steps(s *subject, declared []v1alpha1.Step) []plan.Step {
	duplicates(s, declared)
	var out []plan.Step
	for i := range declared {
		st, field := &declared[i], index("spec.steps", i)
		if !exactlyOne(s, field, []string{"filter", "transform", "split", "dedupe", "http", "container"},
			st.Filter != nil, st.Transform != nil, st.Split != nil, st.Dedupe != nil, st.HTTP != nil, st.Container != nil) {
			continue
		}
		p := plan.Step{
			Name:      st.Name,
			Filter:    c.expression(s, field+".filter", st.Filter, expr.Message, expr.Bool),
			Transform: c.expression(s, field+".transform", st.Transform, expr.Message, expr.JSON),
			Split:     c.expression(s, field+".split", st.Split, expr.Message, expr.List),
		}
		switch {
		case st.Dedupe != nil:
			p.Dedupe = &plan.Dedupe{
				Key:     *c.cel(s, field+".dedupe.key.cel", st.Dedupe.Key.CEL, expr.Message, expr.String),
				Window:  plan.Duration(st.Dedupe.Window.Duration),
				MaxKeys: int(deref(st.Dedupe.MaxKeys, defaultDedupeMaxKeys)),
			}
			if p.Dedupe.Window <= 0 {
				s.refuse(field+".dedupe.window", v1alpha1.ReasonInvalid, "window must be longer than nothing, such as 10m")
			}
		case st.HTTP != nil:
			call := c.httpCall(s, field+".http", st.HTTP.URI, st.HTTP.ServiceRef, duration(st.HTTP.Timeout, defaultTimeout))
			call.Auth = c.clientAuth(s, field+".http.auth", st.HTTP.Auth)
			call.Concurrency = int(deref(st.HTTP.Concurrency, defaultHTTPStepAtOnce))
			p.HTTP = &call
		case st.Container != nil:
			s.refuse(field+".container", v1alpha1.ReasonNotImplemented, "this version of Waybill cannot run containers beside a worker yet: run the program as a Service of its own and call it with an http step")
		}
		out = append(out, p)
	}
	return out
}
