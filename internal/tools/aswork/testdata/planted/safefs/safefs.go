// Package safefs is a small model of the real one.
package safefs

// AsUser runs work.
func AsUser(uid int, work func() error) error {
	done := make(chan error)
	go func() { done <- work() }()
	return <-done
}
