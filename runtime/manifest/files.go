package manifest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ErrEmptyFolder is wrapped where a folder is there and has nothing to read in it.
var ErrEmptyFolder = errors.New("holds no .yaml, .yml or .json file")

// find names the files to read: files as given, whatever their ending, and what folders hold.
func find(paths []string, recursive bool) ([]string, error) {
	var files []string
	seen := map[string]bool{}
	add := func(path string) {
		same := path
		if p, err := filepath.EvalSymlinks(path); err == nil {
			same = p
		}
		if p, err := filepath.Abs(same); err == nil {
			same = p
		}
		if !seen[same] {
			seen[same] = true
			files = append(files, path)
		}
	}
	for _, path := range paths {
		if path == fromStdin {
			add(path)
			continue
		}
		info, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("cannot read %q: %w%s", path, cause(err), remedy(path))
		}
		if !info.IsDir() {
			add(path)
			continue
		}
		inside, err := folder(path, recursive)
		if err != nil {
			return nil, err
		}
		for _, f := range inside {
			add(f)
		}
	}
	return files, nil
}

// remedy says what somebody most likely meant who named a path that is not there.
func remedy(path string) string {
	switch {
	case path == "":
		return "; name a file or a folder"
	case strings.Contains(path, "://"):
		return "; only files are read: fetch it first, or pipe it, as in curl -fsSL URL | waybill validate -f -"
	case strings.ContainsAny(path, "*?["):
		return "; patterns are not expanded: name the folder, or each file by itself"
	case strings.Contains(path, ","):
		return "; name each file by itself, not in a list with commas"
	}
	return ""
}

// folder lists the manifests of a folder in the order of their names. Hidden files are left out, as editors leave some behind.
func folder(path string, recursive bool) ([]string, error) {
	var files []string
	below := false
	// A link to a folder is that folder; WalkDir would only see the link.
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		path += string(filepath.Separator)
	}
	err := filepath.WalkDir(path, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("cannot read %s: %w", p, cause(err))
		}
		if p != path && strings.HasPrefix(e.Name(), ".") {
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if e.IsDir() {
			if p != path && !recursive {
				below = true
				return fs.SkipDir
			}
			return nil
		}
		if !slices.Contains([]string{".yaml", ".yml", ".json"}, strings.ToLower(filepath.Ext(p))) {
			return nil
		}
		if info, err := os.Stat(p); err != nil || info.IsDir() { // a link to a folder, or to nothing
			return nil
		}
		files = append(files, p)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		hint := ""
		if below {
			hint = "; its subfolders are read with -R"
		}
		return nil, fmt.Errorf("%s %w%s", path, ErrEmptyFolder, hint)
	}
	return files, nil
}

// cause is an error of the file system without the path, which the message names already.
func cause(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}
