"""What a toolstack expects of a device model: its command line, QMP, and its life cycle."""
