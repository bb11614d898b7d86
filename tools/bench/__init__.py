"""How fast ioreqd is, as ratios: against stock QEMU in the laboratory, and against bare Python."""
