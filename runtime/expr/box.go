package expr

import (
	"slices"
	"unsafe"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// A double of CEL's does not say how the message spells it, and cel-go compares, orders, looks up and converts none but its own types: a number
// of another type would equal nothing. So cel-go gets a plain double for a number of the message, but one that lies in a box of the View's.
// What only hands a value on (a variable, an index, reverse, sort …) hands on where it lies, and from that the View tells which number of the
// message it is. What is computed lies elsewhere, however equal it is.

// boxes have a place for each node of some texts. They are never moved.
type boxes struct {
	doubles []types.Double
	texts   []boxedText
}

// boxedText says from which box on the nodes of a text have theirs.
type boxedText struct {
	from int
	view *View
}

// words is what a ref.Val is made of: which type it holds, and where the value lies. TestBoxes fails where that is not so.
type words struct{ kind, value unsafe.Pointer }

// boxed is f, the number's double, in the number's box. However often it is asked for, it takes no more room.
func (n *node) boxed(f float64) ref.Val {
	v := n.view
	if v.doubles == nil {
		v.doubles = v.evaluating().reserve(v)
	}
	d := &v.doubles[n.index]
	*d = types.Double(f)
	var val ref.Val = types.Double(0)
	(*words)(unsafe.Pointer(&val)).value = unsafe.Pointer(d)
	return val
}

// evaluating is the view that an expression is evaluated on.
func (v *View) evaluating() *View {
	if v.home != nil {
		return v.home
	}
	return v
}

// reserve makes boxes for the nodes of a text. The more often room is made the more it is, so that few places are to be searched.
func (v *View) reserve(text *View) []types.Double {
	count, last := len(text.nodes), len(v.boxes)-1
	if last < 0 || cap(v.boxes[last].doubles)-len(v.boxes[last].doubles) < count {
		last++
		room := count // the message's own is all that most need
		if last > 0 {
			room = max(count, 16<<last)
		}
		v.boxes = append(v.boxes, boxes{doubles: make([]types.Double, 0, room)})
	}
	b := &v.boxes[last]
	from := len(b.doubles)
	b.doubles = b.doubles[:from+count]
	b.texts = append(b.texts, boxedText{from, text})
	return b.doubles[from : from+count : from+count]
}

// origin is the number of the message that the double d is, whatever way it took. nil: it was computed, or needs no box.
func (v *View) origin(d ref.Val) *node {
	v = v.evaluating()
	at := uintptr((*words)(unsafe.Pointer(&d)).value)
	if n := boxAt(v.boxes, at); n != nil || v.body == nil {
		return n
	}
	return boxAt(v.body.boxes, at)
}

func boxAt(all []boxes, at uintptr) *node {
	for i := range all {
		b := &all[i]
		offset := at - uintptr(unsafe.Pointer(unsafe.SliceData(b.doubles)))
		place := offset / unsafe.Sizeof(types.Double(0))
		if place >= uintptr(len(b.doubles)) {
			continue
		}
		j, exact := slices.BinarySearchFunc(b.texts, int(place), func(t boxedText, place int) int { return t.from - place })
		if !exact {
			j--
		}
		return &b.texts[j].view.nodes[int(place)-b.texts[j].from]
	}
	return nil
}

// from takes a value over from cel-go; a number of the message is one again.
func (v *View) from(r ref.Val) val {
	x := fromRef(r)
	if x.kind == vDouble {
		x.node = v.origin(r)
	}
	return x
}
