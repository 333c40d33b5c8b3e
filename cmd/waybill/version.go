package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// version says what was built, as far as the build knows: the module's version or its commit, and for what.
func version() string {
	v := "of an unknown commit"
	if info, ok := debug.ReadBuildInfo(); ok {
		v = released(info)
	}
	return fmt.Sprintf("%s (%s, %s/%s)", v, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// released is the version that the module was tagged with, or made from its commit.
func released(info *debug.BuildInfo) string {
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	commit := settings["vcs.revision"]
	if len(commit) < 12 {
		return "of an unknown commit"
	}
	v := "commit " + commit[:12]
	if settings["vcs.modified"] == "true" {
		v += ", changed"
	}
	return v
}
