package compile

import (
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // time zones are the same on every machine

	"github.com/waybill-dev/waybill/api/v1alpha1"
	"github.com/waybill-dev/waybill/runtime/expr"
	"github.com/waybill-dev/waybill/runtime/plan"
)

// poller makes what asks a source on a schedule.
func (c *compiler) poller(it *item[v1alpha1.Poller]) {
	s, spec := it.subject, &it.api.Spec
	c.workload(s, "spec.workload", spec.Workload)
	s.paused = spec.State == v1alpha1.StatePaused
	p := &plan.Poller{
		Schedule: schedule(s, &spec.Schedule),
		Items:    c.expression(s, "spec.items", spec.Items, expr.PageScope, expr.List),
		ID:       c.expression(s, "spec.id", spec.ID, expr.Item, expr.String),
		Key:      c.expression(s, "spec.key", spec.Key, expr.Item, expr.String),
		Detect:   string(or(spec.Detect, v1alpha1.DetectChanged)),
		Source:   s.resource.Path(), Type: defaultEventType, Retry: retry(nil),
		MaxMessageBytes: defaultMaxMessageBytes,
	}
	s.plan = &plan.Plan{Poller: p}
	if exactlyOne(s, "spec", []string{"http", "sql"}, spec.HTTP != nil, spec.SQL != nil) {
		if spec.SQL != nil {
			p.SQL = c.pollSQL(s, spec)
			if spec.SQL.Cursor != nil {
				p.Detect = string(v1alpha1.DetectCursor)
			}
		} else {
			p.HTTP = c.pollHTTP(s, spec.HTTP)
			detect(s, spec)
			if spec.Overlap != nil {
				p.HTTP.Overlap = plan.Duration(spec.Overlap.Duration)
			}
		}
	}
	if spec.DeletionPolicy == v1alpha1.DeletionDeleteIfEmpty {
		s.refuse("spec.deletionPolicy", v1alpha1.ReasonInvalid, "a checkpoint is never empty: use Retain or Delete")
	}
	to := c.pollerTarget(s, &spec.To)
	if to == nil || to.broker == nil {
		return
	}
	p.To, p.MaxMessageBytes, p.Schema = to.object.Ref, to.maxMessageBytes, to.schema
	s.plan.Objects = []plan.Object{to.object}
	s.effective = pollerEffective(p, to)
}

func (c *compiler) pollerTarget(s *subject, to *v1alpha1.PollerTarget) *channel {
	if !exactlyOne(s, "spec.to", []string{"topicRef", "mailboxRef"}, to.TopicRef != nil, to.MailboxRef != nil) {
		return nil
	}
	if to.TopicRef != nil {
		return c.channelOf(s, "spec.to.topicRef", "Topic", *to.TopicRef)
	}
	return c.channelOf(s, "spec.to.mailboxRef", "Mailbox", *to.MailboxRef)
}

func (c *compiler) pollHTTP(s *subject, h *v1alpha1.HTTPSource) *plan.PollHTTP {
	out := &plan.PollHTTP{
		HTTPTarget: c.httpTarget(s, "spec.http", "url", h.URL, h.ServiceRef),
		Auth:       c.clientAuth(s, "spec.http.auth", h.Auth),
		Timeout:    duration(h.Timeout, defaultTimeout), MaxResponseBytes: maxResponseBytes,
	}
	for i, header := range h.Headers {
		field := index("spec.http.headers", i)
		s.refuseValue(field+".name", headerFault(header.Name))
		s.refuseValue(field+".value", headerValueFault(header.Value))
		for _, before := range h.Headers[:i] {
			if strings.EqualFold(before.Name, header.Name) {
				s.refuse(field+".name", v1alpha1.ReasonDuplicate, "%s stands before it as %s, and in the name of a header case means nothing: keep one of them", header.Name, before.Name)
			}
		}
		out.Headers = append(out.Headers, plan.Header{Name: header.Name, Value: header.Value})
	}
	if h.Cursor != nil {
		out.Cursor = &plan.Cursor{Expr: *c.cel(s, "spec.http.cursor.cel", h.Cursor.CEL, expr.Item, expr.JSON), Param: h.Cursor.Param, Start: h.Cursor.Start}
	}
	if pg := h.Pagination; pg != nil {
		out.Pagination = c.pagination(s, pg)
		if h.Cursor != nil && pg.Param != "" && pg.Param == h.Cursor.Param {
			s.refuse("spec.http.pagination.param", v1alpha1.ReasonInvalid, "%q carries the cursor of the items already (http.cursor.param): name another query parameter", pg.Param)
		}
	}
	return out
}

func (c *compiler) pagination(s *subject, pg *v1alpha1.Pagination) *plan.Pagination {
	const field = "spec.http.pagination"
	out := &plan.Pagination{Type: string(pg.Type), Param: pg.Param, MaxPages: defaultMaxPages}
	if (pg.Type != v1alpha1.PaginationLink) != (pg.Param != "") {
		s.refuse(field+".param", v1alpha1.ReasonInvalid, "param is required with types Cursor and Page and refused with Link")
	}
	if (pg.Type == v1alpha1.PaginationCursor) != (pg.Cursor != nil) {
		s.refuse(field+".cursor", v1alpha1.ReasonInvalid, "cursor is required with type Cursor and refused with any other")
	}
	if pg.Start != nil && pg.Type != v1alpha1.PaginationPage {
		s.refuse(field+".start", v1alpha1.ReasonInvalid, "start belongs to type Page: remove it")
	}
	out.Cursor = c.expression(s, field+".cursor", pg.Cursor, expr.PageScope, expr.JSON)
	if pg.Type == v1alpha1.PaginationPage {
		out.Start = int(deref(pg.Start, defaultStartPage))
	}
	return out
}

// detect checks that the way to tell what is new goes together with the source.
func detect(s *subject, spec *v1alpha1.PollerSpec) {
	switch {
	case spec.Detect == v1alpha1.DetectCursor && spec.HTTP.Cursor == nil:
		s.refuse("spec.detect", v1alpha1.ReasonInvalid, "Cursor needs http.cursor or sql.cursor: set it, or use Changed")
	case spec.Detect != v1alpha1.DetectCursor && spec.HTTP.Cursor != nil:
		s.refuse("spec.http.cursor", v1alpha1.ReasonInvalid, "http.cursor is used with detect: Cursor only: set that, or remove the cursor")
	case spec.Detect == v1alpha1.DetectETag && spec.HTTP.Pagination != nil:
		s.refuse("spec.detect", v1alpha1.ReasonInvalid, "an ETag speaks of one page, not of those behind it: use Changed or Cursor with pagination, or remove pagination")
	}
	if spec.Overlap != nil && spec.Overlap.Duration > 0 && spec.HTTP.Cursor == nil {
		s.refuse("spec.overlap", v1alpha1.ReasonInvalid, "overlap reaches back behind a cursor: set http.cursor or sql.cursor, or remove it")
	}
}

func schedule(s *subject, in *v1alpha1.Schedule) plan.Schedule {
	out := plan.Schedule{Cron: in.Cron, TimeZone: in.TimeZone, JitterPercent: int(deref(in.JitterPercent, 0))}
	exactlyOne(s, "spec.schedule", []string{"every", "cron"}, in.Every != nil, in.Cron != "")
	if in.Every != nil {
		if out.Every = plan.Duration(in.Every.Duration); out.Every <= 0 {
			s.refuse("spec.schedule.every", v1alpha1.ReasonInvalid, "every must be longer than nothing, such as 30s")
		}
		if in.TimeZone != "" {
			s.refuse("spec.schedule.timeZone", v1alpha1.ReasonInvalid, "timeZone belongs to cron: remove it, or use cron instead of every")
		}
	}
	if in.Cron == "" {
		return out
	}
	if fault := cronFault(in.Cron); fault != "" {
		s.refuseValue("spec.schedule.cron", strconv.Quote(in.Cron)+" "+fault)
	}
	s.refuseValue("spec.schedule.timeZone", zoneFault(in.TimeZone))
	return out
}

// zoneFault says that there is no such time zone; "" when there is.
func zoneFault(zone string) string {
	// "Local" would be another one on each machine.
	if _, err := time.LoadLocation(zone); err != nil || zone == "Local" {
		return strconv.Quote(zone) + " is no time zone: use a name of the IANA database, such as Europe/Zurich"
	}
	return ""
}
