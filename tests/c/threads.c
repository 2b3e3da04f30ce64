/*
 * Threads share a handle: each message gets its own acknowledgement, and each thread its own error text. A child
 * process does not wait for a thread of its parent. Arguments: DSN, DSN of a server that never answers.
 */
#include <pthread.h>
#include <sys/wait.h>

#include "check.h"

enum { THREADS = 4, EACH = 500 };

static comet_t *shared;
static uint64_t ids[THREADS * EACH];

static void *publisher(void *number) {
    size_t thread = (size_t)number;
    for (size_t i = 0; i < EACH; i++) {
        comet_receipt receipt = {0};
        CHECK(publish(shared, "x", 0, &receipt) == COMET_RESULT_OK);
        CHECK(i == 0 || receipt.id > ids[thread * EACH + i - 1]);
        ids[thread * EACH + i] = receipt.id;
    }
    CHECK(comet_touch(shared, thread % 2 ? "a/b" : "a,b", 3) == COMET_RESULT_CHANNEL);
    CHECK(strstr(comet_error(shared), thread % 2 ? "'/'" : "','") != NULL);
    return NULL;
}

static int by_value(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void *waits(void *silent) {
    return publish(silent, "never answered", 0, NULL) == COMET_RESULT_UNKNOWN ? silent : NULL;
}

static void forks_while_a_thread_is_inside(const char *dsn) {
    comet_t *silent = opened(dsn);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, waits, silent) == 0);
    step("inside"); /* the peer has the thread's message */
    pid_t child = fork();
    if (child == 0) {
        /* The server answers the second connection, and closes the first when this process has ended. */
        comet_receipt receipt = {0};
        CHECK(publish(silent, "child", 0, &receipt) == COMET_RESULT_OK);
        CHECK(receipt.id == 7);
        _exit(0);
    }
    int status;
    void *unknown = NULL;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(pthread_join(thread, &unknown) == 0 && unknown == silent);
    comet_close(silent);
}

int main(int argc, char **argv) {
    begin();
    CHECK(argc == 3);
    pthread_t threads[THREADS];
    shared = opened(argv[1]);
    for (size_t i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, publisher, (void *)i) == 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    qsort(ids, THREADS * EACH, sizeof *ids, by_value);
    for (size_t i = 1; i < THREADS * EACH; i++) {
        CHECK(ids[i] != ids[i - 1]);
    }
    CHECK(strcmp(comet_error(shared), "") == 0);
    comet_close(shared);
    forks_while_a_thread_is_inside(argv[2]);
    return 0;
}
