/* A killed daemon is reported at once, without SIGPIPE, and found again when it is back. Argument: DSN. */
#include <signal.h>

#include "check.h"

int main(int argc, char **argv) {
    begin();
    CHECK(argc == 2);
    signal(SIGPIPE, SIG_DFL);
    comet_t *c = opened(argv[1]);
    CHECK(publish(c, "one", 0, NULL) == COMET_RESULT_OK);

    step("kill");
    CHECK(publish(c, "nobody", 0, NULL) == COMET_RESULT_CONNECT);
    CHECK(strstr(comet_error(c), "cannot connect to ") != NULL);
    CHECK(strstr(comet_error(c), "(does the daemon run?)") != NULL);
    CHECK(publish(c, "nobody", COMET_FLAG_NO_ACK, NULL) == COMET_RESULT_CONNECT);
    CHECK(publish(c, "nobody", COMET_FLAG_BUFFER, NULL) == COMET_RESULT_OK);
    CHECK(comet_flush(c) == COMET_RESULT_CONNECT);
    CHECK(comet_flush(c) == COMET_RESULT_OK); /* told once, and nothing is kept */

    step("start");
    CHECK(publish(c, "two", 0, NULL) == COMET_RESULT_OK);
    step("restart"); /* killed and started: only the next message can notice */
    CHECK(publish(c, "three", COMET_FLAG_NO_ACK, NULL) == COMET_RESULT_OK);
    CHECK(comet_flush(c) == COMET_RESULT_OK);
    comet_close(c);
    return 0;
}
