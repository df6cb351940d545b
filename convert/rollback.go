package convert

import "context"

// back takes the users of a chunk from Maildir to mbox.
func (c *chunk) back(ctx context.Context) {}
