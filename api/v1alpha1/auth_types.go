package v1alpha1

// GatewayAuth is what a caller has to show to a gateway. Without it everybody who reaches the gateway may call it.
type GatewayAuth struct {
	// bearer asks for the header "Authorization: Bearer TOKEN".
	// +required
	Bearer *BearerAuth `json:"bearer,omitempty"`
}

// MailboxAuth is what a caller has to show to a Mailbox: bearer for everything, or publish and receive apart.
// +kubebuilder:validation:XValidation:rule="has(self.bearer) != (has(self.publish) || has(self.receive))",message="either bearer, or publish and receive apart, must be set, and not both"
type MailboxAuth struct {
	// bearer asks for one token for all calls.
	// +optional
	Bearer *BearerAuth `json:"bearer,omitempty"`

	// publish is for sending messages; left out, sending is open.
	// +optional
	Publish *GatewayAuth `json:"publish,omitempty"`

	// receive is for receiving and for everything done with a lease; left out, receiving is open.
	// +optional
	Receive *GatewayAuth `json:"receive,omitempty"`
}

// ClientAuth is what Waybill shows to a server that it calls.
// +kubebuilder:validation:XValidation:rule="[has(self.bearer), has(self.basic), has(self.header)].exists_one(x, x)",message="exactly one of bearer, basic and header must be set"
type ClientAuth struct {
	// bearer sends "Authorization: Bearer TOKEN".
	// +optional
	Bearer *BearerAuth `json:"bearer,omitempty"`

	// basic sends a user name and password.
	// +optional
	Basic *BasicAuth `json:"basic,omitempty"`

	// header sends a secret in a header of its own.
	// +optional
	Header *HeaderAuth `json:"header,omitempty"`
}

// BearerAuth is a token in a Secret.
type BearerAuth struct {
	// secretRef names the Secret and its key; default key: token.
	// +required
	SecretRef SecretKeyReference `json:"secretRef"`
}

// BasicAuth is a user name and a password in a Secret.
type BasicAuth struct {
	// secretRef names the Secret; its keys username and password are read.
	// +required
	SecretRef SecretReference `json:"secretRef"`
}

// HeaderAuth is a header whose value is secret.
type HeaderAuth struct {
	// name of the header.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9!#$%&*+.^_|~-]+$')",message="must be the name of an HTTP header, such as X-Api-Key"
	Name string `json:"name"`

	// secretRef names the Secret and its key; default key: token.
	// +required
	SecretRef SecretKeyReference `json:"secretRef"`
}
