/* Each process, thread and DSN has one handle, and with it one connection. Arguments: DSN, another DSN, library. */
#include <dlfcn.h>
#include <pthread.h>

#include "check.h"

static comet_t *pooled(const char *dsn) {
    comet_t *c = NULL;
    CHECK(comet_popen(dsn, &c) == COMET_RESULT_OK);
    return c;
}

static void *of_thread(void *dsn) {
    comet_t *c = pooled(dsn);
    CHECK(publish(c, "thread", 0, NULL) == COMET_RESULT_OK);
    return c;
}

/* Loads and unloads the library as PHP does when it loads the library for one request. */
static void request(const char *library, const char *dsn, comet_t *expected) {
    comet_t *c = NULL;
    void *loaded = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    CHECK(loaded != NULL);
    comet_result (*popen)(const char *, comet_t **) = (comet_result(*)(const char *, comet_t **))dlsym(loaded, "comet_popen");
    CHECK(popen != NULL && popen(dsn, &c) == COMET_RESULT_OK);
    CHECK(c == expected);
    CHECK(publish(c, "request", 0, NULL) == COMET_RESULT_OK);
    CHECK(dlclose(loaded) == 0);
}

int main(int argc, char **argv) {
    begin();
    CHECK(argc == 4);
    comet_t *c = pooled(argv[1]);
    for (int i = 0; i < 3; i++) {
        request(argv[3], argv[1], c);
    }
    comet_close(c); /* the pool's, not ours */
    CHECK(pooled(argv[1]) == c);
    CHECK(publish(c, "still there", 0, NULL) == COMET_RESULT_OK);
    CHECK(pooled(argv[2]) != c);

    pthread_t thread;
    void *theirs = NULL;
    CHECK(pthread_create(&thread, NULL, of_thread, argv[1]) == 0);
    CHECK(pthread_join(thread, &theirs) == 0);
    CHECK(theirs != c);
    return 0;
}
