"""What a device is; `dm` re-exports what device authors use."""
