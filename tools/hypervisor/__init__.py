"""The stand-alone hypervisor: Xen's half of the ioreq protocol, chips and vCPU engines included."""
