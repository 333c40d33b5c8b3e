package expr

import (
	"slices"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/ext"
)

// Scope is which variables an expression sees.
type Scope int

const (
	Message   Scope = iota // id, source, type, subject, time, datacontenttype, dataschema, key, attributes, data
	Item                   // item, body, status, headers
	PageScope              // body, status, headers
)

func (s Scope) variables() []string {
	switch s {
	case Message:
		return []string{"id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "key", "attributes", "data"}
	case Item:
		return []string{"item", "body", "status", "headers"}
	default:
		return []string{"body", "status", "headers"}
	}
}

func variableType(name string) *cel.Type {
	switch name {
	case "data", "item", "body":
		return cel.DynType
	case "status":
		return cel.IntType
	case "attributes", "headers":
		return cel.MapType(cel.StringType, cel.StringType)
	default:
		return cel.StringType
	}
}

// The bounds of an expression, and of one evaluation of it.
const (
	maxSource       = 4 << 10
	maxRecursion    = 64
	maxRegexProgram = 2000
	maxCost         = 1_000_000
	// maxOutput is how long the JSON that an evaluation gives may be. What it copies costs it nothing else, however long it is.
	maxOutput = 16 << 20
	// checkEvery is after how many rounds of a loop it is checked whether the attempt was cancelled.
	checkEvery = 64
)

// environment is a scope's CEL environment with the options of its programs.
type environment struct {
	env     *cel.Env
	options []cel.ProgramOption
}

var environments = [...]func() (*environment, error){
	Message:   sync.OnceValues(func() (*environment, error) { return newEnvironment(Message) }),
	Item:      sync.OnceValues(func() (*environment, error) { return newEnvironment(Item) }),
	PageScope: sync.OnceValues(func() (*environment, error) { return newEnvironment(PageScope) }),
}

func newEnvironment(s Scope) (*environment, error) {
	options := []cel.EnvOption{
		cel.CustomTypeAdapter(values),
		cel.CrossTypeNumericComparisons(true),
		cel.DefaultUTCTimeZone(true),
		cel.EnableIdentifierEscapeSyntax(),
		cel.ParserExpressionSizeLimit(maxSource),
		cel.ParserRecursionLimit(maxRecursion),
		cel.RegexProgramSizeLimit(maxRegexProgram),
		cel.ASTValidators(cel.ValidateRegexLiterals(), cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals()),
		cel.OptionalTypes(),
		ext.Bindings(),
		ext.Encoders(ext.EncodersVersion(0)),
		ext.Lists(ext.ListsMaxRangeSize(10_000)),
		ext.Math(),
		ext.Regex(),
		ext.Sets(),
		ext.Strings(),
		ext.TwoVarComprehensions(),
		sumFunction(),
	}
	options = slices.Concat(options, shapeFunctions(), codecFunctions(), calendarFunctions())
	for _, name := range s.variables() {
		options = append(options, cel.Variable(name, variableType(name)))
	}
	env, err := cel.NewEnv(options...)
	if err != nil {
		return nil, err
	}
	bounded, err := guarded(env)
	if err != nil {
		return nil, err
	}
	return &environment{env, []cel.ProgramOption{
		bounded, cel.CostTracking(callCosts{}), costs, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(maxCost), cel.InterruptCheckFrequency(checkEvery),
	}}, nil
}
