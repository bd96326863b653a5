package api

// What both sides of a call have to agree on, besides the messages.
const (
	// NonceSize is what a fresh nonce has, in bytes.
	NonceSize = 32
	// MaxInput is the size of one message with a command's input, in bytes.
	MaxInput = 32 << 10
	// InputAhead is how much input may be on its way that the command has not taken yet,
	// in bytes.
	InputAhead = 256 << 10
	// PartSize is how much of a file goes in one message, in bytes.
	PartSize = 256 << 10
)
