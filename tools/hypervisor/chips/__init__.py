"""The chips that Xen keeps for itself: a PC's interrupt controllers, timers and clock.

An engine without in-kernel controllers takes all of them (`board.Board`); KVM brings its own
interrupt controllers and PIT and needs the RTC and the PM timer.
"""
