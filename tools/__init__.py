"""Everything that is not the device model: the laboratory, the command line, the bench."""
