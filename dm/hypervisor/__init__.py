"""The interface to the other side, and its implementations."""
