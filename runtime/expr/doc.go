// Package expr evaluates CEL expressions on messages without ever building a map of one.
//
// CEL itself is not slow; decoding JSON into map[string]any for it is. So a View parses a message's data once, into a flat index of where
// each value stands, and only when an expression asks for data. Values are decoded one by one as an operation needs them, and what an
// expression hands on unchanged is copied from the text: objects, lists, strings and numbers come out byte for byte as they went in.
//
// The common expressions (comparisons, selections, object literals, map and sum over lists) are compiled to closures that work on the index
// itself; what these do not know, and every evaluation that meets something unusual, is done by cel-go, whose word is final.
//
// # Variables
//
// Of a message: id, source, type, subject, time, datacontenttype, dataschema and key, each a string and "" where the message has none;
// attributes, the map of its extension attributes; data. The time is the string that was received, timestamp(time) makes a point in time
// of it. Data is JSON when the content type says so (or is absent), a string for text, bytes for everything else; to touch data that is
// said to be JSON and is none is an error of the message.
//
// Of an item of a poll: item, and body, status and headers of its page. Of a page: body, status, headers (names in lower case).
//
// # Numbers
//
// A JSON number without fraction and exponent is an int where it fits 64 bits with a sign, a uint where it fits without, else a double, as
// is every other number. So data.id == 9007199254740993 is exact. Numbers compare across types, and where the types are known only at
// run time they also add, subtract, multiply and divide across types: as doubles if one of them is one. Dividing two ints gives an int.
//
// A number that is copied keeps its spelling, also where cel-go hands it through an operation (an index, a variable, sort …). What is computed is
// written in the shortest way.
//
// # Functions
//
// CEL's standard functions and macros; cel-go's libraries bindings, encoders (without YAML), lists, math, optional values, regex, sets, strings
// and two-variable comprehensions; and what JSON is shaped with and these lack: sum, merge, pick, omit, omitNulls, groupBy, coalesce, strftime and
// strptime, url.encode and url.decode, hash.sha256. docs/expressions.md shows each. sort, sortBy and the functions that round take numbers of
// either kind, because JSON does not tell 70 from 70.0.
//
// # Bounds
//
// An expression has at most 4 KiB and 64 levels. One evaluation may cost a million units as cel-go counts them (about one an operation or a
// value looked at) and give 16 MiB of JSON, one call may make 8 MiB of text, and loops look whether the attempt that they are part of was
// cancelled.
package expr
