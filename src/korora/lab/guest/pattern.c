/* Memory with a checkable pattern. A page's contents follow from its number and generation alone, and the
 * generations are kept apart from the pages: a page that is damaged, misplaced *or old* does not pass.
 * Limit: a change that hits a page and its generation alike, in step, would pass. */
#define _GNU_SOURCE
#include "guest.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { TURN_PAGES = 64, TEMPLATES = 256, HEADER_WORDS = 4 };
static const uint64_t MAGIC = 0x47504152524f524bull; /* "KRORRAPG", as it lies in memory */

enum kind { UNIQUE, REPEATED, ZERO };

struct pattern {
    uint64_t *words;
    uint32_t *generations; /* of the dirty pages */
    uint64_t fill_pages, dirty_pages;
    bool mixed;
    pthread_mutex_t lock; /* held for TURN_PAGES at most, so that nobody waits long */
    uint64_t next_dirty, next_verified;
    uint64_t dirtied, verified, errors, generation;
};

static uint64_t scramble(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

static inline uint64_t step(uint64_t x)
{
    x ^= x << 13;
    x ^= x >> 7;
    return x ^ x << 17;
}

/* Page: magic, number, generation, sum of the words behind, then words that follow from number and generation. */
static void write_page(uint64_t *page, uint64_t number, uint64_t generation)
{
    uint64_t x = scramble(number << 32 ^ generation ^ MAGIC) | 1, sum = 0;
    for (int i = HEADER_WORDS; i < PAGE_WORDS; i++) {
        x = step(x);
        page[i] = x;
        sum += x;
    }
    page[0] = MAGIC;
    page[1] = number;
    page[2] = generation;
    page[3] = sum;
}

static bool page_holds(const uint64_t *page, uint64_t number, uint64_t generation)
{
    uint64_t x = scramble(number << 32 ^ generation ^ MAGIC) | 1, sum = 0, wrong = 0;
    for (int i = HEADER_WORDS; i < PAGE_WORDS; i++) {
        x = step(x);
        wrong |= page[i] ^ x;
        sum += x;
    }
    return !wrong && page[0] == MAGIC && page[1] == number && page[2] == generation && page[3] == sum;
}

static bool page_is_zero(const uint64_t *page)
{
    uint64_t any = 0;
    for (int i = 0; i < PAGE_WORDS; i++)
        any |= page[i];
    return !any;
}

static enum kind kind_of(const struct pattern *p, uint64_t number)
{
    if (!p->mixed || number >= p->fill_pages)
        return UNIQUE;
    switch (scramble(number) & 3) {
    case 0: return UNIQUE;
    case 1: return REPEATED;
    default: return ZERO;
    }
}

/* The number under which a page is written: its own, or that of the template it repeats. */
static uint64_t contents_of(const struct pattern *p, uint64_t number)
{
    return kind_of(p, number) == REPEATED ? ~(scramble(number) >> 8) % TEMPLATES + (1ull << 31) : number;
}

static uint64_t generation_of(const struct pattern *p, uint64_t number)
{
    return number < p->fill_pages ? 0 : p->generations[number - p->fill_pages];
}

static bool page_is_good(const struct pattern *p, uint64_t number)
{
    const uint64_t *page = p->words + number * PAGE_WORDS;
    if (kind_of(p, number) == ZERO)
        return page_is_zero(page);
    return page_holds(page, contents_of(p, number), generation_of(p, number));
}

static void fill(struct pattern *p)
{
    for (uint64_t number = 0; number < pattern_pages(p); number++)
        if (kind_of(p, number) != ZERO)
            write_page(p->words + number * PAGE_WORDS, contents_of(p, number), 0);
}

struct pattern *pattern_create(uint64_t fill_pages, bool mixed, uint64_t dirty_pages)
{
    struct pattern *p = calloc(1, sizeof *p);
    size_t bytes = (fill_pages + dirty_pages) * PAGE_BYTES;
    if (!p)
        return NULL;
    p->fill_pages = fill_pages;
    p->dirty_pages = dirty_pages;
    p->mixed = mixed;
    p->generation = 1;
    pthread_mutex_init(&p->lock, NULL);
    p->generations = calloc(dirty_pages ? dirty_pages : 1, sizeof *p->generations);
    p->words = mmap(NULL, bytes ? bytes : PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!p->generations || p->words == MAP_FAILED)
        return NULL;
    fill(p);
    return p;
}

static void dirty_one(struct pattern *p)
{
    uint64_t at = p->next_dirty;
    p->generations[at] = (uint32_t)p->generation;
    write_page(p->words + (p->fill_pages + at) * PAGE_WORDS, p->fill_pages + at, p->generation);
    p->dirtied++;
    p->next_dirty = (at + 1) % p->dirty_pages;
    if (!p->next_dirty)
        p->generation++;
}

void pattern_dirty(struct pattern *p, uint64_t pages)
{
    while (p->dirty_pages && pages) {
        pthread_mutex_lock(&p->lock);
        for (int i = 0; i < TURN_PAGES && pages; i++, pages--)
            dirty_one(p);
        pthread_mutex_unlock(&p->lock);
    }
}

static uint64_t verify_turn(struct pattern *p, uint64_t first, uint64_t pages, int64_t *first_bad)
{
    uint64_t bad = 0;
    pthread_mutex_lock(&p->lock);
    for (uint64_t number = first; number < first + pages; number++) {
        if (page_is_good(p, number))
            continue;
        bad++;
        if (*first_bad < 0)
            *first_bad = (int64_t)number;
    }
    p->verified += pages;
    p->errors += bad;
    pthread_mutex_unlock(&p->lock);
    return bad;
}

void pattern_verify(struct pattern *p, uint64_t pages)
{
    uint64_t total = pattern_pages(p);
    int64_t first_bad = -1;
    while (total && pages) {
        uint64_t turn = pages < TURN_PAGES ? pages : TURN_PAGES;
        if (turn > total - p->next_verified)
            turn = total - p->next_verified;
        verify_turn(p, p->next_verified, turn, &first_bad);
        p->next_verified = (p->next_verified + turn) % total;
        pages -= turn;
    }
}

struct pattern_check pattern_verify_all(struct pattern *p)
{
    struct pattern_check check = {.pages = pattern_pages(p), .errors = 0, .first_bad = -1};
    for (uint64_t first = 0; first < check.pages; first += TURN_PAGES) {
        uint64_t turn = check.pages - first < TURN_PAGES ? check.pages - first : TURN_PAGES;
        check.errors += verify_turn(p, first, turn, &check.first_bad);
    }
    return check;
}

uint64_t pattern_pages(const struct pattern *p) { return p->fill_pages + p->dirty_pages; }
uint64_t pattern_errors(const struct pattern *p) { return p->errors; }
uint64_t pattern_verified(const struct pattern *p) { return p->verified; }
uint64_t pattern_dirtied(const struct pattern *p) { return p->dirtied; }
uint64_t pattern_generation(const struct pattern *p) { return p->generation; }
uint64_t *pattern_page(struct pattern *p, uint64_t number) { return p->words + number * PAGE_WORDS; }
