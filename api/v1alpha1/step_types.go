package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Step is one thing done to each message of a Pipeline: a name and exactly one of the other members.
// +kubebuilder:validation:XValidation:rule="[has(self.filter), has(self.transform), has(self.split), has(self.dedupe), has(self.http), has(self.container)].exists_one(x, x)",message="exactly one of filter, transform, split, dedupe, http and container must be set beside name"
type Step struct {
	// name of the step, unique in the Pipeline, at most 48 characters.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=48
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",message="must be lower case letters, digits and '-', begin with a letter and not end with '-', such as big-orders"
	Name string `json:"name"`

	// filter keeps messages for which the expression gives true.
	// +optional
	Filter *Expression `json:"filter,omitempty"`

	// transform replaces the data by what the expression gives.
	// +optional
	Transform *Expression `json:"transform,omitempty"`

	// split makes a message of each element of the list that the expression gives; ids are numbered ID-INDEX from 0.
	// +optional
	Split *Expression `json:"split,omitempty"`

	// dedupe drops a message whose key was seen a short while ago.
	// +optional
	Dedupe *DedupeStep `json:"dedupe,omitempty"`

	// http posts each message to a server; a body in a 2xx answer replaces the data, 204 drops the message.
	// +optional
	HTTP *HTTPStep `json:"http,omitempty"`

	// container runs a program of any language beside the worker and posts each message to it, as http does.
	// +optional
	Container *ContainerStep `json:"container,omitempty"`
}

// DedupeStep drops repetitions. It remembers in memory, for each replica and until it restarts: it reduces duplicates and guarantees nothing.
type DedupeStep struct {
	// key gives what must not repeat: a string, number or bool.
	// +required
	Key Expression `json:"key"`

	// window is how long a key is remembered, 1ms to 24h.
	// +required
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$') && duration(self) >= duration('1ms') && duration(self) <= duration('24h')",message="must be a duration from 1ms to 24h, such as 10m"
	Window metav1.Duration `json:"window"`

	// maxKeys is how many keys are remembered, 1 to 10000000; the oldest go first. Default 100000.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000000
	MaxKeys *int32 `json:"maxKeys,omitempty"`
}

// HTTPStep is a call for each message: exactly one of uri and serviceRef.
// +kubebuilder:validation:XValidation:rule="[has(self.uri), has(self.serviceRef)].exists_one(x, x)",message="exactly one of uri and serviceRef must be set"
type HTTPStep struct {
	// uri is an HTTP address.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="self.matches('^https?://[^/ ]+')",message="must be an http or https address, such as https://example.com/events"
	URI string `json:"uri,omitempty"`

	// serviceRef names a Kubernetes Service in the same namespace.
	// +optional
	ServiceRef *ServiceReference `json:"serviceRef,omitempty"`

	// auth is what to show.
	// +optional
	Auth *ClientAuth `json:"auth,omitempty"`

	// timeout bounds one call, 1ms to 1h; default 30s.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$') && duration(self) >= duration('1ms') && duration(self) <= duration('1h')",message="must be a duration from 1ms to 1h, such as 10s or 2m"
	Timeout *metav1.Duration `json:"timeout,omitempty"`

	// concurrency is the number of calls at one time from a replica, 1 to 1000; default 32. The order of a key is kept.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	Concurrency *int32 `json:"concurrency,omitempty"`
}

// ContainerStep is a program beside the worker, reached over HTTP on loopback; on a laptop --step gives its address.
type ContainerStep struct {
	// image is the container image.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Image string `json:"image"`

	// port is where the program listens, 1024 to 65535.
	// +required
	// +kubebuilder:validation:Minimum=1024
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port"`

	// path of the request, starting with '/'; default '/'.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="self.startsWith('/')",message="must start with '/', such as /events"
	Path string `json:"path,omitempty"`

	// command replaces the image's entry point.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=4096
	Command []string `json:"command,omitempty"`

	// args replaces the image's arguments.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=4096
	Args []string `json:"args,omitempty"`

	// env adds environment variables.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	Env []EnvVar `json:"env,omitempty"`

	// resources are the requests and limits of the container.
	// +optional
	Resources *ResourceRequirements `json:"resources,omitempty"`

	// timeout bounds one call, 1ms to 1h; default 30s.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$') && duration(self) >= duration('1ms') && duration(self) <= duration('1h')",message="must be a duration from 1ms to 1h, such as 10s or 2m"
	Timeout *metav1.Duration `json:"timeout,omitempty"`

	// concurrency is the number of calls at one time, 1 to 1000; default 32. The order of a key is kept.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	Concurrency *int32 `json:"concurrency,omitempty"`
}
