package expr

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // an image may have no time zones

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"github.com/waybill-dev/waybill/runtime/message"
)

// strftime and strptime write and read points in time in the forms that POSIX names with these directives; CEL itself knows RFC 3339 only.
//
//	%Y 2026   %y 26   %m 01–12   %b Jan   %B January   %d 01–31   %e 1–31, padded with a space   %j 001–366   %a Mon   %A Monday   %u 1 (Monday) – 7
//	%H 00–23   %I 01–12   %p AM, PM   %M 00–59   %S 00–59   %f fraction of a second, as many digits as it has when read, six when written
//	%z +0100, when read also +01:00 and Z   %Z CET (only written)   %s seconds since 1970   %F %Y-%m-%d   %T %H:%M:%S   %V ISO week, %G its year (only written)   %%
func calendarFunctions() []cel.EnvOption {
	str, at := cel.StringType, cel.TimestampType
	return []cel.EnvOption{
		cel.Function("timestamp", cel.Overload(overloads.StringToTimestamp, []*cel.Type{str}, at, cel.UnaryBinding(timestamp))),
		cel.Function("strftime",
			cel.MemberOverload("waybill_strftime", []*cel.Type{at, str}, str, cel.BinaryBinding(func(t, layout ref.Val) ref.Val { return format(t, layout, "UTC") })),
			cel.MemberOverload("waybill_strftime_zone", []*cel.Type{at, str, str}, str, cel.FunctionBinding(func(args ...ref.Val) ref.Val {
				return format(args[0], args[1], string(args[2].(types.String)))
			}))),
		cel.Function("strptime",
			cel.Overload("waybill_strptime", []*cel.Type{str, str}, at, cel.BinaryBinding(func(text, layout ref.Val) ref.Val { return read(text, layout, "UTC") })),
			cel.Overload("waybill_strptime_zone", []*cel.Type{str, str, str}, at, cel.FunctionBinding(func(args ...ref.Val) ref.Val {
				return read(args[0], args[1], string(args[2].(types.String)))
			}))),
	}
}

// timestamp is CEL's own, and reads all of RFC 3339: CEL's knows no leap second and no small letters, and an event's time may have them.
func timestamp(text ref.Val) ref.Val {
	at := text.ConvertToType(types.TimestampType)
	if s, ok := text.(types.String); ok && types.IsError(at) {
		if t, ok := message.ParseTime(string(s)); ok {
			return types.String(t.UTC().Format(time.RFC3339Nano)).ConvertToType(types.TimestampType) // within CEL's bounds
		}
	}
	return at
}

func calendarCosts() []cost.TrackerOption {
	var options []cost.TrackerOption
	for overload, units := range map[string]uint64{"waybill_strftime": 1, "waybill_strptime": 1, "waybill_strftime_zone": 50, "waybill_strptime_zone": 50} {
		options = append(options, cost.OverloadTracker(overload, func(args []ref.Val, _ ref.Val) *uint64 {
			n := units + uint64(size(args[0])+size(args[1]))/2
			return &n
		}))
	}
	return options
}

const (
	errDirective = saying("strftime() and strptime() do not know one of the layout's directives")
	errZone      = saying("the time zone is not known; name one as Europe/Zurich or +01:00")
	errNoTime    = saying("strptime(): the text has not the form that the layout says, or names a time that does not exist")
)

// composed are the directives that stand for others.
var composed = strings.NewReplacer("%F", "%Y-%m-%d", "%T", "%H:%M:%S", "%R", "%H:%M", "%D", "%m/%d/%y", "%%", "%%")

// zone finds a time zone by its IANA name, or as an offset, as CEL's own functions do.
func zone(name string) (*time.Location, error) {
	if t, err := time.Parse("-07:00", name); err == nil {
		return t.Location(), nil
	}
	if t, err := time.Parse("15:04", name); err == nil { // +00:00 without its sign
		return time.FixedZone("", t.Hour()*3600+t.Minute()*60), nil
	}
	if name == "" || name == "Local" {
		return nil, errZone // not the machine's own zone: the same on each machine
	}
	z, err := time.LoadLocation(name)
	if err != nil {
		return nil, errZone
	}
	return z, nil
}

// written are Go's forms of directives.
var written = map[byte]string{
	'Y': "2006", 'y': "06", 'm': "01", 'b': "Jan", 'B': "January", 'd': "02", 'e': "_2", 'j': "002", 'a': "Mon", 'A': "Monday",
	'H': "15", 'I': "03", 'p': "PM", 'M': "04", 'S': "05", 'z': "-0700", 'Z': "MST",
}

func format(at, layout ref.Val, in string) ref.Val {
	z, err := zone(in)
	if err != nil {
		return types.WrapErr(err)
	}
	t, l := at.(types.Timestamp).Time.In(z), string(layout.(types.String))
	if len(l) > maxSource {
		return types.WrapErr(tooLong("strftime")) // not even an expression has that length
	}
	l = composed.Replace(l)
	var out []byte
	for i := 0; i < len(l); i++ {
		if l[i] != '%' {
			out = append(out, l[i])
			continue
		}
		i++
		if i == len(l) {
			return types.WrapErr(errDirective)
		}
		year, week := t.ISOWeek()
		switch c := l[i]; c {
		case '%':
			out = append(out, '%')
		case 's':
			out = strconv.AppendInt(out, t.Unix(), 10)
		case 'f':
			out = fmt.Appendf(out, "%06d", t.Nanosecond()/1000)
		case 'u':
			out = strconv.AppendInt(out, int64((t.Weekday()+6)%7+1), 10)
		case 'V':
			out = fmt.Appendf(out, "%02d", week)
		case 'G':
			out = fmt.Appendf(out, "%04d", year)
		default:
			form, ok := written[c]
			if !ok {
				return types.WrapErr(errDirective)
			}
			out = t.AppendFormat(out, form)
		}
	}
	return types.String(out)
}

func read(text, layout ref.Val, in string) ref.Val {
	z, err := zone(in)
	if err != nil {
		return types.WrapErr(err)
	}
	r := reader{rest: string(text.(types.String)), month: 1, day: 1, half: -1}
	if err := r.read(composed.Replace(string(layout.(types.String)))); err != nil {
		return types.WrapErr(err)
	}
	t, err := r.time(z)
	if err != nil {
		return types.WrapErr(err)
	}
	return types.Timestamp{Time: t}
}

// A reader takes a text apart as a layout says.
type reader struct {
	rest                                                    string
	year, month, day, hour, minute, second, nano, dayOfYear int
	half                                                    int // 0: before noon, 12: after; -1: the clock has 24 hours
	zone                                                    *time.Location
	unix                                                    *int64
}

func (r *reader) read(layout string) error {
	for i := 0; i < len(layout); i++ {
		c := layout[i]
		if c != '%' {
			if r.rest == "" || r.rest[0] != c {
				return errNoTime
			}
			r.rest = r.rest[1:]
			continue
		}
		i++
		if i == len(layout) {
			return errDirective
		}
		ok, err := r.directive(layout[i])
		if err != nil {
			return err
		}
		if !ok {
			return errNoTime
		}
	}
	if r.rest != "" {
		return errNoTime
	}
	return nil
}

var (
	months = []string{"january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december"}
	days   = []string{"monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"}
)

func (r *reader) directive(c byte) (ok bool, err error) {
	switch c {
	case '%':
		ok = strings.HasPrefix(r.rest, "%")
		r.rest = strings.TrimPrefix(r.rest, "%")
	case 'Y':
		ok = r.number(&r.year, 4, 0, 9999)
	case 'y':
		ok = r.number(&r.year, 2, 0, 99)
		if r.year += 1900; r.year < 1969 {
			r.year += 100 // as POSIX says
		}
	case 'm':
		ok = r.number(&r.month, 2, 1, 12)
	case 'd':
		ok = r.number(&r.day, 2, 1, 31)
	case 'e':
		r.rest = strings.TrimPrefix(r.rest, " ")
		ok = r.number(&r.day, 2, 1, 31)
	case 'j':
		ok = r.number(&r.dayOfYear, 3, 1, 366)
	case 'H':
		ok = r.number(&r.hour, 2, 0, 23)
	case 'I':
		if ok = r.number(&r.hour, 2, 1, 12); r.half < 0 {
			r.half = 0
		}
	case 'p':
		var half int
		if half, ok = r.word([]string{"am", "pm"}); ok {
			r.half = 12 * half
		}
	case 'M':
		ok = r.number(&r.minute, 2, 0, 59)
	case 'S':
		ok = r.number(&r.second, 2, 0, 59)
	case 'f':
		ok = r.fraction()
	case 's':
		ok = r.seconds()
	case 'z':
		ok = r.offset()
	case 'b', 'B':
		r.month, ok = r.word(months)
		r.month++
	case 'a', 'A':
		_, ok = r.word(days) // the date says it too
	default:
		return false, errDirective
	}
	return ok, nil
}

func (r *reader) digits(most int) string {
	n := 0
	for n < len(r.rest) && n < most && digit(r.rest[n]) {
		n++
	}
	digits := r.rest[:n]
	r.rest = r.rest[n:]
	return digits
}

func (r *reader) number(to *int, most, low, high int) bool {
	n, err := strconv.Atoi(r.digits(most))
	*to = n
	return err == nil && n >= low && n <= high
}

func (r *reader) fraction() bool {
	s := r.digits(9)
	n, err := strconv.Atoi((s + "000000000")[:9])
	r.nano = n
	return err == nil && s != ""
}

func (r *reader) seconds() bool {
	sign := int64(1)
	if strings.HasPrefix(r.rest, "-") {
		sign, r.rest = -1, r.rest[1:]
	}
	n, err := strconv.ParseInt(r.digits(12), 10, 64)
	n *= sign
	r.unix = &n
	return err == nil
}

func (r *reader) offset() bool {
	if strings.HasPrefix(r.rest, "Z") {
		r.rest, r.zone = r.rest[1:], time.UTC
		return true
	}
	if r.rest == "" || r.rest[0] != '+' && r.rest[0] != '-' {
		return false
	}
	sign := 1
	if r.rest[0] == '-' {
		sign = -1
	}
	r.rest = r.rest[1:]
	var hours, minutes int
	if !r.number(&hours, 2, 0, 23) {
		return false
	}
	r.rest = strings.TrimPrefix(r.rest, ":")
	if !r.number(&minutes, 2, 0, 59) {
		return false
	}
	r.zone = time.FixedZone("", sign*(hours*3600+minutes*60))
	return true
}

// word takes one of the words, or its first three letters.
func (r *reader) word(words []string) (which int, ok bool) {
	for _, whole := range []bool{true, false} {
		for i, w := range words {
			if !whole {
				w = w[:min(3, len(w))]
			}
			if len(r.rest) >= len(w) && strings.EqualFold(r.rest[:len(w)], w) {
				r.rest = r.rest[len(w):]
				return i, true
			}
		}
	}
	return 0, false
}

// time is the time that was read, within the years that CEL and RFC 3339 know.
func (r *reader) time(z *time.Location) (time.Time, error) {
	t, err := r.anyTime(z)
	if err == nil && (t.Year() < 1 || t.Year() > 9999) {
		return t, errNoTime
	}
	return t, err
}

func (r *reader) anyTime(z *time.Location) (time.Time, error) {
	if r.zone != nil {
		z = r.zone
	}
	if r.unix != nil {
		return time.Unix(*r.unix, int64(r.nano)).UTC(), nil
	}
	hour := r.hour
	if r.half >= 0 {
		hour = hour%12 + r.half
	}
	month, day := time.Month(r.month), r.day
	if r.dayOfYear > 0 {
		date := time.Date(r.year, 1, r.dayOfYear, 0, 0, 0, 0, time.UTC)
		if date.Year() != r.year {
			return date, errNoTime
		}
		month, day = date.Month(), date.Day()
	}
	t := time.Date(r.year, month, day, hour, r.minute, r.second, r.nano, z)
	if t.Day() != day {
		return t, errNoTime // 30 February
	}
	return t.UTC(), nil
}
