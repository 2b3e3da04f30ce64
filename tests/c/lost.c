/*
 * A missing acknowledgement is an unknown outcome, unless an idempotency key lets the library repeat the message. The
 * server closes the first connection of each handle. Arguments: DSN, the same with a key.
 */
#include "check.h"

int main(int argc, char **argv) {
    begin();
    CHECK(argc == 3);
    comet_receipt receipt = {0};
    comet_t *plain = opened(argv[1]);
    CHECK(publish(plain, "once", 0, &receipt) == COMET_RESULT_UNKNOWN);
    CHECK(receipt.id == 0);
    CHECK(strcmp(comet_error(plain),
                 "connection lost before the acknowledgement; the message may have been published") == 0);
    comet_close(plain);

    comet_t *keyed = opened(argv[2]);
    CHECK(publish(keyed, "twice", 0, &receipt) == COMET_RESULT_OK);
    CHECK(receipt.id == 7);
    comet_close(keyed);
    return 0;
}
