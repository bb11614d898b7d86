"""The work loop of who prototypes a device: both sides started together, and what helps to see."""
