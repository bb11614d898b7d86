"""The life of stand-alone guests: one background process for each, and what can be asked of it."""
