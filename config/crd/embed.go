// Package crd holds the generated CustomResourceDefinitions, so that a program can validate manifests by the very rules that a cluster
// would apply.
package crd

import "embed"

// Bases are the files under bases/, one CustomResourceDefinition each, named GROUP_PLURAL.yaml.
//
//go:embed bases/*.yaml
var Bases embed.FS
