// Package poll asks a source on a schedule and publishes what is new.
//
// A poll reads the source page by page. Of each page the items are taken, those that are new are published, the broker confirms them, and
// only then is the checkpoint moved on: to the next page, and after the last page to the next round. A round is one pass over all pages; it
// may take several polls, and a restart goes on in its middle. A crash between publishing and checkpoint repeats a page with the same ids,
// so a broker that drops repeated ids drops these too. Nothing is skipped.
//
// # What is new
//
//   - Always: every item of every round.
//   - ETag: every item of an answer whose ETag, or without one Last-Modified, is not that of the round before. The server is asked
//     conditionally; one that ignores that answers the same again. An answer without either is always another.
//   - Changed: an item whose bytes are not those of the item with that id in the round before. An item that a complete round did not bring
//     is forgotten, and new when it comes back.
//   - Cursor: what the server gives beyond the largest cursor seen. Numbers and RFC 3339 times are compared as such, all else as text. Of
//     items at the cursor itself those that were seen are dropped, for servers whose parameter means "from" rather than "after". So are,
//     of items whose cursor is text, those among the last 4,096 seen: which of them lie below the cursor only the server knows.
//
// # Ids
//
// The id expression gives an item's id, and with Changed a hash follows it, of the content and of what came before: A → B → A makes three
// messages with three ids. Without an expression the id is a hash of the content and of what tells this occurrence from another: the round
// with Always and ETag, the cursor with Cursor, what came before with Changed. No id depends on the clock; the event's time is when its page was
// read.
//
// With Always an id expression that gives an item the same id in each round makes one message of them where the broker drops repeated ids, as
// NATS does within two minutes.
//
// # What goes wrong
//
// A poll that fails is tried again with backoff, for ever; Retry-After is honoured. An item that cannot be published whatever is done (an
// expression fails on it, it is too large) does not stop its neighbours: it is reported, and looked at again in the next poll. The cursor, and the
// ETag, do not move past it: it is not lost when the expression is corrected.
package poll
