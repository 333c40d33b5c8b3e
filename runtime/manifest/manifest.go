// Package manifest reads resources from files as a cluster would take them: strictly, and by the rules of the CustomResourceDefinitions
// themselves, without a cluster.
//
// What it finds wrong it says all at once, each with the file and the line of the field, what is wrong and what would be right. It keeps
// where every field stands, so that whatever is found later, by the compiler or at run time, can name its line too.
package manifest

import (
	"cmp"
	"io"
	"slices"

	"github.com/waybill-dev/waybill/api/v1alpha1"
)

// Options say how to read.
type Options struct {
	// Recursive reads the subfolders of folders too.
	Recursive bool
	// Namespace is given to objects that name none; default "default".
	Namespace string
	// Stdin is what the path "-" stands for; nil: nothing.
	Stdin io.Reader
}

// The path of the standard input, and what diagnostics call it.
const (
	fromStdin  = "-"
	stdinsName = "<stdin>"
)

// Set is everything that was read. Each list is sorted by namespace and name and holds valid objects only; with their CRD defaults.
type Set struct {
	Brokers       []*v1alpha1.Broker
	Topics        []*v1alpha1.Topic
	Subscriptions []*v1alpha1.Subscription
	Mailboxes     []*v1alpha1.Mailbox
	Pollers       []*v1alpha1.Poller
	Endpoints     []*v1alpha1.Endpoint
	Pipelines     []*v1alpha1.Pipeline

	Secrets []*Secret
	// Namespaces are the labels of the namespaces that were declared, by name.
	Namespaces map[string]map[string]string

	// Skipped are the kinds of others that were found, each once, in the order in which they were found.
	Skipped []Skipped
	// Faulty has the lists of those that have faults and can be read without the fields that have them, for what else may be wrong with them.
	// Amiss says which of their fields are not to be trusted.
	Faulty *Set
	// Refused are the objects that were found and have faults, sorted: references to them are not missing.
	Refused []Key
	// Files are the files that were read, in that order.
	Files []string
	// Objects counts all that were found, those of others and those with faults included.
	Objects int

	places map[Key]place
	amiss  map[Key][]string // fields with faults
}

// Key names one object. Kind is Secret for a Secret.
type Key struct {
	Kind, Namespace, Name string
}

// Secret is a core/v1 Secret: data and stringData together, decoded.
type Secret struct {
	Namespace, Name string
	Data            map[string][]byte
}

// Skipped is a kind that is not ours.
type Skipped struct {
	APIVersion, Kind string
	Count            int
	// File and Line are where the first stands.
	File string
	Line int
}

// Read reads files, folders and, as "-", opts.Stdin. A folder is read for its .yaml, .yml and .json files, in the order of their names; a file named twice is
// read once. The error is of the paths themselves: one that does not exist, or a folder with nothing in it (ErrEmptyFolder). What is wrong inside a file
// is a Diagnostic, in the order of files and lines.
func Read(paths []string, opts Options) (*Set, []Diagnostic, error) {
	files, err := find(paths, opts.Recursive)
	if err != nil {
		return nil, nil, err
	}
	if opts.Namespace == "" {
		opts.Namespace = "default"
	}
	r := &reader{opts: opts, set: &Set{places: map[Key]place{}, Namespaces: map[string]map[string]string{}, Faulty: new(Set), amiss: map[Key][]string{}}, skipped: map[[2]string]int{}}
	for _, f := range files {
		r.file(f)
	}
	r.validate()
	r.set.sort()
	order := map[string]int{}
	for i, f := range r.set.Files {
		order[f] = i
	}
	slices.SortStableFunc(r.diagnostics, func(a, b Diagnostic) int {
		return cmp.Or(cmp.Compare(order[a.File], order[b.File]), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Field, b.Field), cmp.Compare(a.Message, b.Message))
	})
	return r.set, slices.Compact(r.diagnostics), nil
}

// reader is one call of Read.
type reader struct {
	opts        Options
	set         *Set
	objects     []*object
	skipped     map[[2]string]int // index in set.Skipped
	diagnostics []Diagnostic
}

// refuse keeps a fault of an object that is not taken any further.
func (r *reader) refuse(o *object, d Diagnostic) {
	o.refuse(d)
	r.diagnostics = append(r.diagnostics, o.faults...)
	o.faults = nil
}

func (s *Set) sort() {
	byName(s.Brokers)
	byName(s.Topics)
	byName(s.Subscriptions)
	byName(s.Mailboxes)
	byName(s.Pollers)
	byName(s.Endpoints)
	byName(s.Pipelines)
	slices.SortFunc(s.Secrets, func(a, b *Secret) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	slices.SortFunc(s.Refused, func(a, b Key) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
}

func byName[T interface {
	GetNamespace() string
	GetName() string
}](list []T) {
	slices.SortFunc(list, func(a, b T) int {
		return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	})
}
