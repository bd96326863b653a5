package notice

import "time"

// Numbers gives the sequence numbers under which a seat signs: each is higher than all before,
// of every kind and across reboots. The disk holds a number that none of those given is above;
// it is written once for many of them.
//
//	given ≤ last ≤ reserved, on the disk ─▶ after a reboot the next ones are above reserved
//
// A disk that was restored from a copy says less than was given. Then others know objects of
// this seat under higher numbers, and what the seat signs below them is old news to everybody.
// It hears of them, and goes on above them. Until it has, a number might be given twice:
// therefore each run begins some way, by chance, above what the disk says.
type Numbers struct {
	last     uint64 // that was given or heard
	reserved uint64 // what the disk says, once the caller has written it
}

const (
	// MaxNumber is the highest number: nobody comes there by counting. Whoever gives a higher
	// one wants to have the last word.
	MaxNumber = 1<<62 - 1
	// block is how many numbers one write reserves: at one an hour ten days.
	block = 256
	// gap is how far above the disk's number a run begins, at most.
	gap = 1 << 20
)

// Begin is a run on what the disk says, 0 if it says nothing, and a random number.
func Begin(reserved, random uint64) Numbers {
	reserved = min(reserved, MaxNumber)
	return Numbers{last: min(reserved+random%gap, MaxNumber), reserved: reserved}
}

// Next is the number of the next object. If reserve is not 0, it has to be on the disk, in the
// place of what it said, before the number is used.
func (n *Numbers) Next() (number, reserve uint64) {
	if n.last < MaxNumber {
		n.last++
	}
	if n.last <= n.reserved {
		return n.last, 0
	}
	n.reserved = min(n.last+block-1, MaxNumber)
	return n.last, n.reserved
}

// Unwritten notes that the disk did not take the last number that was to be reserved: the next
// object asks for one again.
func (n *Numbers) Unwritten() { n.reserved = 0 }

// Heard notes a number under which others have an object of this seat, and says whether it is
// above all that this run knows of: then the seat has said something that it has forgotten,
// and says anew what holds.
func (n *Numbers) Heard(number uint64) bool {
	if number <= n.last || number > MaxNumber {
		return false
	}
	n.last = number
	return true
}

// Again is how long a seat waits before it says anew what was overruled by a newer object of
// its own that it does not know; times counts how often that was in a row. Once is a restored
// disk. Again and again is a second machine with the same key, and the two would talk for ever.
func Again(times int) time.Duration {
	if times <= 1 {
		return 0
	}
	return min(time.Minute<<min(times-2, 10), Renewal)
}
