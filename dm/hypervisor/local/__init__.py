"""The stand-alone hypervisor as the other side: `ioreqd-dm -accel local,path=SOCKET`."""
