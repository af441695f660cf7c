/* Hand the boot's event log to the host over the virtio-serial port org.korora.eventlog.0: once at boot,
 * and again whenever the host writes a byte. Frame: "KEVL", length (4 bytes, big-endian), the log.
 * The host trusts nothing of it but what replays to the vTPM's PCRs. */
#define _GNU_SOURCE
#include "guest.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LOG_LIMIT = 1 << 20, HEADER_BYTES = 8 };
static const char PORT[] = "org.korora.eventlog.0";
static const char LOG[] = "/sys/kernel/security/tpm0/binary_bios_measurements";

static uint8_t frame[HEADER_BYTES + LOG_LIMIT];
static long log_bytes = -1;

static long read_all(const char *path, uint8_t *into, size_t limit)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    size_t at = 0;
    ssize_t got = 1;
    if (file < 0)
        return -1;
    while (at < limit && (got = read(file, into + at, limit - at)) > 0)
        at += (size_t)got;
    close(file);
    return (long)at;
}

static int open_if_named(const char *port)
{
    char path[128];
    uint8_t name[64];
    snprintf(path, sizeof path, "/sys/class/virtio-ports/%.60s/name", port);
    long length = read_all(path, name, sizeof name);
    if (length < (long)strlen(PORT) || strncmp((char *)name, PORT, strlen(PORT)))
        return -1;
    snprintf(path, sizeof path, "/dev/%.60s", port);
    return open(path, O_RDWR | O_CLOEXEC);
}

static int open_port(void)
{
    int port = -1;
    struct dirent *entry;
    DIR *ports = opendir("/sys/class/virtio-ports");
    while (ports && port < 0 && (entry = readdir(ports)))
        port = open_if_named(entry->d_name);
    if (ports)
        closedir(ports);
    return port;
}

static bool send_frame(int port)
{
    size_t total = HEADER_BYTES + (log_bytes > 0 ? (size_t)log_bytes : 0), at = 0;
    while (at < total) {
        ssize_t sent = write(port, frame + at, total - at); /* waits until the host has opened its end */
        if (sent <= 0)
            return false;
        at += (size_t)sent;
    }
    return true;
}

static void wait_for_request(int port)
{
    uint8_t byte;
    while (read(port, &byte, 1) != 1)
        usleep(200000); /* the host is not there: the port reads as ended */
}

static void *serve(void *unused)
{
    (void)unused;
    int port = open_port();
    while (port >= 0) {
        send_frame(port);
        wait_for_request(port);
    }
    return NULL;
}

void eventlog_start(void)
{
    pthread_t thread;
    log_bytes = read_all(LOG, frame + HEADER_BYTES, LOG_LIMIT);
    uint32_t length = log_bytes > 0 ? (uint32_t)log_bytes : 0;
    memcpy(frame, "KEVL", 4);
    for (int i = 0; i < 4; i++)
        frame[4 + i] = (uint8_t)(length >> (8 * (3 - i)));
    pthread_create(&thread, NULL, serve, NULL);
}

long eventlog_bytes(void) { return log_bytes; }
