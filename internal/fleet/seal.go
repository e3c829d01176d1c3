package fleet

// Seal computes what follows from a node's lists and is asked for often. Whoever builds a Node calls it once, as the last
// thing before publishing it.
func (n *Node) Seal() *Node {
	n.Sum = AddUp(n.Containers)
	return n
}
