package v1alpha1

// ConditionType names one of the questions that status.conditions answers. Every kind carries Accepted, Programmed and Ready; Reconciling and
// Stalled are there only while they are true, as kstatus expects. CredentialsCurrent is information, and nothing else hangs on it.
type ConditionType string

const (
	// ConditionAccepted says whether the resource is valid on the broker that it names: references found and allowed, guarantee and ordering
	// within what the broker gives.
	ConditionAccepted ConditionType = "Accepted"
	// ConditionProgrammed says whether everything the resource needs has been made: the broker's objects and the Kubernetes objects.
	ConditionProgrammed ConditionType = "Programmed"
	// ConditionReady says whether messages flow as declared: every Pod runs the current plan.
	ConditionReady ConditionType = "Ready"
	// ConditionReconciling is true while the operator is on its way to the declared state and expects to arrive without help.
	ConditionReconciling ConditionType = "Reconciling"
	// ConditionStalled is true when the operator cannot get on until somebody changes something.
	ConditionStalled ConditionType = "Stalled"
	// ConditionCredentialsCurrent says whether every Pod that is ready has its sessions on brokers opened with what their Secrets hold now, as
	// the Pods themselves told; it is there where sessions need a Secret, from when they were first asked.
	ConditionCredentialsCurrent ConditionType = "CredentialsCurrent"
)

// Reason says in one word why a condition is as it is. Diagnostics of the compiler carry the same reasons, so that a condition, the command
// line and an event name a fault alike.
type Reason string

// Reasons of conditions that are as they should be.
const (
	// ReasonAccepted: the resource is valid and its broker can give what it asks for.
	ReasonAccepted Reason = "Accepted"
	// ReasonProgrammed: all broker and Kubernetes objects are in place.
	ReasonProgrammed Reason = "Programmed"
	// ReasonRunning: every Pod runs the current plan.
	ReasonRunning Reason = "Running"
	// ReasonReachable: the broker answered the last probe.
	ReasonReachable Reason = "Reachable"
	// ReasonPaused: spec.state is Paused, so nothing is delivered; messages are kept.
	ReasonPaused Reason = "Paused"
	// ReasonScaledToZero: spec.replicas is 0, so nothing runs; messages are kept.
	ReasonScaledToZero Reason = "ScaledToZero"
	// ReasonUpToDate: every Pod uses what the Secrets of its brokers hold now.
	ReasonUpToDate Reason = "UpToDate"
)

// Reasons that need somebody to change the resource, or one that it refers to.
const (
	// ReasonInvalid: a field has a value that cannot be; the message names the field and what would be right.
	ReasonInvalid Reason = "Invalid"
	// ReasonUnknownField: a manifest has a field that the kind does not have.
	ReasonUnknownField Reason = "UnknownField"
	// ReasonDuplicate: the same resource, or the same key within it, is declared twice.
	ReasonDuplicate Reason = "Duplicate"
	// ReasonUnreadable: a file cannot be read or is not YAML.
	ReasonUnreadable Reason = "Unreadable"
	// ReasonInvalidExpression: a CEL expression does not compile, or gives a value of the wrong type.
	ReasonInvalidExpression Reason = "InvalidExpression"
	// ReasonInvalidSchema: a JSON Schema does not compile, or refers to something outside itself.
	ReasonInvalidSchema Reason = "InvalidSchema"
	// ReasonReferenceNotFound: a resource that is referred to does not exist; in a cluster the operator waits for it.
	ReasonReferenceNotFound Reason = "ReferenceNotFound"
	// ReasonReferenceNotAllowed: a resource in another namespace is referred to, and its allowedNamespaces does not admit this one.
	ReasonReferenceNotAllowed Reason = "ReferenceNotAllowed"
	// ReasonReferenceInvalid: a resource that is referred to is itself not accepted.
	ReasonReferenceInvalid Reason = "ReferenceInvalid"
	// ReasonSecretNotFound: a Secret that is referred to does not exist; in a cluster the operator waits for it.
	ReasonSecretNotFound Reason = "SecretNotFound"
	// ReasonSecretKeyNotFound: a Secret exists but lacks the key that is needed, or its value cannot be used.
	ReasonSecretKeyNotFound Reason = "SecretKeyNotFound"
	// ReasonGuaranteeNotAvailable: source, steps and destination on this broker cannot give the guarantee asked for.
	ReasonGuaranteeNotAvailable Reason = "GuaranteeNotAvailable"
	// ReasonOrderingNotAvailable: the ordering asked for cannot be kept here, or not with so many replicas.
	ReasonOrderingNotAvailable Reason = "OrderingNotAvailable"
	// ReasonNotSupported: the broker cannot do what a field asks for; the message names the alternative.
	ReasonNotSupported Reason = "NotSupported"
	// ReasonNotImplemented: this version of Waybill cannot do yet what a field asks for; the message names the alternative.
	ReasonNotImplemented Reason = "NotImplemented"
	// ReasonBrokerNotBuilt: the resource is valid on its broker, for which this version of Waybill has no driver yet.
	ReasonBrokerNotBuilt Reason = "BrokerNotBuilt"
	// ReasonWrongBroker: the server that answers is not of the type that the Broker declares.
	ReasonWrongBroker Reason = "WrongBroker"
	// ReasonModeConflict: a Mailbox has one mode (leases, deliverTo or one Pipeline) and two were asked for.
	ReasonModeConflict Reason = "ModeConflict"
	// ReasonLoop: messages would come back to where they came from.
	ReasonLoop Reason = "Loop"
	// ReasonConflict: the object exists and belongs to somebody else, or two resources claim one broker object; the younger is refused.
	ReasonConflict Reason = "Conflict"
	// ReasonPlanTooLarge: the compiled plan is over 256 KiB; schemas are the usual cause.
	ReasonPlanTooLarge Reason = "PlanTooLarge"
	// ReasonServiceNotMapped: under waybill run a serviceRef has no address; --service gives it one.
	ReasonServiceNotMapped Reason = "ServiceNotMapped"
	// ReasonDenied: the broker refuses the credentials, or they lack a right.
	ReasonDenied Reason = "Denied"
)

// Reasons that pass by themselves.
const (
	// ReasonWaitingForBroker: the broker has never been probed, so what it can do is not known yet.
	ReasonWaitingForBroker Reason = "WaitingForBroker"
	// ReasonUnreachable: the broker did not answer; its address stands in the message.
	ReasonUnreachable Reason = "Unreachable"
	// ReasonUnreachableFromManager: the manager cannot reach the broker, so its objects can be neither made nor checked.
	ReasonUnreachableFromManager Reason = "UnreachableFromManager"
	// ReasonRollingOut: Pods are being replaced to run the current plan.
	ReasonRollingOut Reason = "RollingOut"
	// ReasonRolloutFailed: Pods of the current plan do not become ready; the message names the cause that Kubernetes gives.
	ReasonRolloutFailed Reason = "RolloutFailed"
	// ReasonDraining: work in flight is being finished before the resource is stopped, moved or deleted.
	ReasonDraining Reason = "Draining"
	// ReasonNotEmpty: deletion waits, for deletionPolicy is DeleteIfEmpty and messages are left.
	ReasonNotEmpty Reason = "NotEmpty"
	// ReasonInUse: deletion waits for the resources that still refer to this one.
	ReasonInUse Reason = "InUse"
	// ReasonRotating: a Secret was changed, and not every Pod uses its new content yet.
	ReasonRotating Reason = "Rotating"
	// ReasonCredentialsRefused: a Pod could not open a session with the new content of a Secret, and goes on with the old one; its log says why.
	ReasonCredentialsRefused Reason = "CredentialsRefused"
	// ReasonNotTold: a Pod does not tell the operator which content of a Secret it uses.
	ReasonNotTold Reason = "NotTold"
	// ReasonDrifted: a broker object was changed from outside and is being put right.
	ReasonDrifted Reason = "Drifted"
)

// DeadLetterReason says why a message lies in a dead letter; it travels as the attribute wbreason.
type DeadLetterReason string

const (
	// DeadLetterTerminal: the destination, a step or a schema said that this message can never succeed.
	DeadLetterTerminal DeadLetterReason = "Terminal"
	// DeadLetterAttemptsExhausted: retry.maxAttempts attempts failed.
	DeadLetterAttemptsExhausted DeadLetterReason = "AttemptsExhausted"
	// DeadLetterRejected: a recipient rejected its lease.
	DeadLetterRejected DeadLetterReason = "Rejected"
	// DeadLetterCrashLoop: the broker delivered the message so often without an outcome that it is taken to crash its workers.
	DeadLetterCrashLoop DeadLetterReason = "CrashLoop"
	// DeadLetterLoop: the message passed through Waybill too many times.
	DeadLetterLoop DeadLetterReason = "Loop"
)
