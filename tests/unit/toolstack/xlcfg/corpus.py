"""Guest configurations in xl's syntax: what xl takes, and what no toolstack should take.

``GOOD`` is read by xl itself in the laboratory; what it understood is kept in ``data/`` and
compared with our reading. ``BAD`` has, for each text, line and column of the error, and a part of
what our one line says.
"""

from __future__ import annotations

import random

__all__ = ["BAD", "GOOD", "generated"]

_HEAD = 'name = "g"\ntype = "hvm"\nmemory = 64\n'


def _hvm(*lines: str) -> str:
    return _HEAD + "\n".join(lines) + "\n"


def _disk(spec: str) -> str:
    return _hvm(f'disk = ["{spec}"]')


def _vif(spec: str) -> str:
    return _hvm(f'vif = ["{spec}"]')


def _pci(spec: str) -> str:
    return _hvm(f'pci = ["{spec}"]')


GOOD: dict[str, str] = {
    "least": 'name="g"\ntype="hvm"\n',
    "no-newline-at-end": 'name="g"\ntype="hvm"\nmemory=64',
    "semicolons": 'name="g";type="hvm";;memory=64;\n;vcpus=2;',
    "comments": '# first\nname="g" # with "quotes" and \\ and ;\n#\n\ntype="hvm"\n\n',
    "tabs-and-blanks": '\tname\t=  "g"\n   type="hvm"   \n \n',
    "quotes": "name = 'a\"b'\ntype = \"hvm\"\ncmdline=\"it's\"\nkernel='k'\n",
    "escapes": 'name = "a\\\\b\\"c\\\'d"\ntype="hvm"\nkernel="k"\n'
    'cmdline="t\\tn\\nr\\ra\\ab\\bf\\fv\\v"\n',
    "hexadecimal-and-octal": 'name="g"\ntype="hvm"\nmemory=0x80\nmaxmem=0200\nvcpus="3"\n',
    "number-with-blanks": 'name="g"\ntype="hvm"\nmemory=" 64"\nrtc_timeoffset="-5"\n',
    "name-is-a-number": 'name=123\ntype="hvm"\n',
    "repeated-key": _hvm('name="second"', "memory=32", "memory=96"),
    "append-strings": 'name="a"\ntype="hvm"\nname+="b"\nname += "c"\nkernel="k"\ncmdline+="x"\n',
    "append-lists": _hvm('disk=["/a,raw,xvda"]', 'disk+=["/b,raw,xvdb","/c,raw,xvdc",]', "vif=[]"),
    "append-to-nothing": _hvm('vif+=["bridge=br1"]'),
    "lists-over-lines": _hvm(
        "disk = [  # why", "", "  '/a,raw,xvda', # one", "  ", "  '/b,raw,xvdb'", "  ,", "]"
    ),
    "list-with-trailing-comma": _hvm('vif = ["", ]'),
    "list-empty": _hvm("disk = [ ]", "vif = [", "", "]", "pci=[]"),
    "dotted-name-is-unknown": _hvm("a.b_c9 = 7"),
    "unknown-keys": _hvm('nonsense = "x"', "more = [1, [2, 3], []]"),
    "type-pv": 'name="g"\ntype="pv"\nkernel="/k"\nmemory=64\n',
    "type-pvh": 'name="g"\ntype="pvh"\nkernel="/k"\nramdisk="/r"\nextra="quiet"\nmemory=64\n',
    "type-prefix": 'name="g"\ntype="h"\n',
    "type-default": 'name="g"\nkernel="/k"\n',
    "builder": 'name="g"\nbuilder="hvm"\n',
    "uuid": _hvm('uuid="01234567-89ab-cdef-0123-456789abcdef"'),
    "memory": _hvm("maxmem = 512", "videoram = 32", "shadow_memory=16"),
    "maxmem-only": 'name="g"\ntype="hvm"\nmaxmem=512\n',
    "vcpus": _hvm("vcpus = 2", "maxvcpus = 4"),
    "maxvcpus-only": _hvm("maxvcpus = 4"),
    "direct-kernel": _hvm('kernel="/k"', 'ramdisk="/r"', 'root="/dev/xvda"', 'extra="a=b"'),
    "root-only": _hvm('kernel="/k"', 'root="/dev/xvda ro"'),
    "cmdline-wins": _hvm('kernel="/k"', 'cmdline="c"', 'extra="x"'),
    "kernel-is-hvmloader": _hvm('kernel="/usr/lib/xen/boot/hvmloader"'),
    "firmware-override": _hvm('firmware_override="/f"', 'bios="seabios"'),
    "firmware-path": _hvm('firmware="/my/firmware"'),
    "firmware-uefi": _hvm('firmware="uefi"'),
    "firmware-bios": _hvm('firmware="bios"'),
    "bios-ovmf": _hvm('bios="ovmf"', 'bios_path_override="/o"'),
    "firmware-tables": _hvm('acpi_firmware="/a"', 'smbios_firmware="/s"'),
    "serial": _hvm('serial="pty"'),
    "serials": _hvm('serial=["pty","null","file:/tmp/s"]'),
    "actions": _hvm(
        'on_poweroff="preserve"',
        'on_reboot="rename-restart"',
        'on_crash="coredump-restart"',
        'on_watchdog="coredump-destroy"',
        'on_soft_reset="destroy"',
    ),
    "actions-all-soft-reset": _hvm('on_reboot="soft-reset"', 'on_crash="restart"'),
    "vga-std": _hvm('vga="stdvga"'),
    "vga-none": _hvm('vga="none"'),
    "vga-qxl": _hvm('vga="qxl"', "memory=256"),
    "vga-cirrus": _hvm('vga="cirrus"'),
    "stdvga-1": _hvm("stdvga=1"),
    "stdvga-0": _hvm("stdvga=0"),
    "vnc": _hvm("vnc=1", 'vnclisten="0.0.0.0"', "vncdisplay=7", "vncunused=0", 'vncpasswd="s"'),
    "vnc-off": _hvm("vnc=0"),
    "vnc-listen-with-display": _hvm('vnclisten="127.0.0.1:3"'),
    "sdl": _hvm("sdl=1", "opengl=0", 'display=":0"', 'xauthority="/x"'),
    "nographic": _hvm("nographic=1", 'keymap="de"'),
    "boot": _hvm('boot="ndc"'),
    "switches-off": _hvm(
        *(f"{key}=0" for key in ("acpi", "acpi_s3", "acpi_s4", "apic", "pae", "nx", "hpet")),
        *(f"{key}=0" for key in ("xen_platform_pci", "vkb_device", "localtime", "hap", "usb")),
    ),
    "switches-on": _hvm(
        *(f"{key}=1" for key in ("acpi", "acpi_s3", "acpi_s4", "apic", "pae", "nx", "hpet")),
        *(f"{key}=1" for key in ("xen_platform_pci", "vkb_device", "localtime", "hap", "usb")),
        "nestedhvm=1",
        "nomigrate=1",
        "dm_restrict=1",
        "acpi_laptop_slate=1",
        "vpt_align=1",
    ),
    "switch-is-any-number": _hvm("acpi=2", 'apic="0"', "hpet=0x10"),
    "timer-mode": _hvm('timer_mode="one_missed_tick_pending"'),
    "timer-mode-number": _hvm("timer_mode=2"),
    "timer-mode-upper-case": _hvm('timer_mode="DELAY_FOR_MISSED_TICKS"'),
    "tsc-mode": _hvm('tsc_mode="native"'),
    "viridian": _hvm("viridian=1"),
    "viridian-list": _hvm('viridian=["base","!apic_assist"]'),
    "usb": _hvm("usb=1", 'usbdevice="tablet"'),
    "usb-list": _hvm("usb=1", 'usbdevice=["tablet","mouse"]'),
    "usbversion": _hvm("usbversion=3", 'soundhw="es1370"'),
    "device-model": _hvm(
        'device_model_version="qemu-xen"',
        'device_model_override="/d"',
        'device_model_user="u"',
        'device_model_args=["-a"]',
        'device_model_args_hvm=["-b","-c=1",""]',
    ),
    "mmio-hole": _hvm("mmio_hole=1024"),
    "mmio-hole-least": _hvm("mmio_hole=256"),
    "mmio-hole-most": _hvm("mmio_hole=3840"),
    "rdm-strategy": _hvm('rdm="strategy=host"'),
    "rdm-both": _hvm('rdm="strategy=host,policy=strict"'),
    "rdm-policy": _hvm('rdm="policy=relaxed"'),
    "rdm-other-order": _hvm('rdm="policy=strict,strategy=host"'),
    "rdm-boundary": _hvm("rdm_mem_boundary=1024"),
    "pci-short": _pci("01:02.3"),
    "pci-long": _pci("0001:01:1f.7"),
    "pci-slot": _pci("01:00.0@5"),
    "pci-all-functions": _pci("01:00.*"),
    "pci-policy": _pci("0000:01:00.0,rdm_policy=relaxed"),
    "pci-options": _pci(
        "01:00.0,permissive=1,msitranslate=1,seize=1,power_mgmt=1,rdm_policy=strict"
    ),
    "pci-bdf-key": _pci("bdf=01:00.0,vslot=1f"),
    "pci-trailing-comma": _pci("01:00.0,"),
    "pci-empty-number": _pci("01:00.0,permissive=,seize=x"),
    "pci-defaults": _hvm("pci_permissive=1", "pci_seize=1", 'pci=["01:00.0","01:00.1,seize=0"]'),
    "disk-positional": _disk("/dev/vg/x,raw,xvda,rw"),
    "disk-least": _disk("/dev/vg/x,,hda"),
    "disk-three": _disk("/i.qcow2,qcow2,xvda"),
    "disk-empty-access": _disk("/i,raw,xvda,"),
    "disk-read-only": _disk("/i,raw,hda,r"),
    "disk-w": _disk("/i,raw,hda,w"),
    "disk-keys": _disk("format=vhd, vdev=hda, access=ro, backendtype=qdisk, target=/i.vhd"),
    "disk-target-eats-the-rest": _disk("format=raw,vdev=hda,access=rw,target=/a,b=c,"),
    "disk-mixed": _disk("/i,vdev=hdb,format=qcow2"),
    "disk-cdrom": _disk("/c.iso,raw,hdc,cdrom"),
    "disk-devtype": _disk("/c.iso,raw,hdc,devtype=cdrom"),
    "disk-devtype-disk": _disk("/c.iso,raw,hdc,devtype=disk"),
    "disk-cdrom-empty": _disk(",empty,hdc,cdrom"),
    "disk-cdrom-no-target": _disk("vdev=hdc,cdrom"),
    "disk-old-file": _disk("file:/i,hda,w"),
    "disk-old-phy": _disk("phy:/dev/x,xvda,r"),
    "disk-old-cdrom": _disk("file:/i.iso,hdc:cdrom,r"),
    "disk-old-tap": _disk("tap:aio:/i,hda,w"),
    "disk-old-tap2": _disk("tap2:qcow2:/i,hda,w"),
    "disk-old-tapdisk": _disk("tapdisk:vhd:/i,hda,w"),
    "disk-old-format": _disk("qcow2:/i,hda,w"),
    "disk-old-script": _disk("drbd:res,xvda,w"),
    "disk-old-nbd": _disk("nbd:x,xvda"),
    "disk-old-empty-cdrom": _disk(",hdc:cdrom,r"),
    "disk-script": _disk("vdev=xvda,script=block-x,target=y"),
    "disk-backend": _disk("/i,raw,xvda,backend=dd"),
    "disk-flags": _disk("/i,raw,xvda,direct-io-safe,discard"),
    "disk-no-discard": _disk("/i,raw,xvda,no-discard"),
    "disk-format-empty": _disk("format=,vdev=hda,target=/i"),
    "disk-repeat-same": _disk("format=raw,format=raw,vdev=hda,target=/i"),
    "disk-blanks": _disk("  /i, raw,  hda"),
    "disk-blank-before-comma": _disk("/i ,raw,hda"),
    "vif-empty": _vif(""),
    "vif-all": _vif(
        "type=ioemu,mac=00:16:3e:00:00:01,bridge=br0,model=e1000,script=s,ip=10.0.0.2,"
        "vifname=v,gatewaydev=eth0,backend=dd,devid=3,mtu=9000"
    ),
    "vif-blanks": _vif(" bridge=br0 , model=e1000"),
    "vif-commas": _vif(",,bridge=br0,,"),
    "vif-type": _vif("type=vif"),
    "vif-rate": _vif("rate=10Mb/s"),
    "vif-rate-bytes": _vif("rate=1GB/s@20ms"),
    "vif-rate-plain": _vif("rate=1000b/s@50us"),
    "vif-rate-seconds": _vif("rate=8Kb/s@2"),
    "vif-trusted": _vif("trusted"),
    "vif-netdev": _vif("netdev=eth1,accel=x"),
    "vif-mac-short-digits": _vif("mac=0:16:3e:0:0:a"),
    "vif-two": _hvm('vif=["bridge=a","bridge=b"]'),
    "max-event-channels": _hvm("max_event_channels=100"),
    "vfb-is-known": _hvm('vfb=["vnc=1"]'),
    "cpus-are-known": _hvm("vcpus=1", 'cpus="0"', "cpu_weight=256"),
}
"""Text by name; xl takes each of them."""


BAD: dict[str, tuple[str, int, int, str]] = {
    "name-missing": ('type="hvm"\n', 2, 1, "name"),
    "capital": ('Name="g"\n', 1, 1, "'N'"),
    "python": ('name="g"\nmemory=64*2\n', 2, 10, "'*'"),
    "python-import": ('import os\nname="g"\n', 1, 8, "'='"),
    "negative": ('name="g"\nmemory=-1\n', 2, 8, "'-'"),
    "parenthesis": ('name=("g")\n', 1, 6, "'('"),
    "string-open": ('name="g\n', 1, 6, "string"),
    "string-open-at-end": ("name='g", 1, 6, "string"),
    "string-ends-in-backslash": ('name="g\\', 1, 6, "string"),
    "escape-unknown": ('name="g\\q"\n', 1, 8, "\\q"),
    "escape-hexadecimal": ('name="g\\x41"\n', 1, 8, "\\x"),
    "escape-octal": ('name="g\\101"\n', 1, 8, "\\1"),
    "list-open": ('name="g"\nvif=["a",\n', 3, 1, "']'"),
    "list-only-comma": ('name="g"\nvif=[,]\n', 2, 6, "','"),
    "list-two-commas": ('name="g"\nvif=["a",,"b"]\n', 2, 10, "','"),
    "list-without-comma": ('name="g"\nvif=["a" "b"]\n', 2, 10, "']'"),
    "list-closed-twice": ('name="g"\nvif=["a"]]\n', 2, 10, "']'"),
    "value-missing": ('name="g"\nmemory=\n', 2, 8, "value"),
    "value-on-the-next-line": ("name=\n'g'\n", 1, 6, "value"),
    "value-is-a-word": ("name=g\n", 1, 6, "value"),
    "two-on-a-line": ('name="g" memory=64\n', 1, 10, "';'"),
    "two-values": ('name="g" "h"\n', 1, 10, "';'"),
    "equals-missing": ('name "g"\n', 1, 6, "'='"),
    "starts-with-value": ('"g"="name"\n', 1, 1, "name"),
    "starts-with-number": ('7="name"\n', 1, 1, "name"),
    "carriage-return": ('name="g"\r\ntype="hvm"\r\n', 1, 9, "carriage return"),
    "comment-without-newline": ('name="g"\n# last', 2, 1, "newline"),
    "nul": ('name="g\0"\n', 1, 8, "NUL"),
    "backslash-outside": ('name=\\\n"g"\n', 1, 6, "\\"),
    "append-list-to-string": ('name="g"\nname+=["h"]\n', 2, 7, "list"),
    "append-string-to-list": (_hvm('vif=["a"]', 'vif+="b"'), 5, 6, "list"),
    "append-number": (_hvm("memory+=1"), 4, 9, "+="),
    "name-is-a-list": ('name=["g"]\n', 1, 6, "list"),
    "memory-is-a-list": (_hvm("memory=[64]"), 4, 8, "list"),
    "memory-is-text": (_hvm('memory="much"'), 4, 8, "number"),
    "memory-with-unit": (_hvm('memory="64M"'), 4, 8, "number"),
    "memory-octal": (_hvm("memory=089"), 4, 8, "number"),
    "memory-zero": (_hvm("memory=0"), 4, 8, "memory"),
    "memory-negative": (_hvm('memory="-64"'), 4, 8, "memory"),
    "memory-huge": (_hvm('memory="99999999999999999999"'), 4, 8, "memory"),
    "memory-above-maxmem": (_hvm("maxmem=32"), 4, 8, "maxmem"),
    "vcpus-zero": (_hvm("vcpus=0"), 4, 7, "vcpus"),
    "vcpus-many": (_hvm("vcpus=129"), 4, 7, "vcpus"),
    "maxvcpus-below-vcpus": (_hvm("vcpus=4", "maxvcpus=2"), 5, 10, "maxvcpus"),
    "type-unknown": ('name="g"\ntype="hvms"\n', 2, 6, "type"),
    "builder-contradicts": ('name="g"\ntype="pvh"\nbuilder="hvm"\nkernel="/k"\n', 3, 9, "builder"),
    "uuid-short": (_hvm('uuid="0123"'), 4, 6, "uuid"),
    "action-unknown": (_hvm('on_crash="explode"'), 4, 10, "on_crash"),
    "action-empty": (_hvm('on_reboot=""'), 4, 11, "on_reboot"),
    "bios-unknown": (_hvm('bios="award"'), 4, 6, "bios"),
    "vga-unknown": (_hvm('vga="ega"'), 4, 5, "vga"),
    "boot-unknown": (_hvm('boot="cx"'), 4, 6, "boot"),
    "timer-mode-unknown": (_hvm('timer_mode="fast"'), 4, 12, "timer_mode"),
    "timer-mode-range": (_hvm("timer_mode=4"), 4, 12, "timer_mode"),
    "device-model-version": (_hvm('device_model_version="bochs"'), 4, 22, "device_model_version"),
    "ramdisk-without-kernel": (_hvm('ramdisk="/r"'), 4, 9, "kernel"),
    "cmdline-without-kernel": (_hvm('cmdline="c"'), 4, 9, "kernel"),
    "pvh-without-kernel": ('name="g"\ntype="pvh"\n', 3, 1, "kernel"),
    "videoram-small": (_hvm('vga="stdvga"', "videoram=8"), 5, 10, "videoram"),
    "videoram-takes-all": (_hvm("videoram=64"), 4, 10, "videoram"),
    "mmio-hole-small": (_hvm("mmio_hole=255"), 4, 11, "mmio_hole"),
    "mmio-hole-large": (_hvm("mmio_hole=3841"), 4, 11, "mmio_hole"),
    "vnc-display-twice": (_hvm('vnclisten="::1"', "vncdisplay=3"), 4, 11, "vncdisplay"),
    "rdm-strategy-unknown": (_hvm('rdm="strategy=guest"'), 4, 5, "strategy"),
    "rdm-policy-unknown": (_hvm('rdm="policy=lax"'), 4, 5, "policy"),
    "rdm-key-unknown": (_hvm('rdm="host"'), 4, 5, "rdm"),
    "rdm-boundary-negative": (_hvm('rdm_mem_boundary="-1"'), 4, 18, "rdm_mem_boundary"),
    "pci-bus": (_pci("100:00.0"), 4, 8, "pci"),
    "pci-device": (_pci("01:20.0"), 4, 8, "pci"),
    "pci-function": (_pci("01:00.8"), 4, 8, "pci"),
    "pci-slot-range": (_pci("01:00.0@20"), 4, 8, "vslot"),
    "pci-empty": (_pci(""), 4, 8, "pci"),
    "pci-junk": (_pci("01:00.0;x"), 4, 8, "pci"),
    "pci-key-unknown": (_pci("01:00.0,color=red"), 4, 8, "color"),
    "pci-no-value": (_pci("01:00.0,permissive"), 4, 8, "permissive"),
    "pci-policy-unknown": (_pci("01:00.0,rdm_policy=lax"), 4, 8, "rdm_policy"),
    "pci-is-text": (_hvm('pci="01:00.0"'), 4, 5, "list"),
    "pci-item-is-a-list": (_hvm('pci=["01:00.0",["01:00.1"]]'), 4, 16, "list"),
    "disk-empty": (_disk(""), 4, 9, "disk"),
    "disk-no-vdev": (_disk("/i,raw"), 4, 9, "vdev"),
    "disk-no-target": (_disk("vdev=hda"), 4, 9, "target"),
    "disk-format-unknown": (_disk("/i,zip,hda"), 4, 9, "format"),
    "disk-access-unknown": (_disk("/i,raw,hda,x"), 4, 9, "access"),
    "disk-too-many": (_disk("/i,raw,hda,rw,extra"), 4, 9, "too many"),
    "disk-key-unknown": (_disk("/i,raw,hda,speed=9"), 4, 9, "speed"),
    "disk-devtype-unknown": (_disk("/i,raw,hda,devtype=tape"), 4, 9, "devtype"),
    "disk-backendtype-unknown": (_disk("/i,raw,hda,backendtype=zfs"), 4, 9, "backendtype"),
    "disk-format-twice": (_disk("format=raw,format=vhd,vdev=hda,target=/i"), 4, 9, "format"),
    "disk-vdev-twice": (_disk("/i,raw,hda,vdev=hdb"), 4, 9, "vdev"),
    "disk-prefix-unknown": (_disk("foo:,hda"), 4, 9, "foo"),
    "disk-second-item": (_hvm('disk=[\n  "/i,raw,hda",\n  "/j,raw,"]'), 6, 3, "vdev"),
    "vif-key-unknown": (_vif("bridge=a,color=red"), 4, 8, "color"),
    "vif-mac": (_vif("mac=00:16:3e:00:00"), 4, 8, "mac"),
    "vif-mac-large": (_vif("mac=00:16:3e:00:00:100"), 4, 8, "mac"),
    "vif-type-unknown": (_vif("type=token"), 4, 8, "type"),
    "vif-devid": (_vif("devid=x"), 4, 8, "devid"),
    "vif-rate-bad": (_vif("rate=fast"), 4, 8, "rate"),
    "vif-rate-interval": (_vif("rate=1Mb/s@1h"), 4, 8, "rate"),
    "vif-rate-overflow": (_vif("rate=99999999999b/s"), 4, 8, "rate"),
    "serial-nested": (_hvm('serial=["pty",["null"]]'), 4, 15, "list"),
    "args-are-text": (_hvm('device_model_args_hvm="-x"'), 4, 23, "list"),
    "switch-is-text": (_hvm('acpi="yes"'), 4, 6, "number"),
    "deep-nesting": (_hvm("x=" + "[" * 5000 + "]" * 5000), 4, 67, "deep"),
}
"""Text, line, column and a part of the message, by name."""


def generated(count: int, seed: int) -> dict[str, str]:
    """Return ``count`` texts that xl takes: good settings, mixed and laid out at random."""
    dice = random.Random(seed)
    return {f"generated-{seed}-{number}": _mixed(dice) for number in range(count)}


_MEMORY = ("maxmem=300", "vcpus=2", "maxvcpus=5", "vga='stdvga'", "videoram=0x20")
_PLAIN = (
    *("boot='dc'", "acpi=0", "hpet=0", "apic=1", "localtime=1", "rtc_timeoffset=3600", "vnc=0"),
    *("vnclisten='::'", "serial='pty'", "keymap='fr'", "on_crash='preserve'", "nomigrate=1"),
    *("on_reboot='destroy'", "timer_mode=1", "mmio_hole=512", "rdm_mem_boundary=0x400"),
    *("device_model_user='nobody'", "shadow_memory=010", "usb=1", "xen_platform_pci=0"),
)
_LISTS = {
    "disk": (
        "'/a,raw,xvda,w'",
        "'/b,qcow2,hdb'",
        "'vdev=hdc,cdrom,target=/c.iso'",
        "',,hdd,cdrom'",
    ),
    "vif": ("''", "'bridge=b'", "'model=e1000,mac=00:16:3e:01:02:03'", "'rate=5MB/s@100ms'"),
    "pci": ("'01:00.0'", "'02:1f.*,permissive=1'", "'3:4.5@6,rdm_policy=relaxed'"),
    "device_model_args_hvm": ("'-device'", "'x,y=z'", '"it\'s"', "7"),
    "serial": ("'pty'", "'null'", "'file:/s'"),
    "usbdevice": ("'tablet'", "'host:1.2'"),
}


def _mixed(dice: random.Random) -> str:
    """A configuration: some settings in any order, with any blanks, comments and line ends."""
    settings = ['name="g"', "type='hvm'", "memory=200"]
    settings += dice.sample(_MEMORY, dice.randrange(len(_MEMORY)))
    settings += dice.sample(_PLAIN, dice.randrange(len(_PLAIN)))
    for key in dice.sample(sorted(_LISTS), dice.randrange(len(_LISTS))):
        settings = [one for one in settings if not one.startswith(f"{key}=")]
        settings += [f"{key}={_list(dice, dice.sample(_LISTS[key], dice.randint(0, 2)))}"]
        if dice.random() < 0.5:
            more = _list(dice, [dice.choice(_LISTS[key])])
            settings.append(f"{key}+={more}")
    firsts = [one for one in settings if "+=" not in one]
    dice.shuffle(firsts)
    lines = [_spaced(dice, one) for one in (*firsts, *(s for s in settings if "+=" in s))]
    ends = dice.choices(["\n", ";", " ;\n", "\t# a 'comment\n", "\n\n"], k=len(lines))
    return "".join(map("".join, zip(lines, ends, strict=True))) + dice.choice(["", "\n"])


def _list(dice: random.Random, items: list[str]) -> str:
    def gap() -> str:
        return dice.choice(["", "", " ", "\n", "\t", " # [\n  "])

    comma = dice.choice(["", ","]) if items else ""
    return f"[{gap()}{f'{gap()},{gap()}'.join(items)}{gap()}{comma}{gap()}]"


def _spaced(dice: random.Random, setting: str) -> str:
    key, equals, value = setting.partition("+=" if "+=" in setting else "=")
    before, after = dice.choice(["", " ", "\t "]), dice.choice(["", "  "])
    return f"{after}{key}{before}{equals}{after}{value}"
