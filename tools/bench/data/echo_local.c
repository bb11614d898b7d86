/* The least that an emulator of the stand-alone hypervisor can do: answers every request in one
 * slot with 0x5a, and nothing else.
 *
 * ./echo_local PAGE FRONT BACK VCPU NANOSECONDS: the descriptors of the ioreq page and of the event
 * channel's two ends, which whoever starts it has bound; the slot; and how long it watches the slot
 * before it sleeps (0: it sleeps at once). It prints a line once it serves and ends with its input.
 *
 * Facts: xen/include/public/hvm/ioreq.h.
 */
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { READY = 1, INPROCESS = 2, ANSWERED = 3, STATE = 0xf, ANSWER = 0x5a, LOOKS = 64 };

struct slot {
    uint64_t address, data;
    uint32_t count, size, port;
    uint16_t unused;
    uint8_t flags, type;
};

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ll + time.tv_nsec;
}

static uint8_t flags_of(struct slot *slot) { return __atomic_load_n(&slot->flags, __ATOMIC_ACQUIRE); }

static int is_ready(struct slot *slot) { return (flags_of(slot) & STATE) == READY; }

static void answer(struct slot *slot, int back)
{
    uint8_t flags = slot->flags & ~STATE;
    uint64_t one = 1;

    __atomic_store_n(&slot->flags, flags | INPROCESS, __ATOMIC_RELEASE);
    slot->data = ANSWER;
    __atomic_store_n(&slot->flags, flags | ANSWERED, __ATOMIC_RELEASE);
    if (write(back, &one, sizeof one) != sizeof one)
        exit(1);
}

/* Serve until the slot has not been READY for so long. */
static void watch(struct slot *slot, int back, int64_t length)
{
    int64_t end = now() + length;

    do {
        for (int i = 0; i < LOOKS; i++)
            if (is_ready(slot)) {
                answer(slot, back);
                end = now() + length;
            }
    } while (now() < end);
}

int main(int argc, char **argv)
{
    if (argc != 6)
        return 2;
    int page = atoi(argv[1]), front = atoi(argv[2]), back = atoi(argv[3]);
    int64_t length = atoll(argv[5]);
    struct slot *slots = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, page, 0);
    struct slot *slot = slots + atoi(argv[4]);
    struct pollfd waits[] = {{front, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
    uint64_t raised;

    if (slots == MAP_FAILED)
        return 1;
    puts("ready");
    fflush(stdout);
    while (poll(waits, 2, -1) > 0 && !waits[1].revents) {
        if (read(front, &raised, sizeof raised) < 0)
            continue;
        if (is_ready(slot))
            answer(slot, back);
        if (length)
            watch(slot, back, length);
    }
    return 0;
}
