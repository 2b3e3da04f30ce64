/*
 * A program that is not linked with the library loads it, unloads it and loads it again. The pool still exists.
 * Arguments: DSN, library.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void *pooled(const char *library, const char *dsn) {
    void *c = NULL, *loaded = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (loaded == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    int (*popen)(const char *, void **) = (int (*)(const char *, void **))dlsym(loaded, "comet_popen");
    int (*publish)(void *, const char *, size_t, const char *, size_t, unsigned, void *) =
        (int (*)(void *, const char *, size_t, const char *, size_t, unsigned, void *))dlsym(loaded, "comet_publish");
    if (popen(dsn, &c) != 0 || publish(c, "news", 4, "request", 7, 0, NULL) != 0 || dlclose(loaded) != 0) {
        exit(2);
    }
    return c;
}

int main(int argc, char **argv) {
    alarm(60);
    if (argc != 3) {
        return 3;
    }
    void *first = pooled(argv[2], argv[1]);
    return pooled(argv[2], argv[1]) == first ? 0 : 4;
}
