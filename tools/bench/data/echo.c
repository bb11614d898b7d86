/* The least that an emulator can do: answers every request of a guest's one vCPU to one port with
 * 0x5a, and nothing else.
 *
 * It stands beside a guest's device model, in dom0: ./echo DOMID PORT sleep|poll. "sleep" waits on
 * the event channel for each request; "poll" watches the slot, as long as a request came in the
 * last 3 ms. It calls the kernel's Xen devices itself, so it is linked statically and what it costs is
 * a floor. It prints a line once it serves, and is ended by a signal.
 *
 * Facts: xen/include/public/hvm/{dm_op,ioreq}.h; Linux include/uapi/xen/{privcmd,evtchn}.h.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define WATCH 3000000 /* ns */
#define ANSWER 0x5a

struct buffer { void *at; size_t size; };
struct dm_call { uint16_t domid, count; const struct buffer *buffers; };
struct map_resource { uint16_t domid; uint32_t type, id, index; uint64_t count, address; };
struct bind { uint32_t domid, port; };
#define PRIVCMD_DM_OP _IOC(_IOC_NONE, 'P', 5, sizeof(struct dm_call))
#define PRIVCMD_MAP_RESOURCE _IOC(_IOC_NONE, 'P', 7, sizeof(struct map_resource))
#define EVTCHN_BIND_INTERDOMAIN _IOC(_IOC_NONE, 'E', 1, sizeof(struct bind))
#define EVTCHN_NOTIFY _IOC(_IOC_NONE, 'E', 4, sizeof(uint32_t))

enum { CREATE = 1, CLAIM = 3, ENABLE = 5, DESTROY = 6 };
struct dm_op {
    uint32_t op, pad;
    union {
        struct { uint8_t ring, pad[3]; uint16_t id; } create;
        struct { uint16_t id, pad; uint32_t space; uint64_t first, last; } claim;
        struct { uint16_t id; uint8_t enabled, pad; } enable;
        struct { uint16_t id, pad; } destroy;
        uint8_t space[48];
    } u;
};
struct ioreq {
    uint64_t address, data;
    uint32_t count, size, port;
    uint16_t reserved;
    uint8_t flags, type; /* flags: 4 bits of state, data_is_ptr, direction, df */
};
enum { STATE = 15, READY = 1, INPROCESS = 2, ANSWERED = 3 };

static int privcmd, events, domid, server = -1;
static volatile struct ioreq *slot;
static uint32_t port_of_slot;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void dm_op(struct dm_op *op)
{
    struct buffer buffer = { op, sizeof *op };
    struct dm_call call = { domid, 1, &buffer };
    if (ioctl(privcmd, PRIVCMD_DM_OP, &call))
        fail("dm_op");
}

static void end(int signal)
{
    struct dm_op op = { .op = DESTROY, .u.destroy = { server, 0 } };
    dm_op(&op);
    _exit(signal != SIGTERM);
}

static void open_server(uint16_t port)
{
    struct dm_op create = { .op = CREATE };
    dm_op(&create);
    server = create.u.create.id;
    signal(SIGTERM, end);
    slot = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, privcmd, 0);
    struct map_resource map = { domid, 0, server, 1, 1, (uintptr_t)slot };
    if (slot == MAP_FAILED || ioctl(privcmd, PRIVCMD_MAP_RESOURCE, &map))
        fail("map");
    struct dm_op claim = { .op = CLAIM, .u.claim = { server, 0, 0, port, port } };
    struct dm_op enable = { .op = ENABLE, .u.enable = { server, 1, 0 } };
    dm_op(&claim);
    dm_op(&enable);
    struct bind bind = { domid, slot->port };
    int bound = ioctl(events, EVTCHN_BIND_INTERDOMAIN, &bind);
    if (bound < 0)
        fail("bind");
    port_of_slot = bound;
}

static int serve(void)
{
    if ((slot->flags & STATE) != READY)
        return 0;
    slot->flags += INPROCESS - READY;
    slot->data = ANSWER;
    __sync_synchronize();
    slot->flags += ANSWERED - INPROCESS;
    if (ioctl(events, EVTCHN_NOTIFY, &port_of_slot))
        fail("notify");
    return 1;
}

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static void watch(void)
{
    uint64_t since = now();
    for (;;) {
        for (int looks = 0; looks < 256; looks++)
            if (serve())
                since = now();
        if (now() - since > WATCH)
            return;
    }
}

int main(int argc, char **argv)
{
    uint32_t told[16];
    if (argc != 4)
        return 2;
    int polls = !strcmp(argv[3], "poll");
    domid = atoi(argv[1]);
    privcmd = open("/dev/xen/privcmd", O_RDWR | O_CLOEXEC);
    events = open("/dev/xen/evtchn", O_RDWR | O_CLOEXEC);
    if (privcmd < 0 || events < 0)
        fail("/dev/xen");
    open_server(strtoul(argv[2], 0, 0));
    printf("serving\n");
    fflush(stdout);
    for (;;) {
        ssize_t length = read(events, told, sizeof told);
        if (length < 0)
            fail("read");
        if (serve() && polls)
            watch();
        /* The ports are told of again; until then the kernel keeps them quiet. */
        if (write(events, told, length) != length)
            fail("write");
    }
}
