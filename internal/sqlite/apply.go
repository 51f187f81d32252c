package sqlite

// A Target is a table prepared for Apply.
type Target struct{}

// ResetTargets closes all targets of c.
func (c *Conn) ResetTargets() {
	for t := range c.targets {
		delete(c.targets, t)
	}
}
