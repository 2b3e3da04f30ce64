/*
 * A panic inside the library is returned as a result, prints nothing, and leaves a working handle. To cause a panic in
 * the built library, the clock fails, which Rust's standard library treats as impossible. Argument: DSN.
 */
#include "clock.c"

#include "check.h"

/* Breaks the clock later and later within a call, until the call ends before that. Returns the number of panics. */
static int panics(comet_t *c, uint32_t flags) {
    for (int after = 0;; after++) {
        comet_receipt receipt = {0};
        CHECK(publish(c, "before", 0, NULL) == COMET_RESULT_OK);
        CHECK(publish(c, "gathered", COMET_FLAG_BUFFER, NULL) == COMET_RESULT_OK);
        works = after;
        comet_result result = publish(c, "broken", flags, &receipt);
        works = -1;
        if (result == COMET_RESULT_OK) {
            return after;
        }
        CHECK(result == COMET_RESULT_PANIC);
        CHECK(receipt.id == 0);
        CHECK(strncmp(comet_error(c), "fault in libcomet, please report it: panicked at ", 49) == 0);
    }
}

int main(int argc, char **argv) {
    begin();
    CHECK(argc == 2);
    comet_t *c = opened(argv[1]), *pooled = NULL;
    CHECK(comet_popen(argv[1], &pooled) == COMET_RESULT_OK);
    /* Before and after the call has taken the connection, and while it waits for the daemon. */
    CHECK(panics(c, 0) >= 3);
    CHECK(panics(pooled, 0) >= 3);
    CHECK(panics(c, COMET_FLAG_NO_ACK) >= 2);
    works = 0;
    CHECK(comet_flush(c) == COMET_RESULT_PANIC);
    works = -1;
    CHECK(publish(c, "gathered", COMET_FLAG_BUFFER, NULL) == COMET_RESULT_OK);
    works = 0;
    comet_close(c);
    works = -1;
    return 0;
}
