/* The lab's guest program. It keeps memory, disk and TPM busy and checks them, ticks over UDP every TICK_MS,
 * and answers "report N" with a full check as JSON. Configured by korora.NAME=VALUE on the kernel's command line.
 * `korora-guest selftest` checks the pattern code on any machine, without TPM or network. */
#define _GNU_SOURCE
#include "guest.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/input.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

enum { TICK_MS = 10, WORK_MS = 20, GUEST_PORT = 9701, PAGES_PER_MIB = (1 << 20) / PAGE_BYTES };
enum { TPM_WORKS = 1, SECRET_INTACT = 2, DISK_PRESENT = 4 };

struct __attribute__((packed)) tick { /* little-endian; lab/observer.py reads it */
    char magic[4]; /* "KTK1" */
    uint32_t flags;
    uint64_t boot, sequence, monotonic_ns, errors, verified, generation, dirtied;
    uint8_t pcr16[8], nv[8];
    uint32_t disk_checks, disk_errors;
};

static char command_line[4096];
static struct pattern *pattern;
static uint64_t boot;
static int wire = -1;
static struct sockaddr_in observer;
static volatile bool tpm_works;
static uint8_t pcr16[DIGEST_BYTES], nv[DIGEST_BYTES];

/* --- the secret: one page of text that nothing but an attack changes ------------------------------------ */
/* Stored shifted by one, so that the text itself is in memory once: on its own page. */
static const char SHIFTED[] = "lpspsb.tfdsfu;!uif!epps!jt!MPDLFE";
static char *secret;

static void hide_secret(void)
{
    secret = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (size_t i = 0; SHIFTED[i]; i++)
        secret[i] = (char)(SHIFTED[i] - 1);
}

static bool secret_intact(void)
{
    for (size_t i = 0; SHIFTED[i]; i++)
        if (((volatile char *)secret)[i] != (char)(SHIFTED[i] - 1))
            return false;
    return true;
}

/* --- settings ------------------------------------------------------------------------------------------- */
static const char *setting(const char *name, const char *otherwise)
{
    static __thread char value[128];
    char wanted[64];
    snprintf(wanted, sizeof wanted, "korora.%s=", name);
    const char *at = strstr(command_line, wanted);
    if (!at)
        return otherwise;
    at += strlen(wanted);
    snprintf(value, sizeof value, "%.*s", (int)strcspn(at, " \n"), at);
    return value;
}

static uint64_t number(const char *name, const char *otherwise) { return strtoull(setting(name, otherwise), NULL, 10); }

static void read_text(const char *path, char *text, size_t size)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = file < 0 ? 0 : read(file, text, size - 1);
    text[got > 0 ? got : 0] = 0;
    if (file >= 0)
        close(file);
}

static uint64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void start(void *(*body)(void *), int priority)
{
    pthread_t thread;
    struct sched_param parameters = {.sched_priority = priority};
    if (pthread_create(&thread, NULL, body, NULL) == 0 && priority)
        pthread_setschedparam(thread, SCHED_FIFO, &parameters);
}

/* A sleep that neither drifts nor catches up: after a stall it goes on from now. */
static void sleep_until_next(struct timespec *next, long milliseconds)
{
    uint64_t due = (uint64_t)next->tv_sec * 1000000000u + (uint64_t)next->tv_nsec + (uint64_t)milliseconds * 1000000u;
    uint64_t now = monotonic_ns();
    if (due < now)
        due = now;
    next->tv_sec = (time_t)(due / 1000000000u);
    next->tv_nsec = (long)(due % 1000000000u);
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, next, NULL);
}

/* --- ticks ---------------------------------------------------------------------------------------------- */
static void send_tick(uint64_t sequence)
{
    struct disk_state disk = disk_state();
    struct tick t = {
        .magic = "KTK1",
        .flags = (tpm_works ? TPM_WORKS : 0) | (secret_intact() ? SECRET_INTACT : 0) | (disk.present ? DISK_PRESENT : 0),
        .boot = boot,
        .sequence = sequence,
        .monotonic_ns = monotonic_ns(),
        .errors = pattern_errors(pattern),
        .verified = pattern_verified(pattern),
        .generation = pattern_generation(pattern),
        .dirtied = pattern_dirtied(pattern),
        .disk_checks = disk.checks,
        .disk_errors = disk.errors,
    };
    memcpy(t.pcr16, pcr16, sizeof t.pcr16);
    memcpy(t.nv, nv, sizeof t.nv);
    sendto(wire, &t, sizeof t, MSG_DONTWAIT, (struct sockaddr *)&observer, sizeof observer);
}

static void *tick_forever(void *unused)
{
    struct timespec next;
    clock_gettime(CLOCK_MONOTONIC, &next);
    for (uint64_t sequence = 0;; sequence++) {
        send_tick(sequence);
        sleep_until_next(&next, TICK_MS);
    }
    return unused;
}

/* --- work ----------------------------------------------------------------------------------------------- */
static void *dirty_and_verify_forever(void *unused)
{
    uint64_t dirty = number("dirty_rate_mib", "0") * PAGES_PER_MIB, verify = number("verify_rate_mib", "4") * PAGES_PER_MIB;
    uint64_t owed_dirty = 0, owed_verify = 0, slots = 1000 / WORK_MS;
    struct timespec next;
    clock_gettime(CLOCK_MONOTONIC, &next);
    for (;;) {
        owed_dirty += dirty;
        owed_verify += verify;
        pattern_dirty(pattern, owed_dirty / slots);
        pattern_verify(pattern, owed_verify / slots);
        owed_dirty %= slots;
        owed_verify %= slots;
        sleep_until_next(&next, WORK_MS);
    }
    return unused;
}

static void *watch_tpm_forever(void *unused)
{
    for (;;) {
        tpm_works = tpm_pcr_read(16, pcr16);
        sleep(1);
    }
    return unused;
}

static void prepare_tpm(void)
{
    static const uint8_t digests[2][DIGEST_BYTES] = {"korora lab guest: PCR 10 event..", "korora lab guest: PCR 16 event.."};
    uint8_t before[DIGEST_BYTES], zero[DIGEST_BYTES] = {0};
    /* Started again by hand in a running guest, PCR 16 is not zero: what is in must stay as it is.
     * (PCR 10 never is: the kernel's IMA has extended it by now.) */
    if (tpm_pcr_read(16, before) && memcmp(before, zero, sizeof zero) == 0) {
        tpm_pcr_extend(10, digests[0]);
        tpm_pcr_extend(16, digests[1]);
    }
    tpm_works = tpm_nv_secret(nv) && tpm_pcr_read(16, pcr16);
}

/* --- report --------------------------------------------------------------------------------------------- */
static const char *hex(const uint8_t *bytes, size_t length, char *text)
{
    for (size_t i = 0; i < length; i++)
        sprintf(text + 2 * i, "%02x", bytes[i]);
    text[2 * length] = 0;
    return text;
}

static bool secure_boot_is_on(void)
{
    char value[8] = {0};
    read_text("/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c", value, sizeof value);
    return value[4] == 1; /* behind four bytes of attributes */
}

static size_t report(char *text, size_t size)
{
    uint8_t pcr_10[DIGEST_BYTES] = {0}, pcr_16[DIGEST_BYTES] = {0}, secret_digest[DIGEST_BYTES] = {0}, name[64];
    char hex10[80], hex16[80], hexnv[80], hexname[160];
    size_t name_length = 0;
    struct utsname machine;
    struct pattern_check check = pattern_verify_all(pattern);
    bool tpm = tpm_pcr_read(10, pcr_10) && tpm_pcr_read(16, pcr_16) && tpm_nv_secret(secret_digest);
    if (!tpm_ek_name(name, &name_length))
        name_length = 0; /* a TPM that nobody manufactured has no EK at its usual place */
    struct disk_state disk = disk_state();
    uname(&machine);
    int written = snprintf(
        text, size,
        "{\"boot\":\"%016llx\",\"uname\":\"%s %s\",\"firmware\":\"%s\",\"secure_boot\":%s,\"uptime_ms\":%llu,"
        "\"tpm\":%s,\"ek_name\":\"%s\",\"pcr10\":\"%s\",\"pcr16\":\"%s\",\"nv\":\"%s\",\"event_log_bytes\":%ld,"
        "\"pages\":%llu,\"errors\":%llu,\"errors_ever\":%llu,\"first_bad_page\":%lld,\"generation\":%llu,"
        "\"dirtied\":%llu,\"secret\":\"%.64s\",\"secret_intact\":%s,"
        "\"disk\":{\"present\":%s,\"checks\":%u,\"errors\":%u}}",
        (unsigned long long)boot, machine.sysname, machine.release,
        access("/sys/firmware/efi", F_OK) ? "bios" : "uefi", secure_boot_is_on() ? "true" : "false",
        (unsigned long long)monotonic_ns() / 1000000, tpm ? "true" : "false", hex(name, name_length, hexname),
        hex(pcr_10, DIGEST_BYTES, hex10), hex(pcr_16, DIGEST_BYTES, hex16), hex(secret_digest, DIGEST_BYTES, hexnv),
        eventlog_bytes(), (unsigned long long)check.pages, (unsigned long long)check.errors,
        (unsigned long long)pattern_errors(pattern), (long long)check.first_bad,
        (unsigned long long)pattern_generation(pattern), (unsigned long long)pattern_dirtied(pattern), secret,
        secret_intact() ? "true" : "false", disk.present ? "true" : "false", disk.checks, disk.errors);
    return written < 0 ? 0 : (size_t)written < size ? (size_t)written : size;
}

/* "report N" is answered by "report N {…}"; a repeated N gets the same answer again, without a new check. */
static void *answer_forever(void *unused)
{
    static char question[64], answered[64], answer[2048];
    size_t length = 0;
    for (;;) {
        struct sockaddr_in asker;
        socklen_t size = sizeof asker;
        ssize_t got = recvfrom(wire, question, sizeof question - 1, 0, (struct sockaddr *)&asker, &size);
        if (got < 8 || strncmp(question, "report ", 7))
            continue;
        question[got] = 0;
        if (strcmp(question, answered)) {
            length = (size_t)snprintf(answer, sizeof answer, "%s ", question);
            length += report(answer + length, sizeof answer - length);
            strcpy(answered, question);
        }
        sendto(wire, answer, length, 0, (struct sockaddr *)&asker, size);
    }
    return unused;
}

/* --- power button --------------------------------------------------------------------------------------- */
static void *obey_power_button(void *unused)
{
    struct input_event event;
    char path[32];
    for (int i = 0; i < 8; i++) {
        char name[64] = "";
        snprintf(path, sizeof path, "/dev/input/event%d", i);
        int input = open(path, O_RDONLY | O_CLOEXEC);
        if (input < 0)
            continue;
        if (ioctl(input, EVIOCGNAME(sizeof name), name) >= 0 && strstr(name, "Power Button"))
            while (read(input, &event, sizeof event) == sizeof event)
                if (event.type == EV_KEY && event.code == KEY_POWER && event.value == 1) {
                    sync();
                    reboot(RB_POWER_OFF);
                }
        close(input);
    }
    return unused;
}

/* --- start ---------------------------------------------------------------------------------------------- */
static bool open_wire(void)
{
    char text[128];
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(GUEST_PORT)};
    snprintf(text, sizeof text, "%s", setting("observer", "127.0.0.1:9700"));
    char *colon = strrchr(text, ':');
    if (!colon)
        return false;
    *colon = 0;
    observer.sin_family = AF_INET;
    observer.sin_port = htons((uint16_t)atoi(colon + 1));
    wire = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    return wire >= 0 && inet_pton(AF_INET, text, &observer.sin_addr) == 1 &&
           bind(wire, (struct sockaddr *)&here, sizeof here) == 0;
}

static int selftest(void)
{
    struct pattern *p = pattern_create(400, true, 100);
    bool good = p && pattern_verify_all(p).errors == 0;
    pattern_dirty(p, 250);
    good = good && pattern_verify_all(p).errors == 0 && pattern_generation(p) == 3;
    pattern_page(p, 437)[200] ^= 4; /* one flipped bit */
    struct pattern_check check = pattern_verify_all(p);
    good = good && check.errors == 1 && check.first_bad == 437;
    pattern_page(p, 437)[200] ^= 4;
    uint64_t old[PAGE_WORDS];
    memcpy(old, pattern_page(p, 470), PAGE_BYTES);
    pattern_dirty(p, 100);
    memcpy(pattern_page(p, 470), old, PAGE_BYTES); /* a sound page, but of an older generation */
    good = good && pattern_verify_all(p).errors == 1;
    puts(good ? "selftest: good" : "selftest: BAD");
    return good ? 0 : 1;
}

int main(int count, char **words)
{
    if (count > 1 && strcmp(words[1], "selftest") == 0)
        return selftest();
    read_text("/proc/cmdline", command_line, sizeof command_line);
    if (getrandom(&boot, sizeof boot, 0) != sizeof boot || !open_wire())
        return printf("KORORA GUEST cannot start: %s\n", strerror(errno)), 1;
    hide_secret();
    eventlog_start();
    prepare_tpm();
    bool mixed = strcmp(setting("fill", "random"), "mixed") == 0;
    pattern = pattern_create(number("fill_mib", "0") * PAGES_PER_MIB, mixed, number("dirty_mib", "16") * PAGES_PER_MIB);
    if (!pattern)
        return puts("KORORA GUEST has not enough memory for its pattern"), 1;
    disk_start("/dev/vda");
    start(tick_forever, 50);
    start(dirty_and_verify_forever, 0);
    start(watch_tpm_forever, 0);
    start(obey_power_button, 0);
    printf("KORORA GUEST READY after %llu ms, tpm %s, event log %ld bytes\n",
           (unsigned long long)monotonic_ns() / 1000000, tpm_works ? "works" : "FAILS", eventlog_bytes());
    fflush(stdout);
    answer_forever(NULL);
}
