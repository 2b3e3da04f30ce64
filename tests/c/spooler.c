/*
 * Publishes NAME-0, NAME-1, ... with the spool, in rounds of 25, while the daemon is killed and started. Before each
 * round the program prints "round" and waits for a line. At the end it prints how many messages went to the spool.
 * Arguments: DSN, name, count.
 */
#include "check.h"

int main(int argc, char **argv) {
    begin();
    CHECK(argc == 4);
    comet_t *c = opened(argv[1]);
    int spooled = 0;
    for (int i = 0; i < atoi(argv[3]); i++) {
        if (i % 25 == 0)
            step("round");
        /* Most messages wait for the acknowledgement, as in a page. The flush reports the others. */
        const uint32_t how[] = {0, 0, COMET_FLAG_NO_ACK, 0, 0, COMET_FLAG_BUFFER};
        char data[64];
        snprintf(data, sizeof data, "%s-%d", argv[2], i);
        comet_result result = publish(c, data, COMET_FLAG_SPOOL | how[i % 6], NULL);
        CHECK(result == COMET_RESULT_OK || result == COMET_RESULT_SPOOLED);
        spooled += result == COMET_RESULT_SPOOLED;
    }
    comet_result result = comet_flush(c);
    CHECK(result == COMET_RESULT_OK || result == COMET_RESULT_SPOOLED);
    comet_close(c);
    printf("%d\n", spooled);
    return 0;
}
