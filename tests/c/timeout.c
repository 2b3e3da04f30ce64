/*
 * A stopped daemon costs a caller at most its time-out, and no later call gets a wrong answer. Argument: DSN with a
 * time-out of a second.
 */
#include <time.h>

#include "check.h"

int main(int argc, char **argv) {
    begin();
    CHECK(argc == 2);
    comet_t *c = opened(argv[1]);
    comet_receipt before = {0}, receipt = {0};
    CHECK(publish(c, "before", 0, &before) == COMET_RESULT_OK);

    step("stop");
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    CHECK(publish(c, "stopped", 0, &receipt) == COMET_RESULT_TIMEOUT);
    clock_gettime(CLOCK_MONOTONIC, &end);
    CHECK((end.tv_sec - start.tv_sec) * 1000 + (end.tv_nsec - start.tv_nsec) / 1000000 >= 999);
    CHECK(receipt.id == 0);
    CHECK(strcmp(comet_error(c), "no answer within 1000 ms; the message may have been published") == 0);

    /* Without acknowledgement, messages go into the socket's buffer until the buffer is full. */
    char large[4096];
    memset(large, 'x', sizeof large);
    comet_result result = COMET_RESULT_OK;
    int sent = -1;
    while (result == COMET_RESULT_OK) {
        result = comet_publish(c, "flood", 5, large, sizeof large, COMET_FLAG_NO_ACK, NULL);
        sent++;
    }
    CHECK(result == COMET_RESULT_TIMEOUT);
    CHECK(sent > 0);

    /* The late acknowledgement of "stopped" was lost with its connection. */
    step("continue");
    CHECK(publish(c, "after", 0, &receipt) == COMET_RESULT_OK);
    printf("%llu\n", (unsigned long long)receipt.id);
    comet_close(c);
    return 0;
}
