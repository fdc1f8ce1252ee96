/* The limit that the sweep is measured against: one thread, getdents64 into a large buffer, and
 * unlinkat of every entry whose name is not in the keep list. It checks nothing, follows no
 * reference, takes no lock and counts no bytes.
 *
 * usage: sweep DIR KEEP     KEEP holds one name a line.  Prints how many entries it removed.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BUFFER (1 << 18)

struct entry {
    uint64_t inode;
    int64_t offset;
    unsigned short length;
    unsigned char type;
    char name[];
};

static char **slots;
static size_t mask;

static void die(const char *what) {
    perror(what);
    exit(1);
}

/* FNV-1a: the names are digests, any hash spreads them. */
static size_t slot_of(const char *name) {
    uint64_t hash = 14695981039346656037u;
    for (; *name; name++) hash = (hash ^ (unsigned char)*name) * 1099511628211u;
    return (size_t)hash & mask;
}

static int kept(const char *name) {
    for (size_t i = slot_of(name); slots[i]; i = (i + 1) & mask)
        if (!strcmp(slots[i], name)) return 1;
    return 0;
}

static void read_keep(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st)) die(path);
    char *text = malloc((size_t)st.st_size + 1);
    if (!text || read(fd, text, (size_t)st.st_size) != st.st_size) die(path);
    close(fd);
    text[st.st_size] = 0;

    size_t lines = 0, size = 16;
    for (char *p = text; *p; p++) lines += *p == '\n';
    while (size < 4 * lines) size *= 2;
    mask = size - 1;
    slots = calloc(size, sizeof *slots);
    if (!slots) die("calloc");
    for (char *name = strtok(text, "\n"); name; name = strtok(NULL, "\n")) {
        size_t i = slot_of(name);
        while (slots[i]) i = (i + 1) & mask;
        slots[i] = name;
    }
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: sweep DIR KEEP\n");
        return 2;
    }
    read_keep(argv[2]);
    int dir = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char *buffer = malloc(BUFFER);
    if (dir < 0 || !buffer) die(argv[1]);

    long removed = 0, got;
    while ((got = syscall(SYS_getdents64, dir, buffer, BUFFER)) > 0) {
        for (long at = 0; at < got;) {
            struct entry *entry = (struct entry *)(buffer + at);
            at += entry->length;
            if (entry->type != DT_REG || kept(entry->name)) continue;
            if (unlinkat(dir, entry->name, 0)) die(entry->name);
            removed++;
        }
    }
    if (got < 0) die("getdents64");
    printf("%ld\n", removed);
    return 0;
}
