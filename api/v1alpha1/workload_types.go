package v1alpha1

// Workload overrides how the Pods of a resource are run. Everything in it is optional; on a laptop it has no effect.
type Workload struct {
	// resources are the requests and limits of the worker container; what is left out keeps Waybill's own figures.
	// +optional
	Resources *ResourceRequirements `json:"resources,omitempty"`

	// nodeSelector restricts Pods to nodes with these labels.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`

	// tolerations let Pods run on tainted nodes.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Tolerations []Toleration `json:"tolerations,omitempty"`

	// annotations are added to the Pods; those of waybill.dev are ours.
	// +optional
	// +kubebuilder:validation:MaxProperties=64
	// +kubebuilder:validation:XValidation:rule="self.all(k, !k.startsWith('waybill.dev/'))",message="annotations that begin with waybill.dev/ are set by the operator: remove them"
	Annotations map[string]string `json:"annotations,omitempty"`

	// env adds environment variables to the worker container.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	Env []EnvVar `json:"env,omitempty"`

	// imagePullSecrets name Secrets of the same namespace with which images are pulled.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=16
	ImagePullSecrets []SecretReference `json:"imagePullSecrets,omitempty"`
}

// ResourceRequirements are amounts of compute resources, as in a Pod.
type ResourceRequirements struct {
	// requests is what a node has to have free, by resource (cpu, memory).
	// +optional
	// +kubebuilder:validation:MaxProperties=16
	Requests ResourceList `json:"requests,omitempty"`

	// limits is what a container may use at most, by resource (cpu, memory).
	// +optional
	// +kubebuilder:validation:MaxProperties=16
	Limits ResourceList `json:"limits,omitempty"`
}

// Toleration is a taint that a Pod puts up with, as in a Pod.
type Toleration struct {
	// key of the taint; empty with operator Exists matches every taint.
	// +optional
	// +kubebuilder:validation:MaxLength=317
	Key string `json:"key,omitempty"`

	// operator is Exists or Equal; default Equal.
	// +optional
	// +kubebuilder:validation:Enum=Exists;Equal
	Operator string `json:"operator,omitempty"`

	// value of the taint, with Equal.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Value string `json:"value,omitempty"`

	// effect that is tolerated; empty means all.
	// +optional
	// +kubebuilder:validation:Enum=NoSchedule;PreferNoSchedule;NoExecute
	Effect string `json:"effect,omitempty"`

	// tolerationSeconds is how long a NoExecute taint is put up with, in seconds; default: for ever.
	// +optional
	TolerationSeconds *int64 `json:"tolerationSeconds,omitempty"`
}

// EnvVar is an environment variable: a value, or a key of a Secret.
// +kubebuilder:validation:XValidation:rule="!(has(self.value) && has(self.secretRef))",message="value and secretRef cannot both be set: remove one"
type EnvVar struct {
	// name of the variable.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:XValidation:rule="!self.startsWith('KUBERNETES_')",message="variables that begin with KUBERNETES_ are the cluster's own: use another name"
	Name string `json:"name"`

	// value of the variable; default empty.
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	Value string `json:"value,omitempty"`

	// secretRef names a Secret and the key that holds the value; default key: the variable's name.
	// +optional
	SecretRef *SecretKeyReference `json:"secretRef,omitempty"`
}
