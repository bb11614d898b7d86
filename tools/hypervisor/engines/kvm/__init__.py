"""The engine on Linux's KVM: hardware runs the guest, the kernel has the interrupt controllers."""
