package convert

import "context"

// beforeHold is what has to be done while mail still flows.
func (c *cutover) beforeHold(ctx context.Context) error { return nil }

// drain ends the sessions of the user, and waits until nobody has his mailboxes
// open.
func (c *cutover) drain(ctx context.Context) error { return nil }

// unused demands, under the locks, that nobody else has a mailbox open.
func (c *cutover) unused() error { return nil }
