/* The guest's load: direct reads and writes on /dev/vda, eight at a time. Says each second how many were done, and in
   how many microseconds half of them and 99 of 100 were, of all, of the reads, of the writes (a step of a quarter of
   an octave): "load SECOND REQUESTS P50 P99 P50 P99 P50 P99". Which, stands on the kernel's command line:
   load=zones       4 KiB, seven reads to three writes, 90 % of them in ten zones that are a tenth of the disk
   load=flat        the same, but all parts of the disk are as likely
   load=sequential  64 KiB, in order: six readers and two writers, each through an eighth of the disk, again and again
   load=database    pages of 8 KiB, as zones; and one of the eight appends 4 KiB to a log in the last sixteenth of the
                    disk, and flushes it before the next
   rate=N           no more than so many requests in a second, an eighth of them by each; what was missed is not made up
   load=rare        it only writes to every fiftieth MiB of the disk, once in half a minute, and says "written" */

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

enum { THREADS = 8, BLOCK = 4096, PAGE = 8192, RUN = 65536, LOG = 16, READERS = 6,
       ZONES = 10, STEPS = 128, MIB = 1 << 20, EVERY_MIB = 50, EVERY_S = 30 };
enum { READS, WRITES, KINDS };
static volatile uint64_t done[THREADS][KINDS][STEPS];
static uint64_t bytes;
static int disk, flat, page = BLOCK;
static uint64_t apart_ns; /* requests of one of the eight; 0: each as soon as the last is done */

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

static void *buffer_of(size_t size)
{
    void *buffer;
    if (posix_memalign(&buffer, BLOCK, size))
        exit(1);
    memset(buffer, 0x5a, size);
    return buffer;
}

static void wait_for_turn(void)
{
    static _Thread_local uint64_t turn;
    struct timespec then;
    clock_gettime(CLOCK_MONOTONIC, &then);
    uint64_t now = then.tv_sec * 1000000000ull + then.tv_nsec;
    turn += apart_ns;
    if (turn <= now) {
        turn = now;
        return;
    }
    then.tv_sec = turn / 1000000000ull;
    then.tv_nsec = turn % 1000000000ull;
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &then, NULL);
}

static void request(uintptr_t number, int kind, void *buffer, size_t size, uint64_t at, int flush)
{
    struct timespec began;
    if (apart_ns)
        wait_for_turn();
    clock_gettime(CLOCK_MONOTONIC, &began);
    ssize_t moved = kind == READS ? pread(disk, buffer, size, at) : pwrite(disk, buffer, size, at);
    if (moved != (ssize_t)size || (flush && fdatasync(disk))) {
        perror("load");
        exit(1);
    }
    done[number][kind][step_since(&began)]++;
}

static void *ask(void *number)
{
    uint64_t state = 88172645463325252ull * ((uintptr_t)number + 1), pages = bytes / page;
    void *buffer = buffer_of(page);
    for (;;) {
        uint64_t one = drawn(&state) % pages;
        if (drawn(&state) % 10 && !flat) { /* in a zone: the first tenth of a tenth of the disk */
            uint64_t zone = pages / ZONES;
            one = one / zone * zone + one % zone / ZONES;
            if (one >= pages)
                continue;
        }
        int kind = drawn(&state) % 10 < 7 ? READS : WRITES;
        request((uintptr_t)number, kind, buffer, page, one * page, 0);
    }
}

static void *go_through(void *number)
{
    uint64_t length = bytes / THREADS / RUN * RUN, begin = (uintptr_t)number * length;
    void *buffer = buffer_of(RUN);
    for (;;)
        for (uint64_t at = 0; at < length; at += RUN)
            request((uintptr_t)number, (uintptr_t)number < READERS ? READS : WRITES, buffer, RUN, begin + at, 0);
}

static void *append(void *number)
{
    uint64_t begin = (bytes - bytes / LOG) / BLOCK * BLOCK;
    void *buffer = buffer_of(BLOCK);
    for (;;)
        for (uint64_t at = begin; at + BLOCK <= bytes; at += BLOCK)
            request((uintptr_t)number, WRITES, buffer, BLOCK, at, 1);
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

static uint64_t sum_of(const uint64_t *steps)
{
    uint64_t sum = 0;
    for (int step = 0; step < STEPS; step++)
        sum += steps[step];
    return sum;
}

static void say_reached(const uint64_t *steps)
{
    uint64_t all = sum_of(steps);
    printf(" %u %u", all ? reached(steps, all * 0.5) : 0, all ? reached(steps, all * 0.99) : 0);
}

static void say(unsigned second, uint64_t before[KINDS][STEPS])
{
    uint64_t steps[KINDS][STEPS], both[STEPS] = {0};
    for (int kind = 0; kind < KINDS; kind++)
        for (int step = 0; step < STEPS; step++) {
            uint64_t sum = 0;
            for (int number = 0; number < THREADS; number++)
                sum += done[number][kind][step];
            steps[kind][step] = sum - before[kind][step];
            before[kind][step] = sum;
            both[step] += steps[kind][step];
        }
    printf("load %u %llu", second, (unsigned long long)sum_of(both));
    say_reached(both);
    say_reached(steps[READS]);
    say_reached(steps[WRITES]);
    putchar('\n');
    fflush(stdout);
}

/* What follows this word on the kernel's command line; NULL where it does not stand there. */
static const char *wanted(const char *word)
{
    static char words[4096];
    FILE *line = fopen("/proc/cmdline", "r");
    if (!line || !fgets(words, sizeof words, line))
        words[0] = 0;
    if (line)
        fclose(line);
    const char *found = strstr(words, word);
    return found ? found + strlen(word) : NULL;
}

static void write_rarely(void)
{
    static uint64_t state = 1;
    uint64_t *buffer = buffer_of(MIB);
    for (uint64_t at = 0; at + MIB <= bytes; at += (uint64_t)EVERY_MIB * MIB) {
        for (size_t number = 0; number < MIB / sizeof *buffer; number++) {
            state ^= state << 13; /* xorshift64 (Marsaglia 2003): never the same content again */
            state ^= state >> 7;
            state ^= state << 17;
            buffer[number] = state;
        }
        if (pwrite(disk, buffer, MIB, at) != MIB) {
            perror("load");
            exit(1);
        }
    }
    free(buffer);
    fsync(disk);
    puts("written");
    fflush(stdout);
}

int main(void)
{
    uint64_t before[KINDS][STEPS] = {0};
    disk = open("/dev/vda", O_RDWR | O_DIRECT);
    if (disk < 0 || ioctl(disk, BLKGETSIZE64, &bytes)) {
        perror("/dev/vda");
        return 1;
    }
    flat = wanted("load=flat") != NULL;
    int rarely = wanted("load=rare") != NULL, database = wanted("load=database") != NULL;
    const char *rate = wanted("rate=");
    if (rate && atoi(rate) > 0)
        apart_ns = THREADS * 1000000000ull / atoi(rate);
    page = database ? PAGE : BLOCK;
    for (uintptr_t number = 0; !rarely && number < THREADS; number++) {
        void *(*work)(void *) = wanted("load=sequential") ? go_through : database && !number ? append : ask;
        pthread_t thread;
        pthread_create(&thread, NULL, work, (void *)number);
    }
    for (unsigned second = 1;; second++) {
        sleep(1);
        if (rarely && second % EVERY_S == 0)
            write_rarely();
        say(second, before);
    }
}
