package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// +kubebuilder:object:root=true
// +kubebuilder:resource:path=pollers,scope=Namespaced,shortName=wbp,categories=waybill
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Every",type=string,JSONPath=`.spec.schedule.every`
// +kubebuilder:printcolumn:name="Cron",type=string,JSONPath=`.spec.schedule.cron`,priority=1
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 48 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",message="metadata.name must be at most 48 characters, lower case letters, digits and '-', begin with a letter and not end with '-'",fieldPath=".metadata"

// Poller asks a source on a schedule and publishes what is new.
type Poller struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the object's own.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is wanted.
	// +required
	Spec PollerSpec `json:"spec"`

	// status is what was found; the operator writes it.
	// +optional
	// +kubebuilder:default={observedGeneration: 0}
	Status PollerStatus `json:"status,omitempty"`
}

// PollerList is a list of them.
// +kubebuilder:object:root=true
type PollerList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Poller `json:"items"`
}

// PollerSpec is what should be asked, when, and where the answers go. Exactly one of http and sql is set.
// +kubebuilder:validation:XValidation:rule="[has(self.http), has(self.sql)].exists_one(x, x)",message="exactly one of http and sql must be set"
// +kubebuilder:validation:XValidation:rule="!has(self.detect) || self.detect != 'ETag' || has(self.http)",message="ETag is a matter of HTTP: use Cursor, Changed or Always with sql",fieldPath=".detect"
// +kubebuilder:validation:XValidation:rule="!has(self.detect) || self.detect != 'Cursor' || (has(self.http) && has(self.http.cursor)) || (has(self.sql) && has(self.sql.cursor))",message="Cursor needs http.cursor or sql.cursor: set it, or use Changed",fieldPath=".detect"
// +kubebuilder:validation:XValidation:rule="!has(self.http) || !has(self.http.cursor) || (has(self.detect) && self.detect == 'Cursor')",message="http.cursor is used with detect: Cursor only: set that, or remove the cursor",fieldPath=".http.cursor"
// +kubebuilder:validation:XValidation:rule="!has(self.overlap) || (has(self.http) && has(self.http.cursor)) || (has(self.sql) && has(self.sql.cursor))",message="overlap reaches back behind a cursor: set http.cursor or sql.cursor, or remove it",fieldPath=".overlap"
type PollerSpec struct {
	// schedule is when to ask.
	// +required
	Schedule Schedule `json:"schedule"`

	// http asks over HTTP.
	// +optional
	HTTP *HTTPSource `json:"http,omitempty"`

	// sql asks a database.
	// +optional
	SQL *SQLSource `json:"sql,omitempty"`

	// items gives the list of items in an answer, one message each; over body and headers. Default for http: the body is the one item; for sql:
	// each row is an item.
	// +optional
	Items *Expression `json:"items,omitempty"`

	// id gives an item's id, a string, number or bool; over item. Default: a hash of the item's content.
	// +optional
	ID *Expression `json:"id,omitempty"`

	// key gives the message key: a string, number or bool. Default: none.
	// +optional
	Key *Expression `json:"key,omitempty"`

	// detect is how to tell what is new: Always (every item every time), ETag (an answer that differs), Changed (an item whose content
	// differs, at most 4096 items) or Cursor (items beyond the last one seen); default Changed for http and Cursor for sql with a cursor.
	// +optional
	Detect Detect `json:"detect,omitempty"`

	// overlap is how far behind the cursor each poll begins again, for rows that are committed late, 0s to 24h; default 0s. What was seen is
	// dropped. It needs a cursor that is a time.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$') && duration(self) <= duration('24h')",message="must be a duration from 0s to 24h, such as 10s"
	Overlap *metav1.Duration `json:"overlap,omitempty"`

	// to is where the messages go.
	// +required
	To PollerTarget `json:"to"`

	// state is Running or Paused; default Running. Paused asks nothing and keeps the checkpoint.
	// +optional
	State RunState `json:"state,omitempty"`

	// deletionPolicy is what becomes of the checkpoint when this Poller is deleted: Retain or Delete; default Retain.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self != 'DeleteIfEmpty'",message="a checkpoint is never empty: use Retain or Delete"
	DeletionPolicy DeletionPolicy `json:"deletionPolicy,omitempty"`

	// workload overrides how its Pods are run.
	// +optional
	Workload *Workload `json:"workload,omitempty"`
}

// Detect is a way to tell what is new.
// +kubebuilder:validation:Enum=Always;ETag;Changed;Cursor
type Detect string

const (
	// DetectAlways publishes every item of every answer.
	DetectAlways Detect = "Always"
	// DetectETag publishes every item of an answer whose ETag or Last-Modified is new.
	DetectETag Detect = "ETag"
	// DetectChanged publishes an item when its content is not what it was.
	DetectChanged Detect = "Changed"
	// DetectCursor publishes what lies beyond the last cursor.
	DetectCursor Detect = "Cursor"
)

// Schedule is when to ask: exactly one of every and cron.
// +kubebuilder:validation:XValidation:rule="[has(self.every), has(self.cron)].exists_one(x, x)",message="exactly one of every and cron must be set"
// +kubebuilder:validation:XValidation:rule="!has(self.timeZone) || has(self.cron)",message="timeZone belongs to cron: remove it, or use cron instead of every",fieldPath=".timeZone"
type Schedule struct {
	// every is the time from one poll to the next, 100ms to 744h.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$') && duration(self) >= duration('100ms') && duration(self) <= duration('744h')",message="must be a duration from 100ms to 744h, such as 30s or 1h"
	Every *metav1.Duration `json:"every,omitempty"`

	// cron is a schedule of five fields: minute, hour, day of month, month, day of week.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Cron string `json:"cron,omitempty"`

	// timeZone is the IANA time zone of cron, such as Europe/Zurich; default UTC.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	TimeZone string `json:"timeZone,omitempty"`

	// jitterPercent delays each poll at random by up to this part of the time to the next, 0 to 100; default 0.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	JitterPercent *int32 `json:"jitterPercent,omitempty"`
}

// HTTPSource is what to ask over HTTP, by GET: exactly one of url and serviceRef. Answers may be 10 MiB after decompression.
// +kubebuilder:validation:XValidation:rule="[has(self.url), has(self.serviceRef)].exists_one(x, x)",message="exactly one of url and serviceRef must be set"
type HTTPSource struct {
	// url is the address.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="self.matches('^https?://[^/ ]+')",message="must be an http or https address, such as https://api.example.com/v1/changes"
	URL string `json:"url,omitempty"`

	// serviceRef names a Kubernetes Service in the same namespace.
	// +optional
	ServiceRef *ServiceReference `json:"serviceRef,omitempty"`

	// headers are sent with each request; secrets belong into auth.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	Headers []HTTPHeader `json:"headers,omitempty"`

	// auth is what to show; it is not sent to where a redirect points.
	// +optional
	Auth *ClientAuth `json:"auth,omitempty"`

	// timeout bounds one request, 1ms to 1h; default 30s.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$') && duration(self) >= duration('1ms') && duration(self) <= duration('1h')",message="must be a duration from 1ms to 1h, such as 10s or 2m"
	Timeout *metav1.Duration `json:"timeout,omitempty"`

	// pagination is how an answer leads to the next page; default: it does not.
	// +optional
	Pagination *Pagination `json:"pagination,omitempty"`

	// cursor asks only for what is new, with detect: Cursor.
	// +optional
	Cursor *HTTPCursor `json:"cursor,omitempty"`
}

// HTTPHeader is a header of a request.
type HTTPHeader struct {
	// name of the header.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9!#$%&*+.^_|~-]+$')",message="must be the name of an HTTP header, such as Accept"
	Name string `json:"name"`

	// value of the header.
	// +required
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:XValidation:rule="!self.contains('\\n') && !self.contains('\\r')",message="must be one line: remove the line break"
	Value string `json:"value"`
}

// Pagination is how to get the next page.
// +kubebuilder:validation:XValidation:rule="(self.type == 'Cursor') == has(self.cursor)",message="cursor is required with type Cursor and refused with any other",fieldPath=".cursor"
// +kubebuilder:validation:XValidation:rule="(self.type != 'Link') == has(self.param)",message="param is required with types Cursor and Page and refused with Link",fieldPath=".param"
// +kubebuilder:validation:XValidation:rule="self.type == 'Page' || !has(self.start)",message="start belongs to type Page: remove it",fieldPath=".start"
type Pagination struct {
	// type is Link (the header of RFC 8288 with rel=next), Cursor (a value in the body) or Page (a number that counts up to an empty page).
	// +required
	Type PaginationType `json:"type"`

	// cursor gives the value for the next page, or null or an empty string at the end; over body and headers. With type Cursor.
	// +optional
	Cursor *Expression `json:"cursor,omitempty"`

	// param is the query parameter that carries the cursor or the number, with type Cursor or Page.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Param string `json:"param,omitempty"`

	// start is the number of the first page, 0 or more, with type Page; default 1.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Start *int64 `json:"start,omitempty"`
}

// PaginationType is a way to get the next page.
// +kubebuilder:validation:Enum=Link;Cursor;Page
type PaginationType string

const (
	// PaginationLink follows the Link header.
	PaginationLink PaginationType = "Link"
	// PaginationCursor hands a value of the answer back.
	PaginationCursor PaginationType = "Cursor"
	// PaginationPage counts pages.
	PaginationPage PaginationType = "Page"
)

// HTTPCursor remembers how far items were seen.
type HTTPCursor struct {
	// cel gives an item's cursor; over item. The largest is kept.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	CEL string `json:"cel"`

	// param is the query parameter that carries it.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Param string `json:"param"`

	// start is the value for the first request; default: it goes without the parameter.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Start string `json:"start,omitempty"`
}

// SQLSource is what to ask a database.
type SQLSource struct {
	// driver is Postgres.
	// +required
	Driver SQLDriver `json:"driver"`

	// dsnSecretRef names the Secret with the address and credentials; default key: dsn.
	// +required
	DSNSecretRef SecretKeyReference `json:"dsnSecretRef"`

	// query is one select; :cursor in it (:cursor_1, :cursor_2 and so on where there are several columns) stands for the last values seen. At
	// most 16384 characters.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=16384
	Query string `json:"query"`

	// cursor remembers how far rows were seen; without it the whole result is read each time.
	// +optional
	Cursor *SQLCursor `json:"cursor,omitempty"`
}

// SQLDriver is a kind of database.
// +kubebuilder:validation:Enum=Postgres
type SQLDriver string

// SQLPostgres is PostgreSQL and what speaks its protocol.
const SQLPostgres SQLDriver = "Postgres"

// SQLCursor remembers how far rows were seen. The query must order by these columns.
// +kubebuilder:validation:XValidation:rule="self.columns.size() == self.start.size()",message="start must have as many values as columns has names, one for each",fieldPath=".start"
type SQLCursor struct {
	// columns are the result's columns that make up the cursor, 1 to 8.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=63
	Columns []string `json:"columns"`

	// start are the values before the first poll, one a column.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MaxLength=1024
	Start []string `json:"start"`
}

// PollerTarget is where messages go: exactly one of its members.
// +kubebuilder:validation:XValidation:rule="[has(self.topicRef), has(self.mailboxRef)].exists_one(x, x)",message="exactly one of topicRef and mailboxRef must be set"
type PollerTarget struct {
	// topicRef names a Topic.
	// +optional
	TopicRef *ResourceReference `json:"topicRef,omitempty"`

	// mailboxRef names a Mailbox.
	// +optional
	MailboxRef *ResourceReference `json:"mailboxRef,omitempty"`
}

// PollerStatus is what was found.
type PollerStatus struct {
	ResourceStatus `json:",inline"`
	WorkloadStatus `json:",inline"`

	// effective is the guarantee and the ordering that hold in fact.
	// +optional
	Effective *EffectiveGuarantee `json:"effective,omitempty"`
}
