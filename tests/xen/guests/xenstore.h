/* What a guest with PV drivers says to its toolstack: reading and writing xenstore over the ring
 * (public/io/xs_wire.h), one request at a time, waiting by looking.
 */
#ifndef XENSTORE_H
#define XENSTORE_H

#include "guest.h"

#define DOMID_SELF 0x7ff0
#define HVMOP_SET_PARAM 0
#define HVMOP_GET_PARAM 1
#define HVM_PARAM_CALLBACK_IRQ 0
#define HVM_PARAM_STORE_PFN 1
#define HVM_PARAM_STORE_EVTCHN 2
#define EVTCHNOP_SEND 4
#define XS_READ 2
#define XS_WRITE 11
#define XS_RING 1024

struct xenstore_ring {
    u8 requests[XS_RING], answers[XS_RING];
    volatile u32 request_consumer, request_producer, answer_consumer, answer_producer;
};

struct xenstore_message { u32 type, request, transaction, length; };

static u64 hvm_param(u32 operation, u32 index, u64 value)
{
    struct { u16 domid, pad; u32 index; u64 value; } argument = {DOMID_SELF, 0, index, value};
    hypercall(HYPERCALL_HVM_OP, operation, (u32)&argument, 0);
    return argument.value;
}

static struct xenstore_ring *xenstore_ring(void)
{
    return (struct xenstore_ring *)((u32)hvm_param(HVMOP_GET_PARAM, HVM_PARAM_STORE_PFN, 0) << 12);
}

static void xenstore_put(const void *data, u32 length)
{
    struct xenstore_ring *ring = xenstore_ring();
    for (const u8 *byte = data; length--; byte++)
        ring->requests[ring->request_producer++ % XS_RING] = *byte;
}

static u8 xenstore_get(void)
{
    struct xenstore_ring *ring = xenstore_ring();
    while (ring->answer_consumer == ring->answer_producer)
        pause_cpu();
    return ring->answers[ring->answer_consumer++ % XS_RING];
}

/* One exchange; the answer's text goes to `answer` with a zero at its end. */
static u32 xenstore_call(u32 type, const void *body, u32 length, char *answer, u32 room)
{
    struct xenstore_message message = {type, 1, 0, length};
    u32 port = hvm_param(HVMOP_GET_PARAM, HVM_PARAM_STORE_EVTCHN, 0), got = 0;
    xenstore_put(&message, sizeof message);
    xenstore_put(body, length);
    hypercall(HYPERCALL_EVENT_CHANNEL_OP, EVTCHNOP_SEND, (u32)&port, 0);
    for (u32 i = 0; i < sizeof message; i++)
        ((u8 *)&message)[i] = xenstore_get();
    for (u32 i = 0; i < message.length; i++) {
        u8 byte = xenstore_get();
        if (got + 1 < room)
            answer[got++] = byte;
    }
    answer[got] = 0;
    return message.type;
}

/* Tell the toolstack that this guest has PV drivers: it asks such a guest to end itself. */
static void xenstore_announce(void)
{
    hvm_param(HVMOP_SET_PARAM, HVM_PARAM_CALLBACK_IRQ, 1ull << 56 | 0xf3);
}

#endif
