package primary

import (
	"time"

	"golang.org/x/sys/unix"
)

// nap sleeps shorter than the runtime's timers can, which are good to about a
// millisecond. It blocks the thread.
func nap(d time.Duration) {
	// The kernel may let a thread sleep 50 µs too long unless told otherwise, which
	// would be most of a nap. A failure costs only that.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(napSlack.Nanoseconds()), 0, 0, 0)
	ts := unix.NsecToTimespec(d.Nanoseconds())
	_ = unix.Nanosleep(&ts, nil)
}

// napSlack is how much too long a nap may be by the kernel's choice.
const napSlack = time.Microsecond
