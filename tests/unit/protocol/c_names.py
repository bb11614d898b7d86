"""Which macro, enumerator or structure of C states what each declaration of protocol/ states."""

from __future__ import annotations

from types import ModuleType

from protocol import (
    dm_op,
    hvm_info,
    hvm_params,
    hvm_save,
    hypercall,
    ioreq,
    libxl_stream,
    local,
    pci,
    start_info,
    state,
    xenstore,
)

MODULES: tuple[ModuleType, ...] = (
    ioreq,
    dm_op,
    hypercall,
    hvm_params,
    hvm_info,
    hvm_save,
    start_info,
    pci,
    xenstore,
    libxl_stream,
    state,
    local,
)

HEADERS = (
    "errno.h",
    "xenctrl.h",
    "xen/xen.h",
    "xen/version.h",
    "xen/event_channel.h",
    "xen/arch-x86/cpuid.h",
    "xen/hvm/ioreq.h",
    "xen/hvm/dm_op.h",
    "xen/hvm/hvm_op.h",
    "xen/hvm/params.h",
    "xen/hvm/hvm_info_table.h",
    "xen/hvm/e820.h",
    "xen/hvm/save.h",
    "xen/arch-x86/hvm/start_info.h",
    "xen/memory.h",
    "xen/sched.h",
    "xen/io/xs_wire.h",
    "linux/pci_regs.h",
)

# An enum's members are named by the pattern, apart from those that the second table names.
# {upper} and {lower} stand for the member.
ENUM_PATTERNS = {
    "AcpiV0": "ACPI_{upper}_V0",
    "AcpiV1": "ACPI_{upper}_V1",
    "Altp2mMode": "XEN_ALTP2M_{lower}",
    "BufioreqMode": "HVM_IOREQSRV_BUFIOREQ_{upper}",
    "CallbackIrqType": "HVM_PARAM_CALLBACK_TYPE_{upper}",
    "DmOp": "XEN_DMOP_{lower}",
    "E820Type": "E820_{upper}",
    "EventChannelOp": "EVTCHNOP_{lower}",
    "EventType": "XEN_DMOP_EVENT_{lower}",
    "HvmOp": "HVMOP_{lower}",
    "HvmParam": "HVM_PARAM_{upper}",
    "HvmSaveCode": "HVM_SAVE_CODE({upper})",
    "Hypercall": "__HYPERVISOR_{lower}",
    "InfoFlag": "XEN_DMOP_{lower}",
    "IoRangeType": "XEN_DMOP_IO_RANGE_{upper}",
    "IoreqDir": "IOREQ_{upper}",
    "IoreqMemAccess": "XEN_DMOP_IOREQ_MEM_ACCESS_{upper}",
    "IoreqServerFrame": "XENMEM_resource_ioreq_server_frame_{lower}",
    "IoreqState": "STATE_IOREQ_{upper}",
    "IoreqType": "IOREQ_TYPE_{upper}",
    "McaCapability": "XEN_HVM_MCA_CAP_{upper}",
    "MemCacheattr": "XEN_DMOP_MEM_CACHEATTR_{upper}",
    "MemType": "HVMMEM_{lower}",
    "MemmapType": "XEN_HVM_MEMMAP_TYPE_{upper}",
    "MsiControl": "PCI_MSI_FLAGS_{upper}",
    "MsixControl": "PCI_MSIX_FLAGS_{upper}",
    "MsixVectorControl": "PCI_MSIX_ENTRY_CTRL_{upper}",
    "PciBar": "PCI_BASE_ADDRESS_{upper}",
    "PciCapabilityId": "PCI_CAP_ID_{upper}",
    "PciCommand": "PCI_COMMAND_{upper}",
    "PciHeaderType": "PCI_HEADER_TYPE_{upper}",
    "PciRom": "PCI_ROM_ADDRESS_{upper}",
    "PciStatus": "PCI_STATUS_{upper}",
    "PmCapabilities": "PCI_PM_CAP_{upper}",
    "PmControl": "PCI_PM_CTRL_{upper}",
    "SchedOp": "SCHEDOP_{lower}",
    "ShutdownReason": "SHUTDOWN_{lower}",
    "TimerMode": "HVMPTM_{lower}",
    "ViridianFeature": "HVMPV_{lower}",
    "XenVersionOp": "XENVER_{lower}",
    "XenmemResource": "XENMEM_resource_{lower}",
    "XenstoreConnection": "XENSTORE_{upper}",
    "XenstoreRingError": "XENSTORE_ERROR_{upper}",
    "XenstoreServerFeature": "XENSTORE_SERVER_FEATURE_{upper}",
    "XsMessageType": "XS_{upper}",
    "XsWatchField": "XS_WATCH_{upper}",
}

MEMBER_NAMES = {
    "EventType.EXT_INT": "XEN_DMOP_EVENT_ext_int",
    "HvmSaveCode.CPU_MSR": "CPU_MSR_CODE",
    "HvmSaveCode.CPU_XSAVE": "CPU_XSAVE_CODE",
    "IoreqServerFrame.IOREQ": "XENMEM_resource_ioreq_server_frame_ioreq(0)",
    "IoreqState.RESPONSE_READY": "STATE_IORESP_READY",
    "MemCacheattr.DELETE": "XEN_DMOP_DELETE_MEM_CACHEATTR",
    "MsiControl.ADDRESS_64": "PCI_MSI_FLAGS_64BIT",
    "MsiControl.MASKING": "PCI_MSI_FLAGS_MASKBIT",
    "MsiControl.Q_CAPABLE_MASK": "PCI_MSI_FLAGS_QMASK",
    "MsiControl.Q_ENABLED_MASK": "PCI_MSI_FLAGS_QSIZE",
    "MsixControl.MASK_ALL": "PCI_MSIX_FLAGS_MASKALL",
    "MsixControl.TABLE_SIZE_MASK": "PCI_MSIX_FLAGS_QSIZE",
    "MsixVectorControl.MASKED": "PCI_MSIX_ENTRY_CTRL_MASKBIT",
    "PciBar.IO_MASK": "(uint32_t)PCI_BASE_ADDRESS_IO_MASK",
    "PciBar.MEM_MASK": "(uint32_t)PCI_BASE_ADDRESS_MEM_MASK",
    "PciCapabilityId.EXPRESS": "PCI_CAP_ID_EXP",
    "PciCapabilityId.VENDOR": "PCI_CAP_ID_VNDR",
    "PciRom.ADDRESS_MASK": "PCI_ROM_ADDRESS_MASK",
    "PciStatus.MHZ_66": "PCI_STATUS_66MHZ",
    "PmCapabilities.VERSION_MASK": "PCI_PM_CAP_VER_MASK",
}

CONSTANT_NAMES = {
    "BUFIOREQ_SLOT_COUNT": "IOREQ_BUFFER_SLOT_NUM",
    "CALLBACK_IRQ_TYPE_MASK": "HVM_PARAM_CALLBACK_IRQ_TYPE_MASK",
    "E820_ENTRY_MAX": "E820MAX",
    "HVM_BELOW_4G_MMIO_LENGTH": "HVM_BELOW_4G_MMIO_LENGTH",
    "HVM_BELOW_4G_MMIO_START": "HVM_BELOW_4G_MMIO_START",
    "HVM_BELOW_4G_RAM_END": "HVM_BELOW_4G_RAM_END",
    "HVM_E820_NR_OFFSET": "HVM_E820_NR_OFFSET",
    "HVM_E820_OFFSET": "HVM_E820_OFFSET",
    "HVM_E820_PAGE": "HVM_E820_PAGE",
    "HVM_INFO_OFFSET": "HVM_INFO_OFFSET",
    "HVM_INFO_PADDR": "HVM_INFO_PADDR",
    "HVM_INFO_PFN": "HVM_INFO_PFN",
    "HVM_MAX_VCPUS": "HVM_MAX_VCPUS",
    "HVM_PARAM_COUNT": "HVM_NR_PARAMS",
    "HVM_SAVE_MAGIC": "HVM_FILE_MAGIC",
    "HVM_SAVE_VERSION": "HVM_FILE_VERSION",
    "HVM_START_MAGIC": "XEN_HVM_START_MAGIC_VALUE",
    "IOREQ_PAGE_SIZE": "XC_PAGE_SIZE",
    "IOREQ_SLOT_COUNT": "HVM_MAX_VCPUS",
    "PCI_BAR_COUNT": "PCI_STD_NUM_BARS",
    "PCI_CONFIG_SIZE": "PCI_CFG_SPACE_SIZE",
    "XEN_CPUID_FIRST": "XEN_CPUID_FIRST_LEAF",
    "XENSTORE_ABS_PATH_MAX": "XENSTORE_ABS_PATH_MAX",
    "XENSTORE_PAYLOAD_MAX": "XENSTORE_PAYLOAD_MAX",
    "XENSTORE_REL_PATH_MAX": "XENSTORE_REL_PATH_MAX",
    "XENSTORE_RING_SIZE": "XENSTORE_RING_SIZE",
}

# Sizes that C does not spell as sizeof (key: declaration or declaration.field). C declares one
# vCPU's slot only and lets callers index past it; xenstore's page has one more word since Xen 4.21.
SIZE_EXPRESSIONS = {
    "XENSTORE_PAGE": "offsetof(struct xenstore_domain_interface, error) + 4",
    "SHARED_PAGE": "HVM_MAX_VCPUS * sizeof(struct ioreq)",
    "SHARED_PAGE.vcpu_ioreq": "HVM_MAX_VCPUS * sizeof(struct ioreq)",
}

# Structures that a header gives as macros only: size, and offset of each field.
MACRO_STRUCTS = {
    "PCI_HEADER": (
        "PCI_STD_HEADER_SIZEOF",
        {
            "vendor_id": "PCI_VENDOR_ID",
            "device_id": "PCI_DEVICE_ID",
            "command": "PCI_COMMAND",
            "status": "PCI_STATUS",
            "revision_id": "PCI_REVISION_ID",
            "prog_if": "PCI_CLASS_PROG",
            "class_device": "PCI_CLASS_DEVICE",
            "cache_line_size": "PCI_CACHE_LINE_SIZE",
            "latency_timer": "PCI_LATENCY_TIMER",
            "header_type": "PCI_HEADER_TYPE",
            "bist": "PCI_BIST",
            "bar": "PCI_BASE_ADDRESS_0",
            "cardbus_cis": "PCI_CARDBUS_CIS",
            "subsystem_vendor_id": "PCI_SUBSYSTEM_VENDOR_ID",
            "subsystem_id": "PCI_SUBSYSTEM_ID",
            "rom_address": "PCI_ROM_ADDRESS",
            "capability_list": "PCI_CAPABILITY_LIST",
            "interrupt_line": "PCI_INTERRUPT_LINE",
            "interrupt_pin": "PCI_INTERRUPT_PIN",
            "min_gnt": "PCI_MIN_GNT",
            "max_lat": "PCI_MAX_LAT",
        },
    ),
    "PCI_CAPABILITY": ("PCI_CAP_FLAGS", {"id": "PCI_CAP_LIST_ID", "next": "PCI_CAP_LIST_NEXT"}),
    "MSI_32": (
        "PCI_MSI_DATA_32 + 2",
        {
            "id": "PCI_CAP_LIST_ID",
            "next": "PCI_CAP_LIST_NEXT",
            "control": "PCI_MSI_FLAGS",
            "address": "PCI_MSI_ADDRESS_LO",
            "data": "PCI_MSI_DATA_32",
        },
    ),
    "MSI_32_MASKED": (
        "PCI_MSI_PENDING_32 + 4",
        {
            "id": "PCI_CAP_LIST_ID",
            "next": "PCI_CAP_LIST_NEXT",
            "control": "PCI_MSI_FLAGS",
            "address": "PCI_MSI_ADDRESS_LO",
            "data": "PCI_MSI_DATA_32",
            "mask": "PCI_MSI_MASK_32",
            "pending": "PCI_MSI_PENDING_32",
        },
    ),
    "MSI_64": (
        "PCI_MSI_DATA_64 + 2",
        {
            "id": "PCI_CAP_LIST_ID",
            "next": "PCI_CAP_LIST_NEXT",
            "control": "PCI_MSI_FLAGS",
            "address": "PCI_MSI_ADDRESS_LO",
            "address_high": "PCI_MSI_ADDRESS_HI",
            "data": "PCI_MSI_DATA_64",
        },
    ),
    "MSI_64_MASKED": (
        "PCI_MSI_PENDING_64 + 4",
        {
            "id": "PCI_CAP_LIST_ID",
            "next": "PCI_CAP_LIST_NEXT",
            "control": "PCI_MSI_FLAGS",
            "address": "PCI_MSI_ADDRESS_LO",
            "address_high": "PCI_MSI_ADDRESS_HI",
            "data": "PCI_MSI_DATA_64",
            "mask": "PCI_MSI_MASK_64",
            "pending": "PCI_MSI_PENDING_64",
        },
    ),
    "MSIX_CAPABILITY": (
        "PCI_CAP_MSIX_SIZEOF",
        {
            "id": "PCI_CAP_LIST_ID",
            "next": "PCI_CAP_LIST_NEXT",
            "control": "PCI_MSIX_FLAGS",
            "table": "PCI_MSIX_TABLE",
            "pba": "PCI_MSIX_PBA",
        },
    ),
    "MSIX_TABLE_ENTRY": (
        "PCI_MSIX_ENTRY_SIZE",
        {
            "address": "PCI_MSIX_ENTRY_LOWER_ADDR",
            "address_high": "PCI_MSIX_ENTRY_UPPER_ADDR",
            "data": "PCI_MSIX_ENTRY_DATA",
            "vector_control": "PCI_MSIX_ENTRY_VECTOR_CTRL",
        },
    ),
    "PM_CAPABILITY": (
        "PCI_PM_SIZEOF",
        {
            "id": "PCI_CAP_LIST_ID",
            "next": "PCI_CAP_LIST_NEXT",
            "capabilities": "PCI_PM_PMC",
            "control": "PCI_PM_CTRL",
            "bridge_extensions": "PCI_PM_PPB_EXTENSIONS",
            "data": "PCI_PM_DATA_REGISTER",
        },
    ),
}

# Words of bit-fields that a header gives as masks.
WORD_MASKS = {
    "MSIX_LOCATION": {"bir": "PCI_MSIX_TABLE_BIR", "offset": "PCI_MSIX_TABLE_OFFSET"},
    "PCI_SBDF": {
        "function": "(uint32_t)XEN_DMOP_PCI_SBDF(0, 0, 0, ~0)",
        "device": "(uint32_t)XEN_DMOP_PCI_SBDF(0, 0, ~0, 0)",
        "bus": "(uint32_t)XEN_DMOP_PCI_SBDF(0, ~0, 0, 0)",
        "segment": "(uint32_t)XEN_DMOP_PCI_SBDF((uint32_t)~0, 0, 0, 0)",
    },
}

_PRIVATE = "Xen declares it in a header of its tools, which it does not install"
_OURS = "the format is ioreqd's own"

# What no installed header states, and why.
NOT_IN_HEADERS = {
    "DM_OP_ARGUMENTS": "a table of declarations that are compared one by one",
    "HVM_E820_TABLE": "HVM_E820_NR_OFFSET and HVM_E820_OFFSET, which are compared, define it",
    "HVM_INFO_SIGNATURE": "public/hvm/hvm_info_table.h has it in a comment",
    "HYPERCALL_STUB_SIZE": "public/xen.h has it in a comment",
    "HVM_START_VERSION": "public/arch-x86/hvm/start_info.h has it in a comment",
    "IOREQ_PCI_ADDRESS": "public/hvm/ioreq.h has it in a comment",
    "IOREQ_SERVER_MAX": "it is in the hypervisor's private headers",
    "IO_RANGE_MAX": "it is in the hypervisor's private headers",
    "MSI_MESSAGE_ADDRESS": "linux/pci_regs.h leaves messages to the platform",
    "MSI_MESSAGE_DATA": "linux/pci_regs.h leaves messages to the platform",
    "PCI_CONFIG_ADDRESS": "linux/pci_regs.h leaves access mechanisms to the platform",
    "PCI_CONFIG_ADDRESS_PORT": "linux/pci_regs.h leaves access mechanisms to the platform",
    "PCI_CONFIG_DATA_PORT": "linux/pci_regs.h leaves access mechanisms to the platform",
    "PCI_POINTER_MASK": "Linux keeps it in code",
    "PCI_VENDOR_NONE": "Linux keeps it in code",
    "PciClass": "Linux does not install pci_ids.h",
    "PciHeaderType.MULTI_FUNCTION": "an older linux/pci_regs.h lacks it",
    "PciInterruptPin": "Linux keeps it in code",
    **dict.fromkeys(libxl_stream.__all__, _PRIVATE),
    "XEN_SIGNATURE": "public/arch-x86/cpuid.h has it in pieces",
    **dict.fromkeys(state.__all__, _OURS),
    **dict.fromkeys(local.__all__, _OURS),
}

# Macros of the headers above that protocol/ leaves out, and why.
LEFT_OUT = {
    "HVM_PARAM_CALLBACK_TYPE_PPI": "Arm's",
    "HVM_PARAM_CALLBACK_TYPE_PPI_FLAG_LOW_LEVEL": "Arm's",
    "HVM_PARAM_CALLBACK_TYPE_PPI_FLAG_MASK": "Arm's",
    "HVMPV_feature_mask": "the union of bits that are compared one by one",
    "SHUTDOWN_MAX": "the largest of reasons that are compared one by one",
    "XENSTORE_SERVER_FEATURE_DOMID_ANY": "newer than Xen 4.20",
    "XENSTORE_SERVER_FEATURE_WATCHDEPTH": "newer than Xen 4.20",
    "XEN_HVM_MCA_CAP_MASK": "the union of bits that are compared one by one",
}
