/* A slow, checked walk over the virtio disk: write a block, read it back, read an older one too.
 * It uses BLOCKS blocks from OFFSET on and destroys what was there; the lab's disks hold nothing else. */
#define _GNU_SOURCE
#include "guest.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BLOCKS = 256, OFFSET = 1 << 20, PAUSE_US = 100000 };

static struct disk_state state;
static uint64_t generations[BLOCKS];

static void expect(uint64_t *block, unsigned number)
{
    for (int i = 0; i < PAGE_WORDS; i++)
        block[i] = (generations[number] << 20 | number) * 0x9e3779b97f4a7c15ull + (uint64_t)i;
}

static bool block_is_good(int disk, uint64_t *buffer, unsigned number)
{
    uint64_t wanted[PAGE_WORDS];
    expect(wanted, number);
    return pread(disk, buffer, PAGE_BYTES, OFFSET + (off_t)number * PAGE_BYTES) == PAGE_BYTES &&
           memcmp(buffer, wanted, PAGE_BYTES) == 0;
}

static bool write_block(int disk, uint64_t *buffer, unsigned number)
{
    generations[number]++;
    expect(buffer, number);
    return pwrite(disk, buffer, PAGE_BYTES, OFFSET + (off_t)number * PAGE_BYTES) == PAGE_BYTES;
}

static void *walk(void *device)
{
    void *buffer = NULL;
    int disk = open(device, O_RDWR | O_DIRECT | O_DSYNC | O_CLOEXEC);
    if (disk < 0 || posix_memalign(&buffer, PAGE_BYTES, PAGE_BYTES))
        return NULL;
    state.present = true;
    for (uint64_t round = 0;; round++) {
        unsigned number = (unsigned)(round % BLOCKS), older = (unsigned)((round * 7 + 1) % BLOCKS);
        bool good = write_block(disk, buffer, number) && block_is_good(disk, buffer, number);
        if (generations[older])
            good = block_is_good(disk, buffer, older) && good;
        state.checks++;
        state.errors += !good;
        usleep(PAUSE_US);
    }
}

void disk_start(const char *device)
{
    pthread_t thread;
    if (access(device, R_OK | W_OK) == 0)
        pthread_create(&thread, NULL, walk, (void *)device);
}

struct disk_state disk_state(void) { return state; }
