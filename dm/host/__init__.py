"""Back ends on the host side: what a device writes to, and what reaches it from outside."""
