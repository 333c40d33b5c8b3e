package laptop

import (
	"fmt"
	"os"
	"strings"
)

// Memory is what its process holds of physical memory, now and at the most, in bytes. Linux only: 0 elsewhere.
func (l *Laptop) Memory() (now, peak int) { return Memory(l.Pid()) }

// Memory is what any process holds.
func Memory(pid int) (now, peak int) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(status)) {
		var kib int
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kib); err == nil {
			now = kib << 10
		}
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
			peak = kib << 10
		}
	}
	return now, peak
}
