/* SPDX-License-Identifier: Apache-2.0
 *
 * What bdbi-warm and the learner store, with a fake translator and fake ELF files: a module is a text file, every 64th of its
 * bytes starts a block, a block's code is 16 bytes that name it. Shown: base images, extents and epochs, the code map, start
 * records, the miss log's way through the files of the cache directory.
 */
#include "analyzer/analyzer.h"
#include "cachedb/cachedb.h"
#include "cachedb/codegen_key.h"
#include "include/internal/error.h"
#include "launcher/context.h"
#include "launcher/host.h"
#include "tests/cachedb/test.h"
#include "tools/registry.h"

#include <sys/file.h>
#include <sys/wait.h>

#define FILE_BYTES 64000
#define BASE_BLOCKS (FILE_BYTES / 64)
#define CODE_BYTES 16

static unsigned translations;  /* how often the fake translator was asked */
static size_t least_code;      /* bytes of code that it makes */
static uint32_t last_resolved; /* blocks that `resolve` knew in the last translation */
static uint32_t last_ran;      /* blocks that had run, it was told */

/* ---- the fakes ---- */

struct decoder;
struct jit {
    int unused;
};

static const struct bdbi_tool fake = {.name = "fake"};
static const struct tool_choice tool = {.tool = &fake, .args = "", .fingerprint = 77, .text = "fake"};

int tool_choose(const char *text, struct tool_choice *out, char *line, size_t line_bytes)
{
    *out = tool;
    snprintf(out->text, sizeof out->text, "%s", text);
    if (strcmp(text, tool.text) == 0) {
        return 0;
    }
    snprintf(line, line_bytes, "no such tool");
    return -1;
}

const struct bdbi_tool *tool_builtin(unsigned n)
{
    return n == 0 ? &fake : NULL;
}

uint64_t tool_fingerprint(const struct bdbi_tool *with, uint64_t content, const char *args)
{
    CHECK(with == &fake && content == 0 && *args == '\0');
    return tool.fingerprint;
}

void tool_start(const struct bdbi_tool *with)
{
    CHECK(with == &fake);
}

size_t tool_describe_crash(char *line, size_t line_bytes, const struct bdbi_tool *with, const char *where, int sig, uint64_t pc,
                           uint64_t address)
{
    (void)pc;
    (void)address;
    return (size_t)snprintf(line, line_bytes, "%s %s %d", with->name, where, sig);
}

struct jit *jit_new(void)
{
    return calloc(1, sizeof(struct jit));
}

void jit_free(struct jit *j)
{
    free(j);
}

int jit_translate_parallel(const struct jit_unit *unit, unsigned nthreads, struct jit_output *out)
{
    (void)nthreads;
    memset(out, 0, sizeof *out);
    translations++;
    last_resolved = 0;
    last_ran = out->nran = unit->nran;
    out->order = calloc(unit->nleaders + 1, sizeof *out->order);
    out->nblocks = unit->nleaders;
    out->blocks = calloc(unit->nleaders + 1, sizeof *out->blocks);
    out->map_bytes = 2 * (size_t)unit->nleaders;
    out->map = calloc(1, out->map_bytes + 1);
    out->code_bytes = CODE_BYTES * (size_t)unit->nleaders;
    out->code_bytes = out->code_bytes > least_code ? out->code_bytes : least_code;
    out->code = calloc(1, out->code_bytes + 1);
    CHECK(out->blocks && out->map && out->code && out->order && unit->data_distance == (uint64_t)unit->code_distance);
    for (uint32_t i = 0; i < unit->nleaders; i++) {
        CHECK(i == 0 || unit->leaders[i] > unit->leaders[i - 1]);
        out->order[i] = i;
        out->blocks[i] = (struct image_block){unit->leaders[i], CODE_BYTES * i, 2 * i};
        out->map[2 * i] = 4;
        snprintf((char *)out->code + CODE_BYTES * i, CODE_BYTES, "%u%s", unit->leaders[i], unit->tool ? unit->tool->name : "");
        last_resolved += unit->resolve && unit->resolve(unit->user, unit->leaders[i] / 64 * 64) != 0;
    }
    return 0;
}

void jit_output_free(struct jit_output *out)
{
    free(out->blocks);
    free(out->map);
    free(out->code);
    free(out->order);
    *out = (struct jit_output){0};
}

/* The address itself and the one 3 bytes on. */
uint32_t jit_explore(struct jit *j, const struct text_span *spans, uint32_t nspans, uint32_t start, uint32_t max,
                     int64_t (*known)(void *user, uint32_t offset), void *user, uint32_t *leaders)
{
    (void)j;
    CHECK(nspans == 1 && max >= 2 && start < spans[0].end);
    leaders[0] = start;
    leaders[1] = start + 3;
    return start + 3 < spans[0].end && !known(user, start + 3) ? 2 : 1;
}

int analyzer_discover(const struct elf_module *m, const uint32_t *extra, uint32_t nextra, unsigned threads, uint32_t **leaders,
                      uint32_t *nleaders)
{
    struct host_offsets found = {0};
    CHECK(threads > 0);
    for (uint32_t offset = 0; offset < m->span_bytes; offset += 64) {
        CHECK(host_offsets_add(&found, offset) == 0);
    }
    for (uint32_t i = 0; i < nextra; i++) {
        CHECK(extra[i] < m->span_bytes && host_offsets_add(&found, extra[i]) == 0);
    }
    host_offsets_sort(&found);
    *leaders = found.list;
    *nleaders = found.count;
    return 0;
}

static struct elf_module *fake_module(uint64_t bytes)
{
    struct elf_module *m = calloc(1, sizeof *m);
    CHECK(m && (m->spans = calloc(1, sizeof *m->spans)));
    m->span_bytes = bytes;
    m->nspans = 1;
    m->spans[0] = (struct text_span){0, (uint32_t)bytes, (const uint8_t *)""};
    return m;
}

/* "exec ADDRESS": linked there. "bad": not ELF. */
int elf_module_open(const char *path, struct elf_module **out, char *message, size_t message_bytes)
{
    char text[32] = "";
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0 && fstat(fd, &st) == 0 && read(fd, text, sizeof text - 1) >= 0);
    close(fd);
    if (strncmp(text, "bad", 3) == 0) {
        snprintf(message, message_bytes, "%s: not an ELF file", path);
        return -BDBI_EFORMAT;
    }
    *out = fake_module((uint64_t)st.st_size);
    if (strncmp(text, "exec ", 5) == 0) {
        (*out)->is_exec = true;
        (*out)->base_vaddr = strtoull(text + 5, NULL, 16);
    }
    return 0;
}

int elf_module_from_memory(const char *name, const void *bytes, size_t nbytes, struct elf_module **out, char *message,
                           size_t message_bytes)
{
    (void)name;
    (void)bytes;
    (void)message;
    (void)message_bytes;
    *out = fake_module(nbytes);
    return 0;
}

void elf_module_close(struct elf_module *m)
{
    free(m->spans);
    free(m);
}

/* ---- a cache and a module ---- */

static char dir[300], module[400];
static struct cachedb *db;
static char message[HOST_MESSAGE_BYTES];

static char *in_cache(const char *name)
{
    static char path[500];
    snprintf(path, sizeof path, "%s/cache/" CACHEDB_SUBDIR "/%s", dir, name);
    return path;
}

static void write_file(const char *path, const char *start)
{
    static char bytes[FILE_BYTES];
    memset(bytes, 0, sizeof bytes);
    snprintf(bytes, sizeof bytes, "%s", start);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && write(fd, bytes, sizeof bytes) == FILE_BYTES && close(fd) == 0);
}

static void open_cache(void)
{
    char cache[400];
    snprintf(cache, sizeof cache, "%s/cache", dir);
    CHECK(cachedb_open(cache, CACHEDB_CREATE, &db, message, sizeof message) == 0 && !*message);
}

static void set_up(const char *start)
{
    snprintf(dir, sizeof dir, "%s", test_directory("."));
    CHECK(realpath(dir, module) != NULL);
    strcat(module, "/module");
    write_file(module, start);
    open_cache();
}

static void tear_down(void)
{
    cachedb_close(db);
    db = NULL;
    test_remove(dir);
}

static struct host_result update(const struct tool_choice *with, bool force)
{
    struct host_job job = {.db = db, .tool = with, .threads = 1, .force = force};
    struct host_result result;
    struct host_module m;
    codegen_key_make(with ? with->fingerprint : 0, &job.codegen);
    CHECK(host_module_open(db, module, &m, message, sizeof message) == 0);
    CHECK(host_module_update(&job, &m, &result, message, sizeof message) == 0);
    host_module_close(&m);
    return result;
}

static void add_to_codemap(const uint32_t *offsets, uint32_t n)
{
    struct host_offsets o = {0};
    struct host_module m;
    for (uint32_t i = 0; i < n; i++) {
        CHECK(host_offsets_add(&o, offsets[i]) == 0);
    }
    host_offsets_sort(&o);
    CHECK(host_module_open(db, module, &m, message, sizeof message) == 0);
    CHECK(host_codemap_add(db, CACHEDB_CODEMAP, m.content, &o) >= 0);
    host_module_close(&m);
    host_offsets_free(&o);
}

/* ---- images as the core finds them ---- */

struct found {
    unsigned images, epoch;
    uint32_t blocks;
    int64_t end;
    uint64_t base;
    const struct tool_choice *tool;
    uint32_t wanted; /* an app offset, and in which image it is */
    int wanted_in;
};

static int see(void *user, const void *key, size_t key_bytes, const void *value, size_t value_bytes)
{
    struct found *f = user;
    const struct image_key *k = key;
    const struct image_header *h = value;
    struct codegen_key codegen;
    codegen_key_make(f->tool ? f->tool->fingerprint : 0, &codegen);
    if (memcmp(&codegen, &k->codegen, sizeof codegen) != 0) {
        return 0;
    }
    unsigned epoch = IMAGE_EPOCH_MAX - k->inverse_epoch;
    if (f->images > 0 && epoch != f->epoch) {
        return 0;
    }
    CHECK(key_bytes == sizeof *k && image_check(value, value_bytes) == 0);
    CHECK(k->extent == f->images && h->extent == f->images);
    CHECK(f->images == 0 ? h->code_distance == BDBI_CODE_DISTANCE : h->code_distance == f->end);
    const struct image_block *b = image_find(h, f->wanted);
    if (b) {
        CHECK(strtoul((const char *)value + h->code_offset + b->code_offset, NULL, 10) == f->wanted && f->wanted_in < 0);
        f->wanted_in = (int)f->images;
    }
    CHECK(f->images == 0 || h->fixed_base == f->base);
    f->base = h->fixed_base;
    f->epoch = epoch;
    f->end = image_code_end(h);
    f->blocks += h->nblocks;
    f->images++;
    return 0;
}

static struct found look(const struct tool_choice *with, uint32_t wanted)
{
    const uint8_t prefix = CACHEDB_IMAGE;
    struct found f = {.tool = with, .wanted = wanted, .wanted_in = -1};
    CHECK(cachedb_scan(db, &prefix, 1, see, &f) == 0);
    return f;
}

/* ---- images ---- */

static void test_base(void)
{
    set_up("library");
    struct host_result r = update(NULL, false);
    CHECK(r.outcome == HOST_TRANSLATED && r.blocks == BASE_BLOCKS && r.text_bytes == FILE_BYTES && r.epoch == 0 &&
          r.extent == 0);
    struct found f = look(NULL, 640);
    CHECK(f.images == 1 && f.blocks == BASE_BLOCKS && f.wanted_in == 0);
    unsigned before = translations;
    CHECK(update(NULL, false).outcome == HOST_CACHED && translations == before);
    CHECK(update(&tool, false).outcome == HOST_TRANSLATED && look(&tool, 0).images == 1); /* another kind of code */
    CHECK(look(NULL, 0).images == 1);
    r = update(NULL, true);
    CHECK(r.outcome == HOST_TRANSLATED && r.epoch == 1);
    f = look(NULL, 640);
    CHECK(f.images == 1 && f.epoch == 1 && f.wanted_in == 0);
    CHECK(look(&tool, 0).epoch == 0);
    tear_down();
}

static void test_extents(void)
{
    set_up("library");
    update(NULL, false);
    for (uint32_t i = 0; i < 8; i++) {
        const uint32_t offsets[] = {64 * i + 10, 64 * i + 10, 640, FILE_BYTES + 5}; /* new, again, known, outside */
        add_to_codemap(offsets, 4);
        struct host_result r = update(NULL, false);
        CHECK(r.outcome == HOST_EXTENDED && r.blocks == 2 && r.epoch == 0 && r.extent == i + 1);
        CHECK(last_resolved == 2); /* the extent knows the base's blocks */
        struct found f = look(NULL, 64 * i + 10);
        CHECK(f.images == i + 2 && f.wanted_in == (int)i + 1 && look(NULL, 64 * i + 13).wanted_in == (int)i + 1);
        CHECK(update(NULL, false).outcome == HOST_CACHED);
    }
    const uint32_t ninth = 6401;
    add_to_codemap(&ninth, 1);
    struct host_result r = update(NULL, false); /* all of it in one image again */
    CHECK(r.outcome == HOST_TRANSLATED && r.epoch == 1 && r.extent == 0);
    struct found f = look(NULL, 6401);
    CHECK(f.images == 1 && f.epoch == 1 && f.wanted_in == 0 && f.blocks == BASE_BLOCKS + 9 && look(NULL, 10).wanted_in == 0);
    tear_down();
}

/* More than a quarter of the base's blocks: a new epoch at once. */
static void test_much_learned(void)
{
    uint32_t offsets[BASE_BLOCKS / 4];
    set_up("library");
    update(NULL, false);
    for (uint32_t i = 0; i < BASE_BLOCKS / 4; i++) {
        offsets[i] = 64 * i + 1;
    }
    add_to_codemap(offsets, BASE_BLOCKS / 4);
    struct host_result r = update(NULL, false);
    CHECK(r.outcome == HOST_TRANSLATED && r.epoch == 1 && look(NULL, 65).wanted_in == 0);
    tear_down();
}

static void test_exec_reach(void)
{
    set_up("exec 400000");
    CHECK(update(NULL, false).outcome == HOST_TRANSLATED);
    tear_down();
    static const char *const out_of_reach[] = {"exec 0", "exec 30000000", "exec 2fff8000", "exec 7fff00000000"};
    for (unsigned i = 0; i < 4; i++) {
        set_up(out_of_reach[i]);
        CHECK(update(NULL, false).outcome == HOST_UNSUITABLE && *message && look(NULL, 0).images == 0);
        tear_down();
    }
}

static void test_epochs_run_out(void)
{
    set_up("library");
    for (unsigned i = 0; i <= IMAGE_EPOCH_MAX; i++) {
        CHECK(update(NULL, i > 0).epoch == i);
    }
    struct host_job job = {.db = db, .threads = 1, .force = true};
    struct host_result result;
    struct host_module m;
    codegen_key_make(0, &job.codegen);
    CHECK(host_module_open(db, module, &m, message, sizeof message) == 0);
    CHECK(host_module_update(&job, &m, &result, message, sizeof message) == -BDBI_ETOOBIG &&
          strstr(message, "cache directory"));
    host_module_close(&m);
    tear_down();
}

/* ---- learning ---- */

static void log_words(const char *path, const struct file_id *id, const struct tool_choice *with, const uint32_t *words,
                      uint32_t n)
{
    uint8_t bytes[2000] = {0};
    struct misslog_record h = {.magic = MISSLOG_MAGIC, .id = *id, .path_bytes = (uint16_t)strlen(path), .noffsets = n};
    h.tool_bytes = with ? (uint16_t)strlen(with->text) : 0;
    size_t offsets = sizeof h + (h.path_bytes + h.tool_bytes + 3u) / 4 * 4;
    codegen_key_make(with ? with->fingerprint : 0, &h.codegen);
    h.record_bytes = (uint32_t)((offsets + 4 * n + 7) / 8 * 8);
    CHECK(h.record_bytes <= sizeof bytes);
    memcpy(bytes, &h, sizeof h);
    memcpy(bytes + sizeof h, path, h.path_bytes);
    memcpy(bytes + sizeof h + h.path_bytes, with ? with->text : "", h.tool_bytes);
    memcpy(bytes + offsets, words, 4 * n);
    int fd = open(in_cache("misses.log"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && write(fd, bytes, h.record_bytes) == h.record_bytes && close(fd) == 0);
}

static void log_miss(const char *path, const struct file_id *id, const struct tool_choice *with, uint32_t first, uint32_t n)
{
    uint32_t offsets[100];
    for (uint32_t i = 0; i < n; i++) {
        offsets[i] = first + 64 * i;
    }
    log_words(path, id, with, offsets, n);
}

static struct file_id module_id(void)
{
    struct file_id id;
    int fd = open(module, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0 && identity_stat(fd, &id) == 0);
    close(fd);
    return id;
}

static uint64_t place(const struct tool_choice *with, uint64_t bytes, uint64_t align)
{
    struct codegen_key codegen;
    uint64_t at;
    codegen_key_make(with ? with->fingerprint : 0, &codegen);
    CHECK(host_place(db, &codegen, bytes, align, &at) == 0);
    return at;
}

static void test_places(void)
{
    const uint64_t mb = 1 << 20, top = BDBI_MODULES_BYTES;
    set_up("library");
    CHECK(place(NULL, 5 * mb, 0x1000) == top - 5 * mb && place(NULL, mb + 1, 0x1000) == top - 6 * mb - 0x2000);
    CHECK(place(NULL, mb, 2 * mb) == top - 8 * mb && place(&tool, mb, 0x1000) == top - mb);
    CHECK(place(NULL, 321 * mb, 0x1000) == 0 && place(NULL, mb, 512 * mb) == 0);
    for (uint64_t at = top - 8 * mb; at >= 228 * mb; at -= 100 * mb) {
        CHECK(place(NULL, 100 * mb, 0x1000) == at - 100 * mb);
    }
    CHECK(place(NULL, 100 * mb, 0x1000) == top - 100 * mb && place(NULL, mb, 0x1000) == top - 101 * mb);
    tear_down();
}

/* In a process of its own, as always. */
static void learn(int expected)
{
    char cache[400];
    int status;
    cachedb_close(db);
    db = NULL;
    snprintf(cache, sizeof cache, "--cache=%s/cache", dir);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        char *argv[] = {"learn", cache, NULL};
        _exit(learn_main(2, argv));
    }
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == expected);
    open_cache();
}

static bool log_left(void)
{
    return access(in_cache("misses.log"), F_OK) == 0 || system("ls */cache/v1/misses.* >/dev/null 2>&1") == 0;
}

static void test_learn(void)
{
    static const struct file_id none;
    set_up("library");
    struct file_id id = module_id();
    learn(0); /* nothing to do */
    log_miss(module, &id, NULL, 7, 3);
    log_miss(module, &id, &tool, 64 * 50 + 7, 2);
    learn(0); /* no image yet: the whole module, for both kinds of code */
    CHECK(!log_left());
    struct found f = look(NULL, 7);
    CHECK(f.images == 1 && f.wanted_in == 0 && f.blocks == BASE_BLOCKS + 5);
    CHECK(look(&tool, 64 * 50 + 7).wanted_in == 0 && look(&tool, 7).wanted_in == 0);
    log_miss(module, &id, NULL, 64 * 20 + 9, 1);
    learn(0);
    CHECK(!log_left() && look(NULL, 64 * 20 + 9).wanted_in == 1 && look(NULL, 64 * 20 + 12).wanted_in == 1);
    CHECK(look(&tool, 64 * 20 + 9).images == 1); /* not asked for; the next warm brings it */
    CHECK(update(&tool, false).outcome == HOST_EXTENDED && look(&tool, 64 * 20 + 9).wanted_in == 1);
    log_miss("[vdso]", &none, NULL, 5, 1);
    log_miss("[anon]", &none, NULL, 5, 1);
    log_miss("/no/such/file", &id, NULL, 5, 1);
    learn(0);
    CHECK(!log_left());
    tear_down();
}

/* Another module was at the place in some run: the module gets another one, which its extents keep, but not for ever. */
static void test_learn_displaced(void)
{
    const uint32_t displaced[] = {7, MISSLOG_DISPLACED};
    set_up("library");
    update(NULL, false);
    struct file_id id = module_id();
    struct found first = look(NULL, 7);
    CHECK(first.base && first.base + FILE_BYTES < BDBI_MODULES_BYTES);
    log_words(module, &id, NULL, displaced, 2);
    log_miss(module, &id, &tool, 7, 1);
    learn(0);
    struct found second = look(NULL, 7);
    CHECK(second.epoch == 1 && second.base < first.base && second.wanted_in == 0 && look(&tool, 7).epoch == 0);
    log_miss(module, &id, NULL, 71, 1);
    learn(0);
    CHECK(look(NULL, 71).epoch == 1 && look(NULL, 71).images == 2);
    for (int i = 0; i < 20; i++) {
        log_words(module, &id, NULL, displaced, 2);
        learn(0);
    }
    CHECK(look(NULL, 7).epoch == 16);
    tear_down();
}

/* What ran is known for each kind of code; a new epoch is made of the kind that it matters to, at its place, but not for ever.
 */
static void test_learn_order(void)
{
    uint32_t words[] = {7, MISSLOG_STRAYS, MISSLOG_RAN, 64, 128};
    set_up("library");
    update(NULL, false);
    update(&tool, false);
    struct file_id id = module_id();
    uint64_t base = look(&tool, 7).base;
    log_words(module, &id, &tool, words + 2, 3);
    learn(0);
    CHECK(look(&tool, 0).epoch == 0 && look(NULL, 0).epoch == 0); /* not worth it */
    words[4] = 192;
    log_words(module, &id, &tool, words, 5);
    learn(0);
    struct found f = look(&tool, 7);
    CHECK(f.epoch == 1 && f.wanted_in == 0 && f.base == base && look(NULL, 0).epoch == 0);
    CHECK(update(NULL, true).epoch == 1 && last_ran == 3);
    log_words(module, &id, &tool, words, 5);
    learn(0);
    CHECK(look(&tool, 0).epoch == 1); /* nothing new */
    for (uint32_t i = 0; i < 20; i++) {
        words[4] = 256 + 64 * i;
        log_words(module, &id, &tool, words, 5);
        learn(0);
    }
    CHECK(look(&tool, 0).epoch == 16);
    update(NULL, true);
    CHECK(last_ran == 23);
    tear_down();
}

/* More code than was thought: a larger place. */
static void test_larger_place(void)
{
    set_up("library");
    least_code = 20 << 20;
    translations = 0;
    update(NULL, false);
    CHECK(translations == 2);
    struct found f = look(NULL, 0);
    CHECK(f.base + (uint64_t)f.end <= BDBI_MODULES_BYTES + BDBI_CODE_DISTANCE && f.end > 20 << 20);
    least_code = 0;
    tear_down();
}

/* Another file is there now: its old content's code map is kept, no code is made of it. */
static void test_learn_changed_file(void)
{
    set_up("library");
    update(NULL, false);
    struct file_id id = module_id();
    uint8_t content[32];
    struct host_module m;
    struct host_offsets map = {0};
    CHECK(host_module_open(db, module, &m, message, sizeof message) == 0);
    memcpy(content, m.content, 32);
    host_module_close(&m);
    log_miss(module, &id, NULL, 7, 3);
    write_file(module, "changed");
    learn(0);
    CHECK(!log_left() && look(NULL, 7).wanted_in == -1 && look(NULL, 0).images == 1);
    CHECK(host_codemap_load(db, CACHEDB_CODEMAP, content, &map) == 0 && map.count == 3 && map.list[0] == 7);
    host_offsets_free(&map);
    write_file(module, "bad");
    id = module_id();
    log_miss(module, &id, NULL, 7, 3);
    learn(0);
    CHECK(!log_left());
    tear_down();
}

static void test_learn_garbage(void)
{
    set_up("library");
    struct file_id id = module_id();
    int fd = open(in_cache("misses.log"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && write(fd, "MLOGgarbageMLOGMLOG", 19) == 19 && close(fd) == 0);
    log_miss(module, &id, NULL, 7, 1);
    learn(0);
    CHECK(!log_left() && look(NULL, 7).wanted_in == 0);
    tear_down();
}

/* ---- start records ---- */

static const struct file_id program = {.dev = 1, .ino = 2, .size = 3};

struct stored_record {
    uint32_t serial, words;
    uint32_t *record; /* malloc */
};

static int take_record(void *user, const void *key, size_t key_bytes, const void *value, size_t value_bytes)
{
    struct stored_record *r = user;
    CHECK(key_bytes == sizeof(struct closure_key) && value_bytes >= START_MIN_BYTES);
    r->record = malloc(value_bytes);
    CHECK(r->record);
    r->serial = cachedb_serial(((const struct closure_key *)key)->serial);
    r->words = (uint32_t)(value_bytes / 4);
    memcpy(r->record, value, value_bytes);
    return 1;
}

/* The program's newest record. */
static struct stored_record newest_record(void)
{
    struct closure_key key = {.type = CACHEDB_START, .exe = program};
    struct stored_record r = {0};
    codegen_key_make(0, &key.codegen);
    CHECK(cachedb_scan(db, &key, offsetof(struct closure_key, serial), take_record, &r) >= 0);
    return r;
}

static struct start_section image_section(void)
{
    struct start_section s = {.magic = START_MAGIC, .id = module_id()};
    struct host_module m;
    struct image_key key = {.type = CACHEDB_IMAGE, .inverse_epoch = IMAGE_EPOCH_MAX};
    struct image_header *image;
    size_t bytes;
    CHECK(host_module_open(db, module, &m, message, sizeof message) == 0);
    memcpy(s.content, m.content, sizeof s.content);
    memcpy(key.content, m.content, sizeof key.content);
    host_module_close(&m);
    codegen_key_make(0, &key.codegen);
    CHECK(cachedb_get(db, &key, sizeof key, (void **)&image, &bytes) == 0);
    s.checksum = image->head_checksum;
    free(image);
    return s;
}

/* Logs S with pairs for the N addresses. */
static void log_start(struct start_section s, const uint32_t *apps, uint32_t n)
{
    uint32_t words[200];
    s.npairs = n;
    memcpy(words, &s, sizeof s);
    for (uint32_t i = 0; i < n; i++) {
        words[sizeof s / 4 + 2 * i] = apps[i];
        words[sizeof s / 4 + 2 * i + 1] = apps[i] * 2;
    }
    log_words(START_PATH, &program, NULL, words, (uint32_t)sizeof s / 4 + 2 * n);
}

/* The only section of the newest record, whose number is NUMBER, has these pairs and nothing else. */
static void check_record(uint32_t number, const struct start_section *like, const uint32_t *apps, uint32_t n)
{
    struct stored_record r = newest_record();
    size_t next;
    const struct start_section *s = start_section_at(r.record, r.words, &next);
    CHECK(~r.serial == number && s && !memcmp(&s->id, &like->id, sizeof s->id) && s->checksum == like->checksum);
    CHECK(!memcmp(s->content, like->content, sizeof s->content) && s->npairs == n);
    for (uint32_t i = 0; i < n; i++) {
        CHECK(s->pairs[i].app == apps[i] && s->pairs[i].code == apps[i] * 2);
    }
    CHECK(!start_section_at(r.record + next, r.words - next, &next));
    free(r.record);
}

static void test_start_records(void)
{
    static const uint32_t first[] = {640, 64}, more[] = {64, 128, 640, 128}, all[] = {640, 64, 128};
    set_up("library");
    update(NULL, false);
    struct start_section s = image_section(), wrong = s;
    log_start(s, NULL, 0); /* a module without pairs is worth a record */
    learn(0);
    check_record(0, &s, NULL, 0);
    log_start(s, first, 2);
    learn(0);
    check_record(1, &s, first, 2);
    log_start(s, first, 2); /* nothing new */
    learn(0);
    check_record(1, &s, first, 2);
    wrong.checksum++; /* another image's */
    log_start(wrong, more, 4);
    wrong = s;
    wrong.id.ino++; /* a file whose content nobody has seen, or another file's */
    wrong.content[0]++;
    log_start(wrong, more, 4);
    learn(0);
    check_record(1, &s, first, 2);
    log_start(s, more, 4); /* behind what is there, without doubles */
    learn(0);
    check_record(2, &s, all, 3);
    wrong = s;
    wrong.id.ino++; /* this content, under an identity that is not known to have it */
    log_start(wrong, (const uint32_t[]){192}, 1);
    learn(0);
    check_record(2, &s, all, 3);
    tear_down();
}

/* The lock is taken: leave at once, and leave the log. A dead learner's file: once more, then never again. */
static void test_learn_files(void)
{
    char other[500];
    set_up("library");
    struct file_id id = module_id();
    int lock = open(in_cache("learn.lock"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK(lock >= 0 && flock(lock, LOCK_EX) == 0);
    log_miss(module, &id, NULL, 7, 1);
    learn(0);
    CHECK(access(in_cache("misses.log"), F_OK) == 0 && look(NULL, 7).images == 0);
    close(lock);
    snprintf(other, sizeof other, "%s", in_cache("misses.work.123"));
    CHECK(rename(in_cache("misses.log"), other) == 0);
    log_miss(module, &id, NULL, 64 + 7, 1);
    learn(0);
    CHECK(!log_left() && look(NULL, 7).wanted_in == 0 && look(NULL, 64 + 7).wanted_in >= 0);
    log_miss(module, &id, NULL, 128 + 7, 1);
    snprintf(other, sizeof other, "%s", in_cache("misses.again.123"));
    CHECK(rename(in_cache("misses.log"), other) == 0);
    learn(0);
    CHECK(!log_left() && look(NULL, 128 + 7).wanted_in == -1);
    tear_down();
}

int main(void)
{
    test_base();
    test_extents();
    test_much_learned();
    test_exec_reach();
    test_epochs_run_out();
    test_places();
    test_learn();
    test_learn_displaced();
    test_learn_order();
    test_larger_place();
    test_learn_changed_file();
    test_learn_garbage();
    test_learn_files();
    test_start_records();
    return 0;
}
