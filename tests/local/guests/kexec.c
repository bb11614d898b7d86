/* What a crash kernel does after kexec: everything that it had of Xen is gone, and it sets it up
 * again: the shared page, an event channel, xenstore's ring, the console. */
#include "guest.h"

#define EVTCHNOP_ALLOC_UNBOUND 6
#define EVTCHNOP_STATUS 5
#define EVTCHNOP_CLOSE 3
#define EVTCHNOP_SEND 4
#define HVMOP_GET_PARAM 1
#define PARAM_STORE_PFN 1
#define PARAM_STORE_EVTCHN 2
#define PARAM_CONSOLE_PFN 17
#define PARAM_CONSOLE_EVTCHN 18
#define XENMEM_ADD_TO_PHYSMAP 7
#define DOMID_SELF 0x7ff0

static u8 shared_page[4096] __attribute__((aligned(4096)));

struct param { u16 domid, pad; u32 index; u64 value; };
struct alloc_unbound { u16 dom, remote; u32 port; };
struct add_to_physmap { u16 domid, size; u32 space, index, gpfn; };
struct status { u16 dom, pad; u32 port, status, vcpu, u; u32 more; };

static u32 param(u32 index)
{
    struct param param = {DOMID_SELF, 0, index, 0};
    check("get a parameter", hypercall(HYPERCALL_HVM_OP, HVMOP_GET_PARAM, (u32)&param, 0), 0);
    return (u32)param.value;
}

static u32 port_status(u32 port)
{
    struct status status = {DOMID_SELF, 0, port, 0, 0, 0, 0};
    u32 result = hypercall(HYPERCALL_EVENT_CHANNEL_OP, EVTCHNOP_STATUS, (u32)&status, 0);
    return result ? 0xdead : status.status;
}

static u32 map_shared(void)
{
    struct add_to_physmap map = {DOMID_SELF, 0, 0, 0, (u32)shared_page >> 12};
    return hypercall(HYPERCALL_MEMORY_OP, XENMEM_ADD_TO_PHYSMAP, (u32)&map, 0);
}

static void console(const char *text)
{
    u32 page = param(PARAM_CONSOLE_PFN) << 12, port = param(PARAM_CONSOLE_EVTCHN);
    volatile u32 *taken = (volatile u32 *)(page + 3072 + 8), *written = taken + 1;
    for (; *text; text++)
        write8(page + 1024 + ((*written)++ & 2047), *text);
    check("the console is told", hypercall(HYPERCALL_EVENT_CHANNEL_OP, EVTCHNOP_SEND, (u32)&port, 0), 0);
    check("the console has taken all", *taken, *written);
}

/* XS_READ of "domid" below the guest's own directory: the answer's length and first byte. */
static void xenstore(void)
{
    u32 page = param(PARAM_STORE_PFN) << 12, port = param(PARAM_STORE_EVTCHN);
    volatile u32 *index = (volatile u32 *)(page + 2048);
    static const u8 request[] = {2, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 'n', 'a', 'm', 'e', 0};
    index[0] = index[1] = index[2] = index[3] = 0;
    for (u32 i = 0; i < sizeof request; i++)
        write8(page + i, request[i]);
    index[1] = sizeof request;
    check("xenstore is told", hypercall(HYPERCALL_EVENT_CHANNEL_OP, EVTCHNOP_SEND, (u32)&port, 0), 0);
    check("xenstore has taken it", index[0], sizeof request);
    check("xenstore answers", index[3] > 16, 1);
    check("with a value", read8(page + 1024), 2);
    check("the name begins", read8(page + 1024 + 16), 'k');
}

static u32 set_up(const char *when)
{
    struct alloc_unbound unbound = {DOMID_SELF, 0, 0};
    say("SET UP %s", when);
    check("the shared page is mapped", map_shared(), 0);
    check("a port is given", hypercall(HYPERCALL_EVENT_CHANNEL_OP, EVTCHNOP_ALLOC_UNBOUND, (u32)&unbound, 0), 0);
    check("it is unbound", port_status(unbound.port), 1);
    xenstore();
    console(when);
    console(" kernel speaks\n");
    return unbound.port;
}

static void guest_main(void)
{
    u32 port = set_up("first");
    check("time is in the shared page", read32((u32)shared_page + 32 + 24) != 0, 1);
    check("shutdown hypercall", shutdown(SHUTDOWN_SOFT_RESET), 0);
    check("the port is gone", port_status(port), 0);
    check("the page is ordinary memory", read32((u32)shared_page + 32 + 24), 0);
    write32((u32)shared_page, 0x12345678);
    check("that can be written", read32((u32)shared_page), 0x12345678);
    find_hypercalls();
    set_up("second");
    guest_end();
}
