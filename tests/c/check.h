/* Helpers of all C tests: checks that print their own text, and steps that the test around the program does. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "comet.h"

#define CHECK(condition)                                                                       \
    do {                                                                                       \
        if (!(condition)) {                                                                    \
            fprintf(stderr, "%s:%d: not so: %s (last error: %s)\n", __FILE__, __LINE__, #condition, \
                    comet_error(NULL));                                                        \
            exit(1);                                                                           \
        }                                                                                      \
    } while (0)

/* A program that hangs has failed. */
static inline void begin(void) {
    alarm(60);
    setvbuf(stdout, NULL, _IOLBF, 0);
}

/* Asks the test around this program to do something, and waits until it is done. */
static inline void step(const char *name) {
    char done[8];
    puts(name);
    CHECK(fgets(done, sizeof done, stdin) != NULL);
}

static inline comet_t *opened(const char *dsn) {
    comet_t *c = NULL;
    CHECK(comet_open(dsn, &c) == COMET_RESULT_OK);
    CHECK(c != NULL);
    return c;
}

static inline comet_result publish(comet_t *c, const char *data, uint32_t flags, comet_receipt *receipt) {
    return comet_publish(c, "news", 4, data, strlen(data), flags, receipt);
}

#endif
