/* The guest's load: direct reads and writes of 4 KiB on /dev/vda, several at a time, 90 % of them in ten zones that
   are a tenth of the disk; seven reads to three writes. Says each second how many were done:
   "load SECOND REQUESTS". */

#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { THREADS = 8, BLOCK = 4096, ZONES = 10 };
static volatile uint64_t done[THREADS];
static uint64_t blocks;
static int disk;

static uint64_t drawn(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void *ask(void *number)
{
    uint64_t state = 88172645463325252ull * ((uintptr_t)number + 1);
    void *buffer;
    if (posix_memalign(&buffer, BLOCK, BLOCK))
        exit(1);
    for (;;) {
        uint64_t block = drawn(&state) % blocks;
        if (drawn(&state) % 10) { /* in a zone: the first tenth of a tenth of the disk */
            uint64_t zone = blocks / ZONES;
            block = block / zone * zone + block % zone / ZONES;
            if (block >= blocks)
                continue;
        }
        ssize_t moved = drawn(&state) % 10 < 7 ? pread(disk, buffer, BLOCK, block * BLOCK)
                                               : pwrite(disk, buffer, BLOCK, block * BLOCK);
        if (moved != BLOCK) {
            perror("load");
            exit(1);
        }
        done[(uintptr_t)number]++;
    }
}

int main(void)
{
    uint64_t bytes, before = 0;
    disk = open("/dev/vda", O_RDWR | O_DIRECT);
    if (disk < 0 || ioctl(disk, BLKGETSIZE64, &bytes)) {
        perror("/dev/vda");
        return 1;
    }
    blocks = bytes / BLOCK;
    for (uintptr_t number = 0; number < THREADS; number++) {
        pthread_t thread;
        pthread_create(&thread, NULL, ask, (void *)number);
    }
    for (unsigned second = 1;; second++) {
        sleep(1);
        uint64_t all = 0;
        for (int number = 0; number < THREADS; number++)
            all += done[number];
        printf("load %u %llu\n", second, (unsigned long long)(all - before));
        fflush(stdout);
        before = all;
    }
}
