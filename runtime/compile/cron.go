package compile

import (
	"fmt"
	"strings"
	"time"

	"github.com/adhocore/gronx"
)

// someDay is the day on which schedules are tried: any would do, as long as it is always the same.
var someDay = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

// cronFields are the fields of a schedule and what they hold; the library counts a field of seconds before them.
var cronFields = [][2]string{
	{"minute", "0 to 59"}, {"hour", "0 to 23"}, {"day of the month", "1 to 31"}, {"month", "1 to 12 or JAN to DEC"}, {"day of the week", "0 to 6 or SUN to SAT"},
}

// cronFault says what is wrong with a schedule of five fields; "" when nothing is.
func cronFault(cron string) string {
	const example = `such as "*/5 * * * *"`
	if n := len(strings.Fields(cron)); n != 5 {
		return "must have five fields, minute, hour, day of month, month and day of week, " + example
	}
	const unreadable = "is no schedule that can be read: write each field as *, a number, a list (1,15), a range (1-5) or a step (*/10), " + example
	segments, err := gronx.Segments(cron)
	if err != nil {
		return unreadable
	}
	// One entry of a list at a time: the library stops at the first that fits, and what is wrong behind it would not be seen.
	checker := &gronx.SegmentChecker{}
	checker.SetRef(someDay)
	for at, segment := range segments {
		for entry := range strings.SplitSeq(segment, ",") {
			_, err := checker.CheckDue(entry, at)
			if entry == "" || strings.Count(entry, "/") > 1 || strings.Count(entry, "-") > 1 || err != nil {
				if at < 1 || at > len(cronFields) {
					return unreadable
				}
				return fmt.Sprintf("has %q as its %s: write *, %s, a list (1,15), a range (1-5) or a step (*/10), %s", segment, cronFields[at-1][0], cronFields[at-1][1], example)
			}
		}
	}
	if _, err := gronx.NextTickAfter(cron, someDay, true); err != nil {
		return "never comes: check the day of the month and the month, " + example
	}
	return ""
}
