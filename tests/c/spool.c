/*
 * While the daemon is down, messages go to the spool in time, and the result says so. Arguments: DSN with a time-out of
 * five seconds, a directory that cannot be a spool.
 */
#include <time.h>

#include "check.h"

static long ms_since(const struct timespec *start) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (now.tv_sec - start->tv_sec) * 1000 + (now.tv_nsec - start->tv_nsec) / 1000000;
}

static comet_result timed(comet_t *c, const char *data, uint32_t flags, comet_receipt *receipt) {
    struct timespec start;
    clock_gettime(CLOCK_MONOTONIC, &start);
    comet_result result = publish(c, data, flags, receipt);
    CHECK(ms_since(&start) < 5000);
    return result;
}

int main(int argc, char **argv) {
    begin();
    CHECK(argc == 3);
    comet_t *c = opened(argv[1]);
    comet_receipt receipt = {0};
    CHECK(publish(c, "before", COMET_FLAG_SPOOL, &receipt) == COMET_RESULT_OK && receipt.id > 0);

    step("kill");
    CHECK(publish(c, "lost", 0, NULL) == COMET_RESULT_CONNECT);
    receipt.id = 7;
    CHECK(timed(c, "one", COMET_FLAG_SPOOL, &receipt) == COMET_RESULT_SPOOLED && receipt.id == 0);
    CHECK(timed(c, "two", COMET_FLAG_SPOOL | COMET_FLAG_NO_ACK, NULL) == COMET_RESULT_SPOOLED);
    CHECK(timed(c, "three", COMET_FLAG_SPOOL | COMET_FLAG_BUFFER, NULL) == COMET_RESULT_OK);
    CHECK(comet_flush(c) == COMET_RESULT_SPOOLED);
    CHECK(comet_flush(c) == COMET_RESULT_OK);
    step("start");
    CHECK(publish(c, "four", 0, &receipt) == COMET_RESULT_OK && receipt.id > 0);

    step("stop");
    CHECK(timed(c, "five", COMET_FLAG_SPOOL, NULL) == COMET_RESULT_SPOOLED);
    CHECK(comet_publish_named(c, "news", 4, "label", 5, "own", 3, "six", 3, COMET_FLAG_SPOOL, NULL) == COMET_RESULT_SPOOLED);
    step("continue");
    CHECK(publish(c, "seven", COMET_FLAG_SPOOL, &receipt) == COMET_RESULT_OK);
    CHECK(comet_publish_named(c, "news", 4, NULL, 0, "own", 3, "six again", 9, 0, NULL) == COMET_RESULT_OK);

    /* If the spool fails, too, the result is that of the daemon, and the text has both reasons. */
    step("kill");
    char dsn[4096];
    snprintf(dsn, sizeof dsn, "%s&spool=%s", argv[1], argv[2]);
    comet_t *other = opened(dsn);
    CHECK(timed(other, "lost", 0, NULL) == COMET_RESULT_CONNECT);
    CHECK(strstr(comet_error(other), "cannot connect to ") != NULL);
    CHECK(strstr(comet_error(other), ", and the message cannot be spooled: cannot ") != NULL);
    comet_close(other);
    snprintf(dsn, sizeof dsn, "%s&spool=off", argv[1]);
    other = opened(dsn);
    CHECK(publish(other, "lost", COMET_FLAG_SPOOL, NULL) == COMET_RESULT_CONNECT);
    CHECK(strstr(comet_error(other), "spool") == NULL);
    comet_close(other);

    /* Gathered messages are not lost when a handle is closed. */
    CHECK(publish(c, "last", COMET_FLAG_SPOOL | COMET_FLAG_BUFFER, NULL) == COMET_RESULT_OK);
    comet_close(c);
    step("start");
    return 0;
}
