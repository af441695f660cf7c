/* The lab's guest: what its parts promise each other. Freestanding C for Linux x86-64, glibc, static. */
#ifndef KORORA_GUEST_H
#define KORORA_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PAGE_BYTES = 4096, PAGE_WORDS = PAGE_BYTES / 8, DIGEST_BYTES = 32 };

/* --- tpm.c: the few TPM 2.0 commands a guest needs, over /dev/tpm0 (TCG TPM 2.0 part 3). ---------------
 * Each returns true when the TPM answered success. Callers take turns: tpm.c holds a lock per command. */
bool tpm_pcr_read(unsigned pcr, uint8_t value[DIGEST_BYTES]);
bool tpm_pcr_extend(unsigned pcr, const uint8_t digest[DIGEST_BYTES]);
bool tpm_ek_name(uint8_t *name, size_t *length); /* name holds at least 34 bytes */
bool tpm_nv_secret(uint8_t digest[DIGEST_BYTES]); /* defines the secret the first time; digest of its contents */

/* --- pattern.c: memory whose every page says what it must hold. ----------------------------------------- */
struct pattern;

struct pattern_check {
    uint64_t pages, errors;
    int64_t first_bad; /* page number, or -1 */
};

/* NULL when the memory cannot be had. `mixed`: half zero, a quarter repeated, a quarter unique pages. */
struct pattern *pattern_create(uint64_t fill_pages, bool mixed, uint64_t dirty_pages);
void pattern_dirty(struct pattern *p, uint64_t pages);  /* rewrite the next pages with a new generation */
void pattern_verify(struct pattern *p, uint64_t pages); /* check the next pages, adding to the counters */
struct pattern_check pattern_verify_all(struct pattern *p);
uint64_t pattern_pages(const struct pattern *p);
uint64_t pattern_errors(const struct pattern *p);
uint64_t pattern_verified(const struct pattern *p);
uint64_t pattern_dirtied(const struct pattern *p);
uint64_t pattern_generation(const struct pattern *p);
uint64_t *pattern_page(struct pattern *p, uint64_t number); /* for the self-test, which damages one */

/* --- disk.c: a slow, checked walk over the virtio disk. -------------------------------------------------- */
struct disk_state {
    bool present;
    uint32_t checks, errors;
};
void disk_start(const char *device); /* starts its own thread; does nothing without the device */
struct disk_state disk_state(void);

/* --- eventlog.c: hands the boot's event log to the host. ------------------------------------------------- */
void eventlog_start(void); /* starts its own thread */
long eventlog_bytes(void);

#endif
