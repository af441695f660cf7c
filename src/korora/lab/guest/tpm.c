/* TPM commands for the guest. Limit: empty authorizations only, SHA-256 bank only, one command at a time. */
#include "guest.h"

#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum {
    TAG_PLAIN = 0x8001,
    TAG_SESSIONS = 0x8002,
    CC_NV_DEFINE = 0x12a,
    CC_NV_WRITE = 0x137,
    CC_NV_READ = 0x14e,
    CC_READ_PUBLIC = 0x173,
    CC_HASH = 0x17d,
    CC_PCR_READ = 0x17e,
    CC_PCR_EXTEND = 0x182,
    RH_OWNER = 0x40000001,
    RH_NULL = 0x40000007,
    RS_PASSWORD = 0x40000009,
    ALG_SHA256 = 0x000b,
    EK_HANDLE = 0x81010001,
    NV_INDEX = 0x01500020,
    NV_ATTRIBUTES = 0x02060006, /* owner and auth may read and write; not subject to lockout */
    NV_BYTES = 32,
    RC_RETRY = 0x922,
    RC_NV_DEFINED = 0x14c,
};

struct command {
    uint8_t bytes[1024];
    size_t length;
};

struct answer {
    uint8_t bytes[4096];
    size_t length;
};

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

static void put(struct command *c, uint64_t value, int size)
{
    while (size--)
        c->bytes[c->length++] = (uint8_t)(value >> (8 * size));
}

static void put_bytes(struct command *c, const uint8_t *bytes, size_t length)
{
    memcpy(c->bytes + c->length, bytes, length);
    c->length += length;
}

static uint32_t get(const uint8_t *bytes, int size)
{
    uint32_t value = 0;
    while (size--)
        value = value << 8 | *bytes++;
    return value;
}

static struct command begin(unsigned tag, uint32_t code)
{
    struct command c = {.length = 0};
    put(&c, tag, 2);
    put(&c, 0, 4); /* total length, set when it is sent */
    put(&c, code, 4);
    return c;
}

static void put_empty_password(struct command *c)
{
    put(c, 9, 4);
    put(c, RS_PASSWORD, 4);
    put(c, 0, 2);
    put(c, 0, 1);
    put(c, 0, 2);
}

static bool exchange_once(const struct command *c, struct answer *a)
{
    int tpm = open("/dev/tpm0", O_RDWR | O_CLOEXEC);
    if (tpm < 0)
        return false;
    bool sent = write(tpm, c->bytes, c->length) == (ssize_t)c->length;
    ssize_t got = sent ? read(tpm, a->bytes, sizeof a->bytes) : -1;
    close(tpm);
    a->length = got > 0 ? (size_t)got : 0;
    return got >= 10;
}

/* The TPM's response code, or ~0 when nothing readable came back. */
static uint32_t transmit(struct command *c, struct answer *a)
{
    uint32_t code = ~0u;
    for (int i = 0; i < 4; i++)
        c->bytes[2 + i] = (uint8_t)(c->length >> (8 * (3 - i)));
    pthread_mutex_lock(&turn);
    for (int tries = 0; tries < 20; tries++) {
        code = exchange_once(c, a) ? get(a->bytes + 6, 4) : ~0u;
        if (code != RC_RETRY)
            break;
        usleep(5000);
    }
    pthread_mutex_unlock(&turn);
    return code;
}

bool tpm_pcr_read(unsigned pcr, uint8_t value[DIGEST_BYTES])
{
    struct answer a;
    struct command c = begin(TAG_PLAIN, CC_PCR_READ);
    put(&c, 1, 4);
    put(&c, ALG_SHA256, 2);
    put(&c, 3, 1);
    for (unsigned byte = 0; byte < 3; byte++)
        put(&c, pcr / 8 == byte ? 1u << (pcr % 8) : 0, 1);
    /* header 10, update counter 4, selection 4+2+1+3, digest count 4, digest size 2, digest */
    if (transmit(&c, &a) || a.length < 30 + DIGEST_BYTES || get(a.bytes + 28, 2) != DIGEST_BYTES)
        return false;
    memcpy(value, a.bytes + 30, DIGEST_BYTES);
    return true;
}

bool tpm_pcr_extend(unsigned pcr, const uint8_t digest[DIGEST_BYTES])
{
    struct answer a;
    struct command c = begin(TAG_SESSIONS, CC_PCR_EXTEND);
    put(&c, pcr, 4);
    put_empty_password(&c);
    put(&c, 1, 4);
    put(&c, ALG_SHA256, 2);
    put_bytes(&c, digest, DIGEST_BYTES);
    return transmit(&c, &a) == 0;
}

bool tpm_ek_name(uint8_t *name, size_t *length)
{
    struct answer a;
    struct command c = begin(TAG_PLAIN, CC_READ_PUBLIC);
    put(&c, EK_HANDLE, 4);
    if (transmit(&c, &a) || a.length < 12)
        return false;
    size_t at = 12 + get(a.bytes + 10, 2); /* behind the TPM2B_PUBLIC */
    if (a.length < at + 2 || get(a.bytes + at, 2) > 34 || a.length < at + 2 + get(a.bytes + at, 2))
        return false;
    *length = get(a.bytes + at, 2);
    memcpy(name, a.bytes + at + 2, *length);
    return true;
}

static bool nv_define(bool *fresh)
{
    struct answer a;
    struct command c = begin(TAG_SESSIONS, CC_NV_DEFINE);
    put(&c, RH_OWNER, 4);
    put_empty_password(&c);
    put(&c, 0, 2);
    put(&c, 14, 2);
    put(&c, NV_INDEX, 4);
    put(&c, ALG_SHA256, 2);
    put(&c, NV_ATTRIBUTES, 4);
    put(&c, 0, 2);
    put(&c, NV_BYTES, 2);
    uint32_t code = transmit(&c, &a);
    *fresh = code == 0;
    return code == 0 || code == RC_NV_DEFINED;
}

static bool nv_write(const uint8_t secret[NV_BYTES])
{
    struct answer a;
    struct command c = begin(TAG_SESSIONS, CC_NV_WRITE);
    put(&c, NV_INDEX, 4);
    put(&c, NV_INDEX, 4);
    put_empty_password(&c);
    put(&c, NV_BYTES, 2);
    put_bytes(&c, secret, NV_BYTES);
    put(&c, 0, 2);
    return transmit(&c, &a) == 0;
}

static bool nv_read(uint8_t secret[NV_BYTES])
{
    struct answer a;
    struct command c = begin(TAG_SESSIONS, CC_NV_READ);
    put(&c, NV_INDEX, 4);
    put(&c, NV_INDEX, 4);
    put_empty_password(&c);
    put(&c, NV_BYTES, 2);
    put(&c, 0, 2);
    /* header 10, parameter size 4, TPM2B size 2, bytes */
    if (transmit(&c, &a) || a.length < 16 + NV_BYTES || get(a.bytes + 14, 2) != NV_BYTES)
        return false;
    memcpy(secret, a.bytes + 16, NV_BYTES);
    return true;
}

static bool hash(const uint8_t *bytes, size_t length, uint8_t digest[DIGEST_BYTES])
{
    struct answer a;
    struct command c = begin(TAG_PLAIN, CC_HASH);
    put(&c, length, 2);
    put_bytes(&c, bytes, length);
    put(&c, ALG_SHA256, 2);
    put(&c, RH_NULL, 4);
    if (transmit(&c, &a) || a.length < 12 + DIGEST_BYTES)
        return false;
    memcpy(digest, a.bytes + 12, DIGEST_BYTES);
    return true;
}

bool tpm_nv_secret(uint8_t digest[DIGEST_BYTES])
{
    uint8_t secret[NV_BYTES];
    bool fresh = false;
    if (!nv_define(&fresh))
        return false;
    if (fresh && (getrandom(secret, sizeof secret, 0) != sizeof secret || !nv_write(secret)))
        return false;
    bool known = nv_read(secret) && hash(secret, sizeof secret, digest);
    explicit_bzero(secret, sizeof secret);
    return known;
}
