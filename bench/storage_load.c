/* The guest's load: direct reads and writes of 4 KiB on /dev/vda, several at a time, 90 % of them in ten zones that
   are a tenth of the disk; seven reads to three writes. Says each second how many were done, and in how many
   microseconds half of them and 99 of 100 were: "load SECOND REQUESTS P50 P99" (a step of a quarter of an octave).
   With "load=rare" on the kernel's command line it only writes to every fiftieth MiB of the disk, once in half a
   minute, and says "written". */

#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/fs.h>
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 8, BLOCK = 4096, ZONES = 10, STEPS = 128, MIB = 1 << 20, EVERY_MIB = 50, EVERY_S = 30 };
static volatile uint64_t done[THREADS][STEPS];
static uint64_t blocks;
static int disk;

static uint64_t drawn(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static int step_since(const struct timespec *began)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    double us = (now.tv_sec - began->tv_sec) * 1e6 + (now.tv_nsec - began->tv_nsec) / 1e3;
    int step = us > 1 ? (int)(4 * log2(us)) : 0;
    return step < STEPS ? step : STEPS - 1;
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
        struct timespec began;
        clock_gettime(CLOCK_MONOTONIC, &began);
        ssize_t moved = drawn(&state) % 10 < 7 ? pread(disk, buffer, BLOCK, block * BLOCK)
                                               : pwrite(disk, buffer, BLOCK, block * BLOCK);
        if (moved != BLOCK) {
            perror("load");
            exit(1);
        }
        done[(uintptr_t)number][step_since(&began)]++;
    }
}

/* The microseconds at the upper end of the step in which this many of them are reached. */
static unsigned reached(const uint64_t *steps, double wanted)
{
    double seen = 0;
    int step = 0;
    while (step < STEPS - 1 && (seen += steps[step]) < wanted)
        step++;
    return (unsigned)exp2((step + 1) / 4.0);
}

static void say(unsigned second, uint64_t before[STEPS])
{
    uint64_t steps[STEPS], all = 0;
    for (int step = 0; step < STEPS; step++) {
        uint64_t sum = 0;
        for (int number = 0; number < THREADS; number++)
            sum += done[number][step];
        steps[step] = sum - before[step];
        before[step] = sum;
        all += steps[step];
    }
    printf("load %u %llu %u %u\n", second, (unsigned long long)all, all ? reached(steps, all * 0.5) : 0,
           all ? reached(steps, all * 0.99) : 0);
    fflush(stdout);
}

static int wanted_rarely(void)
{
    char words[4096] = "";
    FILE *line = fopen("/proc/cmdline", "r");
    if (line && !fgets(words, sizeof words, line))
        words[0] = 0;
    if (line)
        fclose(line);
    return strstr(words, "load=rare") != NULL;
}

static void write_rarely(uint64_t bytes)
{
    void *buffer;
    if (posix_memalign(&buffer, BLOCK, BLOCK))
        exit(1);
    memset(buffer, 0xa5, BLOCK);
    for (uint64_t at = 0; at < bytes; at += (uint64_t)EVERY_MIB * MIB)
        if (pwrite(disk, buffer, BLOCK, at) != BLOCK) {
            perror("load");
            exit(1);
        }
    fsync(disk);
    puts("written");
    fflush(stdout);
}

int main(void)
{
    uint64_t bytes, before[STEPS] = {0};
    disk = open("/dev/vda", O_RDWR | O_DIRECT);
    if (disk < 0 || ioctl(disk, BLKGETSIZE64, &bytes)) {
        perror("/dev/vda");
        return 1;
    }
    blocks = bytes / BLOCK;
    int rarely = wanted_rarely();
    if (!rarely)
        for (uintptr_t number = 0; number < THREADS; number++) {
            pthread_t thread;
            pthread_create(&thread, NULL, ask, (void *)number);
        }
    for (unsigned second = 1;; second++) {
        sleep(1);
        if (rarely && second % EVERY_S == 0)
            write_rarely(bytes);
        say(second, before);
    }
}
