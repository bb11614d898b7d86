"""What can be seen of a running machine: messages, statistics, traces."""
