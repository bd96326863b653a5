package operate

// For the tests of other packages that have nodes called.
var (
	ServeNodes = serveNodes
	FoundFor   = founded
)
