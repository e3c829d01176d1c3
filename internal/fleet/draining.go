package fleet

// Draining is how far the draining of a node is.
type Draining struct {
	Availability Availability
	// Active: containers are moved by this manager, and not by another one of the same store.
	Active bool
	// Done: nothing moves, and what is left cannot.
	Done   bool
	Moving []Progress `json:",omitempty"`
	Stuck  []Stuck    `json:",omitempty"`
	Moved  []Moved    `json:",omitempty"` // since the node was last told to drain, as far as this manager knows
}

// Progress is a container that moves.
type Progress struct{ ID, Name, To, Step string }

// Stuck is a container that cannot move, or could not.
type Stuck struct {
	ID, Name string
	Reasons  []string
}

// Moved is a container that has moved.
type Moved struct{ Name, To string }

// Shift is a container that would be better off on another node.
type Shift struct{ ID, Name, From, To, Why string }
